"""Who are the members, and how much do seeds differ?"""

import itertools

import pandas as pd

from .. import evaluate, probe
from ..sweeps import pools

NAMES = ("model", "start", "replica")


def runs(p):
    """Pools of all three kinds."""
    shared = {"dataset": p.dataset, "n_train": p.n_train, "epochs": p.epochs, "trunk_epochs": p.trunk_epochs}
    return pools(p.models, n_replicas=p.n_replicas, n_members=p.n_members, **shared)


def scores(pool):
    """The test metrics of each member."""
    return pd.DataFrame([run.record["metrics"]["test"] for run in pool.runs])


def histories(pool):
    """How each member learnt: epoch, loss and accuracy (percent, training images as they were seen)."""
    rows = [{"member": i, **row} for i, run in enumerate(pool.runs) for row in run.record["history"]]
    return pd.DataFrame(rows).drop(columns="seconds")


def pairs(pool):
    """Compare the members two by two: a, b (positions), distance and agreement.

    distance is that of the weights, relative to the mean of the two norms; agreement the share of test images for which
    both name the same class, in percent.
    """
    rows = []
    for (i, a), (j, b) in itertools.combinations(enumerate(pool.states), 2):
        norm = (probe.weight_norm(a) + probe.weight_norm(b)) / 2
        agreement = evaluate.agreement(*(pool.recorded()[k] for k in (i, j)))
        rows.append({"a": i, "b": j, "distance": probe.distance(a, b) / norm, "agreement": agreement})
    return pd.DataFrame(rows)


def tables(here):
    """Scores, distances, and how the independent members learnt."""
    return {
        "members": here.save(here.rows(scores), "members"),
        "pairs": here.save(here.rows(pairs), "pairs"),
        "history": here.rows(histories, here.groups_where(start="independent init")),
    }


def numbers(here, tables):
    """What the prose says."""
    p, images = here.p, here.images(here.p.dataset)
    disagree = 100 - tables["pairs"].groupby("start").agreement.mean()
    kinds = ["model", "start"]
    sd = tables["members"].groupby([*kinds, "replica"]).accuracy.std().groupby(kinds).mean()
    return {
        "seed_sd_low": sd.min(),
        "seed_sd_high": sd.max(),
        "noise": 2 * 2**0.5 * sd.median(),  # of a difference, whose standard deviation is the root of 2 times as large
        "disagree_shared": disagree["shared start"],
        "disagree_independent": disagree["independent init"],
        "n_train": images.n_train,
        "n_selection": images.n_selection,
        "n_test": images.n_test,
        "n_curves": p.n_members * p.n_replicas,
        "n_per_start": p.n_members * p.n_replicas,
        "epochs": p.epochs,
        "trunk_epochs": p.trunk_epochs,
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def learning_curves(table):
    """Draw training accuracy against epochs, one line per architecture."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    from ..plot.style import MODELS, intervals

    fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    for (model, rows), color, marker in zip(
        table.groupby("model", sort=False), sns.color_palette("colorblind"), "osD^vP*X"
    ):
        line = intervals(rows, ["epoch"], "accuracy")
        ax.fill_between(line.epoch, line.low, line.high, color=color, alpha=0.2, linewidth=0)
        ax.plot(line.epoch, line["mean"], marker=marker, color=color, label=MODELS.get(model, model))
    ax.set(xlabel="Epoch", ylabel="Training accuracy (%)", xticks=sorted(table.epoch.unique()))
    ax.legend(title=None)
    plt.close(fig)
    return fig


def member_strip(table):
    """Draw the test accuracy of every member, by architecture and start."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    from ..plot.style import LOOKS, MODELS

    models = list(dict.fromkeys(table.model))
    size = (2.9 * len(models), 3.1)
    fig, axes = plt.subplots(1, len(models), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax, model in zip(axes.flat, models, strict=True):
        rows = table[table.model == model]
        sns.stripplot(rows, x="start", y="accuracy", color=LOOKS["member"][0], alpha=0.8, size=5, ax=ax, jitter=0.15)
        spread = rows.groupby("start", sort=False).accuracy.agg(["mean", "std"])
        ax.errorbar(range(len(spread)), spread["mean"], spread["std"], fmt="_", color="black", capsize=4, markersize=14)
        ax.set(title=MODELS.get(model, model), xlabel="", ylabel="Test accuracy (%)")
        ax.set_xticks(range(len(spread)), [name.replace(" ", "\n") for name in spread.index])
    plt.close(fig)
    return fig
