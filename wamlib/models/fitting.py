"""Fit a network made for 1,000 classes of RGB photographs to other images and classes."""

from torch import nn

from ..errors import ConfigError
from .registry import head, stem


def fit_channels(name, model, in_channels, weights=None):
    """Make the stem of a model read images of another number of channels, in place.

    Parameters
    ----------
    name : str
        What an error calls the model.
    model : torch.nn.Module
        Its stem is a `torch.nn.Conv2d`.
    in_channels : int
    weights : str or None
        Name of the pretrained weights in the model. With None the stem is drawn anew, by the
        rule of `torch.nn.Conv2d`. Otherwise its kernel is summed over the channels, so that a
        grey image gives what its three copies in RGB gave.

    Raises
    ------
    ConfigError
        If pretrained kernels are to read anything but grey or RGB.
    """
    layer = stem(model)
    if in_channels == layer.in_channels:
        return
    if weights is None:
        kernel = layer.weight.new_empty(layer.out_channels, in_channels, *layer.kernel_size)
    elif in_channels == 1:
        kernel = layer.weight.detach().sum(dim=1, keepdim=True)
    else:
        doing, fix = f"cannot build {name} with weights {weights}", "Convert the images to RGB, or leave out `weights`."
        raise ConfigError(doing, "in_channels", in_channels, "1 or 3, because the pretrained kernels read RGB", fix)
    layer.in_channels, layer.weight = in_channels, nn.Parameter(kernel)
    if weights is None:
        layer.reset_parameters()


def fresh_head(model, n_classes):
    """Draw the head of a model anew, in place, by the rule of `torch.nn.Linear`, for a number of classes."""
    layer = head(model)
    layer.out_features = n_classes
    layer.weight = nn.Parameter(layer.weight.new_empty(n_classes, layer.in_features))
    layer.bias = nn.Parameter(layer.bias.new_empty(n_classes))
    layer.reset_parameters()
