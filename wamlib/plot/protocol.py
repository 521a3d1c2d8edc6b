"""Waterfalls: from a number under the corrected protocol to the same number under the released one."""

import itertools
import math

import matplotlib.pyplot as plt

from .style import MODELS, closed, intervals

__all__ = ["waterfall"]

UP, DOWN, LEVEL = "#0173B2", "#D55E00", "#333333"


@closed
def waterfall(table, ylabel):
    """Draw how a number changes as one defect after the other is switched on; panels are architectures.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, step and value. The first step is the corrected protocol, the last
        one stands for the released one; of each step a bar reaches from the value before to the value
        after. Whiskers: 95 % interval of the value at the two ends, and of the change at each step.
    ylabel : str
        Name and unit of the value.
    """
    models = list(dict.fromkeys(table.model))
    n_columns = min(2, len(models))
    n_rows = math.ceil(len(models) / n_columns)
    n_steps = table.step.nunique()
    size = ((0.5 * n_steps + 1.1) * n_columns, 2.5 * n_rows + 0.3)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, sharey=False, layout="constrained", squeeze=False)
    for ax, model in zip(axes.flat, models, strict=False):
        wide = table[table.model == model].pivot_table("value", "replica", "step", sort=False)
        _one(ax, wide)
        ax.set(title=MODELS.get(model, model), ylabel=ylabel)
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    return fig


def _one(ax, wide):
    steps = list(wide.columns)
    means = wide.mean()
    for x, (before, step) in enumerate(itertools.pairwise(steps), start=1):
        change = means[step] - means[before]
        ax.bar(x, change, bottom=means[before], width=0.6, color=UP if change >= 0 else DOWN)
        ax.plot([x - 0.7, x + 0.3], [means[before]] * 2, color="#999999", linewidth=0.8)
        bar = _half(wide[step] - wide[before])
        ax.errorbar(x, means[step], bar, color="#777777", capsize=2, linewidth=1)
    for x, step in ((0, steps[0]), (len(steps), steps[-1])):
        ax.bar(x, means[step], width=0.6, color=LEVEL, alpha=0.35)
        ax.errorbar(x, means[step], _half(wide[step]), color=LEVEL, capsize=3)
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(steps) + 1), [*(step.replace(", ", ",\n") for step in steps), "released"])
    for label in (ax.get_xticklabels()[0], ax.get_xticklabels()[-1]):
        label.set_rotation(30)


def _half(values):
    line = intervals(values.to_frame("value").assign(all=0), ["all"], "value").iloc[0]
    return line["mean"] - line.low
