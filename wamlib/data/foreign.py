"""Foreign images: those of another data set, in the shape and the normalisation that a network expects."""

import torch
import torch.nn.functional as F

from ..errors import DataError
from .dataset import Split, load
from .sources import is_present, title

__all__ = ["PHOTOGRAPHS", "as_if_from", "foreign", "photographs"]

PHOTOGRAPHS = "photographs"  # the name of the patches that `photographs` cuts
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
NO_CLASS = -1


def as_if_from(split, dataset):
    """Return the images of a split as if they came from another data set.

    Colour becomes grey by luminance, grey becomes colour by repetition; the size is changed by
    bilinear interpolation, averaging where images shrink; the result is rounded to bytes and normalised
    with mean and standard deviation of the other data set, as its own images are.

    Parameters
    ----------
    split : Split
        Of grey or colour images.
    dataset : Dataset
        The one whose images a network was trained on.

    Returns
    -------
    Split
        Of uint8 images on the device of the data set. Every label is -1: none of its classes is right.

    Raises
    ------
    DataError
        If images have neither one nor three channels.
    """
    home = dataset.test
    pixels = split.images.to(home.images.device).float()
    for channels in (pixels.shape[1], dataset.in_channels):
        if channels not in (1, 3):
            doing, fix = f"cannot show images to a network for {dataset.name}", "Choose images of another data set."
            raise DataError(doing, "channels", f"{channels}", "1 (grey) or 3 (colour)", fix)
    if pixels.shape[1] == 3 and dataset.in_channels == 1:
        weights = torch.tensor(LUMINANCE, device=pixels.device)
        pixels = (pixels * weights[:, None, None]).sum(1, keepdim=True)
    elif pixels.shape[1] < dataset.in_channels:
        pixels = pixels.expand(-1, dataset.in_channels, -1, -1)
    if tuple(pixels.shape[2:]) != tuple(dataset.image_size):
        pixels = F.interpolate(pixels, size=tuple(dataset.image_size), mode="bilinear", antialias=True)
    images = pixels.round().clamp(0, 255).byte()
    return Split(images, torch.full((len(images),), NO_CLASS, device=images.device), home.mean, home.std)


def photographs(size, n=None):
    """Return patches of the two photographs that scikit-learn ships, which are on every machine.

    Parameters
    ----------
    size : tuple of int
        Height and width of a patch, in pixels of the photographs (427 by 640), at most those.
    n : int or None
        Patches, evenly spaced; None takes all that fit side by side without overlap, and so does a number
        larger than there are.

    Returns
    -------
    Tensor, uint8, shape (sample, 3, height, width)

    Raises
    ------
    DataError
        If a patch is larger than a photograph.
    """
    from sklearn.datasets import load_sample_images

    height, width = size
    patches = []
    for picture in load_sample_images().images:
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)
        if height > pixels.shape[1] or width > pixels.shape[2]:
            wanted, fix = f"at most {pixels.shape[1]} by {pixels.shape[2]}, a photograph", "Ask for smaller patches."
            raise DataError("cannot cut patches", "size", f"{height} by {width} pixels", wanted, fix)
        rows = pixels.unfold(1, height, height).unfold(2, width, width)
        patches.append(rows.permute(1, 2, 0, 3, 4).reshape(-1, 3, height, width))
    patches = torch.cat(patches)
    chosen = range(len(patches)) if n is None or n >= len(patches) else [i * len(patches) // n for i in range(n)]
    return patches[list(chosen)]


def foreign(names, dataset, n=None, root=None):
    """Return the foreign images of several data sets, as if they came from one.

    Parameters
    ----------
    names : sequence of str
        Names that `load` knows, or "photographs" for the patches of `photographs`. The data set itself, and those whose
        files are not on this machine, are left out: what is in the result is what was there.
    dataset : Dataset
        The one whose images a network was trained on.
    n : int or None
        Images of each, drawn from its test images; None takes all, and so does a number larger than there are.
    root : str or Path or None
        As for `load`.

    Returns
    -------
    dict of str to Split
        Title of each data set to its images, see `as_if_from`.

    Raises
    ------
    DataError
        If a name is unknown, or nothing is left.
    """
    found = {}
    for name in names:
        if name == PHOTOGRAPHS:
            images = photographs(dataset.image_size, n)
            blank = torch.full((len(images),), NO_CLASS)
            found[name] = as_if_from(Split(images, blank, torch.zeros(3), torch.ones(3)), dataset)
        elif name != dataset.name and is_present(name, root):
            # One training image, for there must be one: its statistics are not used.
            found[title(name)] = as_if_from(load(name, root, n_train=1, n_eval=n).test, dataset)
    if not found:
        wanted = f"a data set beside {dataset.name} whose files are here, or {PHOTOGRAPHS!r}"
        fix = f"Add {PHOTOGRAPHS!r}, which is a part of scikit-learn."
        raise DataError("cannot find foreign images", "names", f"{list(names)}, of which none is here", wanted, fix)
    return found
