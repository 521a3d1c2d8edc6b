"""Figures: a DataFrame in, a Figure out. Nothing is computed here but means and intervals over replicas."""

import functools
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from .stats import mean_interval

__all__ = [
    "correlation_matrix",
    "decay_trade_off",
    "error_along_path",
    "error_vs_members",
    "learning_curves",
    "member_strip",
    "picture_grid",
    "scale_curves",
    "summary",
]

plt.style.use(Path(__file__).with_name("wamlib.mplstyle"))

# seaborn's colour-blind palette with one meaning per hue in the whole book; each
# hue has its own marker and dash, so that a grey print loses nothing.
LOOKS = {
    "member": ("#7A7A7A", "o", (0, (1, 1.2))),
    "uniform soup": ("#0173B2", "s", "-"),
    "uniform soup, recalibrated": ("#0173B2", "D", (0, (5, 1.5))),
    "greedy soup": ("#56B4E9", "^", "-"),
    "greedy soup, recalibrated": ("#56B4E9", "v", (0, (5, 1.5))),
    "logit ensemble": ("#DE8F05", "o", "-"),
    "probability ensemble": ("#CA9161", "P", (0, (3, 1, 1, 1))),
    "feature ensemble, first head": ("#D55E00", "x", (0, (1, 1))),
    "feature ensemble, averaged head": ("#029E73", "*", (0, (3, 1))),
}
MODELS = {"mlp": "MLP", "cnn": "CNN", "resnet8": "ResNet-8 (BatchNorm)", "linear": "linear"}


def _closed(draw):
    """Close the figure before returning it, so that a notebook shows it once: where it is placed."""

    @functools.wraps(draw)
    def closing(*args, **kwargs):
        fig = draw(*args, **kwargs)
        plt.close(fig)
        return fig

    return closing


@_closed
def learning_curves(table):
    """Draw training accuracy against epochs, one line per architecture.

    Parameters
    ----------
    table : DataFrame
        Columns model, epoch, accuracy (percent, training images as seen).
    """
    fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    for index, (model, rows) in enumerate(table.groupby("model", sort=False)):
        line = _intervals(rows, ["epoch"], "accuracy")
        color = sns.color_palette("colorblind")[index]
        ax.fill_between(line.epoch, line.low, line.high, color=color, alpha=0.2, linewidth=0)
        ax.plot(line.epoch, line["mean"], marker="osD^v"[index], color=color, label=MODELS.get(model, model))
    ax.set(xlabel="Epoch", ylabel="Training accuracy (%)", xticks=sorted(table.epoch.unique()))
    ax.legend(title=None)
    return fig


@_closed
def member_strip(table):
    """Draw the test accuracy of every member, by architecture and start.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, accuracy (percent).
    """
    models = list(dict.fromkeys(table.model))
    fig, axes = plt.subplots(1, len(models), figsize=(2.9 * len(models), 3.1), sharey=True, layout="constrained")
    for ax, model in zip(np.atleast_1d(axes), models, strict=True):
        rows = table[table.model == model]
        sns.stripplot(rows, x="start", y="accuracy", color=LOOKS["member"][0], alpha=0.8, size=5, ax=ax, jitter=0.15)
        spread = rows.groupby("start", sort=False).accuracy.agg(["mean", "std"])
        ax.errorbar(range(len(spread)), spread["mean"], spread["std"], fmt="_", color="black", capsize=4, markersize=14)
        ax.set(title=MODELS.get(model, model), xlabel="", ylabel="Test accuracy (%)")
        ax.set_xticks(range(len(spread)), [name.replace(" ", "\n") for name in spread.index])
    return fig


@_closed
def picture_grid(rows, columns, *, unit="weight"):
    """Draw rows of pictures, each on a signed colour scale of its own with 0 in white.

    Parameters
    ----------
    rows : dict of str to ndarray, shape (picture, channel, height, width)
        Row label to pictures. Colour pictures are shown as the mean of their channels.
    columns : sequence of str
        Labels over the columns.
    unit : str
        What red and blue stand for.
    """
    n = len(columns)
    fig, axes = plt.subplots(
        len(rows), n, figsize=(0.92 * n + 0.9, 1.02 * len(rows) + 0.35), layout="constrained", squeeze=False
    )
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, np.asarray(pictures).mean(1), strict=True):
            limit = np.abs(picture).max() or 1
            ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            sns.despine(ax=ax, left=True, bottom=True)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name.replace(" + ", "\n+ "), fontsize=9)
    fig.supxlabel(f"red: positive {unit}, blue: negative, white: 0", fontsize=8.5, color="#444444")
    return fig


