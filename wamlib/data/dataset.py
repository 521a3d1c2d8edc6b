"""A data set as three splits of uint8 tensors, and the function that loads one by name."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral
from pathlib import Path

import torch

from ..config import derive_seed, home
from ..errors import DataError
from . import sources

__all__ = ["Dataset", "Split", "load", "training_size"]

SELECTION_SHARE = 0.05  # of the official training images
TEST_SHARE = 0.25  # of all images, where a data set has no official test images


@dataclass(frozen=True)
class Split:
    """Images of one role, kept as bytes and normalised batch by batch on their device.

    Parameters
    ----------
    images : Tensor, uint8, shape (sample, channel, height, width)
    labels : Tensor, int64, shape (sample,)
    mean, std : Tensor, float32, shape (channel,)
        Of the training images, in units of 0 to 255.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def normalize(self, images):
        """Return uint8 images as float32 with mean 0 and standard deviation 1 per channel."""
        return (images.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def batches(self, batch_size=250):
        """Yield (normalised images, labels) in order, without augmentation."""
        for begin in range(0, len(self), batch_size):
            chunk = slice(begin, begin + batch_size)
            yield self.normalize(self.images[chunk]), self.labels[chunk]

    def to(self, device):
        """Return the split with its tensors on another device."""
        return Split(*(getattr(self, name).to(device) for name in ("images", "labels", "mean", "std")))

    def take(self, index):
        """Return the split that holds only the images at ``index``."""
        return replace(self, images=self.images[index], labels=self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """The train, selection and test splits of one data set.

    Parameters
    ----------
    name : str
        The name it was loaded by.
    classes : tuple of str
        Class names; a label is an index into them.
    train, selection, test : Split
        Disjoint. Members train on ``train``, anything chosen between members is
        chosen on ``selection``, and only numbers that are reported come from ``test``.
    split_hash : str
        SHA-256 over the images and labels of the three splits.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    selection: Split
    test: Split
    split_hash: str

    @property
    def in_channels(self):
        """Channels of an image: 1 for grey, 3 for colour."""
        return self.train.images.shape[1]

    @property
    def image_size(self):
        """Height and width of an image, in pixels."""
        return tuple(self.train.images.shape[2:])

    def to(self, device):
        """Return the data set with all images on another device."""
        return self._each(lambda split: split.to(device))

    def with_unit_pixels(self):
        """Return the data set whose images are normalised to bytes divided by 255, channels alike."""
        zero, one = torch.zeros_like(self.train.mean), torch.full_like(self.train.std, 255.0)
        return self._each(lambda split: replace(split, mean=zero, std=one))

    def _each(self, change):
        return replace(self, **{name: change(getattr(self, name)) for name in ("train", "selection", "test")})

    def with_shuffled_labels(self, seed):
        """Return the data set with the training labels dealt out at random, the other splits as they are."""
        generator = torch.Generator().manual_seed(derive_seed("shuffle labels", seed))
        order = torch.randperm(len(self.train), generator=generator).to(self.train.labels.device)
        return replace(self, train=replace(self.train, labels=self.train.labels[order]))


def load(name, root=None, *, n_train=None, n_eval=None, split_seed=0, device="cpu"):
    """Load a data set as three disjoint splits.

    Parameters
    ----------
    name : str
        One of digits, fashion-mnist, mnist, cifar10, cifar100, tiny-imagenet, or
        ``folder:PATH`` for class folders of images (a folder or a .zip file). A relative
        PATH is looked for in the working directory, then in ``root``.
    root : str or Path or None
        Folder that holds the downloaded data sets; None means ``raw`` in `wamlib.config.home`.
        Image files decoded before are kept in ``.decoded`` below it.
    n_train : int or None
        Training images to keep, drawn by ``split_seed``; None keeps all.
    n_eval : int or None
        Test images to keep, drawn by ``split_seed``, and a third as many selection images; None
        keeps all, and so does a number larger than there are.
    split_seed : int
        Fixes which training images are set aside for selection.
    device : str or torch.device
        Where the images are put.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If files are missing, damaged, or do not form a data set to train on.
    """
    for item, number, low in (("n_train", n_train, 1), ("n_eval", n_eval, 1), ("split_seed", split_seed, 0)):
        _check_number(name, item, number, low)
    # Both made absolute first: the same words mean other files in another working directory.
    root = Path(root or home() / "raw").absolute()
    try:
        device = torch.device(device)
    except RuntimeError as error:
        fix = "Correct the argument."
        raise DataError(f"cannot load {name}", "device", repr(device), "cpu, cuda or mps", fix) from error
    return _load(name, sources.resolve(name, root), root, n_train, n_eval, split_seed).to(device)


@lru_cache(maxsize=3)
def _load(name, source, root, n_train, n_eval, split_seed):
    raw = sources.read(source, root)
    _check_raw(name, raw)
    generator = torch.Generator().manual_seed(derive_seed("split", split_seed))
    order = torch.randperm(len(raw.labels), generator=generator)
    if raw.test_images is None:
        n_test = round(TEST_SHARE * len(order))
        test_images, test_labels = raw.images[order[:n_test]], raw.labels[order[:n_test]]
        order = order[n_test:]
    else:
        # A copy, because the images may be mapped from a file that should not be needed any more.
        test_images, test_labels = raw.test_images.clone(), raw.test_labels
    n_selection = round(SELECTION_SHARE * len(order))
    selection, train = order[:n_selection], order[n_selection:]
    if n_train is not None:
        if n_train > len(train):
            wanted = f"at most {len(train)}, what is left beside the selection split"
            fix = "Ask for fewer training images, or pass n_train=None for all of them."
            raise DataError(f"cannot load {name}", "n_train", f"{n_train} images", wanted, fix)
        train = train[:n_train]
    if n_eval is not None:
        selection = selection[: max(1, n_eval // 3)]
        # Drawn, because test images may come class by class.
        generator = torch.Generator().manual_seed(derive_seed("test", split_seed))
        drawn = torch.randperm(len(test_labels), generator=generator)[:n_eval]
        test_images, test_labels = test_images[drawn], test_labels[drawn]

    images = raw.images[train]
    pixels = images.float()
    mean, std = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3)).clamp_min(1.0)
    splits = [
        Split(images, raw.labels[train], mean, std),
        Split(raw.images[selection], raw.labels[selection], mean, std),
        Split(test_images, test_labels, mean, std),
    ]
    return Dataset(name, raw.classes, *splits, split_hash=_hash(splits))


def training_size(name, root=None):
    """Return how many training images `load` finds in a folder of one's own, without reading them.

    Parameters
    ----------
    name : str
        A name that `load` knows.
    root : str or Path or None
        As for `load`.

    Returns
    -------
    int or None
        None for a data set that is no ``folder:PATH``, and for a folder that is not here or holds no images.

    Raises
    ------
    DataError
        If the name is unknown, or the archive is damaged.
    """
    counted = sources.count_folder(name, Path(root or home() / "raw").absolute())
    if not counted or not counted[0]:
        return None
    n_train, n_test = counted
    left = n_train if n_test else n_train - round(TEST_SHARE * n_train)
    return left - round(SELECTION_SHARE * left)


def _check_number(name, item, number, low):
    whole = isinstance(number, Integral) and not isinstance(number, bool)
    if not (whole and number >= low) and not (number is None and low == 1):
        fix = "Correct the argument; n_train=None and n_eval=None take all images."
        raise DataError(f"cannot load {name}", item, repr(number), f"a whole number of at least {low}", fix)


def _check_raw(name, raw):
    doing, item = f"cannot load {name}", raw.where
    if len(raw.labels) == 0:
        fix = "Put images into class folders: CLASS/NAME.png."
        raise DataError(doing, item, "no images", "at least 20", fix)
    if len(raw.classes) < 2:
        fix = "Give each class a folder of its own."
        raise DataError(doing, item, f"one class, {raw.classes[0]!r}", "at least 2", fix)
    if len(raw.labels) < 20:
        fix = "Add images; three splits need some each."
        raise DataError(doing, item, f"{len(raw.labels)} images", "at least 20", fix)
    missing = set(range(len(raw.classes))) - set(raw.labels.unique().tolist())
    if missing:
        item, fix = f"{item}, class {raw.classes[min(missing)]!r}", "Add training images of this class, or remove it."
        raise DataError(doing, item, "no training image", "at least one of every class", fix)


def _hash(splits):
    digest = hashlib.sha256()
    for split in splits:
        # Flat views, where tobytes() would copy every image.
        digest.update(split.images.numpy().reshape(-1))
        digest.update(split.labels.numpy().reshape(-1))
    return digest.hexdigest()
