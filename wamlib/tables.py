"""Tidy tables: one function per question that a chapter asks of a pool of members."""

import itertools
from dataclasses import replace

import pandas as pd
import torch

from . import ensemble, evaluate, models, probe
from .config import home
from .errors import ProbeError
from .merge import greedy_soup, recalibrate_batchnorm, uniform_soup
from .stats import permutation_p

__all__ = ["Evaluator", "combinations", "over", "pairs", "path", "save", "scales", "template_matches"]

N_RECALIBRATION = 2_500  # training images that BatchNorm is recalibrated on


class Evaluator:
    """Evaluates state dicts of one architecture on one data set.

    Parameters
    ----------
    model : str
        Name of the architecture.
    dataset : wamlib.data.Dataset
        Its device is where everything is evaluated.
    """

    def __init__(self, model, dataset):
        self.dataset = dataset
        module = models.build(model, len(dataset.classes), dataset.in_channels, dataset.image_size)
        self.module = module.to(dataset.test.images.device, memory_format=torch.channels_last)
        self.has_batchnorm = any(key.endswith("running_mean") for key in self.module.state_dict())

    def load(self, state, *, recalibrate=False):
        """Return the module with these weights, BatchNorm recalibrated on training images if asked."""
        self.module.load_state_dict(state)
        if recalibrate:
            images = self.dataset.train.take(slice(0, N_RECALIBRATION)).batches()
            recalibrate_batchnorm(self.module, (batch for batch, _ in images if len(batch) > 1))
        return self.module

    def logits(self, state, split="test", *, recalibrate=False):
        """Return the logits of a state dict on a split, shape (sample, class)."""
        return evaluate.predict_logits(self.load(state, recalibrate=recalibrate), getattr(self.dataset, split))

    def features(self, state, split="test"):
        """Return the features of a state dict on a split, shape (sample, feature)."""
        return evaluate.predict_features(self.load(state), getattr(self.dataset, split))

    def head(self, state):
        """Return the (weight, bias) of the classifier in a state dict."""
        layer = models.head(self.load(state))
        return layer.weight.detach().clone(), layer.bias.detach().clone()

    def error(self, state, *, recalibrate=False):
        """Return the test error of a state dict, in percent."""
        return 100 - evaluate.accuracy(self.logits(state, recalibrate=recalibrate), self.dataset.test.labels)

    def selection_accuracy(self, state, *, recalibrate=False):
        """Return the accuracy of a state dict on the selection split, in percent."""
        logits = self.logits(state, "selection", recalibrate=recalibrate)
        return evaluate.accuracy(logits, self.dataset.selection.labels)


