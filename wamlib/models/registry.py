"""The names of architectures, and what every one of them has: a stem, a head, weights to begin with."""

import functools
import inspect
import math
from typing import NamedTuple

import torch
from torch import nn

from ..config import derive_seed
from ..errors import ConfigError

__all__ = ["PARTS", "Facts", "build", "check_name", "facts", "family", "head", "kind", "redraw", "register", "stem"]

PARTS = ("stem", "head")  # what `redraw` can draw anew

_BUILDERS, _FACTS = {}, {}


class Facts(NamedTuple):
    """What the name of an architecture says about its networks.

    Parameters
    ----------
    kind : {"linear", "mlp", "cnn", "vit", "other"}
        "linear" is linear in the image, "cnn" has convolutions; "other" is what nobody has said anything about.
    family : str
        "linear", "mlp", "cnn", "vgg", "resnet", "densenet", "efficientnet" or "vit" here.
    batchnorm, dropout, residual : bool or None
        Whether it has BatchNorm, dropout, and blocks that add their input to their output; None if nobody said.
    """

    kind: str
    family: str
    batchnorm: bool | None = False
    dropout: bool | None = False
    residual: bool | None = False


UNKNOWN = Facts("other", "other", None, None, None)


def register(name, facts=UNKNOWN):
    """Return a decorator that adds a builder ``(n_classes, in_channels, image_size) -> Module``.

    The last `torch.nn.Linear` of the module must be its classifier: its input is
    what the book calls the features. A builder may have two more arguments: ``width``, a
    factor on its units, and ``weights``, which names pretrained ones.

    Parameters
    ----------
    name : str
    facts : Facts
        What `kind`, `family` and `facts` shall say of the name.
    """

    def add(builder):
        _BUILDERS[name], _FACTS[name] = builder, facts
        return builder

    return add


def facts(name):
    """Return what the name of an architecture says, without building it.

    Parameters
    ----------
    name : str
        One that `build` knows, a width behind it included; or ``package.module:function``, as `wamlib.advise`
        takes it, of which nothing is known.

    Returns
    -------
    Facts

    Raises
    ------
    ConfigError
        If the name is unknown.

    Examples
    --------
    >>> facts("resnet8-x2").batchnorm
    True
    """
    if ":" in str(name):
        return UNKNOWN
    check_name(name)
    return _FACTS[name.partition("-x")[0]]


def kind(name):
    """Return the kind of an architecture by its name, "linear", "mlp", "cnn", "vit" or "other"; see `facts`.

    Examples
    --------
    >>> kind("densenet121_cifar")
    'cnn'
    """
    return facts(name).kind


def family(name):
    """Return the family of an architecture by its name, such as "densenet"; see `facts`."""
    return facts(name).family


def build(name, n_classes, in_channels, image_size, *, seed=None, weights=None):
    """Build an untrained model.

    Parameters
    ----------
    name : str
        One of the names in `wamlib.models.NAMES`, or one with a width behind it: ``mlp-x2`` has
        twice as many units in every hidden layer, ``resnet8-x0.5`` half as many.
    n_classes : int
        Number of logits.
    in_channels : int
        Channels of an image.
    image_size : tuple of int
        Height and width of an image, in pixels.
    seed : int or None
        Fixes the random weights, and leaves the global generator as it was;
        None draws them from the global generator.
    weights : str or None
        Pretrained weights for all but the head, which is drawn, as a replaced stem is (``_cifar``):
        "DEFAULT", or another name that the architecture knows. None means random weights throughout.

    Returns
    -------
    torch.nn.Module
        In training mode, on the CPU, in float32.

    Raises
    ------
    ConfigError
        If the name is unknown, the images are too small for the architecture, or there are no
        such pretrained weights here.
    CheckpointError
        If the file of pretrained weights is damaged.
    """
    chosen = _builder(name, weights)
    if min(image_size) < 8:
        got = f"{image_size[0]} x {image_size[1]} pixels"
        raise ConfigError(f"cannot build {name}", "image_size", got, "at least 8 x 8", "Enlarge the images.")
    builder = functools.partial(chosen, n_classes, in_channels, image_size)
    if seed is None:
        return builder()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", seed))
        return builder()


def check_name(name):
    """Refuse a name that `build` does not know, a width behind it included, with its ConfigError."""
    _builder(name, None)


def _builder(name, weights):
    """Return what builds the model of a name, given classes, channels and pixels."""
    plain, mark, factor = str(name).partition("-x")
    got, asked = "a name that is not registered", {}
    if plain in _BUILDERS:
        asked = {"width": _width(name, factor) if mark else None, "weights": weights}
        asked = {key: value for key, value in asked.items() if value}
        known = inspect.signature(_BUILDERS[plain]).parameters
        got = next(
            (f"{key} {value!r} for a model that has none" for key, value in asked.items() if key not in known), ""
        )
    if got:
        fix = "Correct the name, or add a builder with wamlib.models.register."
        raise ConfigError("cannot build a model", f"name {name!r}", got, f"one of {', '.join(_BUILDERS)}", fix)
    return functools.partial(_BUILDERS[plain], **asked)


def _width(name, factor):
    """Return the factor behind a name."""
    try:
        width = float(factor)
        if not 0 < width < math.inf:
            raise ValueError("not a positive number")
    except ValueError as error:
        wanted, fix = "a positive number behind -x, as in mlp-x2", "Correct the name."
        raise ConfigError("cannot build a model", f"name {name!r}", f"the width {factor!r}", wanted, fix) from error
    return width


def head(model):
    """Return the classifier of a model: its last `torch.nn.Linear`."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        wanted, fix = "a last linear layer that gives the logits", "Give the model a linear classifier."
        raise ConfigError("cannot find the head", type(model).__name__, "no torch.nn.Linear", wanted, fix)
    return layers[-1]


def stem(model):
    """Return the first layer of a model: the convolution or `torch.nn.Linear` that reads the image."""
    return next(layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def redraw(model, parts, other):
    """Put the stem or the head of another model of the same architecture in place of a model's own.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    parts : sequence of {"stem", "head"}
    other : torch.nn.Module
        Usually one with weights freshly drawn.

    Returns
    -------
    torch.nn.Module
        The same model.
    """
    for part in parts:
        find = {"stem": stem, "head": head}[part]
        find(model).load_state_dict(find(other).state_dict())
    return model
