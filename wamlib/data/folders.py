"""Class folders of images: a folder or a zip archive, with or without train/ and test/."""

import os
import zipfile
from pathlib import Path

import torch

from ..errors import DataError
from .decoded import read_images
from .decoding import IMAGE_SUFFIXES, ImageFile
from .raw import Raw

__all__ = ["count_images", "find_folder", "folder_title", "read_folder"]

# Titles of folders and archives whose name alone would say too little. The JPEG images are lossy
# copies, so that numbers measured on them are not numbers on CIFAR-10.
TITLES = {"cifar10-jpeg": "CIFAR-10 (JPEG q75)"}


def folder_title(path):
    """Return the name of a folder or archive for a figure or a table."""
    name = Path(os.path.abspath(path)).name
    name = name[: -len(".zip")] if name.lower().endswith(".zip") else name
    return TITLES.get(name, name)


def _places(path, root):
    """Return where a path may lead: from the working directory, and if it is relative from the data root too."""
    path = Path(path).expanduser()
    return [Path.cwd() / path] if path.is_absolute() else [Path.cwd() / path, Path(root).absolute() / path]


def find_folder(path, root):
    """Return the absolute path of a folder or archive, or None if there is none."""
    return next((place for place in _places(path, root) if os.path.exists(place)), None)


def read_folder(path, root):
    """Read class folders of images; the path is looked up as by `find_folder`."""
    found = find_folder(path, root)
    if found is None:
        got = "no such folder or file: " + ", nor ".join(str(place) for place in _places(path, root))
        fix = "Correct the path after `folder:`."
        raise DataError(f"cannot load folder:{path}", str(path), got, "a folder, or a .zip file, of images", fix)
    return _read(found, root)


def count_images(path, root):
    """Return how many training and test images class folders hold, without reading them; test 0 if not set apart."""
    found = find_folder(path, root)
    return (0, 0) if found is None else tuple(len(part) for part in _sort(found))


def _sort(path):
    """Return the training images and the test images, if they are set apart, each with its class."""
    files = [(file, file.name.split("/")) for file in _list_images(path)]
    if {"train", "test"} <= {parts[0] for _, parts in files if len(parts) == 3}:
        return tuple([(file, parts[-2]) for file, parts in files if parts[0] == name] for name in ("train", "test"))
    return [(file, parts[0]) for file, parts in files if len(parts) == 2], []


def _read(path, root):
    train, test = _sort(path)
    if not train:
        wanted = "CLASS/NAME.png, or train/CLASS/NAME.png and test/CLASS/NAME.png"
        fix = "Sort the images into one folder per class (suffixes: " + ", ".join(sorted(IMAGE_SUFFIXES)) + ")."
        raise DataError(f"cannot load folder:{path}", str(path), "no images in class folders", wanted, fix)
    classes = tuple(sorted({label for _, label in train}))
    stray = sorted({label for _, label in test} - set(classes))
    if stray:
        got, wanted = "test images but no training images", "the same classes in train/ and test/"
        fix = "Add training images of this class, or remove it from test/."
        raise DataError(f"cannot load folder:{path}", f"class {stray[0]!r}", got, wanted, fix)
    pixels = read_images([file for file, _ in train + test], str(path), root)
    number = {label: index for index, label in enumerate(classes)}
    labels = torch.tensor([number[label] for _, label in train + test])
    n = len(train)
    # A folder lists its images class by class; mixed, the first so many of them are a sample.
    mixed = n + torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    tested = (pixels[mixed], labels[mixed]) if test else (None, None)
    return Raw(pixels[:n], labels[:n], *tested, classes, str(path))


def _list_images(path):
    """Return every image below a folder or inside a zip, sorted."""
    try:
        files = list(_list_folder(path) if path.is_dir() else _list_zip(path))
    except zipfile.BadZipFile as error:
        got, wanted = f"a file that is no zip archive ({error})", "a folder, or a .zip file, of images"
        fix = "Correct the path after `folder:`, or bring the archive again."
        raise DataError(f"cannot load folder:{path}", str(path), got, wanted, fix) from error
    images = [file for file in files if os.path.splitext(file.name)[1].lower() in IMAGE_SUFFIXES]
    return sorted(images, key=lambda file: file.name.split("/"))


def _list_folder(path):
    for file in path.rglob("*"):
        if file.is_file():
            stat = file.stat()
            yield ImageFile(file.relative_to(path).as_posix(), file.read_bytes, (stat.st_size, stat.st_mtime_ns))


def _list_zip(path):
    archive = zipfile.ZipFile(path)
    entries = [(info.filename.split("/"), info) for info in archive.infolist() if not info.is_dir()]
    # One folder around everything, as archives have, is not a class.
    drop = 1 if len({parts[0] for parts, _ in entries}) == 1 and all(len(parts) > 2 for parts, _ in entries) else 0
    for parts, info in entries:
        # Nothing is unpacked, so such a name writes nowhere; but no honest archive has a class called "..".
        if not all(parts) or {".", ".."} & set(parts):
            got, wanted = "a name that leads out of the archive", "a path inside it, such as CLASS/NAME.png"
            fix = "Pack the folder anew, or get the archive from someone you trust."
            raise DataError(f"cannot load folder:{path}", repr(info.filename), got, wanted, fix)
        yield ImageFile("/".join(parts[drop:]), lambda info=info: archive.read(info), (info.file_size, info.CRC))