@_closed
def correlation_matrix(table):
    """Draw the correlation of each class's template with each class mean.

    Parameters
    ----------
    table : DataFrame
        Index: classes of the templates; columns: classes of the means; values in [-1, 1].
    """
    fig, ax = plt.subplots(figsize=(6.0, 5.0), layout="constrained")
    sns.heatmap(
        table, vmin=-1, vmax=1, cmap="RdBu_r", square=True, annot=len(table) <= 12, fmt=".1f", annot_kws={"size": 8},
        cbar_kws={"label": "Pearson correlation"}, linewidths=0.5, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="Class mean minus global mean", ylabel="Weight row (mean over members)")
    return fig


@_closed
def decay_trade_off(table):
    """Draw template correlation and accuracy against weight decay, one above the other.

    Parameters
    ----------
    table : DataFrame
        Columns weight_decay (0 is drawn at the left end), own (correlation), null
        (correlation with other classes' means), accuracy (percent); one row per member.
    """
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(5.6, 4.6), sharex=True, layout="constrained")
    decays = sorted(table.weight_decay.unique())
    place = {decay: index for index, decay in enumerate(decays)}
    for ax, column, look, label in [
        (top, "own", "uniform soup", "own class"),
        (top, "null", "member", "another class"),
        (bottom, "accuracy", "uniform soup", None),
    ]:
        line = _intervals(table, ["weight_decay"], column)
        color, marker, dash = LOOKS[look]
        x = line.weight_decay.map(place)
        ax.errorbar(
            x, line["mean"], line["mean"] - line.low, color=color, marker=marker, linestyle=dash, capsize=3, label=label
        )
    top.set(ylabel="Correlation with\ncentred class mean", ylim=(-0.35, 1.02))
    top.legend(title="row compared with the mean of", loc="center left", bbox_to_anchor=(0, 0.42))
    bottom.set(ylabel="Test accuracy (%)", xlabel="Weight decay")
    bottom.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    return fig


@_closed
def error_vs_members(table, combinations):
    """Draw test error on a logarithmic axis against the number of members; rows are architectures, columns starts.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, replica, n_members, combination, accuracy (percent).
    combinations : sequence of str
        Which to draw, in the order of the legend.
    """
    table = table[table.combination.isin(combinations)].assign(error=lambda rows: 100 - rows.accuracy)
    fig = _facets(table, "n_members", "error", "combination", combinations, xlabel="Members", ylabel="Test error (%)")
    n_columns = table.start.nunique()
    for first in range(0, len(fig.axes), n_columns):
        _log_percent(fig.axes[first : first + n_columns])
    return fig


@_closed
def error_along_path(table):
    """Draw test error along the line between two members; rows are architectures, columns are starts.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, replica, alpha, error (percent), recalibrated (bool).
    """
    names = {False: "uniform soup", True: "uniform soup, recalibrated"}
    table = table.assign(line=table.recalibrated.map(names))
    fig = _facets(
        table, "alpha", "error", "line", list(names.values()), xlabel="Mixing weight α", ylabel="Test error (%)"
    )
    for ax in fig.axes:
        ax.set_ylim(0, min(100, ax.get_ylim()[1]))
    labels = {"uniform soup": "weights as interpolated", "uniform soup, recalibrated": "BatchNorm recalibrated"}
    for text in fig.legends[0].get_texts():
        text.set_text(labels.get(text.get_text(), text.get_text()))
    return fig


@_closed
def scale_curves(table, column="accuracy", ylabel="Test accuracy (%)"):
    """Draw a quantity against the scale factor c; rows are architectures, columns are scopes.

    Parameters
    ----------
    table : DataFrame
        Columns model, scope, replica, combination, c, and ``column``.
    column : str
        What to draw; rows where it is NaN are drawn as gaps.
    ylabel : str
        Its name and unit.
    """
    order = ["member", "uniform soup", "logit ensemble"]
    fig = _facets(
        table, "c", column, "combination", order, column_by="scope", xlabel="Scale factor c", ylabel=ylabel, log=True
    )
    for ax in fig.axes:
        ax.set_ylim(0, 100)
    return fig


