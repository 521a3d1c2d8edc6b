"""Members against soups and ensembles."""

import itertools
import math
from dataclasses import dataclass, replace

import pandas as pd
import torch

from .. import ensemble, evaluate
from ..config import derive_seed
from ..errors import ProbeError
from ..merge import greedy_soup, uniform_soup
from ..stats import mcnemar
from .distances import relative_distance
from .evaluator import Evaluator
from .kept import kept

__all__ = ["combinations", "subsets"]

N_SELECTION = 1_000  # selection images that greedy soups are chosen and temperatures are fitted on
EVERY = ("uniform soup", "greedy soup", "logit ensemble", "probability ensemble",
         "feature ensemble, first head", "feature ensemble, averaged head")  # fmt: skip


@kept
def combinations(pool, dataset, sizes=(2, 3, 5), *, n_subsets=1, kinds=EVERY, predictions=None):
    """Compare members, soups and ensembles of subsets of a pool.

    Parameters
    ----------
    pool : list of Run
        Members of one pool.
    dataset : wamlib.data.Dataset
        The one they were trained on.
    sizes : sequence of int
        Numbers N of members, each at most ``len(pool)``.
    n_subsets : int
        Subsets of each size, see `subsets`. Greedy soups are made of the first one only.
    kinds : sequence of str
        Which combinations, of `EVERY`.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per subset and combination: n_members, subset (its number), combination, accepted
        (members in a greedy soup), the test metrics of `wamlib.evaluate.metrics`, refitted_nll and
        refitted_calibration_error (after a temperature fitted on the selection split, behind the
        pooling), only_this and only_ensemble (test images that only it, or only the logit ensemble
        of the same members, gets right) and p (McNemar's test of the two). A "member" row is the mean over
        the members of each metric, with disagreement (percent of the images on which two members name
        different classes, mean over pairs) and distance (of the
        members from their soup, see `relative_distance`). Feature ensembles are not refitted. BatchNorm is recalibrated
        in every soup.

    Raises
    ------
    ProbeError
        If a size is larger than the pool: never a smaller soup in silence.
    """
    check_sizes(sizes, pool)
    selection = dataset.selection.take(slice(0, N_SELECTION))
    evaluator = Evaluator(pool[0].config.model, replace(dataset, selection=selection), predictions)
    members = Members(pool[: max(sizes)], evaluator, kinds)
    rows = []
    for n in sizes:
        for number, chosen in enumerate(subsets(max(sizes), n, n_subsets)):
            for row in members.compare(chosen, greedy=number == 0):
                rows.append({"n_members": n, "subset": number, **row})
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


def check_sizes(sizes, pool):
    """Refuse sizes that a pool does not have."""
    if not 1 <= min(sizes) <= max(sizes) <= len(pool):
        raise ProbeError(
            "cannot combine members",
            item="sizes",
            got=f"{list(sizes)}",
            wanted=f"numbers from 1 to {len(pool)}, the members of the pool",
            fix="Train more members, or ask for smaller combinations.",
        )


@dataclass
class Members:
    """The members of a pool with what they predict, ready to be combined."""

    pool: list
    evaluator: Evaluator
    kinds: tuple

    def __post_init__(self):
        dataset, device = self.evaluator.dataset, self.evaluator.dataset.test.images.device
        self.labels, self.held_out = dataset.test.labels, dataset.selection.labels
        self.states = [run.state for run in self.pool]
        self.logits = [run.logits["test"].to(device) for run in self.pool]
        self.selection = [run.logits["selection"][: len(self.held_out)].to(device) for run in self.pool]
        self.metrics = pd.DataFrame([self.measure(*pair) for pair in zip(self.logits, self.selection, strict=True)])
        if any(kind.startswith("feature") for kind in self.kinds):
            self.features = [self.evaluator.features(state) for state in self.states]
            self.heads = [self.evaluator.head(state) for state in self.states]
        self.scores = {id(state): None for state in self.states}

    def compare(self, chosen, *, greedy):
        """Return the rows of one subset: the mean over its members, then every combination."""
        logits, selection = ([part[i] for i in chosen] for part in (self.logits, self.selection))
        apart = [100 - evaluate.agreement(a, b) for a, b in itertools.combinations(logits, 2)]
        disagreement = sum(apart) / len(apart) if apart else math.nan
        pooled = ensemble.logit_ensemble(logits)
        right = (pooled.argmax(1) == self.labels).cpu()
        distance = relative_distance([self.states[i] for i in chosen])
        member = {"combination": "member", "disagreement": disagreement, "distance": distance}
        rows = [member | dict(self.metrics.loc[list(chosen)].mean())]
        for kind in self.kinds:
            if kind == "greedy soup" and not greedy:
                continue
            accepted = None
            if kind == "greedy soup":
                test, held_out, accepted = self.greedy(chosen)
            else:
                test, held_out = self.combine(kind, chosen, logits, selection)
            other = mcnemar((test.argmax(1) == self.labels).cpu(), right)
            rows.append({"combination": kind, "accepted": accepted, **self.measure(test, held_out),
                         "only_this": other.only_a, "only_ensemble": other.only_b, "p": other.p})  # fmt: skip
        return rows

    def combine(self, kind, chosen, logits, selection):
        """Return the (test, selection) logits of a combination; None for those whose temperature nobody asks for."""
        if kind == "uniform soup":
            return self.predict(uniform_soup([self.states[i] for i in chosen]))
        if kind == "logit ensemble":
            return ensemble.logit_ensemble(logits), ensemble.logit_ensemble(selection)
        if kind == "probability ensemble":
            return tuple(ensemble.probability_ensemble(part).clamp_min(1e-30).log() for part in (logits, selection))
        head = kind.removeprefix("feature ensemble, ").removesuffix(" head")
        heads = [self.heads[i] for i in chosen]
        return ensemble.feature_ensemble([self.features[i] for i in chosen], heads, head=head), None

    def greedy(self, chosen):
        """Return the (test, selection) logits of a greedy soup, and how many members it holds."""
        soup = greedy_soup([self.states[i] for i in chosen], self.score)
        return *self.predict(soup.state), len(soup.accepted)

    def score(self, state):
        """Return the selection accuracy, asked only once about each member: members come again at every N."""
        known = self.scores.get(id(state))
        if known is None:
            known = self.evaluator.selection_accuracy(state, recalibrate=True)
        if id(state) in self.scores:  # soups on trial are not kept: their ids go to others, and large ones fill memory
            self.scores[id(state)] = known
        return known

    def predict(self, soup):
        return self.evaluator.logits(soup, ("test", "selection"), recalibrate=True)

    def measure(self, test, held_out):
        """Return the metrics of logits, before and, with logits on the selection split, after fitting a temperature."""
        if held_out is None:
            return evaluate.metrics(test, self.labels)
        cooled = test / evaluate.fit_temperature(held_out, self.held_out)
        refitted = {"refitted_nll": evaluate.nll(cooled, self.labels),
                    "refitted_calibration_error": evaluate.calibration_error(cooled, self.labels)}  # fmt: skip
        return {**evaluate.metrics(test, self.labels), **refitted}
