"""What a scale factor does to members, soups and ensembles."""

import itertools
from statistics import fmean

import pandas as pd
import torch

from .. import ensemble, evaluate, probe, released
from ..errors import ProbeError
from ..merge import greedy_soup, uniform_soup
from ..predictions import fingerprint
from .evaluator import Evaluator
from .kept import kept

__all__ = ["layer_scales", "released_scales", "scales"]

COHERENT = ("homogeneous", "batchnorm")  # scopes that not every architecture has
N_SELECTION = 300  # selection images that greedy soups are chosen on


@kept
def scales(pool, dataset, factors, scopes, n_images=500, predictions=None):
    """Measure what a scale factor does to members, soups and ensembles.

    Parameters
    ----------
    pool : list of Run
        Members of one pool.
    dataset : wamlib.data.Dataset
    factors : sequence of float
        Scale factors c.
    scopes : sequence of str
        Scopes of `wamlib.probe.scale`. One that is not defined for the architecture is left out.
    n_images : int
        Use only the first so many test images.
    predictions : wamlib.predictions.Predictions or None
        Where the table is kept.

    Returns
    -------
    DataFrame
        One row per scope, factor and combination ("member", whose numbers are the mean over the members;
        "uniform soup"; "greedy soup"; "logit ensemble"; "probability ensemble"): scope, c, combination,
        accuracy (percent), agreement with the same at c = 1 (percent), nll and entropy (nats), margin (see
        `wamlib.evaluate.margin`) and finite (share of images with nothing but finite logits, percent). An image
        with a logit that overflowed counts as wrong and as no agreement; nll, entropy and margin are then NaN.
        BatchNorm of the soups is recalibrated once, before scaling.
    """
    evaluator = Evaluator.of_first(pool, dataset, n_images, N_SELECTION)
    labels = evaluator.dataset.test.labels
    networks = _networks([run.state for run in pool], evaluator)
    plain = {name: evaluator.logits(state) for name, state in networks.items()}
    reference = _combine(plain)
    rows, known = [], {}
    for scope, factor in itertools.product(scopes, factors):
        if scope in COHERENT and not _is_defined(scope, networks["member 0"]):
            continue
        scaled = {name: probe.scale(state, factor, scope) for name, state in networks.items()}
        key = fingerprint(scaled["member 0"])  # scopes may multiply the same tensors, and at c = 1 all do
        if key not in known:
            # Behind the head nothing is left to compute.
            logits = {
                name: factor * plain[name] if scope == "head" else evaluator.logits(state)
                for name, state in scaled.items()
            }
            known[key] = _rows(_combine(logits), reference, labels)
        rows += [{"scope": scope, "c": factor, **row} for row in known[key]]
    return pd.DataFrame(rows)


@kept
def layer_scales(pool, dataset, factors, n_images=250, predictions=None):
    """Measure what scaling one layer at a time does to the members and to their soup.

    Parameters
    ----------
    pool, dataset, n_images, predictions
        As for `scales`.
    factors : sequence of float
        Scale factors c on weight and bias of the layer.

    Returns
    -------
    DataFrame
        One row per layer, factor and combination ("member": the first one; "uniform soup"): layer, depth (its
        number, from 1), c, combination and drop (accuracy at c = 1 minus accuracy at c, points). An image whose
        logits overflow counts as wrong.
    """
    evaluator = Evaluator.of_first(pool, dataset, n_images, N_SELECTION)
    labels = evaluator.dataset.test.labels
    soup = evaluator.recalibrated(uniform_soup([run.state for run in pool]))
    rows = []
    for combination, state in (("member", pool[0].state), ("uniform soup", soup)):
        before = _accuracy(evaluator.logits(state), labels)
        for (depth, layer), factor in itertools.product(enumerate(probe.layers(state), start=1), factors):
            after = _accuracy(evaluator.logits(probe.scale(state, factor, layer=layer)), labels)
            row = {"layer": layer, "depth": depth, "c": factor, "combination": combination}
            rows.append(row | {"drop": before - after})
    return pd.DataFrame(rows)


