"""Architectures by name, each built from the image size and the number of classes."""

import functools
import inspect
import math
from collections import OrderedDict

import torch
from torch import nn

from .config import derive_seed
from .errors import ConfigError

__all__ = ["NAMES", "build", "head", "register"]

_BUILDERS = {}


def register(name):
    """Return a decorator that adds a builder ``(n_classes, in_channels, image_size) -> Module``.

    The last `torch.nn.Linear` of the module must be its classifier: its input is
    what the book calls the features.
    """

    def add(builder):
        _BUILDERS[name] = builder
        return builder

    return add


def build(name, n_classes, in_channels, image_size, *, seed=None):
    """Build an untrained model.

    Parameters
    ----------
    name : str
        One of the names in `NAMES`, or one with a width behind it: ``mlp-x2`` has
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

    Returns
    -------
    torch.nn.Module
        In training mode, on the CPU, in float32.

    Raises
    ------
    ConfigError
        If the name is unknown or the images are too small for the architecture.
    """
    plain, _, factor = name.partition("-x")
    width = _width(name, factor)
    if plain not in _BUILDERS or (factor and "width" not in inspect.signature(_BUILDERS[plain]).parameters):
        raise ConfigError(
            "cannot build a model",
            item=f"name {name!r}",
            got="a name that is not registered" if plain not in _BUILDERS else "a width for a model that has none",
            wanted=f"one of {', '.join(_BUILDERS)}",
            fix="Correct the name, or add a builder with wamlib.models.register.",
        )
    builder = functools.partial(_BUILDERS[plain], width=width) if factor else _BUILDERS[plain]
    if min(image_size) < 8:
        raise ConfigError(
            f"cannot build {name}",
            item="image_size",
            got=f"{image_size[0]} x {image_size[1]} pixels",
            wanted="at least 8 x 8",
            fix="Enlarge the images.",
        )
    if seed is None:
        return builder(n_classes, in_channels, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", seed))
        return builder(n_classes, in_channels, image_size)


def _width(name, factor):
    try:
        width = float(factor or 1)
        if not 0 < width < math.inf:
            raise ValueError("not a positive number")
    except ValueError as error:
        raise ConfigError(
            "cannot build a model",
            item=f"name {name!r}",
            got=f"the width {factor!r}",
            wanted="a positive number behind -x, as in mlp-x2",
            fix="Correct the name.",
        ) from error
    return width


def _scaled(units, width):
    """Return a number of units times a width, at least one."""
    return max(1, round(units * width))


def head(model):
    """Return the classifier of a model: its last `torch.nn.Linear`."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ConfigError(
            "cannot find the head",
            item=type(model).__name__,
            got="no torch.nn.Linear",
            wanted="a last linear layer that gives the logits",
            fix="Give the model a linear classifier.",
        )
    return layers[-1]


@register("linear")
def _linear(n_classes, in_channels, image_size):
    size = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(size, n_classes)))


@register("mlp")
def _mlp(n_classes, in_channels, image_size, width=1):
    """Three hidden layers; no dropout, so that a few epochs are enough."""
    layers = OrderedDict(flatten=nn.Flatten())
    size = in_channels * image_size[0] * image_size[1]
    for depth, units in enumerate((512, 256, 128), start=1):
        units = _scaled(units, width)
        layers[f"fc{depth}"] = nn.Linear(size, units)
        layers[f"relu{depth}"] = nn.ReLU()
        size = units
    layers["head"] = nn.Linear(size, n_classes)
    return nn.Sequential(layers)


@register("cnn")
def _cnn(n_classes, in_channels, image_size, width=1):
    """Convolutions and no normalisation: the layout of the paper's small CNN at half its width."""
    layers, channels = OrderedDict(), in_channels
    stages, hidden = [_scaled(units, width) for units in (16, 32, 64)], _scaled(128, width)
    for depth, units in enumerate(stages, start=1):
        layers[f"conv{depth}"] = nn.Conv2d(channels, units, 3, padding=1)
        # The maximum commutes with ReLU, and on a quarter of the values ReLU costs a quarter.
        layers[f"pool{depth}"] = nn.MaxPool2d(2)
        layers[f"relu{depth}"] = nn.ReLU()
        channels = units
    cells = (image_size[0] >> len(stages)) * (image_size[1] >> len(stages))
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels * cells, hidden)
    layers["relu"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(0.5)
    layers["head"] = nn.Linear(hidden, n_classes)
    return nn.Sequential(layers)


@register("resnet8")
def _resnet8(n_classes, in_channels, image_size, width=1):
    """Three residual blocks with BatchNorm, of torchvision's own block.

    The layout is that of the CIFAR networks of He et al. (2016), Section 4.2, with
    n = 1, but the first convolution has stride 2: a member then trains in seconds
    on two CPU cores.
    """
    from torchvision.models.resnet import BasicBlock

    channels = units = _scaled(16, width)
    layers = OrderedDict(
        conv1=nn.Conv2d(in_channels, units, 3, stride=2, padding=1, bias=False),
        bn1=nn.BatchNorm2d(units),
        relu=nn.ReLU(),
    )
    for depth, stride in enumerate((1, 2, 2), start=1):
        wider = units * 2 ** (depth - 1)
        shortcut = None
        if stride != 1 or wider != channels:
            shortcut = nn.Sequential(nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider))
        layers[f"layer{depth}"] = BasicBlock(channels, wider, stride, shortcut)
        channels = wider
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, n_classes)
    return nn.Sequential(layers)


@register("vgg")
def _vgg(n_classes, in_channels, image_size, width=1, norm=False):
    """Pairs of 3 x 3 convolutions and maximum pooling: configuration B of Simonyan and Zisserman (2015), narrow."""
    layers, channels = OrderedDict(), in_channels
    for stage, units in enumerate((16, 32, 64), start=1):
        units = _scaled(units, width)
        for place in "ab":
            layers[f"conv{stage}{place}"] = nn.Conv2d(channels, units, 3, padding=1, bias=not norm)
            if norm:
                layers[f"bn{stage}{place}"] = nn.BatchNorm2d(units)
            layers[f"relu{stage}{place}"] = nn.ReLU()
            channels = units
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    cells, hidden = (image_size[0] >> 3) * (image_size[1] >> 3), _scaled(128, width)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels * cells, hidden)
    layers["relu"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(0.5)
    layers["head"] = nn.Linear(hidden, n_classes)
    return nn.Sequential(layers)


@register("vgg_bn")
def _vgg_bn(n_classes, in_channels, image_size, width=1):
    """The same with BatchNorm behind every convolution."""
    return _vgg(n_classes, in_channels, image_size, width, norm=True)


NAMES = tuple(_BUILDERS)
