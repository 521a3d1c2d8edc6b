"""Figures of the recommendation: what options cost and give, and what was predicted of the soup."""

import math

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, closed, log_percent

__all__ = ["cost_vs_error", "option_gains", "predicted_gain"]

# The aligned soup has no line in other figures.
OPTIONS = {name: LOOKS[name] for name in ("member", "uniform soup", "greedy soup", "logit ensemble")}
OPTIONS["aligned soup"] = ("#CC78BC", "X", "-")
STARTS = {
    "shared start": ("#0173B2", "s"), "re-drawn head": ("#56B4E9", "^"), "shared init": ("#029E73", "D"),
    "re-drawn stem and head": ("#DE8F05", "v"), "independent init": ("#7A7A7A", "o"), "reordered": ("#D55E00", "X"),
}  # fmt: skip
SHORT = {"mlp": "MLP", "cnn": "CNN", "vgg": "VGG", "vgg_bn": "VGG-BN", "resnet8": "ResNet", "densenet": "DenseNet",
         "vit": "ViT"}  # fmt: skip
NEAR = 6  # points: the second panel shows gains up to here


@closed
def cost_vs_error(table):
    """Draw the test error of every option against the operations of one prediction; a panel for each group of pools.

    Parameters
    ----------
    table : DataFrame
        Columns panel, model, option (a key of `OPTIONS`), mflops (million operations of a prediction, all its passes
        together) and error (percent, mean over pools).
    """
    panels = list(dict.fromkeys(table.panel))
    n_columns = min(2, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    size = (4.6 * n_columns + 0.4, 3.2 * n_rows + 0.7)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    handles = {}
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        cells = table[table.panel == panel]
        by_error = cells[cells.option == "logit ensemble"].sort_values("error").model.tolist()
        for model, part in cells.groupby("model", sort=False):
            ends = part[part.option.isin(["member", "logit ensemble"])].sort_values("mflops")
            ax.plot(ends.mflops, ends.error, color="#BBBBBB", linewidth=0.8, zorder=0)
            last, above = ends.iloc[-1], by_error.index(model) % 2  # by turns, so that neighbours keep apart
            ax.annotate(SHORT.get(model, model), (last.mflops, last.error), xytext=(6, 2 if above else -8),
                        textcoords="offset points", fontsize=8)  # fmt: skip
            for row in part.itertuples():
                color, marker, _ = OPTIONS[row.option]
                handles[row.option] = ax.plot(
                    row.mflops, row.error, color=color, marker=marker, linestyle="", markersize=6, alpha=0.85
                )[0]
        ax.set(title=panel, xscale="log", xlabel="Operations of a prediction (million)", ylabel="Test error (%)")
        ax.margins(x=0.2)
        low, high = ax.get_xlim()
        ticks = [tick for tick in np.outer(10.0 ** np.arange(-2, 6), [1, 2, 5]).flat if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        log_percent([ax])
    shown = [name for name in OPTIONS if name in handles]
    fig.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=len(shown))
    return fig


@closed
def predicted_gain(table):
    """Draw the measured gain of the uniform soup against the predicted one: all pools, and those near zero.

    Parameters
    ----------
    table : DataFrame
        Columns start (a key of `STARTS`), setting (whether the rules were set on this pool), predicted_gain,
        predicted_noise and measured_gain (points over a member). The second panel holds the pools of which neither
        gain is beyond `NEAR` points, with bars of one standard error of the prediction; without any it is left out.
    """
    near = table[table[["predicted_gain", "measured_gain"]].abs().max(axis=1) <= NEAR]
    parts = [table] if near.empty else [table, near]
    fig, axes = plt.subplots(1, len(parts), figsize=(4.9 * len(parts), 4.6), layout="constrained", squeeze=False)
    handles = {}
    for ax, part in zip(axes[0], parts, strict=True):
        for (start, setting), rows in part.groupby(["start", "setting"], sort=False):
            bars = rows.predicted_noise if part is near else None
            color, marker = STARTS[start]
            face = "none" if setting else color
            points = ax.errorbar(rows.predicted_gain, rows.measured_gain,
                                 xerr=bars, color=color, marker=marker, markerfacecolor=face, markersize=6,
                                 elinewidth=0.6, alpha=0.8, linestyle="")  # fmt: skip
            if not setting or start not in handles:
                handles[start] = points
        values = part[["predicted_gain", "measured_gain"]].to_numpy()
        ends = np.array([values.min(), values.max()])
        ax.plot(ends, ends, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
        ax.axhline(0, color="#DDDDDD", linewidth=0.8, zorder=0)
        ax.axvline(0, color="#DDDDDD", linewidth=0.8, zorder=0)
        ax.set(xlabel="Predicted gain of the soup (points)", ylabel="Measured gain (points)",
               title="all pools" if part is table else "those near zero, enlarged")  # fmt: skip
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return fig


@closed
def option_gains(table):
    """Draw what each option was expected to gain over a member, and what it gained on other images.

    Parameters
    ----------
    table : DataFrame
        Columns option (a key of `OPTIONS`, or "best member"), expected and gain (points over a member), and noise (the
        standard error of the gain). An option of which nothing was expected has NaN there.
    """
    fig, ax = plt.subplots(figsize=(6.4, 0.5 * len(table) + 1.3), layout="constrained")
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, table.itertuples(), strict=True):
        color, marker, _ = OPTIONS.get(row.option, LOOKS["member"])
        ax.errorbar(row.gain, place, xerr=row.noise, color=color, marker=marker, markersize=7, linestyle="")
        ax.plot(row.expected, place + 0.22, color=color, marker=marker, markersize=7, markerfacecolor="none")
    ax.axvline(0, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    ax.set_yticks(places, table.option)
    ax.set(xlabel="Gain over a member (points)", ylim=(-0.6, len(table) - 0.4))
    if np.nanmax(table[["gain", "expected"]].abs().to_numpy()) > NEAR:  # a collapse beside tenths of a point
        ax.set_xscale("symlog", linthresh=2)
        ticks = [-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50]
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in ticks if low <= tick <= high], [f"{t:g}" for t in ticks if low <= t <= high])
        ax.xaxis.set_minor_locator(plt.NullLocator())
    return fig