@kept
def released_scales(pool, dataset, factors, n_images=500, predictions=None):
    """Measure the same as the released code does: every entry of the state dict scaled, all networks in training mode.

    Parameters
    ----------
    pool, dataset, factors, n_images, predictions
        As for `scales`.

    Returns
    -------
    DataFrame
        Columns c, combination ("member", "uniform soup", "logit ensemble") and accuracy (percent).
    """
    evaluator = Evaluator.of_first(pool, dataset, n_images, N_SELECTION)
    split = evaluator.dataset.test
    states = [run.state for run in pool]
    networks = {f"member {index}": state for index, state in enumerate(states)}
    networks["uniform soup"] = uniform_soup(states)  # batch statistics do away with running ones
    rows = []
    for factor in factors:
        logits = {
            name: released.train_mode_outputs(
                evaluator.load(probe.scale(state, factor, "everything")), split, seed=seed
            )[0]
            for seed, (name, state) in enumerate(networks.items())
        }
        combined = _combine(logits)
        for combination in ("member", "uniform soup", "logit ensemble"):
            accuracy = fmean(_accuracy(one, split.labels) for one in combined[combination])
            rows.append({"c": factor, "combination": combination, "accuracy": accuracy})
    return pd.DataFrame(rows)


def _is_defined(scope, state):
    """Return whether an architecture has a scope; a ViT has no coherent one, for LayerNorm passes no scale on."""
    try:
        probe.scale(state, 1.0, scope)
    except ProbeError:
        return False
    return True


def _networks(members, evaluator):
    """Return members and soups by name, BatchNorm of soups recalibrated; a greedy soup of all is not there twice."""
    networks = {f"member {index}": state for index, state in enumerate(members)}
    networks["uniform soup"] = evaluator.recalibrated(uniform_soup(members))
    greedy = greedy_soup(members, lambda state: evaluator.selection_accuracy(state, recalibrate=True))
    if len(greedy.accepted) == 1:
        networks["greedy soup"] = members[greedy.accepted[0]]
    elif len(greedy.accepted) < len(members):
        networks["greedy soup"] = evaluator.recalibrated(greedy.state)
    return networks


def _combine(logits):
    """Return the logits of each combination as a list: of several for members, whose numbers are averaged."""
    members = [found for name, found in logits.items() if name.startswith("member")]
    probabilities = ensemble.probability_ensemble(members)
    return {
        "member": members,
        "uniform soup": [logits["uniform soup"]],
        "greedy soup": [logits.get("greedy soup", logits["uniform soup"])],
        "logit ensemble": [ensemble.logit_ensemble(members)],
        "probability ensemble": [probabilities.clamp_min(1e-30).log()],
    }


def _rows(combined, reference, labels):
    """Return one row per combination, each number the mean over its networks."""
    rows = []
    for combination, networks in combined.items():
        pairs = zip(networks, reference[combination], strict=True)
        measured = pd.DataFrame([_measure(logits, before, labels) for logits, before in pairs])
        rows.append({"combination": combination, **measured.mean(skipna=False)})
    return rows


def _measure(logits, before, labels):
    finite = torch.isfinite(logits).all(1)
    same = finite & (logits.argmax(1) == before.argmax(1))
    row = {
        "accuracy": _accuracy(logits, labels),
        "agreement": 100 * same.double().mean().item(),
        "finite": 100 * finite.double().mean().item(),
    }
    if not finite.all():
        return row | dict.fromkeys(("nll", "entropy", "margin"), float("nan"))
    row |= {"nll": evaluate.nll(logits, labels), "entropy": evaluate.entropy(logits)}
    return row | {"margin": evaluate.margin(logits)}


def _accuracy(logits, labels):
    """Return the accuracy in percent; an image with a logit that overflowed counts as wrong."""
    right = (logits.argmax(1) == labels) & torch.isfinite(logits).all(1)
    return 100 * right.double().mean().item()
