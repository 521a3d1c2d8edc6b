"""The three answers of the book side by side."""

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, closed, intervals, log_percent
from .templates import over_decays

__all__ = ["summary"]

# From all shared to nothing shared.
STARTS = {
    "shared start": "shared\nstart",
    "re-drawn head": "re-drawn\nhead",
    "re-drawn stem and head": "re-drawn\nends",
    "shared init": "shared\ninit",
    "independent init": "indep.\ninit",
}


@closed
def summary(decay, combinations, scale):
    """Draw the three answers of the book side by side.

    Parameters
    ----------
    decay, scale : DataFrame
        As for `decay_trade_off` and `scale_curves`; of the latter, rows of one architecture.
    combinations : DataFrame
        Columns start (a key of `STARTS`), replica, combination and accuracy (percent), rows of one architecture.
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
    shown = ["member", "uniform soup", "logit ensemble"]
    widest = combinations.assign(error=100 - combinations.accuracy)
    starts = [start for start in STARTS if start in set(widest.start)]
    for index, name in enumerate(shown):
        rows = intervals(widest[widest.combination == name], ["start"], "error").set_index("start").loc[starts]
        color, marker, _ = LOOKS[name]
        x = np.arange(len(starts)) + 0.16 * (index - 1)
        label = name.removeprefix("uniform ")
        axes[1].errorbar(
            x, rows["mean"], rows["mean"] - rows.low, color=color, marker=marker, linestyle="", capsize=3, label=label
        )
    axes[1].set_xticks(range(len(starts)), [STARTS[start] for start in starts])
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
