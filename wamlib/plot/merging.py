"""Figures of matched members, of repairs, and of merges other than the mean."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .style import LOOKS, MODELS, closed, facets, intervals

__all__ = ["alignment_paths", "barrier_vs_width", "merge_differences", "recalibration_curves", "spread_by_depth"]

REPAIRS = {"none": "uniform soup", "recalibrated": "uniform soup, recalibrated", "REPAIR": "REPAIR"}
LABELS = {
    "uniform soup": "as interpolated",
    "uniform soup, recalibrated": "BatchNorm recalibrated",
    "REPAIR": "REPAIR",
}
MATCHINGS = {"none": "units as trained", "weights": "matched by weights", "activations": "matched by activations"}


@closed
def alignment_paths(table):
    """Draw test error along the line; rows are architectures, columns are matchings.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, matching, repair, alpha, error (percent).
    """
    fig = _by_repair(table, "alpha", "error", xlabel="Mixing weight α", ylabel="Test error (%)")
    for ax in fig.axes:
        ax.set_ylim(0, 100)
    return fig


@closed
def spread_by_depth(table):
    """Draw the spread of units relative to the members' against depth; rows are architectures, columns are matchings.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, matching, repair, depth, spread (1: as in the members).
    """
    fig = _by_repair(table, "depth", "spread", xlabel="Layer", ylabel="Spread, members = 1")
    for ax in fig.axes:
        ax.axhline(1, color="#999999", linewidth=0.8, zorder=0)
        ax.set_ylim(bottom=0)
    return fig


def _by_repair(table, x, y, **labels):
    named = table.assign(look=table.repair.map(REPAIRS), column=table.matching.map(MATCHINGS))
    fig = facets(named, x, y, "look", list(LABELS), column_by="column", **labels)
    for text in fig.legends[0].get_texts():
        text.set_text(LABELS[text.get_text()])
    return fig


@closed
def barrier_vs_width(table):
    """Draw the barrier against width, one panel per architecture.

    Parameters
    ----------
    table : DataFrame
        Columns model, width (factor on the units of every hidden layer), replica,
        line (label), barrier (percentage points).
    """
    models, lines = (list(dict.fromkeys(table[name])) for name in ("model", "line"))
    fig, axes = plt.subplots(1, len(models), figsize=(3.3 * len(models), 3.4), sharey=True, layout="constrained")
    looks = ["member", "uniform soup", "uniform soup, recalibrated", "REPAIR"]
    for ax, model in zip(np.atleast_1d(axes), models, strict=True):
        for name, look in zip(lines, looks, strict=False):
            rows = table[(table.model == model) & (table.line == name)]
            if len(rows):
                line = intervals(rows, ["width"], "barrier")
                color, marker, dash = LOOKS[look]
                ax.errorbar(line.width, line["mean"], line["mean"] - line.low, color=color, marker=marker,
                            linestyle=dash, capsize=2.5, label=name)  # fmt: skip
        widths = sorted(table.width.unique())
        ax.set(title=MODELS.get(model, model), xscale="log", xlabel="Width (1: as in the other chapters)")
        ax.set_xticks(widths, [f"{width:g}" for width in widths])
        ax.xaxis.set_minor_locator(plt.NullLocator())
    # Last, because a limit that is set ends the scaling of a shared axis by what is drawn later.
    np.atleast_1d(axes)[0].set_ylim(bottom=0)
    np.atleast_1d(axes)[0].set_ylabel("Barrier (points)")
    handles, names = np.atleast_1d(axes)[-1].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=2)
    return fig


@closed
def merge_differences(table):
    """Draw each merge's test accuracy against the uniform soup's, one panel per architecture.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, merge, mean, low, high (points, paired within pools).
    """
    models, merges, starts = (list(dict.fromkeys(table[name])) for name in ("model", "merge", "start"))
    size = (2.5 * len(models) + 1.6, 0.3 * len(merges) + 1.3)
    fig, axes = plt.subplots(1, len(models), figsize=size, sharey=True, layout="constrained")
    colors = sns.color_palette("colorblind")
    for ax, model in zip(np.atleast_1d(axes), models, strict=True):
        for index, start in enumerate(starts):
            rows = table[(table.model == model) & (table.start == start)].set_index("merge").loc[merges]
            y = np.arange(len(merges)) + 0.22 * (index - (len(starts) - 1) / 2)
            bars = [rows["mean"] - rows.low, rows.high - rows["mean"]]
            ax.errorbar(rows["mean"], y, xerr=bars, fmt="osD"[index], color=colors[index], capsize=2, label=start)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        # Linear around 0, logarithmic beyond: tenths of a point and collapses in one panel.
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xticks([-50, -10, -2, 0, 2, 10], ["−50", "−10", "−2", "0", "2", "10"])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.set(title=MODELS.get(model, model), xlabel="Points against the uniform soup")
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(merges)), merges)
    first.invert_yaxis()
    fig.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=len(starts))
    return fig


@closed
def recalibration_curves(table):
    """Draw the soup's error against the images that BatchNorm was recalibrated on.

    Parameters
    ----------
    table : DataFrame
        Columns replica, images, order, tool, error (percent); rows with 0 images are
        the averaged statistics.
    """
    orders = list(dict.fromkeys(table.order[table.images > 0]))
    fig, axes = plt.subplots(1, len(orders), figsize=(3.4 * len(orders), 3.3), sharey=True, layout="constrained")
    for ax, order in zip(np.atleast_1d(axes), orders, strict=True):
        for tool, look in (("wamlib", "uniform soup, recalibrated"), ("torch", "greedy soup")):
            line = intervals(table[(table.order == order) & (table.tool == tool)], ["images"], "error")
            color, marker, dash = LOOKS[look]
            name = {"wamlib": "wamlib", "torch": "torch's update_bn"}[tool]
            ax.errorbar(line.images, line["mean"], line["mean"] - line.low, color=color, marker=marker,
                        linestyle=dash, capsize=2.5, label=name)  # fmt: skip
        ax.axhline(table.error[table.images == 0].mean(), color="#7A7A7A", linestyle=":", label="averaged statistics")
        ax.set(title=f"images {order}", xscale="log", yscale="log", xlabel="Training images")
        sizes = sorted(table.images[table.images > 0].unique())
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.set_yticks([15, 20, 30, 50, 90], ["15", "20", "30", "50", "90"])
        ax.yaxis.set_minor_locator(plt.NullLocator())
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("Test error of the soup (%, log axis)")
    fig.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
