"""Figures of training: what accuracy costs."""

import matplotlib.pyplot as plt

from .style import MODELS, closed, intervals

__all__ = ["accuracy_vs_flops"]

RECIPES = {"paper": ("#7A7A7A", "o", (0, (5, 1.5))), "fast": ("#0173B2", "s", "-")}


@closed
def accuracy_vs_flops(table):
    """Draw test accuracy against the operations of training; panels are architectures, lines recipes.

    Parameters
    ----------
    table : DataFrame
        Columns model, recipe ("paper", "fast"), epochs, replica, accuracy (percent) and gflops; see
        `wamlib.tables.training_costs`. Marks are annotated with their epochs.
    """
    models = list(dict.fromkeys(table.model))
    size = (3.4 * len(models) + 0.4, 3.3)
    fig, axes = plt.subplots(1, len(models), figsize=size, layout="constrained", squeeze=False)
    for ax, model in zip(axes[0], models, strict=True):
        for recipe, (color, marker, dash) in RECIPES.items():
            part = table[(table.model == model) & (table.recipe == recipe)]
            line = intervals(part, ["gflops", "epochs"], "accuracy")
            ax.errorbar(line.gflops, line["mean"], line["mean"] - line.low, color=color, marker=marker, linestyle=dash,
                        capsize=3, label=recipe)  # fmt: skip
            for row in line.itertuples():
                place = {"xytext": (5, -11), "textcoords": "offset points", "fontsize": 8, "color": color}
                ax.annotate(f"{row.epochs:d}", (row.gflops, row.mean), **place)
        ax.set(xscale="log", title=MODELS.get(model, model), xlabel="Operations of training (billion)")
        ax.margins(x=0.1)
    axes[0, 0].set_ylabel("Test accuracy (%)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(RECIPES))
    return fig