def combinations(pool, dataset, sizes=(2, 3, 5)):
    """Compare members, soups and ensembles of the first N members of a pool.

    Parameters
    ----------
    pool : list of Run
        Members of one pool.
    dataset : wamlib.data.Dataset
        The one they were trained on.
    sizes : sequence of int
        Numbers N of members, each at most ``len(pool)``.

    Returns
    -------
    DataFrame
        Columns n_members, combination, accepted (members in a greedy soup) and the
        test metrics of `wamlib.evaluate.metrics`. A "member" row is the mean over
        the N members of each metric. BatchNorm is recalibrated in the greedy soup and
        in its selection; the uniform soup is in the table with and without.

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
    evaluator = Evaluator(pool[0].config.model, dataset)
    labels, device = dataset.test.labels, dataset.test.images.device
    recalibrate = evaluator.has_batchnorm
    pool = pool[: max(sizes)]
    logits = [run.logits["test"].to(device) for run in pool]
    member_metrics = pd.DataFrame([evaluate.metrics(one, labels) for one in logits])
    features, heads = zip(*((evaluator.features(run.state), evaluator.head(run.state)) for run in pool), strict=True)
    score = _remembered(lambda state: evaluator.selection_accuracy(state, recalibrate=recalibrate))
    rows = []
    for n in sizes:
        states = [run.state for run in pool[:n]]
        soup, greedy = uniform_soup(states), greedy_soup(states, score)
        combined = {"uniform soup": evaluator.logits(soup)}
        if recalibrate:
            combined["uniform soup, recalibrated"] = evaluator.logits(soup, recalibrate=True)
        # Where the greedy soup keeps every member it is the uniform one.
        everyone = list(combined.values())[-1] if len(greedy.accepted) == n else None
        combined |= {
            "greedy soup": evaluator.logits(greedy.state, recalibrate=recalibrate) if everyone is None else everyone,
            "logit ensemble": ensemble.logit_ensemble(logits[:n]),
            "probability ensemble": ensemble.probability_ensemble(logits[:n]).clamp_min(1e-30).log(),
        }
        for head in ("first", "averaged"):
            combined[f"feature ensemble, {head} head"] = ensemble.feature_ensemble(features[:n], heads[:n], head=head)
        rows.append({"n_members": n, "combination": "member", **member_metrics[:n].mean()})
        for name, one in combined.items():
            accepted = len(greedy.accepted) if name == "greedy soup" else None
            rows.append({"n_members": n, "combination": name, "accepted": accepted, **evaluate.metrics(one, labels)})
    return pd.DataFrame(rows)


def _remembered(score):
    """Return the score function, asked only once about each state dict: members come again at every N."""
    known = {}

    def ask(state):
        # The state is kept beside its score, so that its id is not given to another one.
        if id(state) not in known:
            known[id(state)] = state, score(state)
        return known[id(state)][1]

    return ask


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


def scales(pool, dataset, factors, scopes, n_images=None):
    """Measure what a scale factor does to a member, to the soup and to the logit ensemble.

    Parameters
    ----------
    pool : list of Run
        Members of one pool; the member of the table is the first.
    dataset : wamlib.data.Dataset
    factors : sequence of float
        Scale factors c.
    scopes : sequence of str
        Scopes of `wamlib.probe.scale` that are defined for this architecture.
    n_images : int or None
        Use only the first so many test images, and half as many selection images.

    Returns
    -------
    DataFrame
        Columns combination (member, uniform soup, logit ensemble), scope, c, accuracy
        (percent), agreement with c = 1 (percent), calibration_error (points),
        refitted_calibration_error (after a temperature fitted on the selection split)
        and finite (share of finite logits, percent). Where logits overflow, the
        calibration columns are NaN.
    """
    if n_images is not None:
        sizes = {"test": n_images, "selection": n_images // 2}
        parts = {name: getattr(dataset, name).take(slice(0, size)) for name, size in sizes.items()}
        dataset = replace(dataset, **parts)
    evaluator = Evaluator(pool[0].config.model, dataset)
    members = [run.state for run in pool]
    # BatchNorm of the soup is recalibrated once, before scaling, so that c = 1 is a working model.
    soup = evaluator.load(uniform_soup(members), recalibrate=True).state_dict()
    soup = {key: value.detach().clone() for key, value in soup.items()}
    reference = _scaled_logits(evaluator, members, soup, 1.0, scopes[0])
    rows = []
    for scope, factor in itertools.product(scopes, factors):
        if scope == "learnable" and not evaluator.has_batchnorm and "everything" in scopes:
            continue  # without statistics this is "everything"; copied below
        logits = reference if factor == 1.0 else _scaled_logits(evaluator, members, soup, factor, scope)
        for combination, (test, selection) in logits.items():
            row = {"combination": combination, "scope": scope, "c": factor}
            rows.append(row | _scale_row(test, selection, reference[combination][0], dataset))
    table = pd.DataFrame(rows)
    if "learnable" in scopes and not (table.scope == "learnable").any():
        table = pd.concat([table, table[table.scope == "everything"].assign(scope="learnable")])
    order = {scope: index for index, scope in enumerate(scopes)}
    return table.sort_values("scope", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _scaled_logits(evaluator, members, soup, factor, scope):
    """Return (test, selection) logits of the first member, the soup and the logit ensemble, all scaled."""
    states = [probe.scale(state, factor, scope) for state in (*members, soup)]
    test, selection = ([evaluator.logits(state, split) for state in states] for split in ("test", "selection"))
    return {
        "member": (test[0], selection[0]),
        "uniform soup": (test[-1], selection[-1]),
        "logit ensemble": tuple(ensemble.logit_ensemble(part[:-1]) for part in (test, selection)),
    }


def _scale_row(logits, held_out, reference, dataset):
    finite = torch.isfinite(logits)
    row = {
        "accuracy": evaluate.accuracy(logits, dataset.test.labels),
        "agreement": evaluate.agreement(logits, reference),
        "finite": 100 * finite.double().mean().item(),
    }
    if not (finite.all() and torch.isfinite(held_out).all()):
        return row | {"calibration_error": float("nan"), "refitted_calibration_error": float("nan")}
    temperature = evaluate.fit_temperature(held_out, dataset.selection.labels)
    return row | {
        "calibration_error": evaluate.calibration_error(logits, dataset.test.labels),
        "refitted_calibration_error": evaluate.calibration_error(logits / temperature, dataset.test.labels),
    }


def template_matches(groups, dataset, *, n_permutations=999):
    """Compare the rows of linear members with the class means of the images.

    Parameters
    ----------
    groups : dict of list of Run
        As `wamlib.sweeps.linear_members` names them.
    dataset : wamlib.data.Dataset
    n_permutations : int
        Permutations of the classes for the null distribution.

    Returns
    -------
    DataFrame
        One row per member: group, weight_decay, own and raw (mean correlation with the
        centred and the plain mean of the own class), null (mean correlation with the
        other classes' centred means), p (one-sided, of ``own`` under permuted
        classes), retrieval (percent), accuracy (percent).
    """
    n_classes, shape = len(dataset.classes), dataset.test.images.shape[1:]
    centred, raw = (probe.class_means(dataset.train, n_classes, centred=flag).cpu() for flag in (True, False))
    generator = torch.Generator().manual_seed(0)
    rows = []
    for group, run in ((group, run) for group, runs in groups.items() for run in runs):
        pictures = probe.templates(run.state, shape)
        match = probe.template_match(pictures, centred)
        orders = [torch.randperm(n_classes, generator=generator) for _ in range(n_permutations)]
        null = [match.correlation[torch.arange(n_classes), order].mean().item() for order in orders]
        own = match.own.mean().item()
        others = (match.correlation.sum() - match.own.sum()).item() / (n_classes * (n_classes - 1))
        rows.append(
            {
                "group": group,
                "weight_decay": run.config.weight_decay,
                "own": own,
                "raw": probe.template_match(pictures, raw).own.mean().item(),
                "null": others,
                "p": permutation_p(own, null),
                "retrieval": match.retrieval,
                "accuracy": run.record["metrics"]["test"]["accuracy"],
            }
        )
    return pd.DataFrame(rows)


def over(groups, table, names=("model", "start", "replica")):
    """Apply a table function to every pool and stack the results.

    Parameters
    ----------
    groups : dict of list of Run
        Keys are tuples, one entry per name.
    table : callable
        Takes one list of Run, returns a DataFrame.
    names : sequence of str
        Columns for the entries of the keys.

    Returns
    -------
    DataFrame
    """
    parts = [table(pool).assign(**dict(zip(names, key, strict=True))) for key, pool in groups.items()]
    stacked = pd.concat(parts, ignore_index=True)
    return stacked[[*names, *(column for column in stacked.columns if column not in names)]]


def save(table, name, profile):
    """Write a table to ``tables/<profile>/<name>.csv`` in `wamlib.config.home`, and return it."""
    folder = home() / "tables" / profile
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return table
