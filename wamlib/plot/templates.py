"""Figures of weight rows and class means."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .style import DATASETS, LOOKS, closed, intervals

__all__ = ["correlation_matrix", "decay_trade_off", "limit_correlation", "picture_grid", "stretched_grid"]


@closed
def picture_grid(rows, columns, *, unit="weight"):
    """Draw rows of pictures, each on a signed colour scale of its own with 0 in white.

    Parameters
    ----------
    rows : dict of str to ndarray, shape (picture, channel, height, width)
        Row label to pictures. Colour pictures are shown as the mean of their channels.
    columns : sequence of str, or dict of str to sequence of str
        Labels over the columns; or, for rows of several kinds, the label of a row to the labels
        that stand above it.
    unit : str
        What red and blue stand for.
    """
    heads = columns if isinstance(columns, dict) else {next(iter(rows)): columns}
    fig, axes = empty_grid(len(rows), len(next(iter(heads.values()))))
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for ax, name in zip(line, heads.get(label, ()), strict=False):
            ax.set_title(name.replace(" + ", "\n+ "), fontsize=9)
        for ax, picture in zip(line, np.asarray(pictures).mean(1), strict=True):
            limit = np.abs(picture).max() or 1
            ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    fig.supxlabel(f"red: positive {unit}, blue: negative, white: 0", fontsize=8.5, color="#444444")
    return fig


@closed
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


@closed
def stretched_grid(rows, columns):
    """Draw rows of pictures as the paper's code does: each stretched from its minimum to its maximum.

    Colour pictures are shown in colour, grey ones in grey; sign and size are lost.

    Parameters
    ----------
    rows : dict of str to ndarray, shape (picture, channel, height, width)
        Row label to pictures.
    columns : sequence of str
        Labels over the columns.
    """
    fig, axes = empty_grid(len(rows), len(columns))
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, np.asarray(pictures, dtype=float), strict=True):
            low, high = picture.min(), picture.max()
            stretched = (picture - low) / ((high - low) or 1)
            ax.imshow(
                stretched[0] if len(picture) == 1 else stretched.transpose(1, 2, 0),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="none",
            )
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=9)
    fig.supxlabel("black: the smallest value of the picture, white: its largest", fontsize=8.5, color="#444444")
    return fig


def empty_grid(n_rows, n_columns):
    """Return a figure and its axes for lines of pictures, without ticks and frames."""
    size = (0.92 * n_columns + 0.9, 1.02 * n_rows + 0.35)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        sns.despine(ax=ax, left=True, bottom=True)
    return fig, axes


def over_decays(ax, table, column):
    """Draw a column against weight decay, equally spaced, one line per data set."""
    decays = sorted(table.weight_decay.unique())
    place = {decay: index for index, decay in enumerate(decays)}
    for name, (color, marker, dash) in zip(dict.fromkeys(table.dataset), itertools.cycle(DATASETS)):
        line = intervals(table[table.dataset == name], ["weight_decay"], column)
        x, bar = line.weight_decay.map(place), line["mean"] - line.low
        ax.errorbar(x, line["mean"], bar, color=color, marker=marker, linestyle=dash, capsize=3, label=name)
    ax.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])


@closed
def decay_trade_off(table):
    """Draw template correlation and accuracy against weight decay; columns are data sets.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, weight_decay (0 is drawn at the left end), own (correlation), null
        (correlation with other classes' means), accuracy (percent); one row per member.
    """
    names = list(dict.fromkeys(table.dataset))
    fig, axes = plt.subplots(
        2, len(names), figsize=(2.9 * len(names) + 0.9, 4.6), sharex=True, layout="constrained", squeeze=False
    )
    decays = sorted(table.weight_decay.unique())
    place = {decay: index for index, decay in enumerate(decays)}
    for (top, bottom), name in zip(axes.T, names, strict=True):
        part = table[table.dataset == name]
        for ax, column, look, label in [
            (top, "own", "uniform soup", "own class"),
            (top, "null", "member", "another class"),
            (bottom, "accuracy", "uniform soup", None),
        ]:
            line = intervals(part, ["weight_decay"], column)
            color, marker, dash = LOOKS[look]
            x, bar = line.weight_decay.map(place), line["mean"] - line.low
            ax.errorbar(x, line["mean"], bar, color=color, marker=marker, linestyle=dash, capsize=3, label=label)
        top.set(title=name, ylim=(-0.35, 1.05))
        bottom.set(xlabel="Weight decay")
        bottom.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays], rotation=45)
    axes[0, 0].set(ylabel="Correlation with\ncentred class mean")
    axes[1, 0].set(ylabel="Test accuracy (%)")
    axes[0, 0].legend(title="row compared with the mean of", loc="best", fontsize=8, title_fontsize=8)
    return fig


@closed
def limit_correlation(table):
    """Draw how close rows are to the limit of strong decay: distance, confidence, correlation; a line per data set.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, weight_decay, limit_correlation, residual (percent of the rows' norm)
        and confidence (percent).
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.2, 3.0), layout="constrained")
    columns = {
        "residual": "Distance from the\nstationary point (% of the norm)",
        "confidence": "Mean largest\nprobability (%)",
        "limit_correlation": "Correlation of a row\nwith its limit",
    }
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        over_decays(ax, table, column)
        ax.set(xlabel="Weight decay", ylabel=label)
        ax.tick_params(axis="x", rotation=45)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 100)
    axes[1].legend(loc="upper right")
    return fig