@_closed
def summary(decay, combinations, scale):
    """Draw the three answers of the book side by side.

    Parameters
    ----------
    decay, combinations, scale : DataFrame
        As for `decay_trade_off`, `error_vs_members` and `scale_curves`; of the
        last two, rows of one architecture.
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.4, 3.2), layout="constrained")
    line = _intervals(decay, ["weight_decay"], "own")
    axes[0].errorbar(
        range(len(line)), line["mean"], line["mean"] - line.low, color=LOOKS["uniform soup"][0], marker="s", capsize=3
    )
    axes[0].set_xticks(range(len(line)), [f"{decay:g}" for decay in line.weight_decay])
    axes[0].set(
        title="Do weights look like data?",
        xlabel="Weight decay",
        ylabel="Correlation of a weight row\nwith its centred class mean",
    )
    shown = ["member", "uniform soup, recalibrated", "logit ensemble"]
    widest = combinations[combinations.n_members == combinations.n_members.max()]
    widest = widest.assign(error=100 - widest.accuracy)
    starts = list(dict.fromkeys(widest.start))
    for index, name in enumerate(shown):
        rows = _intervals(widest[widest.combination == name], ["start"], "error").set_index("start").loc[starts]
        color, marker, _ = LOOKS[name]
        x = np.arange(len(starts)) + 0.16 * (index - 1)
        label = name.replace("uniform soup, recalibrated", "soup")
        axes[1].errorbar(
            x, rows["mean"], rows["mean"] - rows.low, color=color, marker=marker, linestyle="", capsize=3, label=label
        )
    axes[1].set_xticks(range(len(starts)), [start.replace(" ", "\n") for start in starts])
    axes[1].set(title="Average weights or outputs?", ylabel="Test error (%, log axis)")
    _log_percent([axes[1]])
    axes[1].legend(loc="upper left")
    for name in ("member", "uniform soup"):
        rows = _intervals(scale[scale.combination == name], ["c"], "accuracy")
        color, marker, dash = LOOKS[name]
        label = name.replace("uniform ", "")
        axes[2].errorbar(
            rows.c,
            rows["mean"],
            rows["mean"] - rows.low,
            color=color,
            marker=marker,
            linestyle=dash,
            capsize=3,
            label=label,
        )
    axes[2].set(
        title="Does size matter?",
        xscale="log",
        xlabel="Scale factor c on all learnable weights",
        ylabel="Test accuracy (%)",
    )
    axes[2].set_ylim(0, 100)
    axes[2].legend()
    return fig


def _facets(table, x, y, hue, order, *, row_by="model", column_by="start", xlabel, ylabel, log=False):
    """Draw means with 95 % intervals over replicas as small multiples with shared axes."""
    rows, columns = (list(dict.fromkeys(table[name])) for name in (row_by, column_by))
    size = (2.7 * len(columns) + 0.4, 2.2 * len(rows) + 0.9)
    fig, axes = plt.subplots(
        len(rows), len(columns), figsize=size, sharex=True, sharey="row", layout="constrained", squeeze=False
    )
    handles = {}
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        ax, cell = axes[i, j], table[(table[row_by] == row) & (table[column_by] == column)]
        for name in order:
            line = _intervals(cell[cell[hue] == name], [x], y)
            if len(line):
                color, marker, dash = LOOKS[name]
                handles[name] = ax.errorbar(
                    line[x],
                    line["mean"],
                    line["mean"] - line.low,
                    color=color,
                    marker=marker,
                    linestyle=dash,
                    capsize=2.5,
                    label=name,
                )
        if log:
            ax.set_xscale("log")
        if i == 0:
            ax.set_title(column)
        if i == len(rows) - 1:
            ax.set_xlabel(xlabel)
        if j == 0:
            ax.set_ylabel(f"{MODELS.get(row, row)}\n{ylabel}")
        if x == "n_members":
            ax.set_xticks(sorted(table[x].unique()))
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)))
    return fig


def _log_percent(axes):
    """Put the error axis that some panels share on a logarithmic scale with plain numbers."""
    means = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.lines])
    means = means[means > 0]  # where an interval reaches below 0, a logarithmic axis cannot show its end
    low, high = 0.85 * means.min(), min(100, 1.15 * means.max())
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 12, 15, 20, 30, 50, 90) if low <= tick <= high]
    for ax in axes:
        ax.set(yscale="log", ylim=(low, high))
        ax.yaxis.set_minor_locator(plt.NullLocator())
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _intervals(table, by, column):
    """Return the mean and the 95 % interval of a column over the other rows of each group."""
    groups = table.dropna(subset=[column]).groupby(by, sort=True)[column]
    lines = [(*(key if isinstance(key, tuple) else (key,)), *mean_interval(values)[:3]) for key, values in groups]
    return pd.DataFrame(lines, columns=[*by, "mean", "low", "high"])
