"""Figures of the gap between logit ensemble and soup: against distance, and what curvature says of it."""

import math

import matplotlib.pyplot as plt
import numpy as np

from .style import KINDS, MODELS, closed, intervals

__all__ = ["explained_gap", "gap_vs_distance"]

STEP_LOOKS = {"half way": ("#0173B2", "s"), "at the soup": ("#D55E00", "x")}


@closed
def gap_vs_distance(table):
    """Draw the gap of the logits against the distance of the members from their soup; panels are architectures.

    Parameters
    ----------
    table : DataFrame
        Columns model, start (a key of `KINDS`), replica, way, distance (relative to the norm of the
        soup) and gap (logits).
    """
    models = list(dict.fromkeys(table.model))
    n_columns = min(4, len(models))
    n_rows = math.ceil(len(models) / n_columns)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=(2.5 * n_columns + 0.5, 2.3 * n_rows + 0.7), sharex=True,
                             sharey=True, layout="constrained", squeeze=False)  # fmt: skip
    handles = {}
    for ax, model in zip(axes.flat, models, strict=False):
        for start, (color, marker) in KINDS.items():
            part = table[(table.model == model) & (table.start == start)]
            for _, line in part.groupby("replica"):
                handles[start] = ax.plot(line.distance, line.gap, color=color, marker=marker, markersize=4, alpha=0.8)[
                    0
                ]
        ax.set(title=MODELS.get(model, model), xscale="log", yscale="log")
    for ax in axes.flat[: len(models)]:
        low, high = ax.get_xlim()
        x = np.array([low, high])
        anchor = table.groupby("model").gap.median().median() / table.distance.median() ** 2
        handles["square of the distance"] = ax.plot(x, anchor * x**2, color="#999999", linewidth=0.8, linestyle=":")[0]
        ax.set_xlim(low, high)
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    for column in range(n_columns):  # the last panel of each column
        lowest = axes[(len(models) - 1 - column) // n_columns, column]
        lowest.set_xlabel("Distance from the soup\n(its norm = 1)")
        lowest.tick_params(labelbottom=True)
    for row in axes:
        row[0].set_ylabel("Gap (logit)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return fig


@closed
def explained_gap(table):
    """Draw the share of the squared gap that a second-order prediction accounts for; panels are starts.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, replica, way and, for each key of `STEP_LOOKS`, ``explained, <step>``. Drawn are the rows
        whose members stand where they were trained (way 1); shares below -1 are drawn at -1.
    """
    table = table[table.way == 1]
    starts, models = (list(dict.fromkeys(table[name])) for name in ("start", "model"))
    size = (3.4 * len(starts) + 1.2, 0.33 * len(models) + 1.4)
    fig, axes = plt.subplots(1, len(starts), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax, start in zip(axes[0], starts, strict=True):
        for index, (step, (color, marker)) in enumerate(STEP_LOOKS.items()):
            rows = (
                intervals(table[table.start == start], ["model"], f"explained, {step}").set_index("model").loc[models]
            )
            y = np.arange(len(models)) + 0.2 * (index - 0.5)
            ends = rows.clip(lower=-1, upper=1)
            bars = [ends["mean"] - ends.low, ends.high - ends["mean"]]
            ax.errorbar(ends["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2.5, label=step)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        ax.set(title=start, xlim=(-1.08, 1.08), xlabel="Share of the squared gap explained\n(-1: that or less)")
    axes[0, 0].set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    axes[0, 0].invert_yaxis()
    labels = {"half way": "second difference, half the way", "at the soup": "second derivative at the soup"}
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, [labels[name] for name in names], loc="outside lower center", ncols=2)
    return fig
