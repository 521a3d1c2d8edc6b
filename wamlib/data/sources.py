"""Readers: from the files of each data set to arrays of bytes, checked on the way."""

import gzip
import hashlib
import io
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from ..errors import DataError

__all__ = ["NAMES", "Raw", "read"]

NAMES = ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100", "tiny-imagenet")

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# SHA-256 of the decompressed files. The compressed ones differ between distributors
# (Debian blanks the gzip header), so their checksums prove nothing.
FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Where the four files may lie below the data root, and where Debian's package puts them.
FASHION_FOLDERS = ("fashion-mnist", "usr/share/datasets/fashion-mnist", "FashionMNIST/raw")
FASHION_SYSTEM = Path("/usr/share/datasets/fashion-mnist")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp"}


@dataclass
class Raw:
    """What a reader returns: training bytes, test bytes where the data set has them, class names."""

    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor | None
    test_labels: torch.Tensor | None
    classes: tuple[str, ...]
    where: str


def read(name, root):
    """Read one data set by name; see `wamlib.data.load` for the names.

    Raises
    ------
    DataError
        If the name is unknown or the files are missing or damaged.
    """
    if name.startswith("folder:"):
        return _read_folder(Path(name.removeprefix("folder:")).expanduser())
    readers = {
        "digits": _read_digits,
        "fashion-mnist": _read_fashion,
        "mnist": lambda root: _read_torchvision("MNIST", root, "mnist"),
        "cifar10": lambda root: _read_torchvision("CIFAR10", root, "cifar10"),
        "cifar100": lambda root: _read_torchvision("CIFAR100", root, "cifar100"),
        "tiny-imagenet": _read_tiny_imagenet,
    }
    if name not in readers:
        raise DataError(
            "cannot load a data set",
            item=f"name {name!r}",
            got="a name that is not known",
            wanted=f"one of {', '.join(NAMES)}, or folder:PATH",
            fix="Correct the name.",
        )
    return readers[name](Path(root))


def _read_digits(root):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 0..16 becomes 0..255, so that every data set has the same range.
    images = torch.from_numpy((bunch.images * 255 / 16).round().astype(np.uint8))[:, None]
    classes = tuple(str(digit) for digit in range(10))
    return Raw(images, torch.from_numpy(bunch.target).long(), None, None, classes, "scikit-learn's digits")


def find_fashion_mnist(root):
    """Return the folder with the four Fashion-MNIST files, or None."""
    for folder in [*(Path(root) / name for name in FASHION_FOLDERS), FASHION_SYSTEM]:
        if all(_idx_path(folder, stem) for stem in FASHION_SHA256):
            return folder
    return None


def _idx_path(folder, stem):
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _read_fashion(root):
    folder = find_fashion_mnist(root)
    if folder is None:
        raise DataError(
            "cannot load fashion-mnist",
            item=str(root / "fashion-mnist"),
            got="no folder with the four files",
            wanted=", ".join(f"{stem}.gz" for stem in FASHION_SHA256),
            fix="Run `make data` (or `wamlib fetch fashion-mnist`), or copy the files there.",
        )
    train, labels, test, test_labels = (_read_idx(_idx_path(folder, stem), stem) for stem in FASHION_SHA256)
    return Raw(train[:, None], labels.long(), test[:, None], test_labels.long(), FASHION_CLASSES, str(folder))


