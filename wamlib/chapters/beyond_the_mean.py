"""Is there a better merge than the mean? Merges of the same members side by side."""

import itertools
from statistics import fmean

import pandas as pd

from .. import evaluate, sweeps
from ..merge import (
    LearnedSoup,
    dare,
    fisher,
    fisher_diagonal,
    gram_matrices,
    learned_soup,
    model_stock,
    regmean,
    task_arithmetic,
    ties,
)
from ..runs import RunStore
from ..stats import paired_difference
from ..train import initial_model

NAMES = ("model", "start", "replica")
SCALES = (0.5, 1.0, 1.5)  # of the mean task vector
DENSITIES = (0.2, 0.5, 1.0)
N_FISHER, N_GRAM = 100, 500  # training images
EPOCHS, LR = 2, 0.3  # of the learned soups


def runs(p):
    """Pools of members that begin with the same weights, trained in part or random."""
    found = sweeps.pools(
        p.models,
        n_replicas=p.n_replicas,
        n_members=p.n_members,
        dataset=p.dataset,
        n_train=p.n_train,
        epochs=p.epochs,
        trunk_epochs=p.trunk_epochs,
    )
    return {key: pool for key, pool in found.items() if key[1] != "independent init"}


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def merges(pool, *, n_images):
    """Return metrics of every merge on the first test images, see `wamlib.evaluate.metrics`, BatchNorm recalibrated.

    One row per merge: chosen (scale or density, as text, chosen on the selection split) and largest_share (of one
    member in a learned soup, mean over tensors). The row "member" is the mean over the members.
    """
    pool = pool.first(n_test=n_images)
    labels = pool.dataset.test.labels
    member = pd.DataFrame([evaluate.metrics(logits, labels) for logits in pool.recorded()]).mean().to_dict()
    rows = [{"merge": "member", "chosen": "", **member}]
    for name, by_text in candidates(pool).items():
        chosen, state = best(pool, by_text)
        largest = None
        if isinstance(state, LearnedSoup):
            largest = fmean(max(shares) for shares in state.shares.values())
            state = state.state
        metrics = evaluate.metrics(pool.logits(state, recalibrate=True), labels)
        rows.append({"merge": name, "chosen": chosen, "largest_share": largest, **metrics})
    return pd.DataFrame(rows)


def beginning(pool):
    """Return the weights that the training of a pool began with."""
    config = pool.runs[0].config
    start = None if config.start is None else RunStore()[config.start].state
    return initial_model(config, pool.dataset, start).state_dict()


def candidates(pool):
    """Return ``{merge: {parameters as text: function that merges}}``."""
    members, base = pool.states, beginning(pool)
    mean, selection = 1 / len(members), [*pool.dataset.selection.batches()]

    def learned(per):
        # Every merge below is recalibrated before it is scored.
        settings = {"epochs": EPOCHS, "lr": LR, "batch_statistics": True}
        return lambda: learned_soup(members, pool.load(members[0]), selection, per=per, **settings)

    def by_curvature():
        images = pool.training_batches(N_FISHER)
        return fisher(members, [fisher_diagonal(pool.load(member), images) for member in members])

    def by_regression():
        images = pool.training_batches(N_GRAM)
        return regmean(members, [gram_matrices(pool.load(member), images) for member in members])

    return {
        "uniform soup": {"": pool.soup},
        "learned soup, per model": {"": learned("model")},
        "learned soup, per tensor": {"": learned("tensor")},
        "task arithmetic": {f"scale {c:g}": lambda c=c: task_arithmetic(base, members, c * mean) for c in SCALES},
        "TIES": {
            f"density {d:g}, scale {c:g}": lambda d=d, c=c: ties(base, members, d, scale=c)
            for d, c in itertools.product(DENSITIES, SCALES)
        },
        "DARE": {f"density {d:g}": lambda d=d: dare(base, members, d, seed=0) for d in DENSITIES[:-1]},
        "Fisher": {"": by_curvature},
        "RegMean": {"": by_regression},
        "Model Stock": {"": lambda: model_stock(base, members)},
    }


