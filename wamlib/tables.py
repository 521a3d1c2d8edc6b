"""Tidy tables: one function per question that a chapter asks of a pool of members."""

import itertools
from dataclasses import replace

import pandas as pd
import torch

from . import ensemble, evaluate, models, probe
from .config import home
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
        the N members of each metric.
    """
    evaluator = Evaluator(pool[0].config.model, dataset)
    labels, device = dataset.test.labels, dataset.test.images.device
    member_logits = [run.logits["test"].to(device) for run in pool]
    member_metrics = [evaluate.metrics(logits, labels) for logits in member_logits]
    features = [evaluator.features(run.state) for run in pool[: max(sizes)]]
    heads = [evaluator.head(run.state) for run in pool[: max(sizes)]]
    rows = []
    for n in sizes:
        states = [run.state for run in pool[:n]]
        rows.append({"n_members": n, "combination": "member", **pd.DataFrame(member_metrics[:n]).mean()})

        def add(combination, logits, n=n, **more):
            rows.append({"n_members": n, "combination": combination, **evaluate.metrics(logits, labels), **more})

        for recalibrate in (False, True) if evaluator.has_batchnorm else (False,):
            suffix = ", recalibrated" if recalibrate else ""
            soup = uniform_soup(states)
            add(f"uniform soup{suffix}", evaluator.logits(soup, recalibrate=recalibrate))
            greedy = greedy_soup(states, lambda s, r=recalibrate: evaluator.selection_accuracy(s, recalibrate=r))
            add(
                f"greedy soup{suffix}",
                evaluator.logits(greedy.state, recalibrate=recalibrate),
                accepted=len(greedy.accepted),
            )
        add("logit ensemble", ensemble.logit_ensemble(member_logits[:n]))
        add("probability ensemble", ensemble.probability_ensemble(member_logits[:n]).clamp_min(1e-30).log())
        for head in ("first", "averaged"):
            logits = ensemble.feature_ensemble(features[:n], heads[:n], head=head)
            add(f"feature ensemble, {head} head", logits)
    return pd.DataFrame(rows)


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
        Use only the first so many images of the test and of the selection split.

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
        parts = {name: getattr(dataset, name).take(slice(0, n_images)) for name in ("selection", "test")}
        dataset = replace(dataset, **parts)
    evaluator = Evaluator(pool[0].config.model, dataset)
    states = {"member": [pool[0].state], "logit ensemble": [run.state for run in pool]}
    # BatchNorm of the soup is recalibrated once, before scaling, so that c = 1 is a working model.
    soup = evaluator.load(uniform_soup(states["logit ensemble"]), recalibrate=True).state_dict()
    states["uniform soup"] = [{key: value.detach().clone() for key, value in soup.items()}]
    rows = []
    for combination, scope in itertools.product(states, scopes):
        reference = _scaled_logits(evaluator, states[combination], 1.0, scope, "test")
        for factor in factors:
            logits, held_out = (
                _scaled_logits(evaluator, states[combination], factor, scope, split) for split in ("test", "selection")
            )
            row = {"combination": combination, "scope": scope, "c": factor}
            rows.append(row | _scale_row(logits, held_out, reference, dataset))
    return pd.DataFrame(rows)


def _scaled_logits(evaluator, states, factor, scope, split):
    logits = [evaluator.logits(probe.scale(state, factor, scope), split) for state in states]
    return ensemble.logit_ensemble(logits)


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
