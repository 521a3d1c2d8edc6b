"""Logits, features and scores of a model on a split, always in eval mode."""

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import nn

from . import models
from .modes import eval_mode

__all__ = [
    "accuracy",
    "agreement",
    "brier",
    "calibration_error",
    "entropy",
    "eval_mode",
    "fit_temperature",
    "layer_spread",
    "margin",
    "metrics",
    "nll",
    "predict_features",
    "predict_logits",
]


def predict_logits(model, split, batch_size=250):
    """Return the logits of every image of a split.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode whatever mode it is in; left in that mode.
    split : wamlib.data.Split
        On the device of the model.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor, float32, shape (sample, class)
    """
    with eval_mode(model), torch.inference_mode():
        return torch.cat([model(_layout(images)).float() for images, _ in split.batches(batch_size)])


def predict_features(model, split, batch_size=250):
    """Return the input of the last linear layer for every image of a split.

    Parameters
    ----------
    model, split, batch_size
        As for `predict_logits`.

    Returns
    -------
    Tensor, float32, shape (sample, feature)
    """
    caught = []
    with models.head(model).register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0].float())):
        predict_logits(model, split, batch_size)
    return torch.cat(caught)


def layer_spread(model, split, batch_size=250):
    """Return how much the units of each layer vary from image to image.

    Layers are the BatchNorm layers of the model if it has any, otherwise its hidden
    convolutions and linear layers: where the next nonlinearity reads.

    Parameters
    ----------
    model, split, batch_size
        As for `predict_logits`.

    Returns
    -------
    dict of str to float
        Name of the layer, in the order of the model, to the standard deviation
        of a unit over images and positions, averaged over units.

    References
    ----------
    Jordan et al. (2022), REPAIR, Section 2.2, for the collapse of this number in averaged networks.
    https://arxiv.org/abs/2211.08403
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    if not layers:
        last = models.head(model)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m is not last}
    caught = {layer: [] for layer in layers.values()}

    def catch(layer, inputs, output):
        caught[layer].append(output.double().reshape(len(output), output.shape[1], -1).cpu())

    with ExitStack() as hooks:
        for layer in caught:
            hooks.enter_context(layer.register_forward_hook(catch))
        predict_logits(model, split, batch_size)
    flat = {name: torch.cat(caught[layer]).transpose(0, 1).flatten(1) for name, layer in layers.items()}
    return {name: units.std(1).mean().item() for name, units in flat.items()}


def _layout(images):
    # Convolutions are faster with the channel last; it changes no value.
    return images.contiguous(memory_format=torch.channels_last)


def accuracy(logits, labels):
    """Return the share of right predictions, in percent."""
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def agreement(logits, others):
    """Return the share of images on which two predictions name the same class, in percent."""
    return 100 * (logits.argmax(1) == others.argmax(1)).double().mean().item()


def nll(logits, labels):
    """Return the mean negative log-likelihood of the labels, in nats."""
    return F.cross_entropy(logits.double(), labels).item()


def entropy(logits):
    """Return the mean entropy of the predicted probabilities, in nats: 0 where a network is always sure."""
    log_probabilities = logits.double().log_softmax(1)
    # A probability that underflows is 0, and adds nothing.
    return -(log_probabilities.exp() * log_probabilities.nan_to_num(neginf=0.0)).sum(1).mean().item()


def margin(logits):
    """Return the mean difference of the two largest logits, in units of the logits' standard deviation.

    The standard deviation is that over all classes and images after each image's mean is taken
    off, so that a factor on all logits changes nothing.
    """
    wide = logits.double()
    centred = wide - wide.mean(1, keepdim=True)
    first, second = centred.topk(2, dim=1).values.unbind(1)
    spread = centred.square().mean().sqrt().clamp_min(1e-300)
    return ((first - second) / spread).mean().item()


def brier(logits, labels):
    """Return the mean squared distance of the probabilities from the one-hot labels, in [0, 2].

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability, eq. (2).
    """
    probabilities = logits.double().softmax(1)
    return (probabilities - F.one_hot(labels, logits.shape[1])).square().sum(1).mean().item()


def calibration_error(logits, labels, n_bins=15):
    """Return the expected calibration error, in percentage points.

    Parameters
    ----------
    logits : Tensor, shape (sample, class)
    labels : Tensor, int64, shape (sample,)
    n_bins : int
        Bins of the confidence, of equal width and closed on the right, so that 1 lies in the last one.

    Returns
    -------
    float

    References
    ----------
    Guo et al. (2017), On Calibration of Modern Neural Networks, eq. (3).
    https://arxiv.org/abs/1706.04599
    """
    _, confidence, right = confidence_bins(logits, labels, n_bins)
    return 100 * (right - confidence).abs().sum().item() / len(labels)


def confidence_bins(logits, labels, n_bins):
    """Return the images, the sum of their confidences and how many are right, in bins of the confidence.

    Bins are of equal width and closed on the right. Each of the three is a float64 Tensor of shape (bin,).
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    bins = (confidence * n_bins).ceil().long().clamp(1, n_bins) - 1
    values = torch.stack([torch.ones_like(right), confidence, right])
    return values.new_zeros(3, n_bins).index_add_(1, bins, values).unbind()


def fit_temperature(logits, labels):
    """Return the temperature T > 0 that minimises the NLL of ``logits / T``.

    For an ensemble average first and fit afterwards: averaging changes the confidence.

    References
    ----------
    Guo et al. (2017), Section 4.2. Rahaman and Thiery (2021), Section 4.
    """
    from scipy.optimize import minimize_scalar

    # Searched relative to the spread, so that any scale of logits will do.
    spread = float(logits.double().std().clamp_min(1e-30))
    unit = logits.double() / spread
    best = minimize_scalar(lambda t: nll(unit / 10**t, labels), bounds=(-3, 3), method="bounded")
    return spread * float(10**best.x)


def metrics(logits, labels):
    """Return accuracy, NLL, Brier score and calibration error as a dict of float."""
    return {
        "accuracy": accuracy(logits, labels),
        "nll": nll(logits, labels),
        "brier": brier(logits, labels),
        "calibration_error": calibration_error(logits, labels),
    }
