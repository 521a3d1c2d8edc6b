"""Figures of trust: reliability diagrams, error against coverage, detection of foreign images."""

import itertools

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, MODELS, closed, intervals

__all__ = ["detection_marks", "error_vs_coverage", "reliability_diagram"]

SMALLEST = 1  # percent of the images: smaller bins are left out, for chance moves them far
STATISTICS = {"mean pixel": (0, (1, 1.5)), "roughness": (0, (5, 1.5))}


@closed
def reliability_diagram(table, combinations):
    """Draw accuracy against confidence; columns are combinations, rows temperatures.

    Parameters
    ----------
    table : DataFrame
        Rows of `wamlib.tables.trust` with model and replica. Drawn are all pools together, and each architecture as
        a thin line; bars are shares of the images.
    combinations : sequence of str
        Which to draw, in order.
    """
    temperatures = list(dict.fromkeys(table.temperature))
    size = (2.35 * len(combinations) + 0.8, 2.3 * len(temperatures) + 0.7)
    fig, axes = plt.subplots(len(temperatures), len(combinations), figsize=size, sharex=True, sharey=True,
                             layout="constrained", squeeze=False)  # fmt: skip
    for (i, temperature), (j, name) in itertools.product(enumerate(temperatures), enumerate(combinations)):
        ax, (color, marker, _) = axes[i, j], LOOKS[name]
        part = table[(table.temperature == temperature) & (table.combination == name)]
        for _, one in part.groupby("model", sort=False):
            line = _bins(one)
            thin = ax.plot(line.confidence, line.accuracy, color=color, linewidth=0.7, alpha=0.55)[0]
        ideal = ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, linestyle=":", zorder=0)[0]
        line = _bins(part)
        bold = ax.plot(line.confidence, line.accuracy, color=color, marker=marker, markersize=4)[0]
        bars = ax.bar(line.confidence, line.share, width=4, color=color, alpha=0.3)
        ax.set(xlim=(0, 100), ylim=(0, 100))
        if i == 0:
            ax.set_title(name.replace(", ", ",\n"))
        if j == 0:
            ax.set_ylabel(f"{temperature}\nAccuracy, share (%)")
        if i == len(temperatures) - 1:
            ax.set_xlabel("Confidence (%)")
    names = ["all pools", "one architecture", "calibrated", "share of images"]
    fig.legend([bold, thin, ideal, bars], names, loc="outside lower center", ncols=4)
    return fig


def _bins(rows):
    """Return confidence, accuracy and share of the bins of several pools together."""
    keys = [key for key in ("model", "replica", "at") if key in rows]
    wide = rows.pivot_table("value", keys, "measure")
    weighted = wide[["confidence", "bin accuracy"]].mul(wide.share, axis=0).assign(share=wide.share)
    total = weighted.groupby("at").sum()
    n_pools = len(wide.groupby(keys[:-1]))
    found = total[["confidence", "bin accuracy"]].div(total.share, axis=0).rename(columns={"bin accuracy": "accuracy"})
    return found.assign(share=total.share / n_pools).query(f"share >= {SMALLEST}")


@closed
def error_vs_coverage(table, combinations, baseline="member"):
    """Draw the error of the answers given against the share of images answered, and its difference from a baseline.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, combination, at (coverage, percent) and value (selective error, percent). Each
        replica counts with its mean over the architectures.
    combinations : sequence of str
        Which to draw, in the order of the legend.
    baseline : str
        The combination that is subtracted.
    """
    mean = table.groupby(["combination", "replica", "at"]).value.mean()
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.7), layout="constrained")
    for name in combinations:
        color, marker, dash = LOOKS[name]
        for ax, values in zip(axes, (mean[name], mean[name] - mean[baseline]), strict=True):
            line = intervals(values.reset_index(), ["at"], "value")
            ax.plot(line["at"], line["mean"], color=color, marker=marker, linestyle=dash, markersize=4, label=name)
            if ax is axes[1] and name != baseline:
                ax.fill_between(line["at"], line.low, line.high, color=color, alpha=0.15, linewidth=0)
    axes[0].set(ylabel="Error of the answers (%)", ylim=(0, None))
    axes[1].set(ylabel=f"The same, minus the {baseline}'s (points)")
    for ax in axes:
        ax.set(xlabel="Coverage: images answered, surest first (%)", xlim=(0, 102))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(combinations)))
    return fig


@closed
def detection_marks(table, combinations, statistics):
    """Draw how well foreign images are told from own ones, by architecture; panels are kinds of foreign images.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, combination, images (title of the foreign ones) and value (AUROC, percent).
    combinations : sequence of str
        Which to draw, in the order of the legend.
    statistics : DataFrame
        What `wamlib.tables.image_statistics` returns: drawn as lines, for they need no network.
    """
    panels, models = (list(dict.fromkeys(table[name])) for name in ("images", "model"))
    size = (3.3 * len(panels) + 1.6, 0.42 * len(models) + 1.7)
    fig, axes = plt.subplots(
        1, len(panels), figsize=size, sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for ax, images in zip(axes[0], panels, strict=True):
        for index, name in enumerate(combinations):
            part = table[(table.images == images) & (table.combination == name)]
            rows = intervals(part, ["model"], "value").set_index("model").reindex(models)
            y = np.arange(len(models)) + 0.62 / len(combinations) * (index - (len(combinations) - 1) / 2)
            bars = [rows["mean"] - rows.low, rows.high.clip(upper=100) - rows["mean"]]
            color, marker, _ = LOOKS[name]
            ax.errorbar(rows["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2, label=name)
        for name, dash in STATISTICS.items():
            line = statistics[(statistics.images == images) & (statistics.statistic == name)]
            for value in line.AUROC:
                ax.axvline(value, color="#333333", linewidth=1.1, linestyle=dash, zorder=0, label=f"{name} alone")
        ax.axvline(50, color="#999999", linewidth=0.8, zorder=0, label="guessing")
        ax.set(title=f"against {images}", xlabel="AUROC (%)", xlim=(max(0, ax.get_xlim()[0]), 100))
    axes[0, 0].set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, 2 * len(panels)))
    return fig
