"""Advice against the truth: what a pool was predicted to give, and what each option gives on the test images."""

from dataclasses import replace

import pandas as pd

from .. import advise as advising
from .. import align, ensemble, evaluate
from ..merge import greedy_soup, uniform_soup
from ..stats import paired_difference
from .evaluator import Evaluator
from .kept import kept

__all__ = ["CHEAPEST_FIRST", "advice", "best_options", "decisions", "regrets", "reordered"]

# What each recommendation of `wamlib.advise` is called where it is measured, the cheapest first: one pass and no
# labels, one pass and labels, one pass and labels and trials, one pass and a search, a pass per member.
CHEAPEST_FIRST = {
    "uniform soup": "uniform soup", "best member": "best member", "greedy soup": "greedy soup",
    "align first": "aligned soup", "logit ensemble": "logit ensemble",
}  # fmt: skip
CLOSE = 0.5  # points: with few pools an interval leaves open what no user would call equal


@kept
def advice(pool, dataset, *, predictions=None):
    """Ask for advice on the selection images, and measure on the test images what every option gives.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row: kind (of architecture), n_members, n_selection; predicted_gain, predicted_noise (its standard error)
        and measured_gain (of the uniform soup over a member, points), selection_gain (the same, measured on the
        selection images, which the advice itself never does); distance and barrier (mean over pairs, on the
        selection images); shift (what recalibration gives the midpoints, NaN without BatchNorm); once and many (what is
        recommended at a budget of 1 and of one pass per member, a key of `CHEAPEST_FIRST`); and the test accuracy of
        "member" (mean over the members) and of every value of `CHEAPEST_FIRST`, NaN for the aligned soup
        where the advice did not try to align.
    """
    evaluator = Evaluator(pool[0].config.model, dataset, predictions)
    states = [run.state for run in pool]
    known = {id(state): run.logits["selection"] for state, run in zip(states, pool, strict=True)}
    device, labels = dataset.test.images.device, dataset.test.labels

    def selection(state, recalibrate):
        if id(state) in known:
            return known[id(state)].to(device)
        return evaluator.logits(state, "selection", recalibrate=recalibrate)

    def test(state):
        return evaluate.accuracy(evaluator.logits(state, recalibrate=True), labels)

    found = advising.advise(states, evaluator.module, dataset.selection, training_batches=evaluator.training_batches(),
                            alphas=(0.5,), predict=selection)  # fmt: skip
    measured, logits = found.measured, [run.logits["test"].to(device) for run in pool]
    members = [evaluate.accuracy(part, labels) for part in logits]
    greedy = greedy_soup(states, lambda state: evaluate.accuracy(selection(state, True), dataset.selection.labels))
    soup = uniform_soup(states)
    # Both at once: its BatchNorm is recalibrated once.
    on_selection, on_test = evaluator.logits(soup, ("selection", "test"), recalibrate=True)
    truth = {
        "member": sum(members) / len(members),
        "best member": members[measured.accuracies.index(max(measured.accuracies))],
        "uniform soup": evaluate.accuracy(on_test, labels),
        # A greedy soup of one is that member, which nobody recalibrates.
        "greedy soup": members[greedy.accepted[0]] if len(greedy.accepted) == 1 else test(greedy.state),
        "aligned soup": float("nan"),
        "logit ensemble": evaluate.accuracy(ensemble.logit_ensemble(logits), labels),
    }
    if "aligned soup" in measured.options:
        truth["aligned soup"] = test(uniform_soup(advising.aligned(states, evaluator.module)))
    predicted, noise = measured.gain("uniform soup")
    selected = evaluate.accuracy(on_selection, dataset.selection.labels)
    pairs = pd.DataFrame([vars(pair) for pair in measured.pairs])
    row = {
        "kind": _kind(evaluator), "n_members": len(pool), "n_selection": len(dataset.selection),
        "predicted_gain": predicted, "predicted_noise": noise,
        "measured_gain": truth["uniform soup"] - truth["member"],
        "selection_gain": selected - 100 * measured.members.mean().item(),
        "distance": pairs.distance.mean(), "barrier": pairs.barrier.mean(),
        "shift": pairs.batchnorm_shift.astype(float).mean(),
        "once": found.recommendation, "many": found.with_budget(len(pool)).recommendation,
    }  # fmt: skip
    return pd.DataFrame([row | truth])


