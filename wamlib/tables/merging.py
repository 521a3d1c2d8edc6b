"""Merges other than the mean, on the same members."""

import itertools
from statistics import fmean

import pandas as pd

from .. import evaluate
from ..merge import (
    LearnedSoup,
    dare,
    fisher,
    fisher_diagonal,
    gram_matrices,
    learned_soup,
    model_stock,
    regmean,
    task_arithmetic,
    ties,
    uniform_soup,
)
from .evaluator import Evaluator

__all__ = ["merges"]

SCALES = (0.5, 1.0, 1.5)  # of the mean task vector
DENSITIES = (0.2, 0.5, 1.0)
N_FISHER, N_GRAM = 100, 500  # training images
EPOCHS, LR = 2, 0.3  # of the learned soups


def merges(pool, base, dataset):
    """Compare the merges of one pool.

    What a merge has to choose, a scale or a density, is chosen on the selection
    split; every merge is then scored once on the test split, its BatchNorm
    recalibrated.

    Parameters
    ----------
    pool : list of Run
        Members of one pool.
    base : dict of str to Tensor
        The weights that their training began with.
    dataset : wamlib.data.Dataset
        The one they were trained on.

    Returns
    -------
    DataFrame
        Columns merge, chosen (the parameters chosen, as text), largest_share (of one
        member in a learned soup, mean over tensors) and the test metrics of
        `wamlib.evaluate.metrics`. The row "member" is the mean over the members.
    """
    evaluator = Evaluator(pool[0].config.model, dataset)
    members, labels = [run.state for run in pool], dataset.test.labels
    rows = [{"merge": "member", "chosen": "", **_mean_metrics(pool)}]
    for name, candidates in _candidates(evaluator, base, members).items():
        chosen, state = _best(evaluator, candidates)
        largest = None
        if isinstance(state, LearnedSoup):
            largest = fmean(max(shares) for shares in state.shares.values())
            state = state.state
        metrics = evaluate.metrics(evaluator.logits(state, recalibrate=True), labels)
        rows.append({"merge": name, "chosen": chosen, "largest_share": largest, **metrics})
    return pd.DataFrame(rows)


def _candidates(evaluator, base, members):
    """Return ``{merge: {parameters as text: function that merges}}``."""
    mean = 1 / len(members)
    selection = [*evaluator.dataset.selection.batches()]

    def per(share):
        # Every merge below is recalibrated before it is scored.
        model = evaluator.load(members[0])
        settings = {"epochs": EPOCHS, "lr": LR, "batch_statistics": True}
        return lambda: learned_soup(members, model, selection, per=share, **settings)

    def by_curvature():
        images = evaluator.training_batches(N_FISHER)
        return fisher(members, [fisher_diagonal(evaluator.load(member), images) for member in members])

    def by_regression():
        images = evaluator.training_batches(N_GRAM)
        return regmean(members, [gram_matrices(evaluator.load(member), images) for member in members])

    return {
        "uniform soup": {"": lambda: uniform_soup(members)},
        "learned soup, per model": {"": per("model")},
        "learned soup, per tensor": {"": per("tensor")},
        "task arithmetic": {f"scale {c:g}": lambda c=c: task_arithmetic(base, members, c * mean) for c in SCALES},
        "TIES": {
            f"density {d:g}, scale {c:g}": lambda d=d, c=c: ties(base, members, d, scale=c)
            for d, c in itertools.product(DENSITIES, SCALES)
        },
        "DARE": {f"density {d:g}": lambda d=d: dare(base, members, d, seed=0) for d in DENSITIES[:-1]},
        "Fisher": {"": by_curvature},
        "RegMean": {"": by_regression},
        "Model Stock": {"": lambda: model_stock(base, members)},
    }


def _best(evaluator, candidates):
    """Return the parameters and the weights of the merge with the highest accuracy on the selection split."""
    if len(candidates) == 1:
        return next((text, merge()) for text, merge in candidates.items())
    merged = {text: merge() for text, merge in candidates.items()}
    scores = {text: evaluator.selection_accuracy(state, recalibrate=True) for text, state in merged.items()}
    best = max(scores, key=scores.get)
    return best, merged[best]


def _mean_metrics(pool):
    return pd.DataFrame([run.record["metrics"]["test"] for run in pool]).mean().to_dict()
