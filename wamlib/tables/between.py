"""Two members at a time: how far apart they are, and what lies between them."""

import itertools

import pandas as pd

from .. import evaluate, probe
from .evaluator import Evaluator

__all__ = ["pairs", "path"]


def pairs(pool):
    """Compare the members of a pool two by two.

    Parameters
    ----------
    pool : list of Run

    Returns
    -------
    DataFrame
        Columns a, b (positions), distance (of the weights, relative to the mean of
        the two norms) and agreement (same prediction on test images, in percent).
    """
    rows = []
    for (i, a), (j, b) in itertools.combinations(enumerate(pool), 2):
        norm = (probe.weight_norm(a.state) + probe.weight_norm(b.state)) / 2
        agreement = evaluate.agreement(a.logits["test"], b.logits["test"])
        rows.append({"a": i, "b": j, "distance": probe.distance(a.state, b.state) / norm, "agreement": agreement})
    return pd.DataFrame(rows)


def path(a, b, dataset, alphas):
    """Measure the test error along the line between two members.

    Parameters
    ----------
    a, b : Run
        Two members of one architecture.
    dataset : wamlib.data.Dataset
    alphas : sequence of float
        Mixing weights in [0, 1], with both ends.

    Returns
    -------
    DataFrame
        Columns alpha, error (percent), recalibrated (bool; only False without
        BatchNorm) and barrier (percentage points, the same on every row of a line).
    """
    evaluator = Evaluator(a.config.model, dataset)
    tables = []
    for recalibrate in (False, True) if evaluator.has_batchnorm else (False,):
        line = probe.barrier(a.state, b.state, lambda s, r=recalibrate: evaluator.error(s, recalibrate=r), alphas)
        columns = {"alpha": line.alphas, "error": line.errors, "recalibrated": recalibrate, "barrier": line.height}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
