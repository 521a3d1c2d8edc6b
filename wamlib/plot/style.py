"""What every figure shares: the style sheet, one look per combination, facets, intervals."""

import functools
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from ..stats import mean_interval

__all__ = []

plt.style.use(Path(__file__).parents[1] / "wamlib.mplstyle")

# seaborn's colour-blind palette with one meaning per hue in the whole book; each
# hue has its own marker and dash, so that a grey print loses nothing.
LOOKS = {
    "member": ("#7A7A7A", "o", (0, (1, 1.2))),
    "uniform soup": ("#0173B2", "s", "-"),
    "uniform soup, recalibrated": ("#0173B2", "D", (0, (5, 1.5))),
    "greedy soup": ("#56B4E9", "^", "-"),
    "greedy soup, recalibrated": ("#56B4E9", "v", (0, (5, 1.5))),
    "logit ensemble": ("#DE8F05", ">", "-"),
    "logit ensemble, independent": ("#9C5700", "<", (0, (2, 1))),
    "probability ensemble": ("#CA9161", "P", (0, (3, 1, 1, 1))),
    "feature ensemble, first head": ("#D55E00", "x", (0, (1, 1))),
    "feature ensemble, averaged head": ("#029E73", "*", (0, (3, 1))),
    "REPAIR": ("#CC78BC", "X", (0, (6, 1, 1, 1))),
}
# Data sets share one colour, for hues mean combinations.
DATASETS = (
    ("#333333", "o", "-"),
    ("#333333", "s", (0, (5, 1.5))),
    ("#333333", "^", (0, (1, 1.2))),
    ("#333333", "D", (0, (3, 1, 1, 1))),
)
MODELS = {
    "mlp": "MLP",
    "cnn": "CNN",
    "vgg": "VGG",
    "vgg_bn": "VGG (BatchNorm)",
    "resnet8": "ResNet-8 (BatchNorm)",
    "densenet": "DenseNet (BatchNorm)",
    "vit": "ViT",
    "linear": "linear",
    "deep_linear": "two linear layers",
}
# Kinds of pools, or of pairs: what the members share, and what was done to one of them.
KINDS = {
    "shared start": ("#0173B2", "s"),
    "permuted": ("#D55E00", "X"),
    "shared init": ("#56B4E9", "^"),
    "independent init": ("#7A7A7A", "o"),
}


def closed(draw):
    """Close the figure before returning it, so that a notebook shows it once: where it is placed."""

    @functools.wraps(draw)
    def closing(*args, **kwargs):
        fig = draw(*args, **kwargs)
        plt.close(fig)
        return fig

    return closing


def facets(
    table, x, y, hue, order, *, row_by="model", column_by="start", xlabel, ylabel, log=False, sharey="row", height=2.2
):
    """Draw means with 95 % intervals over replicas as small multiples; panels of a line may share their axis."""
    rows, columns = (list(dict.fromkeys(table[name])) for name in (row_by, column_by))
    size = (2.7 * len(columns) + 0.4, height * len(rows) + 0.9)
    fig, axes = plt.subplots(
        len(rows), len(columns), figsize=size, sharex=True, sharey=sharey, layout="constrained", squeeze=False
    )
    handles = {}
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        ax, cell = axes[i, j], table[(table[row_by] == row) & (table[column_by] == column)]
        for name in order:
            line = intervals(cell[cell[hue] == name], [x], y)
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


def log_percent(axes):
    """Put the error axis that some panels share on a logarithmic scale with plain numbers."""
    means = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.lines])
    means = means[means > 0]  # where an interval reaches below 0, a logarithmic axis cannot show its end
    low, high = 0.85 * means.min(), min(100, 1.15 * means.max())
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 12, 15, 20, 30, 50, 90) if low <= tick <= high]
    if len(ticks) < 3:  # a narrow range
        ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    for ax in axes:
        ax.set(yscale="log", ylim=(low, high))
        ax.yaxis.set_minor_locator(plt.NullLocator())
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def intervals(table, by, column, *, log=False):
    """Return the mean and the 95 % interval of a column over the other rows of each group; of logarithms, if asked."""
    if log:  # else a bar on a logarithmic axis could end at or below zero, which is nowhere
        table = table.assign(**{column: np.log(table[column])})
    groups = table.dropna(subset=[column]).groupby(by, sort=True)[column]
    lines = [(*(key if isinstance(key, tuple) else (key,)), *mean_interval(values)[:3]) for key, values in groups]
    found = pd.DataFrame(lines, columns=[*by, "mean", "low", "high"])
    return found.assign(**np.exp(found[["mean", "low", "high"]])) if log else found
