"""Figures of averaging as shrinking: norms against the number of members, controls, and the loss around a network."""

import math

import matplotlib.pyplot as plt
import numpy as np

from .style import DATASETS, LOOKS, MODELS, closed, intervals

__all__ = ["loss_around", "norms_vs_members", "shrinking_gains"]

CONTROLS = {
    "uniform soup": LOOKS["uniform soup"][:2],
    "soup restored": ("#56B4E9", "D"),
    "member shrunk": ("#D55E00", "X"),
}


@closed
def norms_vs_members(table):
    """Draw what averaging leaves of a norm, against the number of members; a panel for each kind of norm.

    Parameters
    ----------
    table : DataFrame
        Columns panel (its title), model, replica, n_members, ratio (percent) and law (percent; what
        sampling without replacement gives, NaN where that does not apply).
    """
    panels, models = (list(dict.fromkeys(table[name])) for name in ("panel", "model"))
    fig, axes = plt.subplots(1, len(panels), figsize=(2.5 * len(panels) + 0.4, 3.1), sharey=True, layout="constrained",
                             squeeze=False)  # fmt: skip
    handles, sizes = {}, np.array(sorted(table.n_members.unique()))
    for ax, panel in zip(axes[0], panels, strict=True):
        part = table[table.panel == panel]
        name = "1 / √N"
        handles[name] = ax.plot(sizes, 100 / np.sqrt(sizes), color="#999999", linestyle=":", linewidth=1.5)[0]
        law = part.dropna(subset=["law"]).groupby("n_members").law.first()
        if len(law):
            name = "sampling without replacement"
            handles[name] = ax.plot(law.index, law, color="#D55E00", linestyle="-", linewidth=5, alpha=0.4)[0]
        for model, (color, marker, dash) in zip(models, DATASETS, strict=False):
            line = intervals(part[part.model == model], ["n_members"], "ratio")
            handles[MODELS.get(model, model)] = ax.errorbar(
                line.n_members, line["mean"], line["mean"] - line.low, color=color, marker=marker, linestyle=dash,
                capsize=2.5, markersize=5,
            )  # fmt: skip
        ax.set(title=panel, xlabel="Members N", xticks=sizes, ylim=(-4, 108))
    axes[0, 0].set_ylabel("Norm of the mean\n(%, usual norm = 100)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return fig


@closed
def shrinking_gains(table):
    """Draw what soups, soups restored to the members' norms and members shrunk to the soup's gain over a member.

    Parameters
    ----------
    table : DataFrame
        Columns start (a panel each), model, replica, network (a key of `CONTROLS`) and gain (points).
    """
    starts, models = (list(dict.fromkeys(table[name])) for name in ("start", "model"))
    size = (3.4 * len(starts) + 1.6, 0.4 * len(models) + 1.5)
    fig, axes = plt.subplots(1, len(starts), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax, start in zip(axes[0], starts, strict=True):
        part = table[table.start == start]
        for index, (name, (color, marker)) in enumerate(CONTROLS.items()):
            rows = intervals(part[part.network == name], ["model"], "gain").set_index("model").reindex(models)
            y = np.arange(len(models)) + 0.24 * (index - 1)
            bars = [rows["mean"] - rows.low, rows.high - rows["mean"]]
            ax.errorbar(rows["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2, label=name)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        ax.set(title=start, xlabel="Points over a member")
    axes[0, 0].set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


@closed
def loss_around(table):
    """Draw the loss along random directions through a member and through a soup; panels are architectures.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, network ("member", "uniform soup"), direction, step and loss (nats). Drawn is the
        mean over directions, and over replicas with its interval.
    """
    models = list(dict.fromkeys(table.model))
    n_columns = min(4, len(models))
    n_rows = math.ceil(len(models) / n_columns)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=(2.4 * n_columns + 0.5, 2.3 * n_rows + 0.7), sharex=True,
                             layout="constrained", squeeze=False)  # fmt: skip
    handles = {}
    for ax, model in zip(axes.flat, models, strict=False):
        for name in ("member", "uniform soup"):
            part = table[(table.model == model) & (table.network == name)]
            pools = part.groupby(["replica", "step"]).loss.mean().reset_index()
            line = intervals(pools, ["step"], "loss")
            color, marker, dash = LOOKS[name]
            handles[name] = ax.plot(
                line.step, line["mean"], color=color, marker=marker, linestyle=dash, markersize=4, label=name
            )[0]
            ax.fill_between(line.step, line.low, line.high, color=color, alpha=0.15, linewidth=0)
        ax.set(title=MODELS.get(model, model), xlabel="Step (filter norms = 1)", xticks=[-1, 0, 1])
        ax.set_ylim(bottom=0)
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    for row in axes:
        row[0].set_ylabel("Training loss (nats)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return fig
