"""Tiny ImageNet from its unpacked archive."""

from pathlib import Path

import torch

from ..errors import DataError
from .decoded import read_images
from .decoding import ImageFile
from .raw import Raw

__all__ = ["has_tiny_imagenet", "read_tiny_imagenet"]

FOLDER = "tiny-imagenet/tiny-imagenet-200"  # below the data root
DOING, FIX = "cannot load tiny-imagenet", "Run `wamlib fetch tiny-imagenet`, or unpack the archive there."
LISTS = ("wnids.txt", "words.txt", "val/val_annotations.txt")


def has_tiny_imagenet(root):
    """Return whether the unpacked archive is below the data root, without reading it."""
    return (Path(root) / FOLDER / LISTS[0]).is_file()


def read_tiny_imagenet(root):
    """Read the training images and, as test images, the official validation images.

    The labels of the official test images were never published.
    """
    folder = Path(root) / FOLDER
    if not all((folder / name).is_file() for name in LISTS):
        raise DataError(DOING, str(folder), f"no {' or no '.join(LISTS)}", "the unpacked tiny-imagenet-200", FIX)
    wnids, words, notes = ((folder / name).read_text() for name in LISTS)
    wnids = sorted(wnids.split())
    rows = [line.split("\t")[:2] for line in notes.splitlines()]
    # What the lists name is looked for below the folder only.
    for name in (*wnids, *(row[0] for row in rows)):
        if Path(name).name != name or name == "..":
            raise DataError(DOING, str(folder), f"the name {name!r} in a list", "names without folders", FIX)
    train = [(wnid, path) for wnid in wnids for path in sorted((folder / "train" / wnid).rglob("*.JPEG"))]
    test = [(wnid, folder / "val" / "images" / name) for name, wnid in rows]
    if not train:
        raise DataError(DOING, str(folder / "train"), "no images", "WNID/images/NAME.JPEG", FIX)
    number = {wnid: index for index, wnid in enumerate(wnids)}
    for wnid, path in test:
        if wnid not in number or not path.is_file():
            wanted = "a class of wnids.txt and a file of val/images"
            raise DataError(DOING, str(folder / LISTS[2]), f"{wnid} {path.name}", wanted, FIX)

    pixels = read_images([_image_file(path, folder) for _, path in train + test], str(folder), Path(root), "RGB")
    labels = torch.tensor([number[wnid] for wnid, _ in train + test])
    titles = dict(line.split("\t", 1) for line in words.splitlines() if line)
    # "goldfish, Carassius auratus" is the class goldfish.
    classes = tuple(titles.get(wnid, wnid).split(",")[0] for wnid in wnids)
    n = len(train)
    return Raw(pixels[:n], labels[:n], pixels[n:], labels[n:], classes, str(folder))


def _image_file(path, folder):
    stat = path.stat()
    return ImageFile(path.relative_to(folder).as_posix(), path.read_bytes, (stat.st_size, stat.st_mtime_ns))
