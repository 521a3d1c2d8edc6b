"""Architectures small enough to train in seconds on two CPU cores."""

from collections import OrderedDict

from torch import nn

from ..errors import ConfigError
from .registry import Facts, register


def _scaled(units, width):
    """Return a number of units times a width, at least one."""
    return max(1, round(units * width))


@register("linear", Facts("linear", "linear"))
def linear(n_classes, in_channels, image_size):
    """One layer: a row of weights for each class."""
    size = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(size, n_classes)))


@register("deep_linear", Facts("linear", "linear"))
def deep_linear(n_classes, in_channels, image_size, width=1):
    """Two layers with nothing between them: linear in the image, not in the weights."""
    size, units = in_channels * image_size[0] * image_size[1], _scaled(64, width)
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(size, units, bias=False), head=nn.Linear(units, n_classes))
    )


@register("mlp", Facts("mlp", "mlp"))
def mlp(n_classes, in_channels, image_size, width=1):
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


@register("cnn", Facts("cnn", "cnn", dropout=True))
def cnn(n_classes, in_channels, image_size, width=1):
    """Convolutions and no normalisation: the layout of the paper's small CNN at half its width."""
    layers, channels = OrderedDict(), in_channels
    stages = [_scaled(units, width) for units in (16, 32, 64)]
    for depth, units in enumerate(stages, start=1):
        layers[f"conv{depth}"] = nn.Conv2d(channels, units, 3, padding=1)
        # The maximum commutes with ReLU, and on a quarter of the values ReLU costs a quarter.
        layers[f"pool{depth}"] = nn.MaxPool2d(2)
        layers[f"relu{depth}"] = nn.ReLU()
        channels = units
    return nn.Sequential(layers | _classifier(channels, image_size, n_classes, width))


def _classifier(channels, image_size, n_classes, width):
    """Return the layers behind three halvings of the image: one hidden layer with dropout, and the head."""
    size, hidden = channels * (image_size[0] >> 3) * (image_size[1] >> 3), _scaled(128, width)
    return OrderedDict(
        flatten=nn.Flatten(),
        fc=nn.Linear(size, hidden),
        relu=nn.ReLU(),
        dropout=nn.Dropout(0.5),
        head=nn.Linear(hidden, n_classes),
    )


@register("vgg", Facts("cnn", "vgg", dropout=True))
def vgg(n_classes, in_channels, image_size, width=1, norm=False):
    """Pairs of 3 x 3 convolutions and maximum pooling: configuration B of Simonyan and Zisserman (2015), narrow.

    Torchvision's own layers; its classifier has 4,096 units whatever the width, so a small one follows.
    """
    from torchvision.models.vgg import make_layers

    stages = [_scaled(units, width) for units in (8, 16, 32)]
    features = make_layers([entry for units in stages for entry in (units, units, "M")], batch_norm=norm)
    features[0] = nn.Conv2d(in_channels, stages[0], 3, padding=1)
    for layer in features:
        if isinstance(layer, nn.Conv2d):  # as torchvision's VGG does: without BatchNorm it trains from nothing else
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(OrderedDict(features=features) | _classifier(stages[-1], image_size, n_classes, width))


@register("vgg_bn", Facts("cnn", "vgg", batchnorm=True, dropout=True))
def vgg_bn(n_classes, in_channels, image_size, width=1):
    """The same with BatchNorm behind every convolution."""
    return vgg(n_classes, in_channels, image_size, width, norm=True)


@register("resnet8", Facts("cnn", "resnet", batchnorm=True, residual=True))
def resnet8(n_classes, in_channels, image_size, width=1):
    """Three residual blocks with BatchNorm, of torchvision's own block.

    The layout is that of the CIFAR networks of He et al. (2016), Section 4.2, with
    n = 1, but the first convolution has stride 2: a member then trains in seconds
    on two CPU cores. Torchvision's `ResNet` always has four stages, from 64 channels on.
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


@register("densenet", Facts("cnn", "densenet", batchnorm=True))
def densenet(n_classes, in_channels, image_size, width=1):
    """Three dense blocks of two layers: torchvision's `DenseNet` by its own size arguments.

    Its stem, made for photographs, is replaced by one convolution with stride 2.
    """
    from torchvision.models import DenseNet

    units = _scaled(16, width)
    model = DenseNet(_scaled(8, width), (2, 2, 2), units, bn_size=2, num_classes=n_classes)
    model.features.conv0 = nn.Conv2d(in_channels, units, 3, stride=2, padding=1, bias=False)
    model.features.pool0 = nn.Identity()
    return model


@register("vit", Facts("vit", "vit", residual=True))
def vit(n_classes, in_channels, image_size, width=1):
    """Two encoder layers on a grid of patches: torchvision's `VisionTransformer` by its own size arguments."""
    from torchvision.models import VisionTransformer

    height, side = image_size
    if height != side:
        fix = "Crop or resize the images to a square, or take another architecture."
        raise ConfigError("cannot build vit", "image_size", f"{height} x {side} pixels", "a square image", fix)
    patch = max(p for p in range(1, side // 4 + 1) if side % p == 0)  # the coarsest grid of at least four a side
    units = 4 * _scaled(16, width)
    model = VisionTransformer(
        side, patch, num_layers=2, num_heads=4, hidden_dim=units, mlp_dim=2 * units, num_classes=n_classes
    )
    model.conv_proj = nn.Conv2d(in_channels, units, patch, stride=patch)
    # Torchvision starts the head at zero, which leaves nothing to draw: as for all other architectures instead.
    model.heads.head = nn.Linear(units, n_classes)
    return model


NAMES = ("linear", "deep_linear", "mlp", "cnn", "vgg", "vgg_bn", "resnet8", "densenet", "vit")
