"""Averages of weight rows: of two classes of one member, and of several members."""

import itertools
import math
from statistics import fmean

import pandas as pd
import torch

from .. import evaluate, probe
from ..ensemble import logit_ensemble
from ..errors import ProbeError
from ..linear import predict_together
from ..merge import interpolate, uniform_soup
from .evaluator import Evaluator, as_read_by

__all__ = ["class_mixtures", "class_pairs", "linear_soups", "member_mixtures"]

MAX_PAIRS = 45  # of classes: all pairs of ten


def class_pairs(runs, dataset):
    """Put the mean of two weight rows in place of both, for many pairs of classes.

    Parameters
    ----------
    runs : list of Run
        Linear members.
    dataset : wamlib.data.Dataset

    Returns
    -------
    DataFrame
        One row per member and pair of classes (at most 45 pairs): seed, first, second, own
        (correlation of the mean row with the mean of the two centred class means), null (mean
        correlation with such means of pairs that share no class with it), lower_recall and
        mean_recall (percent of the images of a class that the mean row wins: of the class it
        serves worse, and mean of the two), other_recall (percent of the images of all other
        classes that it wins: what both recalls have to beat) and separate_recall (percent of
        images of the two classes that one of the two separate rows wins).

    Raises
    ------
    ProbeError
        If there are fewer than four classes, and so no pairs that share none.
    """
    if len(dataset.classes) < 4:
        raise ProbeError(
            "cannot compare pairs of classes",
            item=dataset.name,
            got=f"{len(dataset.classes)} classes",
            wanted="at least 4",
            fix="Use a data set with more classes.",
        )
    n_classes, shape = len(dataset.classes), dataset.test.images.shape[1:]
    pairs = _pairs(n_classes)
    evaluator, labels = Evaluator("linear", as_read_by(runs[0], dataset)), dataset.test.labels
    means = probe.class_means(dataset.train, n_classes).cpu()
    first, second = (torch.tensor(part) for part in zip(*pairs, strict=True))
    mean_of_means = (means[first] + means[second]) / 2
    disjoint = ~((first[:, None, None] == torch.stack([first, second], 1)).any(2)
                 | (second[:, None, None] == torch.stack([first, second], 1)).any(2))  # fmt: skip
    rows = []
    for run in runs:
        pictures = probe.templates(run.state, shape)
        correlation = probe.template_match((pictures[first] + pictures[second]) / 2, mean_of_means).correlation
        null = (correlation * disjoint).sum(1) / disjoint.sum(1)
        logits = evaluator.logits(run.state)
        for number, (i, j) in enumerate(pairs):
            recalls, own = [_wins(logits[labels == k], i, j, 0.5) for k in (i, j)], (labels == i) | (labels == j)
            separate = logits[own].argmax(1)
            rows.append(
                {
                    "seed": run.config.seed,
                    "first": dataset.classes[i],
                    "second": dataset.classes[j],
                    "own": correlation[number, number].item(),
                    "null": null[number].item(),
                    "lower_recall": min(recalls),
                    "mean_recall": sum(recalls) / 2,
                    "separate_recall": 100 * ((separate == i) | (separate == j)).double().mean().item(),
                    "other_recall": _wins(logits[~own], i, j, 0.5),
                }
            )
    return pd.DataFrame(rows)


def class_mixtures(run, dataset, alphas, n_classes=10):
    """Measure who is recalled by a mixture of two rows, over mixing weights.

    Parameters
    ----------
    run : Run
        A linear member.
    dataset : wamlib.data.Dataset
    alphas : sequence of float
        Mixing weights: the row is ``(1 - alpha) * first + alpha * second`` and stands for both.
    n_classes : int
        Only the first so many classes are paired.

    Returns
    -------
    DataFrame
        Columns first, second (indices of classes, first < second), alpha, recall_first and
        recall_second (percent of the test images of each class that the mixture wins).
    """
    logits, labels = Evaluator("linear", as_read_by(run, dataset)).logits(run.state), dataset.test.labels
    rows = []
    for i, j in itertools.combinations(range(min(n_classes, len(dataset.classes))), 2):
        of_first, of_second = logits[labels == i], logits[labels == j]
        for alpha in alphas:
            recalls = {"recall_first": _wins(of_first, i, j, alpha), "recall_second": _wins(of_second, i, j, alpha)}
            rows.append({"first": i, "second": j, "alpha": alpha, **recalls})
    return pd.DataFrame(rows)


def member_mixtures(a, b, dataset, alphas):
    """Measure the test accuracy along the line between two members, as columns alpha and accuracy (percent)."""
    evaluator = Evaluator(a.config.model, as_read_by(a, dataset))
    accuracies = [100 - evaluator.error(interpolate(a.state, b.state, alpha)) for alpha in alphas]
    return pd.DataFrame({"alpha": alphas, "accuracy": accuracies})


def _wins(logits, i, j, alpha):
    """Return the share of images, in percent, whose mixed logit is above those of all classes but i and j."""
    mixed = (1 - alpha) * logits[:, i] + alpha * logits[:, j]
    others = logits.clone()
    others[:, [i, j]] = -torch.inf
    return 100 * (mixed > others.max(1).values).double().mean().item()


def _pairs(n_classes):
    pairs = list(itertools.combinations(range(n_classes), 2))
    return pairs[:: math.ceil(len(pairs) / MAX_PAIRS)]


def linear_soups(groups, dataset, sizes):
    """Average the weights of N linear members, and their logits, for subsets that share no member.

    Parameters
    ----------
    groups : dict of list of Run
        As `wamlib.sweeps.linear_members` names them; groups with fewer members than the
        largest size give only the smaller sizes.
    dataset : wamlib.data.Dataset
    sizes : sequence of int
        Numbers N of members; of M members M // N subsets are made, and they are independent.

    Returns
    -------
    DataFrame
        One row per subset: group, n_members, subset, own (correlation of the soup's rows with
        the centred mean of the own class), member_own (mean over members), accuracy,
        member_accuracy and ensemble_accuracy (percent), and difference (largest absolute
        difference between a logit of the soup and of the logit ensemble, over all test images
        and classes, computed in float64 from the soup's float32 weights).
    """
    n_classes, shape = len(dataset.classes), dataset.test.images.shape[1:]
    means = probe.class_means(dataset.train, n_classes).cpu()
    rows = []
    for group, runs in groups.items():
        states = [run.state for run in runs]
        chosen = [slice(first, first + n) for n in sizes for first in range(0, len(runs) - n + 1, n)]
        states += [uniform_soup(states[members]) for members in chosen]
        own = [probe.template_match(probe.templates(state, shape), means).own.mean().item() for state in states]
        logits = predict_together(states, as_read_by(runs[0], dataset).test, torch.float64)
        accuracy = [evaluate.accuracy(one, dataset.test.labels) for one in logits]
        for place, members in enumerate(chosen, start=len(runs)):
            of_ensemble, n = logit_ensemble(logits[members]), members.stop - members.start
            rows.append(
                {
                    "group": group,
                    "n_members": n,
                    "subset": members.start // n,
                    "own": own[place],
                    "member_own": fmean(own[members]),
                    "accuracy": accuracy[place],
                    "member_accuracy": fmean(accuracy[members]),
                    "ensemble_accuracy": evaluate.accuracy(of_ensemble, dataset.test.labels),
                    "difference": (logits[place] - of_ensemble).abs().max().item(),
                }
            )
    return pd.DataFrame(rows)
