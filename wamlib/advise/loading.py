"""What the command line names: checkpoints, builders, and data sets."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import data, models
from ..config import derive_seed
from ..errors import CheckpointError, ConfigError
from ..merge.checkpoint import open_checkpoint

__all__ = ["build_model", "find_member", "open_selection", "read_member"]

N_RECALIBRATION = 1_000  # training images that BatchNorm is recalibrated on
N_SELECTION = 3_000  # selection images at most, unless asked otherwise: they tell differences of half a point


def find_member(name):
    """Return the file of a checkpoint.

    Parameters
    ----------
    name : str or Path
        A file as `wamlib.merge.merge_files` reads them, the folder of a run, or the id of a run in the store that
        `wamlib.runs.RunStore` finds, if that is a folder.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        If it is missing.
    """
    path = Path(name)
    if not path.exists():
        from ..runs import RunStore

        root = RunStore().root
        here = isinstance(root, Path)  # and no URL
        if not (here and (root / path.name).is_dir()):
            got = f"no such file, and {f'no run of that id in {root}' if here else f'{root} is no folder'}"
            wanted = "a safetensors, .pt or .pth file, or the id of a finished run"
            fix = "Correct the name; `wamlib runs` lists the ids."
            raise CheckpointError("cannot read a member", str(name), got, wanted, fix)
        path = root / path.name
    if path.is_dir() and (path / "checkpoint.safetensors").is_file():
        path = path / "checkpoint.safetensors"
    return path


def read_member(name):
    """Return the state dict of a checkpoint.

    Parameters
    ----------
    name : str or Path
        As for `find_member`.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or no state dict.
    """
    with open_checkpoint(find_member(name)) as checkpoint:
        return {
            key: checkpoint.read(key, 0, entry.size).clone().reshape(entry.shape)
            for key, entry in checkpoint.entries.items()
        }


def build_model(name, dataset):
    """Return an untrained model.

    Parameters
    ----------
    name : str
        One of `wamlib.models.NAMES`, or ``package.module:function`` for a callable without arguments that
        returns a `torch.nn.Module`. The working directory is looked in first.
    dataset : wamlib.data.Dataset
        Says how many classes, channels and pixels there are, for a name.

    Raises
    ------
    ConfigError
        If the name is unknown, or the builder cannot be imported, fails, or returns no module.
    """
    if ":" not in name:
        return models.build(name, len(dataset.classes), dataset.in_channels, dataset.image_size)
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module), function)()
    except Exception as error:  # the user's own code may raise anything
        got, wanted = f"{type(error).__name__}: {error}", "package.module:function, a function without arguments"
        fix = "Correct the name or the function."
        raise ConfigError("cannot build a model", f"--model {name}", got, wanted, fix) from None
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(model, nn.Module):
        wanted, fix = "a torch.nn.Module", "Return the network from the function."
        raise ConfigError("cannot build a model", f"--model {name}", f"a {type(model).__name__}", wanted, fix)
    return model


def open_selection(name, n_images=None, mean=None, std=None, *, held_out=False):
    """Return a data set for advice: its labelled selection images, and training images for BatchNorm.

    Parameters
    ----------
    name : str
        As for `wamlib.data.load`.
    n_images : int or None
        Use only the first so many selection images; None takes as many as there are, at most 3,000.
    mean, std : str or None
        Normalisation that the members were trained with, one number per channel with commas between them,
        of pixels in [0, 1]; None measures both on the training images.
    held_out : bool
        For members that were not trained by wamlib, which may have seen its selection images: half of the test images
        take their place, drawn by a fixed seed, and the other half is the test split.

    Returns
    -------
    wamlib.data.Dataset

    Raises
    ------
    ConfigError, DataError
        If the data set is not here, or an argument cannot be used.
    """
    if n_images is not None and n_images < 2:
        fix = "A few hundred tell differences of a point."
        raise ConfigError("cannot advise", "--n-images", str(n_images), "2 or more", fix)
    dataset = data.load(name)
    given = {key: text for key, text in (("mean", mean), ("std", std)) if text is not None}
    changes = {key: _channels(f"--{key}", text, dataset.in_channels) for key, text in given.items()}
    splits = {part: replace(getattr(dataset, part), **changes) for part in ("train", "selection", "test")}
    if held_out:
        order = torch.randperm(len(splits["test"]), generator=torch.Generator().manual_seed(derive_seed("held out", 0)))
        half = len(order) // 2
        splits |= {"selection": splits["test"].take(order[:half]), "test": splits["test"].take(order[half:])}
    splits["train"] = splits["train"].take(slice(0, N_RECALIBRATION))
    splits["selection"] = splits["selection"].take(slice(0, n_images or N_SELECTION))
    return replace(dataset, **splits)


def _channels(item, text, n_channels):
    """Return one number per channel, in units of 0 to 255."""
    try:
        values = torch.tensor([255 * float(number) for number in text.split(",")])
        right = len(values) in (1, n_channels) and values.isfinite().all() and (item == "--mean" or (values > 0).all())
    except ValueError:
        right = False
    if not right:
        wanted = f"{n_channels} number(s) with commas between them, of pixels in [0, 1]"
        fix = "Write them as in torchvision.transforms.Normalize."
        raise ConfigError("cannot normalise the images", item, repr(text), wanted, fix)
    return values.expand(n_channels).clone()
