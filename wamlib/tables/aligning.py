"""The line between two independent members, before and after their units are matched."""

import itertools
from dataclasses import replace

import pandas as pd

from .. import align, evaluate, probe
from ..merge import interpolate, recalibrate_batchnorm
from .evaluator import Evaluator

__all__ = ["MATCHINGS", "REPAIRS", "alignment", "hidden_permutation", "unit_spread"]

MATCHINGS = ("none", "weights", "activations")
REPAIRS = ("none", "recalibrated", "REPAIR")
N_TRAINING = 1_000  # training images whose activations are matched, and that statistics are repaired on


def alignment(a, b, dataset, alphas, *, matchings=MATCHINGS, n_images=None):
    """Measure the test error along the line between two members, by matching and by repair.

    Parameters
    ----------
    a, b : Run
        Two members of one architecture; the units of b are matched to those of a.
    dataset : wamlib.data.Dataset
    alphas : sequence of float
        Mixing weights in [0, 1], with both ends.
    matchings : sequence of str
        Of "none", "weights" and "activations".
    n_images : int or None
        Use only the first so many test images.

    Returns
    -------
    DataFrame
        Columns matching ("none", "weights" or "activations"), repair ("none",
        "recalibrated", which networks without BatchNorm do not have, or "REPAIR"),
        alpha, error (percent), barrier (percentage points, the same on every row of
        a line) and distance (of the weights, relative to the mean of the two norms).
    """
    dataset = dataset if n_images is None else replace(dataset, test=dataset.test.take(slice(0, n_images)))
    evaluator = Evaluator(a.config.model, dataset)
    norm = (probe.weight_norm(a.state) + probe.weight_norm(b.state)) / 2
    repairs = [repair for repair in REPAIRS if evaluator.has_batchnorm or repair != "recalibrated"]
    # A permuted member is the same function, so both ends are the same for every matching.
    known = {
        (alpha, repair): mended_error(evaluator, (a.state, b.state), alpha, repair)
        for alpha, repair in itertools.product((0, 1), repairs)
    }
    tables = []
    for matching in matchings:
        ends = a.state, matched(evaluator, a.state, b.state, matching)
        for repair in repairs:
            errors = [known[x, repair] if x in (0, 1) else mended_error(evaluator, ends, x, repair) for x in alphas]
            columns = {"alpha": alphas, "error": errors, "barrier": probe.barrier_height(alphas, errors)}
            columns |= {"matching": matching, "repair": repair, "distance": probe.distance(*ends) / norm}
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def hidden_permutation(run, dataset, *, n_images=None, seed=0):
    """Hide a random permutation in a copy of a member, and match the copy with the original.

    Parameters
    ----------
    run : Run
        A member.
    dataset : wamlib.data.Dataset
    n_images : int or None
        Use only the first so many test images.
    seed : int
        Fixes the hidden permutation.

    Returns
    -------
    DataFrame
        One row: agreement (same prediction of copy and original, percent);
        shuffled_distance and shuffled_barrier between the two (relative to the norm;
        percentage points at the midpoint), and matched_distance and matched_barrier
        after matching by weights.
    """
    dataset = dataset if n_images is None else replace(dataset, test=dataset.test.take(slice(0, n_images)))
    evaluator = Evaluator(run.config.model, dataset)
    copy = align.apply(align.random_permutation(evaluator.module, seed=seed), run.state)
    logits = evaluator.logits(run.state)
    row = {"agreement": evaluate.agreement(logits, evaluator.logits(copy))}
    for name, other in (("shuffled", copy), ("matched", matched(evaluator, run.state, copy, "weights"))):
        line = probe.barrier(run.state, other, evaluator.error, [0.0, 0.5, 1.0])
        row[f"{name}_distance"] = probe.distance(run.state, other) / probe.weight_norm(run.state)
        row[f"{name}_barrier"] = line.height
    return pd.DataFrame([row])


def matched(evaluator, a, b, matching):
    """Return the weights of b with its units in the order that matches those of a."""
    if matching == "none":
        return b
    batches = evaluator.training_batches(N_TRAINING) if matching == "activations" else None
    return align.apply(align.permutation(a, b, evaluator.module, by=matching, batches=batches), b)


def mended(evaluator, ends, alpha, repair):
    """Return the network at one point of the line after one kind of repair."""
    module, images = evaluator.load(interpolate(*ends, alpha)), evaluator.training_batches(N_TRAINING)
    if repair == "recalibrated":
        recalibrate_batchnorm(module, images)
    elif repair == "REPAIR" and alpha not in (0, 1):  # a member on its own has the spread that it has
        align.repair(module, ends, images, weights=[1 - alpha, alpha])
    return module


def mended_error(evaluator, ends, alpha, repair):
    """Return the test error, in percent, of one point of the line after one kind of repair."""
    logits = evaluate.predict_logits(mended(evaluator, ends, alpha, repair), evaluator.dataset.test)
    return 100 - evaluate.accuracy(logits, evaluator.dataset.test.labels)


def unit_spread(a, b, dataset, *, n_images=500):
    """Measure how much the units of the midpoint vary, layer by layer, against those of the two members.

    Parameters
    ----------
    a, b : Run
        Two members of one architecture.
    dataset : wamlib.data.Dataset
    n_images : int
        Test images to measure on.

    Returns
    -------
    DataFrame
        Columns matching ("none" or "weights"), repair, layer (its name), depth (from 1)
        and spread: standard deviation of the layer's output over images, averaged over
        units, divided by the mean of the same number for the two members.
    """
    evaluator = Evaluator(a.config.model, dataset)
    images = dataset.test.take(slice(0, n_images))
    members = [evaluate.layer_spread(evaluator.load(run.state), images) for run in (a, b)]
    rows = []
    for matching in ("none", "weights"):
        ends = a.state, matched(evaluator, a.state, b.state, matching)
        for repair in REPAIRS:
            if repair == "recalibrated" and not evaluator.has_batchnorm:
                continue
            found = evaluate.layer_spread(mended(evaluator, ends, 0.5, repair), images)
            for depth, (layer, spread) in enumerate(found.items(), start=1):
                reference = (members[0][layer] + members[1][layer]) / 2
                rows.append({"matching": matching, "repair": repair, "layer": layer, "depth": depth,
                             "spread": spread / reference})  # fmt: skip
    return pd.DataFrame(rows)
