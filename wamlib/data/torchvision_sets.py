"""MNIST, CIFAR-10 and CIFAR-100, whose official files torchvision knows how to check and parse."""

import warnings
from pathlib import Path

import torch

from ..errors import DataError
from .raw import Raw, channels_first

__all__ = ["has_torchvision_set", "read_torchvision_set"]

# For each of our names: torchvision's class, and a file of the unpacked set below root/NAME. The
# file is looked at instead of asking torchvision, because importing that takes seconds.
KINDS = {
    "mnist": ("MNIST", "MNIST/raw/train-images-idx3-ubyte"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py/batches.meta"),
    "cifar100": ("CIFAR100", "cifar-100-python/meta"),
}


def has_torchvision_set(name, root):
    """Return whether the unpacked files of a data set are below the data root, without reading them."""
    return (Path(root) / name / KINDS[name][1]).is_file()


def read_torchvision_set(name, root):
    """Read a data set by our name for it."""
    import torchvision

    kind, folder = KINDS[name][0], Path(root) / name
    try:
        with warnings.catch_warnings():
            # torchvision unpickles CIFAR with an argument that newer numpy deprecates.
            warnings.filterwarnings("ignore", message=".*align.*", category=Warning)
            train, test = (getattr(torchvision.datasets, kind)(folder, train=part) for part in (True, False))
    except Exception as error:  # torchvision raises RuntimeError, EOFError, KeyError, ... for bad files
        got, fix = f"no usable files ({error})", f"Run `wamlib fetch {name}`; if files are there, delete them first."
        raise DataError(f"cannot load {name}", str(folder), got, f"the official files of {kind}", fix) from error
    images, test_images = (channels_first(part.data) for part in (train, test))
    labels, test_labels = (torch.as_tensor(part.targets).long() for part in (train, test))
    return Raw(images, labels, test_images, test_labels, tuple(train.classes), str(folder))
