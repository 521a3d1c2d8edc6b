"""How many members are worth it? Combinations of up to many members, and what else their cost could buy."""

import math

import numpy as np
import pandas as pd
import torch

from .. import data, evaluate, models
from ..claims import measure as judged
from ..combinations import combinations
from ..costs import inference_costs
from ..errors import ConfigError
from ..stats import mean_interval
from ..sweeps import STARTS, fit_passes, pool, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
KINDS = (STARTS[0], STARTS[2])
DRAWN = ("member", "uniform soup", "greedy soup", "logit ensemble", "feature ensemble, averaged head")
# What single members are called in place of a start: what they are, and the pools that they are compared with.
SINGLE = {f"longer, as {start}": ("one member, longer", start) for start in KINDS}
SINGLE["wider"] = ("one member, wider", STARTS[2])


def runs(p):
    """Pools of many members, and single members that cost as much as a pool."""
    cells = {"n_replicas": p.n_replicas, "n_eval": p.n_eval_pools}
    sizes, lengths = {p.dataset: p.n_train_pools}, {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs}
    n_train, epochs, trunk = fit_passes(p.dataset, p.n_train_pools, *lengths.values())
    settings = {"dataset": p.dataset, "n_train": n_train, "epochs": epochs, "trunk_epochs": trunk, **cells}
    single = equal_cost_members(p.many_models, n_members=p.n_pool_members, **settings)
    pools = pools_by_dataset(sizes, p.many_models, n_members=p.n_many, **lengths, **cells)
    return {**pools, **{(p.dataset, *key): configs for key, configs in single.items()}}


def equal_cost_members(names, *, n_members, epochs, trunk_epochs, n_replicas=3, **settings):
    """Return single members that cost as much to train as a whole pool: ``{(model, kind, replica): [TrainConfig]}``.

    Those that are longer take as many passes as a pool of either start; those that are wider have the square root of
    ``n_members`` times as many units in every hidden layer, where an architecture comes in several widths.
    """
    passes = {STARTS[0]: trunk_epochs + n_members * (epochs - trunk_epochs), STARTS[2]: n_members * epochs}
    found = {}
    for model in names:
        kinds = {f"longer, as {start}": (model, passes[start]) for start in KINDS}
        kinds["wider"] = wider(model, math.sqrt(n_members)), epochs
        for kind, (name, length) in kinds.items():
            for replica in range(n_replicas if name else 0):
                one = {"model": name, "replica": replica, "n_members": 1, "epochs": length, "trunk_epochs": 1}
                found[model, kind, replica] = pool(STARTS[2], **one, **settings)
    return found


def wider(model, factor):
    """Return the name of an architecture with so many times the units, or None if it comes in one width only."""
    plain, _, width = model.partition("-x")
    name = f"{plain}-x{factor * float(width or 1):.2f}"
    try:
        models.facts(name)
    except ConfigError:
        return None
    return name


# ---- What is measured ------------------------------------------------------------------------------------------------


def recorded_accuracy(pool):
    """Return the accuracy that each member's run keeps, in percent, a row each."""
    return pd.DataFrame({"accuracy": [run.record["metrics"]["test"]["accuracy"] for run in pool.runs]})


def luck(pool):
    """Return the calibration error, in points, that the first member would show if it were perfectly calibrated.

    One row: the mean over 20 draws of labels from its own probabilities.
    """
    own, draw = pool.runs[0].logits["test"], torch.Generator().manual_seed(0)
    labels = [torch.multinomial(own.softmax(1), 1, generator=draw).squeeze(1) for _ in range(20)]
    return pd.DataFrame({"luck": [sum(evaluate.calibration_error(own, some) for some in labels) / len(labels)]})


def prediction_costs(*, names, dataset, n_train, n_eval):
    """Return what a prediction costs on this machine; see `inference_costs`."""
    return inference_costs(names, data.load(dataset, n_train=n_train, n_eval=n_eval))


