"""Figures of what a scale factor does: to networks as a whole, layer by layer, and to one member of a soup."""

import math

import matplotlib.pyplot as plt
import numpy as np

from .style import LOOKS, MODELS, closed, facets, intervals

__all__ = ["layer_heat_maps", "scale_curves", "scale_quantities", "share_curves"]

COMBINATIONS = ("member", "uniform soup", "logit ensemble")
OVERFLOW = {"marker": "x", "color": "#B00020", "linestyle": "", "markersize": 7, "label": "some logits overflow"}


@closed
def scale_curves(table):
    """Draw accuracy against the scale factor c; rows are architectures, columns are scopes.

    Parameters
    ----------
    table : DataFrame
        Columns model, scope, replica, combination, c, accuracy (percent) and finite (percent). Where
        logits of a combination overflow in some replica, its mark is crossed.
    """
    labels = {"xlabel": "Scale factor c", "ylabel": "accuracy (%)"}
    fig = facets(table, "c", "accuracy", "combination", COMBINATIONS, column_by="scope", log=True, height=1.5, **labels)
    models, scopes = (list(dict.fromkeys(table[name])) for name in ("model", "scope"))
    handle = None
    for ax, (model, scope) in zip(fig.axes, [(m, s) for m in models for s in scopes], strict=True):
        ax.set_ylim(0, 100)
        ax.set_ylabel(ax.get_ylabel().replace(" (BatchNorm)", "\n(BatchNorm)"))  # the panels are low
        cell = table[(table.model == model) & (table.scope == scope) & table.combination.isin(COMBINATIONS)]
        if cell.empty:
            ax.text(0.5, 0.5, "not defined", transform=ax.transAxes, ha="center", va="center", color="#777777")
        spoilt = cell[cell.finite < 100].groupby(["combination", "c"]).accuracy.mean().reset_index()
        if len(spoilt):
            handle = ax.plot(spoilt.c, spoilt.accuracy, clip_on=False, zorder=5, **OVERFLOW)[0]
    if handle is not None:
        _add_to_legend(fig, handle)
    return fig


@closed
def scale_quantities(table, quantities):
    """Draw several quantities against the scale factor c; rows are architectures, columns are quantities.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, combination, c and the quantities, of one scope. A quantity that is NaN because
        logits overflowed is marked at the upper edge of the panel.
    quantities : dict of str to str
        Columns, and their names with units; "nll" is drawn on a logarithmic axis, with geometric means.
    """
    models = list(dict.fromkeys(table.model))
    size = (2.6 * len(quantities) + 0.4, 1.8 * len(models) + 0.9)
    fig, axes = plt.subplots(
        len(models), len(quantities), figsize=size, sharex=True, layout="constrained", squeeze=False
    )
    handles, overflow = {}, None
    for row, model in zip(axes, models, strict=True):
        for ax, (column, title) in zip(row, quantities.items(), strict=True):
            for name in COMBINATIONS:
                cell = table[(table.model == model) & (table.combination == name)]
                line = intervals(cell, ["c"], column, log=column == "nll")
                color, marker, dash = LOOKS[name]
                bars = [line["mean"] - line.low, line.high - line["mean"]]
                look = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2, "markersize": 4}
                handles[name] = ax.errorbar(line.c, line["mean"], bars, label=name, **look)
                for c in cell.c[cell[column].isna()].unique():
                    overflow = ax.plot(c, 1, transform=ax.get_xaxis_transform(), clip_on=False, **OVERFLOW)[0]
            ax.set_xscale("log")
            if column == "nll":
                ax.set_yscale("log")
            if ax in axes[0]:
                ax.set_title(title)
        row[0].set_ylabel(MODELS.get(model, model))
    for ax in axes[-1]:
        ax.set_xlabel("Scale factor c")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    if overflow is not None:
        _add_to_legend(fig, overflow)
    return fig


def _add_to_legend(fig, handle):
    fig.legends.pop()
    drawn = dict(zip(*reversed(fig.axes[0].get_legend_handles_labels()), strict=True))
    handles = [*(drawn[name] for name in COMBINATIONS if name in drawn), handle]
    fig.legend(handles, [each.get_label() for each in handles], loc="outside lower center", ncols=4)


@closed
def layer_heat_maps(table):
    """Draw the drop in accuracy when one layer alone is scaled; panels are architectures, rows layers, columns factors.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, layer, depth, c and drop (points), of one combination. Drawn is the mean over replicas.
    """
    models = list(dict.fromkeys(table.model))
    n_columns = min(4, len(models))
    n_rows = math.ceil(len(models) / n_columns)
    fig, axes = plt.subplots(
        n_rows, n_columns, figsize=(2.6 * n_columns, 3.0 * n_rows), layout="constrained", squeeze=False
    )
    image = None
    for ax, model in zip(axes.flat, models, strict=False):
        wide = table[table.model == model].pivot_table("drop", "depth", "c")
        image = ax.imshow(wide, cmap="magma_r", vmin=0, vmax=80, aspect="auto")
        for (y, x), drop in np.ndenumerate(wide.to_numpy()):
            tint = "white" if drop > 45 else "black"
            ax.text(x, y, f"{round(drop)}", ha="center", va="center", fontsize=7, color=tint)
        ax.grid(False)
        ax.set_xticks(range(wide.shape[1]), [f"{c:g}" for c in wide.columns])
        ax.set_yticks(range(wide.shape[0]), wide.index)
        ax.set(title=MODELS.get(model, model), xlabel="Scale factor c", ylabel="Layer, from the image on")
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    fig.colorbar(image, ax=axes, shrink=0.6, label="Drop in accuracy (points)")
    return fig


@closed
def share_curves(table):
    """Draw accuracy against the share of the first member: of the weighted average, and of soups in which it is scaled.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, c, share, accuracy and weighted (percent). Panels are architectures.
    """
    models = list(dict.fromkeys(table.model))
    size = (2.6 * len(models) + 0.4, 3.0)
    fig, axes = plt.subplots(1, len(models), figsize=size, layout="constrained", squeeze=False)
    handles = {}
    for ax, model in zip(axes[0], models, strict=True):
        cell = table[table.model == model]
        curve, points = (intervals(cell, ["share"], column) for column in ("weighted", "accuracy"))
        handles["weighted average"] = ax.plot(curve.share, curve["mean"], color="#333333", linewidth=1.2)[0]
        ax.fill_between(curve.share, curve.low, curve.high, color="#333333", alpha=0.12, linewidth=0)
        look = {"color": LOOKS["uniform soup"][0], "marker": "s", "linestyle": "", "capsize": 2}
        name = "uniform soup, first member scaled by c"
        handles[name] = ax.errorbar(points.share, points["mean"], points["mean"] - points.low, **look)
        ax.set(title=MODELS.get(model, model), xlabel="Share of the first member\nc / (c + N − 1)", xlim=(-0.03, 1.03))
    axes[0, 0].set_ylabel("Test accuracy (%)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return fig
