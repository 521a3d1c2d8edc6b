"""Two or three members at a time: how far apart they are, and what lies between them."""

import functools
import itertools

import pandas as pd

from .. import evaluate, probe
from ..merge import uniform_soup
from .evaluator import Evaluator
from .kept import kept

__all__ = ["pairs", "path", "plane"]


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


@kept
def plane(pool, dataset, n_points=21, n_images=1_000, predictions=None):
    """Measure the test error over the plane through the first three members of a pool.

    Parameters
    ----------
    pool : list of Run
        Three members of one architecture, at least.
    dataset : wamlib.data.Dataset
    n_points : int
        Points along each axis of the grid.
    n_images : int
        Only the first so many test images are evaluated.
    predictions : wamlib.predictions.Predictions or None
        Where the table is kept.

    Returns
    -------
    DataFrame
        Columns place ("grid"; "A", "B", "C": the members; "soup": the mean of the three), u, v (coordinates, see
        `wamlib.probe.Plane`) and error (percent; with BatchNorm recalibrated at every point, the members included).
    """
    evaluator = Evaluator.of_first(pool, dataset, n_images, 1)
    states = [run.state for run in pool[:3]]
    error = functools.partial(evaluator.error, recalibrate=evaluator.has_batchnorm)
    found = probe.plane(*states, error, n_points)
    rows = [
        {"place": "grid", "u": u, "v": v, "error": value}
        for v, line in zip(found.vs, found.errors)
        for u, value in zip(found.us, line)
    ]
    for letter, (u, v), state in zip("ABC", found.members, states):
        rows.append({"place": letter, "u": u, "v": v, "error": error(state)})
    middle = [sum(axis) / 3 for axis in zip(*found.members)]
    rows.append({"place": "soup", "u": middle[0], "v": middle[1], "error": error(uniform_soup(states))})
    return pd.DataFrame(rows)
