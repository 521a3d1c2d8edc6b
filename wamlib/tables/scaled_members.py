"""Soups in which some members were scaled: what they are, and whether a greedy soup takes them."""

from dataclasses import replace

import pandas as pd

from .. import evaluate, probe
from ..merge import greedy_soup, is_learnable, uniform_soup
from ..released import greedy_soup_by_halves as by_halves
from .evaluator import Evaluator
from .kept import kept

__all__ = ["greedy_soups_of_scaled", "one_member_scaled"]


@kept
def one_member_scaled(pool, dataset, factors, n_images=500, predictions=None):
    """Compare the soup whose first member is scaled with the weighted average that gives it a larger share.

    With :math:`\\theta_1` multiplied by c, the uniform soup is

    .. math:: \\frac1N \\Big( c\\,\\theta_1 + \\sum_{i>1} \\theta_i \\Big)
              = s \\Big( w\\,\\theta_1 + \\frac{1 - w}{N - 1} \\sum_{i>1} \\theta_i \\Big),
              \\qquad w = \\frac{c}{c + N - 1}, \\quad s = \\frac{c + N - 1}{N} ,

    the weighted average with share w for the first member, scaled by s as a whole.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    factors : sequence of float
        Scale factors c on all learnable tensors of the first member.
    n_images : int
        Use only the first so many test images.
    predictions : wamlib.predictions.Predictions or None
        Where the table is kept.

    Returns
    -------
    DataFrame
        One row per factor: c, share (w), difference (largest difference between any tensor of the soup and of s
        times the weighted average, relative to the largest entry of that tensor), accuracy (percent, of the soup
        with a scaled member), weighted (of the weighted average) and agreement of the two (percent). BatchNorm
        is recalibrated in both.
    """
    evaluator = Evaluator(pool[0].config.model, replace(dataset, test=dataset.test.take(slice(0, n_images))))
    labels = evaluator.dataset.test.labels
    first, *others = (run.state for run in pool)
    rows = []
    for factor in factors:
        share, rest = factor / (factor + len(others)), 1 / (factor + len(others))
        soup = uniform_soup([probe.scale(first, factor, "learnable"), *others])
        weighted = uniform_soup([first, *others], weights=[share, *[rest] * len(others)])
        logits, expected = (evaluator.logits(state, recalibrate=True) for state in (soup, weighted))
        rows.append(
            {
                "c": factor,
                "share": share,
                "difference": _difference(soup, probe.scale(weighted, 1 / (rest * len(pool)), "learnable")),
                "accuracy": evaluate.accuracy(logits, labels),
                "weighted": evaluate.accuracy(expected, labels),
                "agreement": evaluate.agreement(logits, expected),
            }
        )
    return pd.DataFrame(rows)


def _difference(state, other):
    """Return the largest difference of any entry, relative to the largest entry of its tensor."""
    learnable = [key for key in state if is_learnable(key)]
    apart = [(state[key] - other[key]).abs().max() / other[key].abs().max().clamp_min(1e-30) for key in learnable]
    return max(ratio.item() for ratio in apart)


@kept
def greedy_soups_of_scaled(pool, dataset, factors, *, n_selection=300, predictions=None):
    """Count the scaled members that a greedy soup takes, under the released protocol and under this book's.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    factors : sequence of float
        Scale factors c; 1 is a row to compare with.
    n_selection : int
        Use only the first so many selection images.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per factor and protocol: c, protocol, offered (scaled members), accepted (how many of them are in
        the soup) and accuracy (of the soup, test images, percent). The member with the best selection accuracy is
        left as it is, as in the released code; all others are scaled. "corrected": learnable tensors are
        scaled, the soup is that of `wamlib.merge.greedy_soup`, and BatchNorm is recalibrated in every candidate.
        "released": every entry is scaled, the soup averages by halves in the order of the members
        (`wamlib.released.greedy_soup_by_halves`), and nothing is recalibrated.
    """
    evaluator = Evaluator(
        pool[0].config.model,
        replace(dataset, selection=dataset.selection.take(slice(0, n_selection))),
        predictions,
    )
    labels = evaluator.dataset.selection.labels
    members = [run.state for run in pool]
    alone = [evaluate.accuracy(run.logits["selection"][: len(labels)].to(labels.device), labels) for run in pool]
    best = max(range(len(members)), key=alone.__getitem__)
    others = [member for index, member in enumerate(members) if index != best]
    ways = {"corrected": ("learnable", greedy_soup, True), "released": ("everything", by_halves, False)}
    rows = []
    for factor in factors:
        for protocol, (scope, choose, recalibrate) in ways.items():
            offered = [members[best], *(probe.scale(member, factor, scope) for member in others)]

            def score(state, recalibrate=recalibrate):
                return evaluator.selection_accuracy(state, recalibrate=recalibrate)

            soup = choose(offered, score)
            accuracy = 100 - evaluator.error(soup.state, recalibrate=recalibrate)
            accepted = len(set(soup.accepted) - {0})
            rows.append({"c": factor, "protocol": protocol, "offered": len(others), "accepted": accepted,
                         "accuracy": accuracy})  # fmt: skip
    return pd.DataFrame(rows)
