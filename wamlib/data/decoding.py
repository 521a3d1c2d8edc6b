"""Image files of any common format to one array of bytes."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ..errors import DataError

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "decode"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp"}
# RuntimeError is zipfile's word for an archive that is encrypted or packed in an unknown way.
DAMAGED = (OSError, RuntimeError, SyntaxError, ValueError, zipfile.BadZipFile, zlib.error)
RUN = 256  # images a thread decodes at a time; one at a time, threads mostly wait for each other


class ImageFile(NamedTuple):
    """One image that is not decoded yet.

    Parameters
    ----------
    name : str
        Path inside its folder or archive, with forward slashes.
    read : callable
        Returns the bytes of the file.
    stamp : tuple of int
        Changes when the bytes of the file change.
    """

    name: str
    read: Callable[[], bytes]
    stamp: tuple[int, ...]


def decode(files, where, mode=None):
    """Decode images that are all of one size.

    Parameters
    ----------
    files : sequence of ImageFile
        At least one.
    where : str
        The folder or archive, for messages.
    mode : {"RGB", "L"} or None
        Colour or grey; None takes what the first image is.

    Returns
    -------
    ndarray, uint8, shape (image, channel, height, width)

    Raises
    ------
    DataError
        If an image is damaged or has another size than the first; the message names it.
    """
    first, mode = _decode(files[0], where, mode)
    height, width = first.shape[:2]
    # Filled in place: a list of arrays that is stacked later would need twice the memory.
    pixels = np.empty((len(files), 1 if mode == "L" else 3, height, width), np.uint8)

    def fill(begin):
        for index in range(begin, min(begin + RUN, len(files))):
            image, _ = _decode(files[index], where, mode)
            if image.shape != first.shape:
                got = f"{image.shape[1]} x {image.shape[0]} pixels"
                wanted = f"{width} x {height}, the size of {where}/{files[0].name}"
                fix = "Resize the images to one size before loading them."
                raise DataError("cannot load images", f"{where}/{files[index].name}", got, wanted, fix)
            pixels[index] = image if mode == "L" else image.transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(fill, range(0, len(files), RUN)):
            pass  # the result is asked for so that an error of a thread is raised here
    return pixels


def _decode(file, where, mode):
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file.read())) as image:
            kind = mode or ("L" if image.mode in ("1", "L", "LA", "I", "I;16") else "RGB")
            return np.asarray(image.convert(kind)), kind
    except (*DAMAGED, Image.DecompressionBombError) as error:
        got, fix = f"a file that does not decode ({error})", "Replace or delete this file."
        raise DataError("cannot load images", f"{where}/{file.name}", got, "a whole image", fix) from error
