"""The three answers of the book side by side."""

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, closed, intervals, log_percent
from .templates import over_decays

__all__ = ["summary"]


@closed
def summary(decay, combinations, scale):
    """Draw the three answers of the book side by side.

    Parameters
    ----------
    decay, combinations, scale : DataFrame
        As for `decay_trade_off`, `error_vs_members` and `scale_curves`; of the
        last two, rows of one architecture.
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.4, 3.2), layout="constrained")
    over_decays(axes[0], decay, "own")
    axes[0].tick_params(axis="x", rotation=45)
    axes[0].legend(loc="center left", bbox_to_anchor=(0, 0.66), fontsize=8)
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
        rows = intervals(widest[widest.combination == name], ["start"], "error").set_index("start").loc[starts]
        color, marker, _ = LOOKS[name]
        x = np.arange(len(starts)) + 0.16 * (index - 1)
        label = name.replace("uniform soup, recalibrated", "soup")
        axes[1].errorbar(
            x, rows["mean"], rows["mean"] - rows.low, color=color, marker=marker, linestyle="", capsize=3, label=label
        )
    axes[1].set_xticks(range(len(starts)), [start.replace(" ", "\n") for start in starts])
    axes[1].set(title="Average weights or outputs?", ylabel="Test error (%, log axis)")
    log_percent([axes[1]])
    axes[1].legend(loc="upper left")
    for name in ("member", "uniform soup"):
        rows = intervals(scale[scale.combination == name], ["c"], "accuracy")
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
