"""Does the architecture decide? Soups and ensembles over architectures, data sets and starts."""

import math
from statistics import fmean

import pandas as pd
from scipy.stats import false_discovery_control, linregress

from .. import data, models, probe
from ..claims import measure as judged
from ..combinations import combinations
from ..merge import interpolate
from ..stats import mean_interval, number_text, paired_difference
from ..sweeps import REDRAWN, STARTS, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
COMBINED = ("uniform soup", "logit ensemble", "feature ensemble, first head", "feature ensemble, averaged head")
FORMS = {
    "vit_shared": "+z.1f",
    "cnn_shared": "+z.1f",
    "vit_redrawn": "+.0f",
    "cnn_redrawn": "+.0f",
    "all_head": "+z.1f",
    "all_init": "+z.1f",
    "all_init_loss": ".1f",
    "all_redrawn_loss": ".0f",
    "vit_distance": ".3f",
    "cnn_distance": ".3f",
}  # how the prose says numbers that not every list of architectures has
LESS_AND_LESS = (STARTS[0], *REDRAWN, *STARTS[1:])  # what the members share


def runs(p):
    """Every architecture on every data set from a shared start; on the main one also from other starts."""
    cells = {
        "epochs": p.epochs,
        "trunk_epochs": p.trunk_epochs,
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_eval": p.n_eval_pools,
    }
    everywhere, main = dict.fromkeys(p.present(p.datasets), p.n_train_pools), {p.dataset: p.n_train_pools}
    return {
        **pools_by_dataset(everywhere, p.pool_models, starts=[STARTS[0]], **cells),
        **pools_by_dataset(main, p.pool_models, starts=[STARTS[2]], **cells),
        **pools_by_dataset(main, p.arm_models, starts=[*REDRAWN, STARTS[1]], **cells),
    }


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def measure(pool):
    """Return the accuracy of members, soup and ensembles of all members; see `combinations`."""
    return combinations(pool, sizes=[len(pool)], kinds=COMBINED)


def gain_at_distance(pool, *, distance):
    """Return the gain of the soup over members that are moved to a given distance from it.

    One row: way (share of the way to the members, 1 where they are), distance, gain (points, BatchNorm recalibrated
    in all).
    """
    soup = pool.soup()
    way = distance / probe.relative_distance(pool.states)
    moved = [interpolate(soup, state, way) for state in pool.states]
    accuracy = [pool.accuracy(state, recalibrate=True) for state in (soup, *moved)]
    return pd.DataFrame([{"way": way, "distance": distance, "gain": accuracy[0] - fmean(accuracy[1:])}])


def tables(here):
    """Accuracies of all pools, and the gain of the soup at the distance of the closest members."""
    p, title = here.p, data.title(here.p.dataset)
    table = titled(here.rows(measure))
    on_main = table[(table.dataset == title) & (table.start == STARTS[0]) & table.model.isin(p.arm_models)]
    chosen = here.groups_where(dataset=p.dataset, start=STARTS[0], model=p.arm_models)
    equal = here.rows(gain_at_distance, chosen, distance=on_main.distance.min())
    return {
        "architectures": here.save(last(table, *NAMES), "architectures"),
        "equal_distance": here.save(
            last(equal, "model", "replica").drop(columns=["dataset", "start"]), "equal_distance"
        ),
    }


def titled(table):
    """Return rows with the titles of data sets in place of their names."""
    return table.assign(dataset=table.dataset.map(data.title))


def last(table, *columns):
    """Return a table with some columns behind all others."""
    return table[[*(name for name in table if name not in columns), *columns]]


# ---- What follows from it --------------------------------------------------------------------------------------------


def cells(table):
    """Return accuracies with a column for each combination."""
    return table.pivot_table("accuracy", ["start", "dataset", "model", "replica"], "combination", sort=False)


def gains(table):
    """Return what each combination gains over the mean of the members, in points."""
    wide = cells(table)
    over = wide.sub(wide["member"], axis=0).drop(columns="member")
    return over.melt(ignore_index=False, value_name="gain").reset_index()


def gaps(table):
    """Return logit ensemble minus soup, in points, with the error of the members."""
    wide = cells(table)
    gap = (wide["logit ensemble"] - wide["uniform soup"]).rename("gap")
    return gap.reset_index().merge((100 - wide["member"]).rename("error").reset_index())


def features(table):
    """Return feature ensembles minus logit ensemble, in points, a column for each head."""
    wide = cells(table)
    heads = {"first head": COMBINED[2], "averaged head": COMBINED[3]}
    return pd.DataFrame({name: wide[column] - wide["logit ensemble"] for name, column in heads.items()})


def arms(table, p):
    """Return the gains on the main data set of the architectures with all starts, those that share most first."""
    found = gains(table)
    found = found[(found.dataset == data.title(p.dataset)) & found.model.isin(p.arm_models)]
    return found.sort_values("start", key=lambda column: column.map(LESS_AND_LESS.index), kind="stable")


def better(table):
    """Return the pools with a shared start in which McNemar's test tells soup and ensemble apart, and all of them.

    The false discovery rate is 5 %.
    """
    tests = table[(table.combination == "uniform soup") & (table.start == STARTS[0])]
    return tests[false_discovery_control(tests.p) < 0.05], tests


def slopes(table):
    """Return by how much the gap changes for ten points of error over all cells, one number for each replica."""
    shared = gaps(table)
    shared = shared[shared.start == STARTS[0]]
    return [10 * linregress(part.error, part.gap).slope for _, part in shared.groupby("replica")]


def vits(p):
    """Return the ViT among the architectures with all starts, or None."""
    return next((model for model in p.arm_models if models.kind(model) == "vit"), None)


