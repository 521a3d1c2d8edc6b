"""Figures of stability: spoilt images, attacks, and what a scale factor changes."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.ticker import NullLocator

from .style import LOOKS, MODELS, closed, intervals

__all__ = ["attack_curves", "flips_by_severity", "stability_vs_scale"]

ORDER = ("member", "uniform soup", "logit ensemble")
MARKERS = "osDX^vP*"
NUMBERS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def _curves(axes, table, panel_by, x, y):
    """Draw the mean and the interval over replicas of each combination, one panel for each value of a column."""
    for ax, panel in zip(axes, dict.fromkeys(table[panel_by]), strict=True):
        values = sorted(table[x].unique())
        aside = 0.025 * (values[-1] - values[0])  # so that whiskers stand side by side
        for place, combination in enumerate(ORDER, start=-1):
            part = table[(table[panel_by] == panel) & (table.combination == combination)]
            part = part.groupby(["replica", x], as_index=False)[y].mean()  # over architectures, where there are several
            line = intervals(part, [x], y)
            color, marker, dash = LOOKS[combination]
            ax.errorbar(line[x] + place * aside, line["mean"], line["mean"] - line.low, color=color, marker=marker,
                        linestyle=dash, capsize=2.5, label=combination)  # fmt: skip
        ax.set_title(MODELS.get(panel, panel.capitalize()))


@closed
def flips_by_severity(table):
    """Draw how often predictions change against the severity of a corruption; panels are corruptions.

    Parameters
    ----------
    table : DataFrame
        Columns corruption, severity, model, replica, combination and flip_rate (percent): the mean over
        architectures, then the interval over replicas.
    """
    n = table.corruption.nunique()
    fig, axes = plt.subplots(1, n, figsize=(2.3 * n + 0.6, 3.0), layout="constrained", squeeze=False)
    _curves(axes[0], table, "corruption", "severity", "flip_rate")
    for ax in axes[0]:
        ax.set(xlabel="Severity", xticks=sorted(table.severity.unique()))
        ax.set_ylim(0, max(ax.get_ylim()[1], 1))
    axes[0, 0].set_ylabel("Changed predictions (%)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


@closed
def attack_curves(table):
    """Draw accuracy under attack against the budget; rows are kinds of attack, columns architectures.

    Parameters
    ----------
    table : DataFrame
        Columns kind, budget (units of 0 to 255), model, replica, combination and accuracy (percent).
    """
    kinds, n = list(dict.fromkeys(table.kind)), table.model.nunique()
    size = (2.6 * n + 0.7, 2.0 * len(kinds) + 0.9)
    fig, axes = plt.subplots(len(kinds), n, figsize=size, sharex=True, sharey=True, layout="constrained", squeeze=False)
    for row, kind in zip(axes, kinds, strict=True):
        _curves(row, table[table.kind == kind], "model", "budget", "accuracy")
        row[0].set_ylabel(f"{kind.upper()}\nTest accuracy (%)")
    for ax in axes[1:].flat:
        ax.set_title("")
    for ax in axes[-1]:
        ax.set(xlabel="Budget (of 255)", xticks=sorted(table.budget.unique()), ylim=(0, 100))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


@closed
def stability_vs_scale(table, columns):
    """Draw measures of stability against the scale factor c; rows are scopes, lines architectures.

    Parameters
    ----------
    table : DataFrame
        Columns scope, c, model, replica and those of ``columns``. Rows of one replica are averaged first; rows where a
        column is NaN are drawn as gaps.
    columns : dict of str to str
        Column to the label of its axis: its name and its unit. One whose label ends with "is 1)" is drawn on a
        logarithmic axis, with geometric means.
    """
    scopes, models = (list(dict.fromkeys(table[name])) for name in ("scope", "model"))
    factors = sorted(table.c.unique())
    size = (2.6 * len(columns), 2.2 * len(scopes) + 1.0)
    fig, axes = plt.subplots(len(scopes), len(columns), figsize=size, sharex=True, sharey="col", layout="constrained",
                             squeeze=False)  # fmt: skip
    colors = sns.color_palette("colorblind", len(models))
    handles = {}
    for row, scope in zip(axes, scopes, strict=True):
        for ax, (column, label) in zip(row, columns.items(), strict=True):
            for model, color, marker in zip(models, colors, MARKERS, strict=False):
                part = table[(table.scope == scope) & (table.model == model)]
                part = part.groupby(["replica", "c"], as_index=False)[column].mean()
                line = intervals(part, ["c"], column, log=label.endswith("is 1)"))
                if len(line):
                    bars = [line["mean"] - line.low, line.high - line["mean"]]
                    handles[model] = ax.errorbar(line.c, line["mean"], bars, color=color, marker=marker, markersize=4,
                                                 linewidth=1.3, elinewidth=0.8, capsize=2)  # fmt: skip
            ax.set(xscale="log", yscale="log" if label.endswith("is 1)") else "linear")
            if ax.get_yscale() == "linear":
                ax.set_ylim(bottom=0)
            ax.set_xticks(factors, [f"{factor:g}" for factor in factors])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_ylabel(label)
        row[0].set_title(scope, loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("Scale factor c")
    for ax in axes.flat:
        low, high = ax.get_ylim()
        if ax.get_yscale() == "log" and high < 1000 * low:  # too narrow for powers of ten alone
            ticks = [tick for tick in NUMBERS if low <= tick <= high]
            ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.yaxis.set_minor_locator(NullLocator())
    labels = [MODELS.get(model, model) for model in handles]
    fig.legend(handles.values(), labels, loc="outside lower center", ncols=4)
    return fig
