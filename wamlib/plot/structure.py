"""Figures of averaged rows, and of structure against the worth of a soup."""

import itertools

import matplotlib.pyplot as plt

from .style import DATASETS, KINDS, LOOKS, MODELS, closed, intervals

__all__ = ["layer_profiles", "rows_vs_members", "structure_and_gain"]


@closed
def rows_vs_members(table):
    """Draw what a linear soup gains over its members against their number; columns are data sets.

    Parameters
    ----------
    table : DataFrame
        Columns dataset, group, n_members, own_change (of the correlation with the class means)
        and accuracy_change (points); one row per subset of members. Intervals are drawn where
        there are at least three subsets.
    """
    names, groups = list(dict.fromkeys(table.dataset)), list(dict.fromkeys(table.group))
    fig, axes = plt.subplots(
        2, len(names), figsize=(2.9 * len(names) + 0.6, 5.0), sharex=True, sharey="row", layout="constrained",
        squeeze=False,
    )  # fmt: skip
    handles, ticks = {}, sorted(table.n_members.unique())
    for (top, bottom), name in zip(axes.T, names, strict=True):
        for group, (color, marker, dash) in zip(groups, itertools.cycle(DATASETS)):
            part = table[(table.dataset == name) & (table.group == group)]
            n_subsets = part.groupby("n_members").subset.nunique()
            for ax, column in ((top, "own_change"), (bottom, "accuracy_change")):
                line = intervals(part, ["n_members"], column)
                bar = (line["mean"] - line.low).where(line.n_members.map(n_subsets) >= 3, 0)
                handles[group] = ax.errorbar(
                    line.n_members, line["mean"], bar, color=color, marker=marker, linestyle=dash, capsize=2.5
                )
        for ax in (top, bottom):
            ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
        top.set(title=name)
        bottom.set(xlabel="Members in the soup", xscale="log")
        bottom.minorticks_off()
        bottom.set_xticks(ticks, [f"{n}" for n in ticks])
    axes[0, 0].set(ylabel="Correlation with class mean,\nsoup minus member")
    axes[1, 0].set(ylabel="Test accuracy, soup\nminus member (points)")
    labels = [group if isinstance(group, str) else f"weight decay {group:g}" for group in handles]
    fig.legend(handles.values(), labels, loc="outside lower center", ncols=2)
    return fig


@closed
def structure_and_gain(table):
    """Draw the gain of a soup of two against structure, likeness and the cosine of the weights, one panel each.

    Parameters
    ----------
    table : DataFrame
        Columns kind (a key of `KINDS`), own (correlation of effective templates with class
        means), likeness (between the templates of the two members), cosine (between their
        weights) and gain (points); one row per pair.
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.4, 3.6), sharey=True, layout="constrained")
    columns = {
        "own": "Structure: correlation of a member's\ntemplates with class means",
        "likeness": "Likeness: correlation of the two\nmembers' templates",
        "cosine": "Cosine between the weights,\nmean over layers",
    }
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for kind, (color, marker) in KINDS.items():
            part = table[table.kind == kind]
            if part.empty:
                continue
            ax.plot(part[column], part.gain, linestyle="", color=color, marker=marker, alpha=0.75, label=kind)
        ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
        ax.set(xlabel=label)
    axes[0].set(ylabel="Soup minus member (points)")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4)
    return fig


@closed
def layer_profiles(table):
    """Draw the cosine between two members' weights layer by layer; columns are architectures.

    Parameters
    ----------
    table : DataFrame
        Columns model, kind, depth (number of the layer, from 1), cosine; one row per pair and layer.
    """
    models = list(dict.fromkeys(table.model))
    fig, axes = plt.subplots(1, len(models), figsize=(4.2 * len(models) + 0.5, 3.1), sharey=True, layout="constrained",
                             squeeze=False)  # fmt: skip
    for ax, model in zip(axes[0], models, strict=True):
        part = table[table.model == model]
        for kind, (color, marker) in KINDS.items():
            line = intervals(part[part.kind == kind], ["depth"], "cosine")
            if line.empty:
                continue
            dash = LOOKS["member"][2] if kind == "independent init" else "-"
            bar = line["mean"] - line.low
            ax.errorbar(
                line.depth, line["mean"], bar, color=color, marker=marker, linestyle=dash, capsize=2.5, label=kind
            )
        ax.set(title=MODELS.get(model, model), xlabel="Layer", ylim=(-0.3, 1.05))
        ax.set_xticks(sorted(part.depth.unique()))
    axes[0, 0].set(ylabel="Cosine between the\nweights of two members")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig
