"""Figures of the members themselves."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .style import LOOKS, MODELS, closed, intervals

__all__ = ["learning_curves", "member_strip"]


@closed
def learning_curves(table):
    """Draw training accuracy against epochs, one line per architecture.

    Parameters
    ----------
    table : DataFrame
        Columns model, epoch, accuracy (percent, training images as seen).
    """
    fig, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    for index, (model, rows) in enumerate(table.groupby("model", sort=False)):
        line = intervals(rows, ["epoch"], "accuracy")
        color = sns.color_palette("colorblind")[index]
        ax.fill_between(line.epoch, line.low, line.high, color=color, alpha=0.2, linewidth=0)
        ax.plot(line.epoch, line["mean"], marker="osD^v"[index], color=color, label=MODELS.get(model, model))
    ax.set(xlabel="Epoch", ylabel="Training accuracy (%)", xticks=sorted(table.epoch.unique()))
    ax.legend(title=None)
    return fig


@closed
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
