"""What must be repaired after a merge? The spread of the units, and what recalibrating BatchNorm takes."""

import pandas as pd
import torch
from torch.optim.swa_utils import update_bn

from .. import evaluate, sweeps
from ..merge import recalibrate_batchnorm
from ..pairs import Line, matched, repairs

NAMES = ("model", "start", "replica")
N_SPREAD = 500  # test images that the spread of the units is measured on
BATCH = 250
PHRASES = {"shuffled": "shuffled", "by class": "one class after the other"}


def runs(p):
    """Pairs of independent members of every architecture, and pools with BatchNorm from a shared init."""
    settings = {
        "dataset": p.dataset,
        "n_train": p.n_train,
        "epochs": p.epochs,
        "trunk_epochs": p.trunk_epochs,
        "n_replicas": p.n_replicas,
    }
    independent = sweeps.pools(p.models, n_members=2, **settings)
    shared = sweeps.pools([p.batchnorm_model], n_members=p.n_members, **settings)
    return {
        **{key: pair for key, pair in independent.items() if key[1] == "independent init"},
        **{key: pool for key, pool in shared.items() if key[1] == "shared init"},
    }


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def unit_spread(pool):
    """Return how much the units of the midpoint of two members vary, against those of the members.

    Rows by matching ("none" or "weights"), repair and layer, with its depth (from 1): spread (standard deviation of
    the layer's output over images, averaged over units, divided by the mean of the same for the two members).
    """
    pool = pool.first(2)
    images, (a, b) = pool.dataset.test.take(slice(0, N_SPREAD)), pool.states
    members = [evaluate.layer_spread(pool.load(state), images) for state in (a, b)]
    rows = []
    for matching in ("none", "weights"):
        line = Line(pool, a, matched(pool, a, b, matching))
        for repair in repairs(pool):
            found = evaluate.layer_spread(line.network(0.5, repair), images)
            for depth, (layer, spread) in enumerate(found.items(), start=1):
                reference = (members[0][layer] + members[1][layer]) / 2
                rows.append(
                    {
                        "matching": matching,
                        "repair": repair,
                        "layer": layer,
                        "depth": depth,
                        "spread": spread / reference,
                    }
                )
    return pd.DataFrame(rows)


def recalibrations(pool, *, sizes):
    """Return the error of the soup (percent) after recalibration, by images, by their order and by tool.

    Rows: images (0: the averaged statistics), order ("shuffled", or "by class": one class after the other) and tool
    ("wamlib", or "torch", whose `update_bn` gives every batch the same weight).
    """
    soup = pool.soup()
    rows = [{"images": 0, "order": "shuffled", "tool": "none", "error": pool.error(soup)}]
    for size in sizes:
        train = pool.dataset.train.take(slice(0, size))
        by_class = train.take(torch.argsort(train.labels, stable=True))
        for order, split in (("shuffled", train), ("by class", by_class)):
            # A last batch of two images, as a data set of odd length has it.
            whole = [images for images, _ in split.batches(BATCH)]
            batches = [*whole[:-1], whole[-1][:-2], whole[-1][-2:]] if len(whole[-1]) > 3 else whole
            for tool, recalibrate in (("wamlib", recalibrate_batchnorm), ("torch", by_torch)):
                module = pool.load(soup)
                recalibrate(module, batches)
                logits = evaluate.predict_logits(module, pool.dataset.test)
                error = 100 - evaluate.accuracy(logits, pool.dataset.test.labels)
                rows.append({"images": size, "order": order, "tool": tool, "error": error})
    return pd.DataFrame(rows)


def by_torch(module, batches):
    """Recalibrate BatchNorm as torch does."""
    update_bn(batches, module)


def tables(here):
    """The spread of the units at midpoints, and the error of soups by recalibration."""
    p = here.p
    sizes = [size for size in p.n_recalibration if p.n_train is None or size <= p.n_train]
    spread = here.rows(unit_spread, here.groups_where(model=p.models, start="independent init"))
    soups = here.groups_where(model=p.batchnorm_model, start="shared init")
    return {
        "spread": here.save(spread, "spread"),
        "recalibrations": here.save(here.rows(recalibrations, soups, sizes=sizes), "recalibrations"),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def by_size(table):
    """Return the error after recalibration, mean over pools, with a column for each tool."""
    means = table[table.images > 0].groupby(["order", "images", "tool"], sort=False).error.mean()
    return means.unstack("tool").round(1)


def numbers(here, tables):
    """What the prose says."""
    p, table, errors = here.p, tables["spread"], by_size(tables["recalibrations"])
    last = table[table.depth == table.groupby("model").depth.transform("max")]
    ours, largest = errors.loc["shuffled"].wamlib, errors.index.levels[1].max()
    enough = int(ours.index[ours <= ours.iloc[-1] + 0.2][0])
    gaps = (errors.torch - errors.wamlib)[errors.index.get_level_values("images") >= enough]
    order, images = gaps.idxmax()
    return {
        "collapse": 100 * last[(last.matching == "none") & (last.repair == "none")].spread.mean(),
        "worst_torch": errors.torch[order, images],
        "worst_wamlib": errors.wamlib[order, images],
        "last_gap": gaps.xs(largest, level="images").abs().max(),
        "n_replicas": p.n_replicas,
        "n_members": p.n_members,
        "enough": enough,
        "worst_images": int(images),
        "largest": int(largest),
        "worst_order": PHRASES[order],
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def spread_by_depth(table):
    """Draw the spread of the units against depth; rows are architectures, columns are matchings."""
    from ..plot.repairs import by_repair

    fig = by_repair(table, "depth", "spread", xlabel="Layer", ylabel="Spread, members = 1")
    for ax in fig.axes:
        ax.axhline(1, color="#999999", linewidth=0.8, zorder=0)
        ax.set_ylim(bottom=0)
    return fig


def recalibration_curves(table):
    """Draw the soup's error against the images that BatchNorm was recalibrated on, a panel for each order."""
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, intervals

    measured = table[table.images > 0]
    orders, sizes = list(dict.fromkeys(measured.order)), sorted(measured.images.unique())
    fig, axes = plt.subplots(1, len(orders), figsize=(3.4 * len(orders), 3.3), sharey=True, layout="constrained")
    tools = {"wamlib": ("wamlib", "uniform soup, recalibrated"), "torch": ("torch's update_bn", "greedy soup")}
    for ax, order in zip(axes, orders, strict=True):
        for tool, (name, look) in tools.items():
            line = intervals(measured[(measured.order == order) & (measured.tool == tool)], ["images"], "error")
            color, marker, dash = LOOKS[look]
            drawn = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2.5}
            ax.errorbar(line.images, line["mean"], line["mean"] - line.low, label=name, **drawn)
        ax.axhline(table.error[table.images == 0].mean(), color="#7A7A7A", linestyle=":", label="averaged statistics")
        ax.set(title=f"images {order}", xscale="log", yscale="log", xlabel="Training images")
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.set_yticks([15, 20, 30, 50, 90], ["15", "20", "30", "50", "90"])
        ax.yaxis.set_minor_locator(plt.NullLocator())
    axes[0].set_ylabel("Test error of the soup (%, log axis)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plt.close(fig)
    return fig
