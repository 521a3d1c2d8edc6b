"""Members of a pool against their soups and ensembles."""

import itertools
import math

import pandas as pd
import torch

from . import ensemble, evaluate, probe
from .config import derive_seed
from .errors import ProbeError
from .pools import ENSEMBLES, N_SELECTION, combine
from .stats import mcnemar

__all__ = ["EVERY", "combinations", "subsets"]

EVERY = (
    *("uniform soup", "greedy soup", "logit ensemble", "probability ensemble"),
    *("feature ensemble, first head", "feature ensemble, averaged head"),
)


def combinations(pool, *, sizes, n_subsets=1, kinds=EVERY):
    """Compare members, soups and ensembles of subsets of a pool.

    Parameters
    ----------
    pool : wamlib.pools.Pool
    sizes : sequence of int
        Numbers N of members, each at most ``len(pool)``.
    n_subsets : int
        Subsets of each size, see `subsets`. Greedy soups are made of the first one only.
    kinds : sequence of str
        Which combinations, of `EVERY`.

    Returns
    -------
    DataFrame
        One row per subset and combination: n_members, subset (its number), combination, accepted
        (members in a greedy soup), the test metrics of `wamlib.evaluate.metrics`, refitted_nll and
        refitted_calibration_error (after a temperature fitted on the selection split, behind the
        pooling), only_this and only_ensemble (test images that only it, or only the logit ensemble
        of the same members, gets right) and p (McNemar's test of the two). A "member" row is the mean over
        the members of each metric, with disagreement (percent of the images on which two members name
        different classes, mean over pairs) and distance (of the members from their soup, see
        `wamlib.probe.relative_distance`). Feature ensembles are not refitted. BatchNorm is recalibrated
        in every soup.

    Raises
    ------
    ProbeError
        If a size is larger than the pool: never a smaller soup in silence.
    """
    if not 1 <= min(sizes) <= max(sizes) <= len(pool):
        raise ProbeError(
            "cannot combine members",
            item="sizes",
            got=f"{list(sizes)}",
            wanted=f"numbers from 1 to {len(pool)}, the members of the pool",
            fix="Train more members, or ask for smaller combinations.",
        )
    pool = pool.first(max(sizes), n_selection=N_SELECTION)
    members = list(zip(pool.recorded("test"), pool.recorded("selection"), strict=True))
    metrics = pd.DataFrame([_measure(pool, *member) for member in members])
    rows = []
    for n in sizes:
        for number, chosen in enumerate(subsets(max(sizes), n, n_subsets)):
            found = _compare(pool, chosen, members, metrics, [k for k in kinds if k != "greedy soup" or number == 0])
            rows += [{"n_members": n, "subset": number, **row} for row in found]
    return pd.DataFrame(rows)


def subsets(n_all, n, n_subsets=1, seed=0):
    """Return different subsets of n out of ``n_all`` members: the first n, then others drawn at random.

    Parameters
    ----------
    n_all, n : int
        Members there are, and members of each subset.
    n_subsets : int
        Subsets wanted; all that there are, if there are fewer.
    seed : int
        Fixes the draw.

    Returns
    -------
    list of tuple of int
        Positions, ascending.
    """
    wanted = min(n_subsets, math.comb(n_all, n))
    if wanted == math.comb(n_all, n):
        return list(itertools.combinations(range(n_all), n))
    found, draw = {tuple(range(n)): None}, torch.Generator().manual_seed(derive_seed("subsets", seed))
    while len(found) < wanted:
        found[tuple(sorted(torch.randperm(n_all, generator=draw)[:n].tolist()))] = None
    return list(found)


def _compare(pool, chosen, members, metrics, kinds):
    """Return the rows of one subset: the mean over its members, then every combination."""
    labels, logits = pool.dataset.test.labels, [members[i][0] for i in chosen]
    apart = [100 - evaluate.agreement(a, b) for a, b in itertools.combinations(logits, 2)]
    right = (ensemble.logit_ensemble(logits).argmax(1) == labels).cpu()
    disagreement = sum(apart) / len(apart) if apart else math.nan
    distance = probe.relative_distance([pool.states[i] for i in chosen])
    member = {"combination": "member", "disagreement": disagreement, "distance": distance}
    rows = [member | dict(metrics.loc[list(chosen)].mean())]
    for kind in kinds:
        test, held_out, accepted = _combine(pool, kind, chosen, members)
        other = mcnemar((test.argmax(1) == labels).cpu(), right)
        row = {"combination": kind, "accepted": accepted, **_measure(pool, test, held_out)}
        rows.append(row | {"only_this": other.only_a, "only_ensemble": other.only_b, "p": other.p})
    return rows


def _combine(pool, kind, chosen, members):
    """Return (test logits, selection logits or None where nobody asks for a temperature, members in a greedy soup)."""
    if kind in ENSEMBLES:
        return *(combine([members[i][part] for i in chosen], kind) for part in (0, 1)), None
    if kind.endswith("soup"):
        greedy = pool.greedy(chosen) if kind == "greedy soup" else None
        soup = greedy.state if greedy else pool.soup(chosen)
        found = pool.logits(soup, ("test", "selection"), recalibrate=True)
        return *found, len(greedy.accepted) if greedy else None
    head = kind.removeprefix("feature ensemble, ").removesuffix(" head")
    read = [(pool.features(pool.states[i]), pool.head(pool.states[i])) for i in chosen]
    features, heads = zip(*read, strict=True)
    return ensemble.feature_ensemble(list(features), list(heads), head=head), None, None


def _measure(pool, test, held_out):
    """Return the metrics of logits, before and, with logits on the selection split, after fitting a temperature."""
    labels = pool.dataset.test.labels
    if held_out is None:
        return evaluate.metrics(test, labels)
    cooled = test / evaluate.fit_temperature(held_out, pool.dataset.selection.labels)
    refitted = {
        "refitted_nll": evaluate.nll(cooled, labels),
        "refitted_calibration_error": evaluate.calibration_error(cooled, labels),
    }
    return {**evaluate.metrics(test, labels), **refitted}
