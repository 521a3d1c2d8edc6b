"""The three answers of the book, one small figure each, and side by side."""

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, closed, intervals, log_percent
from .templates import over_decays

__all__ = ["answers", "summary"]

# From all shared to nothing shared.
STARTS = {
    "shared start": "shared\nstart",
    "re-drawn head": "re-drawn\nhead",
    "re-drawn stem and head": "re-drawn\nends",
    "shared init": "shared\ninit",
    "independent init": "indep.\ninit",
}


QUESTIONS = ("Do weights look like data?", "Average weights or outputs?", "Does size matter?")


@closed
def summary(decay, combinations, scale):
    """Draw the three answers of the book side by side.

    Parameters
    ----------
    decay, scale : DataFrame
        As for `decay_trade_off` and `scale_curves`; of the latter, rows of one architecture, scope "learnable" and, for
        a line that stays, "batchnorm" (coherent).
    combinations : DataFrame
        Columns start (a key of `STARTS`), replica, combination and accuracy (percent), rows of one architecture.
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.4, 3.2), layout="constrained")
    for ax, draw, table, question in zip(axes, PANELS, (decay, combinations, scale), QUESTIONS):
        draw(ax, table)
        ax.set_title(question)
    return fig


def answers(decay, combinations, scale):
    """Draw the three answers of the book as small figures of one size.

    Parameters
    ----------
    decay, combinations, scale : DataFrame
        As for `summary`.

    Returns
    -------
    tuple of Figure
    """
    return tuple(_alone(draw, table) for draw, table in zip(PANELS, (decay, combinations, scale)))


@closed
def _alone(draw, table):
    fig, ax = plt.subplots(figsize=(3.3, 3.2), layout="constrained")
    draw(ax, table)
    # Within so small a frame a legend would lie on the curves.
    ax.get_legend().remove()
    fig.legend(loc="outside upper left", ncols=2, fontsize=8)
    return fig


def _likeness(ax, decay):
    over_decays(ax, decay, "own")
    ax.tick_params(axis="x", rotation=45)
    ax.legend(loc="center left", bbox_to_anchor=(0, 0.66), fontsize=8)
    ax.set(xlabel="Weight decay", ylabel="Correlation of a weight row\nwith its centred class mean")


def _weights_or_outputs(ax, combinations):
    widest = combinations.assign(error=100 - combinations.accuracy)
    starts = [start for start in STARTS if start in set(widest.start)]
    for index, name in enumerate(["member", "uniform soup", "logit ensemble"]):
        rows = intervals(widest[widest.combination == name], ["start"], "error").set_index("start").loc[starts]
        x, bar = np.arange(len(starts)) + 0.16 * (index - 1), rows["mean"] - rows.low
        _marks(ax, x, rows["mean"], bar, name, linestyle="")
    ax.set_xticks(range(len(starts)), [STARTS[start] for start in starts])
    ax.tick_params(axis="x", labelsize=7.5)
    ax.set_ylabel("Test error (%, log axis)")
    log_percent([ax])
    ax.legend(loc="upper left")


def _size(ax, scale):
    learnable, coherent = (scale[scale.scope == scope] for scope in ("learnable", "batchnorm"))
    for name in ("member", "uniform soup"):
        rows = intervals(learnable[learnable.combination == name], ["c"], "accuracy")
        _marks(ax, rows.c, rows["mean"], rows["mean"] - rows.low, name, linestyle=LOOKS[name][2])
    rows = intervals(coherent[coherent.combination == "uniform soup"], ["c"], "accuracy")
    if len(rows):
        ax.plot(rows.c, rows["mean"], color=LOOKS["uniform soup"][0], linestyle=(0, (1, 1.2)), label="soup, coherent")
    ax.set(xscale="log", xlabel="Scale factor c", ylabel="Test accuracy (%)")
    ax.set_ylim(0, 100)
    ax.legend(loc="center left")  # where nothing is drawn


PANELS = (_likeness, _weights_or_outputs, _size)


def _marks(ax, x, mean, bar, name, linestyle):
    color, marker, _ = LOOKS[name]
    label = name.removeprefix("uniform ")
    ax.errorbar(x, mean, bar, color=color, marker=marker, linestyle=linestyle, capsize=3, label=label)
