"""Figures of weight rows and class means."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .style import DATASETS, closed, intervals

__all__ = ["picture_grid"]


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
