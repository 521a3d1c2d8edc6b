"""What the evaluation of the paper's released code does, one defect at a time.

Numbers D1 to D8 are those of the page of deviations. Nothing else in the package calls
these: they are arms of an experiment, not ways to evaluate a model.
"""

import copy
from dataclasses import replace

import torch

from . import models
from .config import derive_seed
from .data import Split
from .errors import ConfigError
from .evaluate import predict_logits
from .merge import Soup, interpolate
from .train import batches

__all__ = [
    "features_before_norm",
    "greedy_soup_by_halves",
    "leaked_selection",
    "train_mode_outputs",
    "with_other_normalisation",
]

# Means and standard deviations of CIFAR-10 and CIFAR-100 as the released code has them, in units of 0 to 1.
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def train_mode_outputs(model, split, *, seed, batch_size=64):
    """Return the logits and features of a model left in training mode (D1).

    Dropout stays on, and BatchNorm normalises each batch of test images by that batch's
    own statistics, whatever the model's running statistics are.

    Parameters
    ----------
    model : torch.nn.Module
        A copy is evaluated: running statistics are updated on the way.
    split : wamlib.data.Split
    seed : int
        Fixes the dropout masks.
    batch_size : int
        Images at a time; the released code takes 64.

    Returns
    -------
    logits : Tensor, float32, shape (sample, class)
    features : Tensor, float32, shape (sample, feature)
    """
    model, caught = copy.deepcopy(model).train(), []
    models.head(model).register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0].float()))
    order = batches(torch.arange(len(split), device=split.images.device), batch_size)
    cuda = [split.images.device] if split.images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        torch.manual_seed(derive_seed("released evaluation", seed))
        logits = [model(split.normalize(split.images[index])).float() for index in order]
    return torch.cat(logits), torch.cat(caught)


def with_other_normalisation(split):
    """Return a split whose images are normalised by the statistics of another data set (D4).

    The released code trains on CIFAR-10 with that set's mean and standard deviation and evaluates
    with those of CIFAR-100. Other data sets are given the same change in units of their own
    standard deviation; grey images the mean of the three channels'.

    Parameters
    ----------
    split : wamlib.data.Split

    Returns
    -------
    wamlib.data.Split
    """
    (mean10, std10), (mean100, std100) = (map(torch.tensor, pair) for pair in (CIFAR10, CIFAR100))
    contrast, shift = std10 / std100, (mean10 - mean100) / std100
    if len(split.mean) != 3:
        contrast, shift = contrast.mean().expand_as(split.mean), shift.mean().expand_as(split.mean)
    std = split.std / contrast.to(split.std)
    return replace(split, mean=split.mean - shift.to(std) * std, std=std)


def features_before_norm(model, split):
    """Return the features of a ViT as the released code reads them: without the last LayerNorm (D3).

    Parameters
    ----------
    model : torchvision.models.VisionTransformer
    split : wamlib.data.Split

    Returns
    -------
    Tensor, float32, shape (sample, feature)
        Of the class token.

    Raises
    ------
    ConfigError
        If the model has no last norm of that name.
    """
    norm = getattr(getattr(model, "encoder", None), "ln", None)
    if norm is None:
        doing, fix = "cannot read features before the last norm", "Take an architecture named vit."
        raise ConfigError(doing, type(model).__name__, "no encoder.ln", "torchvision's VisionTransformer", fix)
    caught = []
    with norm.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0][:, 0].float())):
        predict_logits(model, split)
    return torch.cat(caught)


def leaked_selection(dataset, seed):
    """Return selection images nine tenths of which every member was trained on (D7).

    The released code splits the training images once in training and anew when it merges, by another
    seed, so that 90 % of what it selects on has been trained on.

    Parameters
    ----------
    dataset : wamlib.data.Dataset
    seed : int
        Fixes which images.

    Returns
    -------
    wamlib.data.Split
        A ninth as many images as there are training images, as in the released split of 45,000 and 5,000.
    """
    generator = torch.Generator().manual_seed(derive_seed("leaked selection", seed))
    n_clean = max(1, min(round(len(dataset.train) / 90), len(dataset.selection) // 2))
    parts = [
        split.take(torch.randperm(len(split), generator=generator)[:n])
        for split, n in ((dataset.train, 9 * n_clean), (dataset.selection, n_clean))
    ]
    images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    return Split(images, labels, dataset.train.mean, dataset.train.std)


def greedy_soup_by_halves(members, score):
    """Return the released code's greedy soup (D8).

    It starts from the best member and goes through all members, itself included, in the order of
    their index; a candidate is the mean of the soup so far and the next member, so that early
    members count for ever less. A candidate is taken if the score does not fall.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
    score : callable
        Takes a state dict and returns a number, larger is better.

    Returns
    -------
    wamlib.merge.Soup
    """
    scores = [float(score(member)) for member in members]
    best = max(range(len(members)), key=scores.__getitem__)
    state, accepted, height = members[best], [best], scores[best]
    for index, member in enumerate(members):
        candidate = interpolate(state, member, 0.5)
        reached = float(score(candidate))
        if reached >= height:
            state, height = candidate, reached
            accepted.append(index)
    return Soup(state, accepted, scores, height)