def reordered(pool, dataset):
    """Return a pool whose members, but for the first, have their units in a random order: the same functions.

    Parameters
    ----------
    pool : list of Run
        Of an architecture that `wamlib.align` can trace.
    dataset : wamlib.data.Dataset

    Returns
    -------
    list of Run
    """
    module, runs = Evaluator(pool[0].config.model, dataset).module, [pool[0]]
    for seed, run in enumerate(pool[1:]):
        # Another record, because tables are kept by it; the logits are those of the run.
        moved = replace(run, record={**run.record, "checkpoint_sha256": f"{run.record['checkpoint_sha256']}/{seed}"})
        vars(moved)["state"] = align.apply(align.random_permutation(module, seed), run.state)
        vars(moved)["logits"] = run.logits
        runs.append(moved)
    return runs


def _kind(evaluator):
    if "vit" in evaluator.model:
        return "ViT"
    if "mlp" in evaluator.model or "linear" in evaluator.model:
        return "MLP"
    return "CNN, BatchNorm" if evaluator.has_batchnorm else "CNN, no BatchNorm"


def decisions(table, by, budget):
    """Choose an option for each group of pools: the cheapest that is close to the best and not resolved from it.

    Parameters
    ----------
    table : DataFrame
        Rows of `advice`, with the columns to group by.
    by : list of str
        Columns that make a group.
    budget : {"once", "many"}
        One forward pass, or one per member.

    Returns
    -------
    DataFrame
        The columns of ``by``; n_pools; best (the option with the highest mean accuracy) and choice: the first of
        `CHEAPEST_FIRST` whose mean is less than half a point behind, and which the 95 % interval of the paired
        difference from the best, over the pools, does not set apart from it; gain (of the choice over a member,
        mean over pools, points) and behind (of the choice from the best, points). A group of one pool has no
        interval: there the best is chosen. The aligned soup is a candidate where every pool of the group has one.
    """
    rows = []
    for key, group in table.groupby(by, sort=False):
        options = [option for option in _allowed(budget) if group[option].notna().all()]
        means = group[options].mean()
        best = means.idxmax()
        behind = means[best] - means
        close = [name for name in options if behind[name] < CLOSE and _unresolved(group[best], group[name])]
        choice = next(option for option in options if option == best or option in close)
        rows.append({**dict(zip(by, key, strict=True)), "n_pools": len(group), "best": best, "choice": choice,
                     "gain": means[choice] - group["member"].mean(), "behind": behind[choice]})  # fmt: skip
    return pd.DataFrame(rows)


def _unresolved(best, option):
    return paired_difference(best, option).low <= 0  # NaN of a single pool compares as False


def _allowed(budget):
    return [option for option in CHEAPEST_FIRST.values() if budget == "many" or option != "logit ensemble"]


def regrets(table, budget, policy):
    """Return how many points a policy stays behind the best option of a budget, on the test images, pool by pool.

    Parameters
    ----------
    table : DataFrame
        Rows of `advice`.
    budget : {"once", "many"}
    policy : str
        "advice", or a value of `CHEAPEST_FIRST` that is always taken; there must be no NaN in it.

    Returns
    -------
    Series
        At least 0, with the index of the table.
    """
    best = table[_allowed(budget)].max(axis=1)
    if policy != "advice":
        return best - table[policy]
    taken = [row[CHEAPEST_FIRST[row[budget]]] for _, row in table.iterrows()]
    return best - pd.Series(taken, table.index, dtype=float)


def best_options(table, budget):
    """Return the option of the highest test accuracy in each pool, as a key of `CHEAPEST_FIRST`; of equals the first.

    Parameters
    ----------
    table : DataFrame
        Rows of `advice`.
    budget : {"once", "many"}

    Returns
    -------
    Series of str
    """
    names = {value: key for key, value in CHEAPEST_FIRST.items()}
    return table[_allowed(budget)].idxmax(axis=1).map(names)
