"""Figures of weight rows and class means."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .style import LOOKS, closed, intervals

__all__ = ["correlation_matrix", "decay_trade_off", "picture_grid"]


@closed
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
        line = intervals(table, ["weight_decay"], column)
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
