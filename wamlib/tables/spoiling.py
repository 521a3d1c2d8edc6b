"""What spoilt and attacked images do to the answers of members, soup and ensemble."""

import copy
import itertools
from dataclasses import replace
from statistics import fmean

import pandas as pd
import torch

from .. import data, ensemble, evaluate, probe
from .evaluator import Evaluator
from .kept import kept
from .stability import N_SELECTION, members_and_soup, temperature

__all__ = ["attack_accuracy", "corruption_flips"]


@kept
def corruption_flips(pool, dataset, names, severities, n_images=300, predictions=None):
    """Compare how often members, soup and ensemble change their answers when images are spoilt.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    names : sequence of str
        Corruptions, of `wamlib.data.CORRUPTIONS`.
    severities : sequence of int
        From 1 to 5.
    n_images : int
        Use only the first so many test images.
    predictions : wamlib.predictions.Predictions or None
        Where the table is kept.

    Returns
    -------
    DataFrame
        One row per corruption, severity and combination ("member", the mean over the members; "uniform soup", BatchNorm
        recalibrated; "logit ensemble"): corruption, severity, combination, flip_rate (percent, see
        `wamlib.probe.flip_rate`), accuracy and clean_accuracy (percent, with and without corruption).
    """
    evaluator = Evaluator.of_first(pool, dataset, n_images, N_SELECTION)
    split = evaluator.dataset.test
    chosen = list(itertools.product(names, severities))
    spoilt = torch.cat([split.images, *(data.corrupt(split.images, *one) for one in chosen)])
    many = replace(split, images=spoilt, labels=split.labels.repeat(1 + len(chosen)))
    logits = {name: evaluate.predict_logits(evaluator.load(state), many).view(1 + len(chosen), len(split), -1)
              for name, state in members_and_soup(pool, evaluator).items()}  # fmt: skip
    members = [found for name, found in logits.items() if name.startswith("member")]
    pooled = torch.stack([ensemble.logit_ensemble(list(one)) for one in zip(*members, strict=True)])
    combined = {"member": members, "uniform soup": [logits["uniform soup"]], "logit ensemble": [pooled]}
    rows = []
    for index, (name, severity) in enumerate(chosen, start=1):
        for combination, networks in combined.items():
            row = {"corruption": name, "severity": severity, "combination": combination}
            row["flip_rate"] = fmean(probe.flip_rate(one[0], one[index : index + 1]) for one in networks)
            row["accuracy"] = fmean(evaluate.accuracy(one[index], split.labels) for one in networks)
            row["clean_accuracy"] = fmean(evaluate.accuracy(one[0], split.labels) for one in networks)
            rows.append(row)
    return pd.DataFrame(rows)


@kept
def attack_accuracy(pool, dataset, budgets, *, kinds=probe.ATTACKS, n_images=100, n_steps=5, predictions=None):
    """Measure what attacks leave of the accuracy of members, soup and ensemble, each attacked by its own gradient.

    Parameters
    ----------
    pool, dataset, n_images, predictions
        As for `corruption_flips`.
    budgets : sequence of float
        How far a pixel may move, in units of 0 to 255; 0 is no attack.
    kinds : sequence of str
        Of `wamlib.probe.ATTACKS`.
    n_steps : int
        Of "pgd".

    Returns
    -------
    DataFrame
        One row per kind, budget and combination: kind, budget, combination and accuracy (percent). The
        ensemble is attacked as a whole: by the gradient of the mean of the logits. Logits are
        divided by a temperature fitted for each network and for the ensemble before the gradient is taken.
    """
    evaluator = Evaluator.of_first(pool, dataset, n_images, N_SELECTION)
    split = evaluator.dataset.test
    modules = {name: copy.deepcopy(evaluator.load(state)) for name, state in members_and_soup(pool, evaluator).items()}
    combined = {
        "member": [module for name, module in modules.items() if name.startswith("member")],
        "uniform soup": [modules["uniform soup"]],
    }
    combined["logit ensemble"] = [ensemble.LogitEnsemble(combined["member"])]
    rows = []
    for combination, networks in combined.items():
        fitted = [temperature(evaluate.predict_logits(one, evaluator.dataset.selection), evaluator)
                        for one in networks]  # fmt: skip
        for kind, budget in itertools.product(kinds, budgets):
            settings = {"budget": budget, "kind": kind, "n_steps": n_steps}
            found = [accuracy_under(network, split, temperature=each, **settings)
                     for network, each in zip(networks, fitted, strict=True)]  # fmt: skip
            rows.append({"kind": kind, "budget": budget, "combination": combination, "accuracy": fmean(found)})
    return pd.DataFrame(rows)


def accuracy_under(network, split, *, budget, **settings):
    """Return the accuracy of a network on the images that an attack on it leaves."""
    moved = replace(split, images=probe.attack(network, split, budget=budget, **settings)) if budget else split
    return evaluate.accuracy(evaluate.predict_logits(network, moved), split.labels)
