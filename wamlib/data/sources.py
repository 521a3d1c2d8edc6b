"""The data sets by name: what each is called in a figure, whether it is here, and how it is read."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..config import home
from ..errors import DataError
from .fashion_mnist import find_fashion_mnist, read_fashion_mnist
from .folders import count_images, find_folder, folder_title, read_folder
from .raw import Raw
from .tiny_imagenet import has_tiny_imagenet, read_tiny_imagenet
from .torchvision_sets import has_torchvision_set, read_torchvision_set

__all__ = ["NAMES", "count_folder", "is_present", "read", "resolve", "title"]


class Source(NamedTuple):
    """One data set: its title, and functions of the data root that look for its files and read them."""

    title: str
    is_present: Callable[[Path], bool]
    read: Callable[[Path], Raw]


def _read_digits(root):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 0..16 becomes 0..255, so that every data set has the same range.
    images = torch.from_numpy((bunch.images * 255 / 16).round().astype(np.uint8))[:, None]
    classes = tuple(str(digit) for digit in range(10))
    return Raw(images, torch.from_numpy(bunch.target).long(), None, None, classes, "scikit-learn's digits")


def _torchvision(title, name):
    return Source(title, partial(has_torchvision_set, name), partial(read_torchvision_set, name))


SOURCES = {
    "digits": Source("digits", lambda root: True, _read_digits),  # a part of scikit-learn
    "fashion-mnist": Source("Fashion-MNIST", lambda root: find_fashion_mnist(root) is not None, read_fashion_mnist),
    "mnist": _torchvision("MNIST", "mnist"),
    "cifar10": _torchvision("CIFAR-10", "cifar10"),
    "cifar100": _torchvision("CIFAR-100", "cifar100"),
    "tiny-imagenet": Source("Tiny ImageNet", has_tiny_imagenet, read_tiny_imagenet),
}
NAMES = tuple(SOURCES)


def _source(name):
    """Return the source of a name, one made up for ``folder:PATH``."""
    text = isinstance(name, str)
    if text and name.startswith("folder:") and name != "folder:":
        path = name.removeprefix("folder:")
        return Source(folder_title(path), lambda root: find_folder(path, root) is not None, partial(read_folder, path))
    if not text or name not in SOURCES:
        wanted, fix = f"one of {', '.join(NAMES)}, or folder:PATH", "Correct the name."
        raise DataError("cannot load a data set", f"name {name!r}", "a name that is not known", wanted, fix)
    return SOURCES[name]


def read(name, root):
    """Read one data set by name; see `wamlib.data.load` for the names.

    Raises
    ------
    DataError
        If the name is unknown or the files are missing or damaged.
    """
    return _source(name).read(Path(root))


def resolve(name, root):
    """Return ``folder:PATH`` with the absolute path it means here and now, and any other known name as it is."""
    _source(name)  # refuses what is not known
    found = find_folder(name.removeprefix("folder:"), root) if name.startswith("folder:") else None
    return f"folder:{found}" if found else name


def count_folder(name, root):
    """Return the training and test images of ``folder:PATH`` as it stands, (0, 0) if it is not there; else None."""
    _source(name)
    return count_images(name.removeprefix("folder:"), root) if name.startswith("folder:") else None


def is_present(name, root=None):
    """Return whether the files of a data set are on this machine, without reading them.

    Parameters
    ----------
    name : str
        A name that `wamlib.data.load` knows.
    root : str or Path or None
        Folder that holds the downloaded data sets; None means ``raw`` in `wamlib.config.home`.

    Returns
    -------
    bool
        False if `load` would fail for want of files. True does not say that they are whole.

    Raises
    ------
    DataError
        If the name is unknown.
    """
    return _source(name).is_present(Path(root or home() / "raw"))


def title(name):
    """Return the name of a data set for a figure or a table.

    Parameters
    ----------
    name : str
        A name that `wamlib.data.load` knows, whether its files are here or not.

    Returns
    -------
    str
        ``folder:PATH`` is called after its folder or archive.

    Raises
    ------
    DataError
        If the name is unknown.

    Examples
    --------
    >>> title("fashion-mnist")
    'Fashion-MNIST'
    >>> title("folder:photos/pets.zip")
    'pets'
    """
    return _source(name).title
