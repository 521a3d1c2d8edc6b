"""What combinations gain over a member, by architecture."""

import math

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, MODELS, closed, intervals

__all__ = ["gains_by_model"]


@closed
def gains_by_model(table, combinations, panel_by="dataset"):
    """Draw what combinations gain over a member, one line per architecture; a panel for each value of a column.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, combination, gain (points over the mean of the members), and ``panel_by``.
    combinations : sequence of str
        Which to draw, in the order of the legend.
    panel_by : str
        Name of a column.
    """
    panels, models = (list(dict.fromkeys(table[name])) for name in (panel_by, "model"))
    n_columns = min(3, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    size = (2.9 * n_columns + 1.6, (0.36 * len(models) + 1.1) * n_rows + 0.5)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        for index, name in enumerate(combinations):
            part = table[(table[panel_by] == panel) & (table.combination == name)]
            rows = intervals(part, ["model"], "gain").set_index("model").reindex(models)
            y = np.arange(len(models)) + 0.62 / len(combinations) * (index - (len(combinations) - 1) / 2)
            bars = [rows["mean"] - rows.low, rows.high - rows["mean"]]
            color, marker, _ = LOOKS[name]
            ax.errorbar(rows["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2, label=name)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        ax.set(title=panel, xlabel="Points over a member")
        if table.gain.min() < -15:
            # Linear around 0, logarithmic beyond: tenths of a point and collapses in one panel.
            ax.set_xscale("symlog", linthresh=2)
            ticks = [-50, -10, -2, 0, 2, 10]
            ax.set_xticks(ticks, [f"{tick}".replace("-", "−") for tick in ticks])
            ax.xaxis.set_minor_locator(plt.NullLocator())
    axes[0, 0].set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(combinations)))
    return fig
