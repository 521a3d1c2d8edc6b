"""Can a permutation bring two members together? Lines between members whose units are matched."""

import pandas as pd

from .. import align, evaluate, probe, sweeps
from ..pairs import MATCHINGS, Line, matched, repairs

NAMES = ("model", "start", "width", "replica")
ENDS_AND_MIDDLE = [0.0, 0.5, 1.0]
LINES = {  # (matching, repair) in the figure of widths
    "naive": ("none", "none"),
    "matched": ("weights", "none"),
    "matched + recalibrated": ("weights", "recalibrated"),
    "matched + REPAIR": ("weights", "REPAIR"),
}


def runs(p):
    """Pairs of independent members of every architecture, and of some in several widths."""
    return pairs(p, p.models, [1]) | pairs(p, p.wide_models, p.widths)


def pairs(p, models, widths):
    """Return pairs of independent members; those of width 1 are the first two members of the pools."""
    shared = {"dataset": p.dataset, "n_train": p.n_train, "epochs": p.epochs, "trunk_epochs": p.trunk_epochs}
    start = "independent init"
    return {
        (model, start, width, replica): sweeps.pool(
            start, model=model if width == 1 else f"{model}-x{width:g}", replica=replica, n_members=2, **shared
        )
        for model in models
        for width in widths
        for replica in range(p.n_replicas)
    }


# ---- What is measured on one pair ------------------------------------------------------------------------------------


def hidden_permutation(pool, *, n_images):
    """Return what becomes of a random permutation that is hidden in a copy of the first member.

    One row: agreement (same prediction of copy and original, percent), distance (relative to the norm) and barrier
    (percentage points, at the midpoint) between the two, shuffled and after matching by weights.
    """
    pool = pool.first(1, n_test=n_images)
    (state,) = pool.states
    copy = align.apply(align.random_permutation(pool.module, seed=0), state)
    row = {"agreement": evaluate.agreement(pool.logits(state), pool.logits(copy))}
    for name, other in (("shuffled", copy), ("matched", matched(pool, state, copy, "weights"))):
        row[f"{name}_distance"] = probe.distance(state, other) / probe.weight_norm(state)
        row[f"{name}_barrier"] = probe.barrier(state, other, pool.error, ENDS_AND_MIDDLE).height
    return pd.DataFrame([row])


def errors(pool, *, alphas, matchings, n_images):
    """Return the test error along the line between two members, by matching and by repair.

    Rows by matching, repair and alpha: error (percent) and distance (of the weights, relative to the mean of the two
    norms). The units of the second member are matched to those of the first.
    """
    pool = pool.first(2, n_test=n_images)
    a, b = pool.states
    norm = (probe.weight_norm(a) + probe.weight_norm(b)) / 2
    # A permuted member is the same function, so both ends are the same for every matching.
    ends = {(alpha, repair): Line(pool, a, b).error(alpha, repair) for alpha in (0, 1) for repair in repairs(pool)}
    rows = []
    for matching in matchings:
        other = matched(pool, a, b, matching)
        line, distance = Line(pool, a, other), probe.distance(a, other) / norm
        for repair in repairs(pool):
            for alpha in alphas:
                error = ends[alpha, repair] if alpha in (0, 1) else line.error(alpha, repair)
                rows.append(
                    {"alpha": alpha, "error": error, "matching": matching, "repair": repair, "distance": distance}
                )
    return pd.DataFrame(rows)