def tables(here):
    """Combinations of every size, what else their cost buys, and costs of predictions."""
    p = here.p
    pools = here.groups_where(start=KINDS)
    table = here.rows(combinations, pools, sizes=list(p.sizes), n_subsets=p.n_subsets)
    single = here.rows(recorded_accuracy, here.groups_where(start=list(SINGLE)))
    first = dict([next(iter(pools.items()))])
    names = [name for model in p.many_models for name in (model, wider(model, math.sqrt(p.n_pool_members))) if name]
    n_train, _ = fit_passes(p.dataset, p.n_train_pools, 1)
    costs = here.once(prediction_costs, names=names, dataset=p.dataset, n_train=n_train, n_eval=p.n_eval_pools)
    return {
        "how_many": here.save(table, "how_many"),
        "equal_cost": here.save(equal_cost(accuracies(averaged(table)), single, p.n_pool_members), "equal_cost"),
        "costs": here.save(costs, "costs"),
        "luck": here.rows(luck, first),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def averaged(table):
    """Return the mean over the subsets of each size, pool by pool."""
    names = [*NAMES[1:], "n_members", "combination"]
    return table.groupby(names, sort=False).mean(numeric_only=True).reset_index()


def accuracies(table):
    """Return accuracies by pool and number of members, with a column for each combination."""
    return table.pivot_table("accuracy", [*NAMES[1:], "n_members"], "combination", sort=False)


def gaps(wide):
    """Return logit ensemble minus soup in points, with a column for each number of members."""
    return (wide["logit ensemble"] - wide["uniform soup"]).unstack("n_members")


def disagreement(table):
    """Return on how many images the members disagree (%), and what ensemble and soup gain over them, in points."""
    wide = accuracies(table)
    members = table[table.combination == "member"].set_index(wide.index.names)
    gain = {
        f"{short} − member": wide[name] - wide["member"]
        for short, name in (("ensemble", "logit ensemble"), ("soup", "uniform soup"))
    }
    return pd.DataFrame({"disagreement": members.disagreement, **gain})


def equal_cost(wide, single, n_members):
    """Return the accuracy of pools of ``n_members``, and of single members of the same cost, a row each."""
    of_pools = wide.xs(n_members, level="n_members")[["member", "uniform soup", "logit ensemble"]]
    of_pools = of_pools.rename_axis(columns="what").stack(future_stack=True).rename("accuracy").reset_index()
    what, start = zip(*single.start.map(SINGLE), strict=True)
    rows = pd.concat([of_pools, single.assign(what=what, start=start)], ignore_index=True)
    return rows[["model", "start", "what", "replica", "accuracy"]]


def claims(here, tables):
    """Values that C9 is judged by: whether the gap grows with the number of members."""
    few, many = min(here.p.sizes), max(here.p.sizes)
    gap, title, rows = gaps(accuracies(averaged(tables["how_many"]))), data.title(here.p.dataset), []
    for (model, start), part in gap.groupby(["model", "start"], sort=False):
        name = f"gap at N = {many} minus gap at N = {few}, {start}"
        rows.append(judged("C9", name, part[many] - part[few], bound=0, unit="points", dataset=title, note=model))
    return rows


def numbers(here, tables):
    """What the prose says; of members with a shared start but for ``longer``."""
    p, few, many = here.p, min(here.p.sizes), max(here.p.sizes)
    wide, middle = accuracies(averaged(tables["how_many"])), p.sizes[len(p.sizes) // 2]
    at = wide.xs(STARTS[0], level="start").unstack("n_members")
    more = {
        name: (at[name][many] - at[name][few]).groupby("replica").mean() for name in ("uniform soup", "logit ensemble")
    }
    gap = gaps(wide).xs(STARTS[0], level="start")
    best = tables["equal_cost"].pivot_table("accuracy", ["replica", "model", "start"], "what", sort=False)
    longer = (best["one member, longer"] - best["logit ensemble"]).groupby("replica").mean()
    gained = (at["logit ensemble"] - at["member"]).mean()
    changes = {
        "ensemble_more": more["logit ensemble"],
        "gap_more": (gap[many] - gap[few]).groupby("replica").mean(),
        "longer": longer,
    }
    found = {}
    for name, values in changes.items():
        mean, low, high, _ = mean_interval(values)
        found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    mflops = tables["costs"].groupby("model").mflops.first()
    pairs = [(name, wider(name, math.sqrt(p.n_pool_members))) for name in p.many_models]
    times = [mflops[wide] / mflops[name] for name, wide in pairs if wide] or [math.nan]
    return found | {
        "soup_more": more["uniform soup"].mean(),
        "share_two": 100 * gained[2] / gained[many],
        "share_middle": 100 * gained[middle] / gained[many],
        "wide_low": min(times),
        "wide_high": max(times),
        "wide_times": f"{min(times):.1f} to {max(times):.1f}" if np.isfinite(times).all() else "not measured",
        "luck": tables["luck"].luck.item(),
        "n_replicas": p.n_replicas,
        "n_subsets": p.n_subsets,
        "n_many": many,
        "n_middle": middle,
        "n_small": p.n_pool_members,
        "n_models": len(p.many_models),
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def error_vs_members(table, combinations=DRAWN):
    """Draw test error on a logarithmic axis against the number of members; rows are architectures, columns starts."""
    import matplotlib.pyplot as plt

    from ..plot.style import facets, log_percent

    table = table[table.combination.isin(combinations)].assign(error=lambda rows: 100 - rows.accuracy)
    labels = {"xlabel": "Members", "ylabel": "Test error (%)"}
    # An axis for each panel: beside a soup that guesses, differences of a point would be one line.
    fig = facets(table, "n_members", "error", "combination", combinations, sharey=False, **labels)
    for ax in fig.axes:
        log_percent([ax])
    plt.close(fig)
    return fig
