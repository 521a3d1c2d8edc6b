"""The architectures of the paper at their published sizes, all of them torchvision's own.

A plain name has the stem made for photographs of 224 x 224 pixels; the paper's code feeds it images
of 32 x 32, of which a ResNet or a DenseNet then sees a single cell at the end. Behind ``_cifar``
the stem does not shrink the image. A VGG has no such stem to replace.
"""

import functools
import pickle
import re
import warnings
from pathlib import Path

import torch
from torch import nn

from ..errors import CheckpointError, ConfigError
from .fitting import fit_channels, fresh_head
from .registry import Facts, kind, register

_VGG = ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")
PLAIN = (*_VGG, "resnet18", "resnet50", "densenet121", "vit_b_16")
CIFAR = ("resnet18_cifar", "resnet50_cifar", "densenet121_cifar", "vit_b_16_cifar")
NAMES = PLAIN + CIFAR

_FACTS = {
    "vgg": Facts("cnn", "vgg", dropout=True),
    "resnet": Facts("cnn", "resnet", batchnorm=True, residual=True),
    "densenet": Facts("cnn", "densenet", batchnorm=True),
    "vit": Facts("vit", "vit", residual=True),
}

# In DenseNet's files layers are called norm.1, in its modules norm1.
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=\d\.)")
_PATCH = 16  # pixels a side in every vit_b_16 of torchvision


def published(name, n_classes, in_channels, image_size, weights=None):
    """Build one of `NAMES` with torchvision's constructor.

    Random weights are drawn by torchvision's rules, but for layers replaced here: a stem for
    other channels or small images, and the head of a vision transformer, which torchvision
    starts at zero. These are drawn by the rules of `torch.nn`.

    Parameters
    ----------
    name : str
        Behind ``_cifar``, the first convolution is 3 x 3 with stride 1 and no pooling follows;
        a vision transformer has the largest patches that make at least eight a side.
    n_classes, in_channels : int
    image_size : tuple of int
        Height and width, in pixels.
    weights : str or None
        "DEFAULT" or another of torchvision's names. The head is drawn, and behind ``_cifar`` the
        stem is too: only the body is then pretrained. Position embeddings of a vision transformer
        are interpolated to the patches there are. Torchvision downloads the file once and keeps it.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ConfigError
        If the images do not fit the architecture, there are no such weights, or they cannot be downloaded.
    CheckpointError
        If the file of weights is damaged.
    """
    from torchvision.models import get_model
    from torchvision.models.vision_transformer import interpolate_embeddings

    plain = name.removesuffix("_cifar")
    _check_size(name, image_size)
    # Told so, torchvision makes as many position embeddings as there will be patches.
    patch = _patch(name, image_size)
    size = {"image_size": image_size[0] // patch * _PATCH} if patch else {}
    if weights is None:
        model = get_model(plain, num_classes=n_classes, **size)
    else:
        model = _pretrained(name, plain, weights)
        if patch:
            state = interpolate_embeddings(size["image_size"], _PATCH, model.state_dict())
            model.encoder.pos_embedding = nn.Parameter(state["encoder.pos_embedding"])
    if name == plain:
        fit_channels(name, model, in_channels, weights)
    else:
        _replace_stem(model, in_channels, patch)
    if patch:
        model.image_size, model.patch_size = image_size[0], patch  # what its forward pass checks images against
    if patch or weights is not None:
        fresh_head(model, n_classes)
    return model


for _name in NAMES:
    _said = _FACTS[re.match("[a-z]+", _name)[0]]
    _said = _said._replace(batchnorm=True) if _name.endswith("_bn") else _said
    register(_name, _said)(functools.partial(published, _name))


def _patch(name, image_size):
    """Return how many pixels a side a patch has, or None where there are no patches."""
    if name == "vit_b_16":
        return _PATCH
    if name == "vit_b_16_cifar":
        side = image_size[0]
        return max(p for p in range(1, side // 8 + 1) if side % p == 0)
    return None


def _replace_stem(model, in_channels, patch):
    """Replace the stem made for photographs by one that keeps the size of the image, or has small patches."""
    if patch:
        model.conv_proj = nn.Conv2d(in_channels, model.conv_proj.out_channels, patch, stride=patch)
        return
    # Where a DenseNet has its first layers and what they are called is all that differs.
    dense = hasattr(model, "features")
    layers, conv, pool = (model.features, "conv0", "pool0") if dense else (model, "conv1", "maxpool")
    units = getattr(layers, conv).out_channels
    setattr(layers, conv, nn.Conv2d(in_channels, units, 3, padding=1, bias=False))
    setattr(layers, pool, nn.Identity())


def _check_size(name, image_size):
    from torchvision.models import get_model_weights

    height, width = image_size
    if kind(name) == "vit":
        fits = height == width and (name != "vit_b_16" or height % _PATCH == 0)
        wanted = f"a square with a side divisible by {_PATCH}" if name == "vit_b_16" else "a square"
    else:
        # Torchvision states how small an image may be; without the stem's two halvings 8 x 8 always do.
        least = 8 if name in CIFAR else get_model_weights(name).DEFAULT.meta["min_size"][0]
        fits, wanted = min(image_size) >= least, f"at least {least} x {least}"
    if not fits:
        fix = "Resize or pad the images, or take another architecture."
        raise ConfigError(f"cannot build {name}", "image_size", f"{height} x {width} pixels", wanted, fix)


def _pretrained(name, plain, weights):
    """Return torchvision's model for the 1,000 classes of ImageNet, with pretrained weights."""
    from torchvision.models import get_model, get_model_weights

    entries = get_model_weights(plain)
    # One VGG-16 has features only: its classifier is filled with NaN, and it has no classes.
    known = {key: entry for key, entry in entries.__members__.items() if entry.meta["categories"]}
    if weights not in known:
        fix = "Correct the name, or leave it out for random weights."
        raise ConfigError(f"cannot build {name}", "weights", repr(weights), f"one of {', '.join(known)}", fix)
    file = Path(torch.hub.get_dir(), "checkpoints", known[weights].url.rpartition("/")[2])
    # What torchvision's constructors tell themselves when they load weights.
    settings = {"init_weights": False} if plain in _VGG else {}
    model = get_model(plain, num_classes=len(known[weights].meta["categories"]), **settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice about old formats; what it cannot read is an error
            # Not by the constructor, which unpickles whatever the file holds.
            state = known[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
        for key in list(state):
            state[_DENSE_LAYER.sub(r"\1", key)] = state.pop(key)
        model.load_state_dict(state)
    except OSError as error:  # no network, no such host, no space
        wanted = f"a download, or the file in {file.parent}"
        fix = "Be online once, or copy the file into that folder (the variable TORCH_HOME moves it)."
        raise ConfigError(f"cannot build {name} with weights {weights}", file.name, str(error), wanted, fix) from error
    except (AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        got, wanted = f"{type(error).__name__}: {error}".splitlines()[0], "the file that torchvision publishes"
        fix = "Delete the file, so that it is downloaded again."
        raise CheckpointError(f"cannot build {name} with weights {weights}", str(file), got, wanted, fix) from error
    return model
