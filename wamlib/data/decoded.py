"""Decoded images kept on disk, because decoding tens of thousands of files takes longer than training on some."""

import hashlib
import json
import os
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from .decoding import decode

__all__ = ["read_images"]

FOLDER = ".decoded"  # below the data root; may be deleted at any time
MIN_IMAGES = 1000  # smaller sets are decoded faster than they are looked up
PATIENCE = 600.0  # seconds to wait for another process that decodes the same images
# Part of every fingerprint. Raise it when a change in `decode` changes the bytes it returns.
VERSION = 1
SUM_BYTES = 4  # at the end of a kept file, a checksum of its pixels


def read_images(files, where, root, mode=None):
    """Return image files as one tensor, decoded now or by an earlier process.

    Parameters
    ----------
    files : sequence of ImageFile
        At least one.
    where : str
        The folder or archive they are in.
    root : Path
        The data root. What was decoded is kept below it if that can be written to; a
        set that changed is decoded anew, and what was kept of it before is deleted.
    mode : {"RGB", "L"} or None
        As in `decode`.

    Returns
    -------
    Tensor, uint8, shape (image, channel, height, width)
        Possibly mapped from the file: take what is needed, as a copy.

    Raises
    ------
    DataError
        If an image is damaged or has another size than the first.
    """
    if len(files) < MIN_IMAGES:
        return torch.from_numpy(decode(files, where, mode))
    owner = hashlib.sha256(os.path.realpath(where).encode()).hexdigest()[:12]
    path = root / FOLDER / f"{Path(where).stem}-{owner}-{_fingerprint(files, mode)}.npy"
    pixels = _open(path, len(files))
    if pixels is None:
        with ExitStack() as stack:
            # One process decodes and the others wait for what it writes: N processes that decode
            # at once would each take N times as long.
            locked = _lock(stack, path.with_name(f"{owner}.lock"))
            pixels = _open(path, len(files)) if locked else None
            if pixels is None:
                pixels = decode(files, where, mode)
                if locked:
                    _write(pixels, path, owner)
    return torch.from_numpy(pixels)


def _fingerprint(files, mode):
    """Return a name for the bytes that decoding would give: that of the files and of the decoder."""
    import PIL

    stamps = [[file.name, *file.stamp] for file in files]
    return hashlib.sha256(json.dumps([VERSION, PIL.__version__, mode, stamps]).encode()).hexdigest()[:20]


def _open(path, n):
    """Return the images of a kept file, or None if it is not there or not whole."""
    try:
        # "c" maps the file for reading, and copies a page that is written to: torch wants writable memory.
        pixels = np.lib.format.open_memmap(path, mode="c")
        with open(path, "rb") as file:
            file.seek(-SUM_BYTES, os.SEEK_END)
            checksum = file.read()
    except Exception:  # numpy raises ValueError, TokenError, OverflowError, ... for a damaged header
        return None
    whole = pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == n and pixels.flags.c_contiguous
    return pixels if whole and _checksum(pixels) == checksum else None


def _checksum(pixels):
    return zlib.crc32(pixels).to_bytes(SUM_BYTES, "big")


def _lock(stack, path):
    """Enter the lock, and return whether that was possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(path, timeout=PATIENCE))
    except (OSError, NotImplementedError):  # not writable, no locks on this file system, or the patience is over
        return False
    return True


def _write(pixels, path, owner):
    """Keep the images in one step, in place of what was kept of the same folder or archive before."""
    part = path.with_suffix(".part")
    # A disk that is full or read-only costs the next process time, and is no reason to fail here.
    with suppress(OSError):
        for old in path.parent.glob(f"*-{owner}-*"):  # the part of a killed writer too: the lock is ours
            old.unlink()
        try:
            with open(part, "wb") as file:
                np.save(file, pixels)
                file.write(_checksum(pixels))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