def best(pool, by_text):
    """Return the parameters and the weights of the merge with the highest accuracy on the selection split."""
    merged = {text: merge() for text, merge in by_text.items()}
    if len(merged) == 1:
        return merged.popitem()
    scores = {text: pool.accuracy(state, "selection", recalibrate=True) for text, state in merged.items()}
    chosen = max(scores, key=scores.get)
    return chosen, merged[chosen]


def tables(here):
    """Metrics of all merges, and their accuracy against the uniform soup's."""
    table = here.save(here.rows(merges, n_images=here.p.n_merge_images), "merges")
    return {"merges": table, "merge_differences": here.save(differences(table), "merge_differences")}


# ---- What follows from it --------------------------------------------------------------------------------------------


def accuracies(table):
    """Return accuracies with a column for each merge."""
    return table.pivot_table("accuracy", list(NAMES), "merge", sort=False)


def differences(table):
    """Return each merge's accuracy minus the uniform soup's, in points, with intervals paired within pools."""
    rows, wide = [], accuracies(table)
    for (model, start), group in wide.groupby(["model", "start"], sort=False):
        for merge in [name for name in wide if name not in ("uniform soup", "member")]:
            interval = paired_difference(group[merge], group["uniform soup"])
            rows.append({"model": model, "start": start, "merge": merge, **interval._asdict()})
    return pd.DataFrame(rows)


def chosen(table):
    """Return how often each setting was chosen, over architectures and pools."""

    def counts(texts):
        return "; ".join(f"{n}× {text}" for text, n in texts.value_counts().items())

    return table[table.chosen != ""].groupby(["merge", "start"], sort=False).chosen.agg(counts).to_frame()


def numbers(here, tables):
    """What the prose says."""
    p, table, wide = here.p, tables["merges"], accuracies(tables["merges"])
    means = tables["merge_differences"].groupby(["start", "merge"])["mean"].mean()
    learned = table[table["merge"] == "learned soup, per model"].groupby("start")[["accuracy", "largest_share"]].mean()
    member = table[table["merge"] == "member"].groupby("start").accuracy.mean()
    init, loss = means["shared init"], (wide["member"] - wide["uniform soup"]).groupby("start").mean()
    return {
        "spread": means["shared start"].abs().max(),
        "best_gain": init.max(),
        "worst_loss": -init.min(),
        "soup_loss": loss["shared init"],
        "learned_member": learned.accuracy["shared init"] - member["shared init"],
        "learned_share": 100 * learned.largest_share["shared init"],
        "learned_share_start": 100 * learned.largest_share["shared start"],
        "equal_share": 100 / p.n_members,
        "best_name": init.idxmax(),
        "worst_name": init.idxmin(),
        "n_merges": len(init),
        "n_members": p.n_members,
        "n_replicas": p.n_replicas,
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def merge_differences(table):
    """Draw each merge's test accuracy against the uniform soup's, one panel per architecture."""
    import matplotlib.pyplot as plt
    import numpy as np
    import seaborn as sns

    from ..plot.style import MODELS

    models, names, starts = (list(dict.fromkeys(table[name])) for name in ("model", "merge", "start"))
    size = (2.5 * len(models) + 1.6, 0.3 * len(names) + 1.3)
    fig, axes = plt.subplots(1, len(models), figsize=size, sharey=True, layout="constrained", squeeze=False)
    colors = sns.color_palette("colorblind")
    for ax, model in zip(axes[0], models, strict=True):
        for index, start in enumerate(starts):
            rows = table[(table.model == model) & (table.start == start)].set_index("merge").loc[names]
            y = np.arange(len(names)) + 0.22 * (index - (len(starts) - 1) / 2)
            bars = [rows["mean"] - rows.low, rows.high - rows["mean"]]
            ax.errorbar(rows["mean"], y, xerr=bars, fmt="osD"[index], color=colors[index], capsize=2, label=start)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        # Linear around 0, logarithmic beyond: tenths of a point and collapses in one panel.
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xticks([-50, -10, -2, 0, 2, 10], ["−50", "−10", "−2", "0", "2", "10"])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.set(title=MODELS.get(model, model), xlabel="Points against the uniform soup")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(starts))
    plt.close(fig)
    return fig