def tables(here):
    """Hidden permutations; errors along lines; errors at the middle of lines over widths."""
    p = here.p
    plain, wide = pairs(p, p.models, [1]), pairs(p, p.wide_models, p.widths)
    along = {"alphas": list(p.line), "matchings": list(MATCHINGS), "n_images": p.n_images}
    middle = along | {"alphas": ENDS_AND_MIDDLE, "matchings": ["none", "weights"]}
    table, parts = here.rows(errors, plain, **along), []
    for key, pair in wide.items():
        # Of width 1 the middle has been measured above, if 0.5 is on the line.
        known = key in plain and set(ENDS_AND_MIDDLE) <= set(p.line)
        part = here.rows(errors, {key: pair}, **(along if known else middle))
        parts.append(part[part.alpha.isin(ENDS_AND_MIDDLE) & part.matching.isin(middle["matchings"])])
    by_width = with_barriers(pd.concat(parts)).drop(columns="start")
    return {
        "hidden": here.rows(hidden_permutation, plain, n_images=p.n_images),
        "alignment": here.save(with_barriers(table).drop(columns="width"), "alignment"),
        "alignment_width": here.save(by_width, "alignment_width"),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def with_barriers(table):
    """Return errors along lines with the barrier of their line (percentage points, the same on all its rows)."""
    table = table.copy()
    heights = [
        pd.Series(probe.barrier_height(line.alpha.to_list(), line.error.to_list()), line.index)
        for _, line in table.groupby([*NAMES, "matching", "repair"], sort=False)
    ]
    table.insert(list(table).index("error") + 1, "barrier", pd.concat(heights))
    return table


def barriers(table):
    """Return the barrier of every line, one row each."""
    return table.groupby(["model", "matching", "repair", "replica"], sort=False).barrier.first().reset_index()


def by_line(table):
    """Return the barriers over widths of the lines that are drawn, under their names."""
    names = {kinds: name for name, kinds in LINES.items()}
    table = table.assign(line=[names.get(kinds) for kinds in zip(table.matching, table.repair, strict=True)])
    kept = table.dropna(subset="line")
    return kept.groupby(["model", "width", "replica", "line"], sort=False).barrier.first().reset_index()


def numbers(here, tables):
    """What the prose says."""
    p, found = here.p, barriers(tables["alignment"])
    mean = found.groupby(["model", "matching", "repair"]).barrier.mean().groupby(["matching", "repair"]).mean()
    wide = by_line(tables["alignment_width"])
    best = wide[wide.line == "matched + REPAIR"].groupby("width").barrier.mean()
    return {
        "naive": mean["none", "none"],
        "matched": mean["weights", "none"],
        "repaired": mean["weights", "REPAIR"],
        "only_repaired": mean["none", "REPAIR"],
        "activations": mean["activations", "REPAIR"],
        "narrow": best[min(p.widths)],
        "wide": best[max(p.widths)],
        "n_replicas": p.n_replicas,
        "n_models": len(p.models),
        "n_wide": 2 * p.n_replicas * len(p.wide_models) * sum(width != 1 for width in p.widths),
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def alignment_paths(table):
    """Draw test error along the line; rows are architectures, columns are matchings."""
    from ..plot.repairs import by_repair

    fig = by_repair(table, "alpha", "error", xlabel="Mixing weight α", ylabel="Test error (%)")
    for ax in fig.axes:
        ax.set_ylim(0, 100)
    return fig


def barrier_vs_width(table):
    """Draw the barriers that `by_line` returns against width, one panel per architecture."""
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, MODELS, intervals

    models = list(dict.fromkeys(table.model))
    fig, axes = plt.subplots(
        1, len(models), figsize=(3.3 * len(models), 3.4), sharey=True, layout="constrained", squeeze=False
    )
    looks = ["member", "uniform soup", "uniform soup, recalibrated", "REPAIR"]
    for ax, model in zip(axes[0], models, strict=True):
        for name, look in zip(dict.fromkeys(table.line), looks, strict=False):
            rows = table[(table.model == model) & (table.line == name)]
            if len(rows):
                line, (color, marker, dash) = intervals(rows, ["width"], "barrier"), LOOKS[look]
                drawn = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2.5}
                ax.errorbar(line.width, line["mean"], line["mean"] - line.low, label=name, **drawn)
        widths = sorted(table.width.unique())
        ax.set(title=MODELS.get(model, model), xscale="log", xlabel="Width (1: as in the other chapters)")
        ax.set_xticks(widths, [f"{width:g}" for width in widths])
        ax.xaxis.set_minor_locator(plt.NullLocator())
    # Last, because a limit that is set ends the scaling of a shared axis by what is drawn later.
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("Barrier (points)")
    fig.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    plt.close(fig)
    return fig
