"""Fashion-MNIST from its four idx files, each checked against the published bytes."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from .raw import Raw

__all__ = ["find_fashion_mnist", "read_fashion_mnist"]

DOING = "cannot load fashion-mnist"

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
# SHA-256 of the decompressed files. The compressed ones differ between distributors
# (Debian blanks the gzip header), so their checksums prove nothing.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Where the four files may lie below the data root, and where Debian's package puts them.
FOLDERS = ("fashion-mnist", "usr/share/datasets/fashion-mnist", "FashionMNIST/raw")
SYSTEM = Path("/usr/share/datasets/fashion-mnist")


def find_fashion_mnist(root):
    """Return the folder with the four Fashion-MNIST files, or None."""
    for folder in [*(Path(root) / name for name in FOLDERS), SYSTEM]:
        if all(_idx_path(folder, stem) for stem in SHA256):
            return folder
    return None


def _idx_path(folder, stem):
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def read_fashion_mnist(root):
    """Read the four files, wherever `find_fashion_mnist` finds them."""
    folder = find_fashion_mnist(root)
    if folder is None:
        wanted = ", ".join(f"{stem}.gz" for stem in SHA256)
        fix = "Run `make data` (or `wamlib fetch fashion-mnist`), or copy the files there."
        raise DataError(DOING, str(root / "fashion-mnist"), "no folder with the four files", wanted, fix)
    train, labels, test, test_labels = (_read_idx(_idx_path(folder, stem), stem) for stem in SHA256)
    return Raw(train[:, None], labels.long(), test[:, None], test_labels.long(), CLASSES, str(folder))


def _read_idx(path, stem):
    """Return the array of one idx file after checking its bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        fix = "Delete this file and run `make data` again."
        raise DataError(DOING, str(path), f"a damaged gzip file ({error})", "a whole one", fix) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[stem]:
        fix = "The file is not the published one. Delete it and run `make data` again."
        raise DataError(DOING, str(path), f"decompressed sha256 {digest}", SHA256[stem], fix)
    n_axes = content[3]
    shape = np.frombuffer(content, ">u4", n_axes, offset=4).astype(int)
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
    return torch.from_numpy(array.copy())