def _read_idx(path, stem):
    """Return the array of one idx file after checking its bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            "cannot load fashion-mnist",
            item=str(path),
            got=f"a damaged gzip file ({error})",
            wanted="a whole one",
            fix="Delete this file and run `make data` again.",
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != FASHION_SHA256[stem]:
        raise DataError(
            "cannot load fashion-mnist",
            item=str(path),
            got=f"decompressed sha256 {digest}",
            wanted=FASHION_SHA256[stem],
            fix="The file is not the published one. Delete it and run `make data` again.",
        )
    n_axes = content[3]
    shape = np.frombuffer(content, ">u4", n_axes, offset=4).astype(int)
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
    return torch.from_numpy(array.copy())


def _read_torchvision(kind, root, name):
    """Read a data set whose files torchvision knows how to check and parse."""
    import torchvision

    folder = Path(root) / name
    try:
        with warnings.catch_warnings():
            # torchvision unpickles CIFAR with an argument that newer numpy deprecates.
            warnings.filterwarnings("ignore", message=".*align.*", category=Warning)
            train, test = (getattr(torchvision.datasets, kind)(folder, train=part) for part in (True, False))
    except Exception as error:  # torchvision raises RuntimeError, EOFError, KeyError, ... for bad files
        raise DataError(
            f"cannot load {name}",
            item=str(folder),
            got=f"no usable files ({error})",
            wanted=f"the official files of {kind}",
            fix=f"Run `wamlib fetch {name}`; if files are there, delete them first.",
        ) from error
    images, test_images = (_channels_first(part.data) for part in (train, test))
    labels, test_labels = (torch.as_tensor(part.targets).long() for part in (train, test))
    return Raw(images, labels, test_images, test_labels, tuple(train.classes), str(folder))


def _channels_first(pixels):
    pixels = torch.as_tensor(pixels)
    return pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def _read_tiny_imagenet(root):
    folder = Path(root) / "tiny-imagenet" / "tiny-imagenet-200"
    ids, notes = folder / "wnids.txt", folder / "val" / "val_annotations.txt"
    if not ids.is_file() or not notes.is_file():
        raise DataError(
            "cannot load tiny-imagenet",
            item=str(folder),
            got="no wnids.txt or no val/val_annotations.txt",
            wanted="the unpacked tiny-imagenet-200",
            fix="Run `wamlib fetch tiny-imagenet`, or unpack the archive there.",
        )
    wnids = sorted(ids.read_text().split())
    train = [
        (f"{wnid}/{path.name}", path) for wnid in wnids for path in sorted((folder / "train" / wnid).rglob("*.JPEG"))
    ]
    rows = [line.split("\t") for line in notes.read_text().splitlines()]
    test = [(f"{row[1]}/{row[0]}", folder / "val" / "images" / row[0]) for row in rows]
    words = dict(line.split("\t") for line in (folder / "words.txt").read_text().splitlines())
    # The official validation images are the test split: the test labels were never published.
    pixels = [
        _decode_all([path.read_bytes for _, path in part], [str(p) for _, p in part], "RGB") for part in (train, test)
    ]
    labels = [torch.tensor([wnids.index(label.split("/")[0]) for label, _ in part]) for part in (train, test)]
    classes = tuple(words[wnid].split(",")[0] for wnid in wnids)
    return Raw(pixels[0], labels[0], pixels[1], labels[1], classes, str(folder))


def _read_folder(path):
    """Read class folders of images, with or without train/ and test/ above them, from a folder or a zip."""
    files = _list_images(path)
    parts = {relative.parts[0] for relative, _ in files if len(relative.parts) == 3}
    if {"train", "test"} <= parts:
        train = [(r, reader) for r, reader in files if r.parts[0] == "train"]
        test = [(r, reader) for r, reader in files if r.parts[0] == "test"]
    else:
        train, test = [(r, reader) for r, reader in files if len(r.parts) == 2], []
    if not train:
        raise DataError(
            f"cannot load folder:{path}",
            item=str(path),
            got="no images in class folders",
            wanted="CLASS/NAME.png, or train/CLASS/NAME.png and test/CLASS/NAME.png",
            fix="Sort the images into one folder per class (suffixes: " + ", ".join(sorted(IMAGE_SUFFIXES)) + ").",
        )
    classes = tuple(sorted({relative.parent.name for relative, _ in train}))
    stray = sorted({relative.parent.name for relative, _ in test} - set(classes))
    if stray:
        raise DataError(
            f"cannot load folder:{path}",
            item=f"class {stray[0]!r}",
            got="test images but no training images",
            wanted="the same classes in train/ and test/",
            fix="Add training images of this class, or remove it from test/.",
        )
    names = [f"{path}/{relative}" for relative, _ in train + test]
    pixels = _decode_all([reader for _, reader in train + test], names, None)
    labels = torch.tensor([classes.index(relative.parent.name) for relative, _ in train + test])
    n = len(train)
    tested = (pixels[n:], labels[n:]) if test else (None, None)
    return Raw(pixels[:n], labels[:n], *tested, classes, str(path))


def _list_images(path):
    """Return (relative path, reader) of every image below a folder or inside a zip, sorted."""
    if path.is_dir():
        found = [(PurePosixPath(p.relative_to(path).as_posix()), p.read_bytes) for p in path.rglob("*") if p.is_file()]
    elif path.is_file() and zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        tops = {PurePosixPath(name).parts[0] for name in names}
        # One folder around everything, as archives have, is not a class.
        drop = 1 if len(tops) == 1 and all(len(PurePosixPath(name).parts) > 2 for name in names) else 0
        found = [(PurePosixPath(*PurePosixPath(n).parts[drop:]), lambda n=n: archive.read(n)) for n in names]
    else:
        raise DataError(
            f"cannot load folder:{path}",
            item=str(path),
            got="a file that is no zip archive" if path.is_file() else "no such folder",
            wanted="a folder, or a .zip file, of images",
            fix="Correct the path after `folder:`.",
        )
    images = [entry for entry in found if entry[0].suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=lambda entry: entry[0])


def _decode_all(readers, names, mode):
    """Return images decoded to one uint8 tensor; all must have the size of the first."""
    mode = mode or _decode(readers[0], names[0], None)[1]
    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(lambda reader, name: _decode(reader, name, mode)[0], readers, names))
    for name, array in zip(names, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise DataError(
                "cannot load images",
                item=name,
                got=f"{array.shape[1]} x {array.shape[0]} pixels",
                wanted=f"{arrays[0].shape[1]} x {arrays[0].shape[0]}, the size of {names[0]}",
                fix="Resize the images to one size before loading them.",
            )
    stacked = torch.from_numpy(np.stack(arrays))
    return _channels_first(stacked)


def _decode(reader, name, mode):
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(reader())) as image:
            kind = mode or ("L" if image.mode in ("1", "L", "LA", "I", "I;16") else "RGB")
            return np.asarray(image.convert(kind)), kind
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            "cannot load images",
            item=name,
            got=f"a file that does not decode ({error})",
            wanted="a whole image",
            fix="Replace or delete this file.",
        ) from error
