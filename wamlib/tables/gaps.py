"""The difference between the logit ensemble and the soup, and what it follows from."""

from dataclasses import replace
from statistics import fmean

import pandas as pd
import torch

from .. import ensemble, evaluate, probe
from ..merge import interpolate, uniform_soup
from ..predictions import fingerprint
from .distances import relative_distance
from .evaluator import Evaluator
from .kept import kept

__all__ = ["cross_terms", "gain_at_distance", "logit_gaps"]

STEPS = {"half way": 0.5, "at the soup": None}  # of the second difference; None is the derivative
N_DERIVATIVES = 100  # images that the derivative is taken for, which is slower


def cross_terms(pool, dataset, n_images=1_000):
    """Compare the gap of linear networks with the formula for it, in float64.

    With :math:`f_i(x) = H_i F_i x + b_i` and centred :math:`\\tilde H_i, \\tilde F_i`, ensemble
    minus soup is :math:`\\frac1N \\sum_i \\tilde H_i \\tilde F_i x`; with one layer it is zero.

    Parameters
    ----------
    pool : list of Run
        Members of architecture "linear" or "deep_linear".
    dataset : wamlib.data.Dataset
    n_images : int
        Use only the first so many test images.

    Returns
    -------
    DataFrame
        One row: spread (standard deviation of a logit of the ensemble), gap (root mean square of a logit's
        difference, ensemble minus soup), formula (the same of what the formula says), difference (largest
        absolute difference between the two), and soup_error and ensemble_error (percent).
    """
    split = dataset.test.take(slice(0, n_images))
    pixels = split.normalize(split.images).flatten(1).double()
    members = [{key: tensor.to(pixels.device, torch.float64) for key, tensor in run.state.items()} for run in pool]
    logits = torch.stack([_linear_logits(member, pixels) for member in members])
    mean = {key: torch.stack([member[key] for member in members]).mean(0) for key in members[0]}
    soup, pooled = _linear_logits(mean, pixels), logits.mean(0)
    formula = torch.zeros_like(soup)
    if "fc.weight" in mean:
        for member in members:
            head, hidden = (member[key] - mean[key] for key in ("head.weight", "fc.weight"))
            formula += pixels @ hidden.T @ head.T / len(members)
    return pd.DataFrame(
        [
            {
                "spread": pooled.std().item(),
                "gap": _rms(pooled - soup),
                "formula": _rms(formula),
                "difference": (pooled - soup - formula).abs().max().item(),
                "soup_error": 100 - evaluate.accuracy(soup, split.labels),
                "ensemble_error": 100 - evaluate.accuracy(pooled, split.labels),
            }
        ]
    )


def _linear_logits(state, pixels):
    hidden = pixels @ state["fc.weight"].T if "fc.weight" in state else pixels
    return hidden @ state["head.weight"].T + state["head.bias"]


@kept
def logit_gaps(pool, dataset, ways=(0.25, 0.5, 1.0), n_images=500, predictions=None):
    """Measure the gap between logit ensemble and soup as the members move towards their soup, and predict it.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    ways : sequence of float
        Shares s of the way from the soup to each member: a member stands at ``soup + s (member - soup)``.
        The soup of such members is the same at every s. BatchNorm's running statistics move with the weights.
    n_images : int
        Use only the first so many test images.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per way: way, distance (of the members from the soup, relative to the norm of the soup), gap
        (root mean square over images and classes of ensemble minus soup, each image's mean over classes
        taken off), for each of the two steps of `STEPS` predicted_gap and explained
        (share of the squared gap that the prediction accounts for; below 0 where it is worse
        than predicting none), nll_gap (soup minus ensemble, nats) and predicted_nll_gap.

    References
    ----------
    Wortsman et al. (2022), Model soups, Section 4.
    """
    split = dataset.test.take(slice(0, n_images))
    evaluator = Evaluator(pool[0].config.model, replace(dataset, test=split), predictions)
    states = [run.state for run in pool]
    soup = uniform_soup(states)
    middle, distance = evaluator.logits(soup), relative_distance(states)
    bends = {name: _centred(_bend(evaluator, states, step, predictions)) for name, step in STEPS.items()}
    rows = []
    for way in ways:
        moved = states if way == 1 else [interpolate(soup, state, way) for state in states]
        pooled = ensemble.logit_ensemble([evaluator.logits(state) for state in moved])
        gap = _centred(pooled - middle)
        row = {"way": way, "distance": way * distance, "gap": _rms(gap)}
        row["nll_gap"] = evaluate.nll(middle, split.labels) - evaluate.nll(pooled, split.labels)
        slope = torch.nn.functional.one_hot(split.labels, middle.shape[1]) - middle.double().softmax(1)
        for name, bend in bends.items():
            predicted, seen = bend * way**2, gap[: len(bend)]
            row[f"predicted_gap, {name}"] = _rms(predicted)
            row[f"explained, {name}"] = 1 - (seen - predicted).square().sum().item() / seen.square().sum().item()
            # To first order in the gap, with the gradient of the loss at the soup.
            row[f"predicted_nll_gap, {name}"] = (slope[: len(bend)] * predicted).sum(1).mean().item()
        rows.append(row)
    return pd.DataFrame(rows)


def _bend(evaluator, states, step, predictions):
    """Return the second difference of the logits on the test images, or the second derivative on the first of them."""
    split = evaluator.dataset.test
    images = split.normalize(split.images)
    if step is None:
        images = images[:N_DERIVATIVES]

    def compute():
        return probe.second_order_gap(evaluator.load(states[0]), states, images, step)

    if predictions is None:
        return compute()
    read = fingerprint({"images": images})
    key = ["second_order_gap", evaluator.model, *(fingerprint(state) for state in states), read, str(step)]
    return predictions.get(key, compute).to(images.device)


def _centred(logits):
    """Take off each image's mean over classes, which no softmax sees."""
    wide = logits.double()
    return wide - wide.mean(1, keepdim=True)


def _rms(tensor):
    return tensor.double().square().mean().sqrt().item()


@kept
def gain_at_distance(pool, dataset, distance, predictions=None):
    """Measure the gain of a soup over members that are moved to a given distance from it.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    distance : float
        Relative to the norm of the soup, as `relative_distance`.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row: way (share of the way to the members, 1 where they are), distance, gain (test accuracy of
        the soup minus mean of the moved members', points, BatchNorm recalibrated in all).
    """
    evaluator = Evaluator(pool[0].config.model, dataset, predictions)
    states, labels = [run.state for run in pool], dataset.test.labels
    soup = uniform_soup(states)
    way = distance / relative_distance(states)
    moved = [interpolate(soup, state, way) for state in states]
    accuracy = [evaluate.accuracy(evaluator.logits(state, recalibrate=True), labels) for state in (soup, *moved)]
    return pd.DataFrame([{"way": way, "distance": distance, "gain": accuracy[0] - fmean(accuracy[1:])}])