def claims(here, tables):
    """Values that C6, C7, C8 and C10 are judged by."""
    p, title, table = here.p, data.title(here.p.dataset), tables["architectures"]
    rows, gap = [], gaps(table)
    shared = gap[gap.start == STARTS[0]]

    def add(claim, name, values, bound=0, unit="points", **more):
        rows.append(judged(claim, name, values, bound=bound, unit=unit, **more))

    for name, part in shared.groupby("dataset", sort=False):
        add("C6", "gap, mean over architectures", part.groupby("replica").gap.mean(), dataset=name)
        share = 100 * (part.gap > 0).groupby(part.replica).mean()
        add("C6", "share of architectures with a gap above 0", share, 50, "%", dataset=name)
        for head, of in features(table).loc[STARTS[0], name].items():
            values = of.groupby("replica").mean()
            add("C10", f"{head} minus logit ensemble, mean over architectures", values, -0.5, dataset=name)
    by_replica = shared.groupby("replica").gap
    everywhere = {"dataset": "all data sets"}
    add("C6", "gap, mean over all cells", by_replica.mean(), **everywhere)
    share = 100 * by_replica.agg(lambda cell: (cell > 0).mean())
    add("C6", "share of cells with a gap above 0", share, 50, "%", **everywhere)
    add("C7", "gap for ten points of error, over all cells", slopes(table), **everywhere)
    soups = arms(table, p)
    soups = soups[(soups.combination == "uniform soup") & (soups.start == STARTS[0])]
    soups, moved = (part.pivot_table("gain", "replica", "model") for part in (soups, tables["equal_distance"]))
    vit = vits(p)
    for model in (model for model in p.arm_models if vit and models.kind(model) == "cnn"):
        note = {"dataset": title, "note": model}
        add("C8", "soup minus member, CNN minus ViT, everything shared", soups[model] - soups[vit], **note)
        add("C8", "the same at equal distance", moved[model] - moved[vit], **note)
    return rows


def numbers(here, tables):
    """What the prose says."""
    p, title, table = here.p, data.title(here.p.dataset), tables["architectures"]
    found, on = {}, cells(table).xs(title, level="dataset")
    for short, start in (("shared", STARTS[0]), ("independent", STARTS[2])):
        by_replica = on.loc[start].groupby("replica").mean()
        for name, column in (("soup", "uniform soup"), ("ensemble", "logit ensemble")):
            interval = paired_difference(by_replica[column], by_replica["member"])
            found |= {f"{name}_{short}_{end}": getattr(interval, end) for end in ("mean", "low", "high")}
    soup = arms(table, p)
    soup = soup[soup.combination == "uniform soup"].groupby(["start", "model"]).gain.mean()
    vit, cnns = [vits(p)], [model for model in p.arm_models if models.facts(model).batchnorm]

    def gain(start, some):
        return soup.get(start, pd.Series(dtype=float)).reindex(some).mean()

    at = table[(table.dataset == title) & (table.start == STARTS[0])].groupby("model").distance.mean()
    stem_and_head = "re-drawn stem and head"
    slope = mean_interval(slopes(table))
    apart, tests = better(table)
    found |= {
        "vit_shared": gain(STARTS[0], vit),
        "cnn_shared": gain(STARTS[0], cnns),
        "vit_redrawn": gain(stem_and_head, vit),
        "cnn_redrawn": gain(stem_and_head, cnns),
        "vit_distance": at.get(vit[0], math.nan),
        "cnn_distance": at.reindex(cnns).mean(),
        "all_init": gain(STARTS[1], p.arm_models),
        "all_init_loss": -gain(STARTS[1], p.arm_models),
        "all_head": gain("re-drawn head", p.arm_models),
        "all_redrawn_loss": -gain(stem_and_head, p.arm_models),
        "slope": slope.mean,
        "slope_low": slope.low,
        "slope_high": slope.high,
        "n_members": p.n_pool_members,
        "n_replicas": p.n_replicas,
        "n_models": len(p.pool_models),
        "main": title,
        "n_pools": len(tests),
        "n_ensemble_better": int((apart.only_ensemble > apart.only_this).sum()),
        "n_soup_better": int((apart.only_ensemble < apart.only_this).sum()),
    }
    # In words: an architecture that is not among the parameters was not measured.
    return found | {f"{name}_text": number_text(found[name], form) for name, form in FORMS.items()}


# ---- Figures ---------------------------------------------------------------------------------------------------------


def gap_vs_error(table):
    """Draw logit ensemble minus soup against the members' error, one mark per architecture and data set."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    from ..plot.style import DATASETS, MODELS, intervals

    fig, ax = plt.subplots(figsize=(6.4, 3.9), layout="constrained")
    colors = dict(zip(dict.fromkeys(table.model), sns.color_palette("colorblind"), strict=False))
    markers = dict(zip(dict.fromkeys(table.dataset), (marker for _, marker, _ in DATASETS), strict=False))
    for (dataset, model), cell in table.groupby(["dataset", "model"], sort=False):
        line, looks = intervals(cell, ["dataset"], "gap").iloc[0], {"color": colors[model], "marker": markers[dataset]}
        ax.errorbar(cell.error.mean(), line["mean"], line["mean"] - line.low, capsize=2, linestyle="", **looks)
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set(xlabel="Test error of a member (%)", ylabel="Logit ensemble minus soup (points)")
    grey = {"color": "#333333", "linestyle": ""}
    marks = [plt.Line2D([], [], marker=marker, label=dataset, **grey) for dataset, marker in markers.items()]
    hues = [plt.Line2D([], [], color=c, linewidth=4, label=MODELS.get(m, m)) for m, c in colors.items()]
    fig.legend(handles=marks + hues, loc="outside right upper", fontsize=8)
    plt.close(fig)
    return fig
