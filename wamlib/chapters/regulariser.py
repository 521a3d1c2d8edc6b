"""Is averaging a kind of shrinking? Norms of soups, members as short as soups, and the loss around both."""

import math
from statistics import fmean

import numpy as np
import pandas as pd
import torch

from .. import data, evaluate, probe, sweeps
from ..claims import measure as judged
from ..combinations import subsets
from ..errors import ProbeError
from ..merge import is_learnable
from ..runs import RunStore
from ..stats import mean_interval
from ..sweeps import STARTS

NAMES = ("pool", "model", "start", "replica")  # pool: "few" or "many" members
AT = ["model", "start", "replica"]
SHARED, APART = STARTS[0], STARTS[2]
N_SELECTION = 500  # selection images that one temperature is fitted on
CONTROLS = ("uniform soup", "soup restored", "member shrunk")
# What is left of a norm: start, column and title of each panel.
PANELS = (
    (SHARED, "norm_ratio", "Soup,\nshared start"),
    (SHARED, "deviation_ratio", "Deviation from the trunk,\nshared start"),
    (SHARED, "centred_ratio", "Their mean taken off,\nshared start"),
    (APART, "kernels", "Soup, kernels only,\nindependent init"),
)


def runs(p):
    """Few members of every architecture, of some also from independent starts; many of some."""
    n_train = {p.dataset: p.n_train_pools}
    recipe = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_replicas": p.n_replicas, "n_eval": p.n_eval_pools}
    few = sweeps.pools_by_dataset(n_train, architectures(p), n_members=p.n_pool_members, **recipe)
    many = sweeps.pools_by_dataset(n_train, p.many_models, n_members=p.n_many, **recipe)
    few = {key: configs for key, configs in few.items() if key[2] == SHARED or key[1] in p.protocol_models}
    return {(name, *key[1:]): configs for name, some in (("few", few), ("many", many)) for key, configs in some.items()}


def architectures(p):
    """Return the architectures of the pools with few members."""
    return list(dict.fromkeys([*p.pool_models, *p.protocol_models]))


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def norms(pool, *, sizes, n_subsets):
    """Compare norms of soups and of deviations from the trunk, or from 0 where there is none; see `norm_ratios`."""
    start = pool.runs[0].config.start
    return norm_ratios(pool.states, RunStore()[start].state if start else None, sizes, n_subsets)


def norm_ratios(states, reference, sizes, n_subsets=1):
    """Compare the norm of soups with that of their members, and of the members' deviations from a reference.

    One row per size, subset and layer (a learnable tensor, "all" of them together, or "kernels", those of at least
    two axes): n_members, subset, layer, norm_ratio (norm of the soup over the mean norm of its members),
    deviation_ratio (norm of the mean deviation over the root mean square of their norms), cosine (mean inner product
    of two deviations over their mean square; NaN for one member), centred_ratio (distance of the soup from the soup of
    the whole pool, over the root mean square of the members') and centred_law (its root mean square over all subsets
    of a pool of M, sqrt((1/N - 1/M) / (1 - 1/M)): sampling without replacement, whatever the vectors are).
    """
    learnable = {key for key in states[0] if is_learnable(key)}
    wrong = reference is not None and learnable ^ {key for key in reference if is_learnable(key)}
    if not 1 <= min(sizes) <= max(sizes) <= len(states) or len(states) < 2 or wrong:
        raise ProbeError(
            "cannot compare norms",
            item="reference" if wrong else "sizes",
            got=f"other learnable tensors, such as {min(wrong)!r}" if wrong else f"{list(sizes)} of {len(states)}",
            wanted="those of the members" if wrong else "numbers from 1 to the members of the pool, at least two",
            fix="Pass the state of the trunk of these members." if wrong else "Train more members.",
        )
    # Of every norm that is wanted only inner products of members are needed.
    weights, deviations = _products(states, None), _products(states, reference)
    rows, n_all = [], len(states)
    for n in sizes:
        law = math.sqrt((1 / n - 1 / n_all) / (1 - 1 / n_all))
        for number, chosen in enumerate(subsets(n_all, n, n_subsets)):
            for layer in weights:
                row = {"n_members": n, "subset": number, "layer": layer}
                row |= _ratios(weights[layer], deviations[layer], list(chosen))
                rows.append(row | {"centred_law": law})
    return pd.DataFrame(rows)


def _products(states, reference):
    """Return the inner products of the members' deviations, shape (member, member): of each tensor, and of several."""
    found = {}
    for key in filter(is_learnable, states[0]):
        rows = torch.stack([state[key].double().flatten() for state in states])
        rows = rows if reference is None else rows - reference[key].double().flatten()
        found[key] = (rows @ rows.T).numpy()
    # The gains of norms begin at 1 in every network, so that strangers too have them in common.
    kernels = sum(products for key, products in found.items() if states[0][key].dim() > 1)
    return {"all": sum(found.values()), "kernels": kernels} | found


def _ratios(weights, deviations, chosen):
    n, part, apart = len(chosen), weights[np.ix_(chosen, chosen)], deviations[np.ix_(chosen, chosen)]
    square = np.trace(apart) / n
    pairs = apart[~np.eye(n, dtype=bool)]
    # Inner products of the members' distances from the soup of the whole pool.
    centred = deviations - deviations.mean(0) - deviations.mean(1)[:, None] + deviations.mean()
    left = math.sqrt(max(centred[np.ix_(chosen, chosen)].mean(), 0))
    return {
        "norm_ratio": _ratio(math.sqrt(part.mean()), np.sqrt(np.diag(part)).mean()),
        "deviation_ratio": _ratio(math.sqrt(max(apart.mean(), 0)), math.sqrt(square)),
        "cosine": _ratio(pairs.mean(), square) if n > 1 else math.nan,
        "centred_ratio": _ratio(left, math.sqrt(np.trace(centred) / len(centred))),
    }


def _ratio(a, b):
    return a / b if b else math.nan


def shrinking(pool):
    """Give members the norms of their soup, and the soup the norms of its members, tensor by tensor.

    One row per network ("member", "uniform soup", "member shrunk", "soup restored"): accuracy (percent), nll and
    refitted_nll (nats; after a temperature fitted on the selection split), and norm_ratio (norm over the members'
    mean). Of members the mean over all is taken. BatchNorm is recalibrated in all of them alike.
    """
    pool = pool.first(n_selection=N_SELECTION)
    members, soup = pool.states, pool.soup()
    norms = [probe.layer_norms(member) for member in members]
    mean_norms = {key: fmean(one[key] for one in norms) for key in norms[0]}
    shrunk = [probe.rescale_to(member, probe.layer_norms(soup)) for member in members]
    networks = {
        "member": members,
        "uniform soup": [soup],
        "member shrunk": shrunk,
        "soup restored": [probe.rescale_to(soup, mean_norms)],
    }
    usual = fmean(probe.weight_norm(member) for member in members)
    rows = []
    for name, states in networks.items():
        if name == "member" and not pool.has_batchnorm:  # nothing to recalibrate: known from training
            logits = zip(pool.recorded("test"), pool.recorded("selection"), strict=True)
        else:
            logits = (pool.logits(state, ("test", "selection"), recalibrate=True) for state in states)
        measured = pd.DataFrame([_measure(pool, *both) for both in logits]).mean()
        norm = fmean(probe.weight_norm(state) for state in states)
        rows.append({"network": name, **measured, "norm_ratio": norm / usual})
    return pd.DataFrame(rows)


def _measure(pool, test, held_out):
    labels = pool.dataset.test.labels
    temperature = evaluate.fit_temperature(held_out, pool.dataset.selection.labels)
    return {
        "accuracy": evaluate.accuracy(test, labels),
        "nll": evaluate.nll(test, labels),
        "refitted_nll": evaluate.nll(test / temperature, labels),
    }


def flatness(pool, *, n_directions, n_images, n_steps=7):
    """Measure the training loss along random directions from the first member and from the soup.

    Columns network ("member", "uniform soup"), direction, step (from -1, over 0, to 1; filter norms are 1) and loss
    (nats). Member and soup are given the same directions; BatchNorm is recalibrated in both, at step 0, and stays so.
    """
    steps, rows = np.linspace(-1, 1, n_steps).round(6).tolist(), []
    for network, module, images, labels in _networks(pool, n_images, pool.states[:1]):
        state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        for number in range(n_directions):
            direction = probe.filter_normalised_direction(state, number)
            losses = probe.loss_along(module, state, direction, steps, images, labels)
            at = {"network": network, "direction": number}
            rows += [{**at, "step": step, "loss": loss} for step, loss in zip(steps, losses, strict=True)]
    return pd.DataFrame(rows)


def sharpness(pool, *, n_images, tolerance=0.01):
    """Measure the top eigenvalue of the Hessian of the training loss, at each member and at the soup.

    Columns network ("member", one row for each; "uniform soup") and eigenvalue, to a relative tolerance. BatchNorm is
    recalibrated in all.
    """
    rows = [
        {"network": network, "eigenvalue": probe.top_hessian_eigenvalue(module, images, labels, tolerance=tolerance)}
        for network, module, images, labels in _networks(pool, n_images, pool.states)
    ]
    return pd.DataFrame(rows)


def _networks(pool, n_images, members):
    """Yield members and the soup of all, with training images as the networks read them, and labels."""
    split = pool.dataset.train.take(slice(0, n_images))
    for network, state in [*(("member", state) for state in members), ("uniform soup", pool.soup())]:
        yield network, pool.load(state, recalibrate=True), split.normalize(split.images), split.labels


def tables(here):
    """Norms of few and of many members; controls; the loss along directions and its top eigenvalue."""
    p, few = here.p, here.groups_where(pool="few")
    parts = [
        here.rows(norms, few, sizes=[p.n_pool_members], n_subsets=1),
        here.rows(norms, here.groups_where(pool="many"), sizes=p.sizes, n_subsets=p.n_subsets),
    ]
    found = {"norms": pd.concat(parts), "shrinking": here.rows(shrinking, few)}
    shared = here.groups_where(pool="few", start=SHARED, model=p.protocol_models)
    found["flatness"] = here.rows(flatness, shared, n_directions=p.n_directions, n_images=p.n_line_images)
    found["sharpness"] = here.rows(sharpness, shared, n_images=p.n_curvature_images)
    for name, table in found.items():
        last = ["pool"] if name == "norms" else []
        columns = [*(column for column in table if column != "pool"), *last]
        found[name] = here.save(table[columns], name)
    return found


# ---- What follows from it --------------------------------------------------------------------------------------------


def of_few(tables, layer):
    """Return the norms of the pools with few members, of one layer, by model, start and replica."""
    found = tables["norms"]
    return found[(found.pool == "few") & (found.layer == layer)].set_index(AT)


def of_many(tables):
    """Return the norms of the pools with many members, means over subsets; kernels is the ratio of these alone."""
    found = tables["norms"]
    found = found[found.pool == "many"].drop(columns="pool")
    mean = found.groupby(["layer", *AT, "n_members"], sort=False).mean(numeric_only=True)
    return mean.loc["all"].assign(kernels=mean.loc["kernels"].norm_ratio).reset_index()


def panels(many):
    """Return the rows of `PANELS` stacked: ratio and law (where there is one), in percent."""
    parts = []
    for start, column, title in PANELS:
        part = many[many.start == start]
        law = 100 * part.centred_law if column == "centred_ratio" else math.nan
        parts.append(part.assign(panel=title, ratio=100 * part[column], law=law))
    return pd.concat(parts)


def gains(table):
    """Return the table of `shrinking` with gain (points) and nll_gain (nats, refitted), over the mean member."""
    own = table[table.network == "member"].set_index(AT).reindex(pd.MultiIndex.from_frame(table[AT]))
    return table.assign(
        gain=table.accuracy - own.accuracy.to_numpy(), nll_gain=own.refitted_nll.to_numpy() - table.refitted_nll
    )


def doublings(table):
    """Return log2 of the soup's top eigenvalue over the mean of its members', by model and replica."""
    wide = table.pivot_table("eigenvalue", ["model", "replica"], "network", sort=False)
    return doubled(wide)


def doubled(wide):
    """Return log2 of the soup's value over the member's; NaN where one of them is not above 0, as beside a minimum."""
    above = wide.where(wide > 0)
    return np.log2(above["uniform soup"] / above["member"])


def rises(table):
    """Return log2 of how far the loss rises around the soup, over how far around the member, by model and replica."""
    ends = table[table.step.isin([-1.0, 0.0, 1.0])].assign(far=lambda rows: rows.step.abs())
    loss = ends.groupby(["model", "replica", "network", "far"]).loss.mean().unstack("far")
    rise = (loss[1.0] - loss[0.0]).unstack("network")
    return doubled(rise)


def by_network(tables, column, start):
    """Return means over architectures of a column of `gains`, a column for each network and a row for each replica."""
    found = gains(tables["shrinking"])
    return found[found.start == start].pivot_table(column, "replica", "network")


def claims(here, tables):
    """Values that C17 and C18 are judged by."""
    p = here.p
    norm = of_few(tables, "all").reset_index()
    norm = norm[norm.start == SHARED]
    departure = norm.deviation_ratio * np.sqrt(norm.n_members) - 1
    departure = departure.groupby(norm.replica).mean().abs()
    gain = by_network(tables, "gain", SHARED)
    note = f"shared start, N = {p.n_pool_members}, mean over {len(architectures(p))} architectures"
    common = {"dataset": data.title(p.dataset), "note": note}
    below, points = {**common, "side": "below"}, {"bound": 0, "unit": "points"}
    length = 100 * norm.groupby("replica").norm_ratio.mean()
    change = gain["soup restored"] - gain["uniform soup"]
    return [
        judged("C17", "norm of the soup", length, bound=100, unit="% of a member's", **below),
        judged("C17", "departure of the deviations from 1/√N", departure, bound=0.05, unit="share", **below),
        judged("C18", "gain of a shrunk member", gain["member shrunk"], **points, **common),
        judged("C18", "soup restored minus soup", change, **points, **below),
    ]


def numbers(here, tables):
    """What the prose says."""
    p, total = here.p, of_few(tables, "all")
    start = (
        total.xs(SHARED, level="start").groupby("replica")[["norm_ratio", "deviation_ratio", "cosine"]].mean().mean()
    )
    gain, better = by_network(tables, "gain", SHARED), by_network(tables, "nll_gain", SHARED)
    alone, many = by_network(tables, "gain", APART).mean(), of_many(tables)
    many = many[many.n_members == max(p.sizes)].groupby("start").mean(numeric_only=True)
    law = 100 / np.sqrt(p.n_pool_members)
    intervals = {
        "soup_gain": gain["uniform soup"],
        "shrunk_gain": gain["member shrunk"],
        "restored_loss": gain["soup restored"] - gain["uniform soup"],
        "soup_nll": better["uniform soup"],
        "shrunk_nll": better["member shrunk"],
        "restored_nll": better["soup restored"] - better["uniform soup"],
    }
    found = {}
    for name, values in intervals.items():
        found[name], found[f"{name}_low"], found[f"{name}_high"], _ = mean_interval(values)
    for name, logs in (("sharp", doublings(tables["sharpness"])), ("rise", rises(tables["flatness"]))):
        interval = mean_interval(logs.groupby("replica").mean())
        found |= {
            f"{name}_doublings": interval.mean,
            f"{name}_doublings_low": interval.low,
            f"{name}_doublings_high": interval.high,
        }
        found |= {f"{name}_ratio_{end}": 2 ** getattr(interval, end) for end in ("mean", "low", "high")}
    return found | {
        "norm_shared": 100 * start.norm_ratio,
        "deviation_shared": 100 * start.deviation_ratio,
        "cosine_shared": start.cosine,
        "law": law,
        "law_many": 100 / np.sqrt(max(p.sizes)),
        "norm_apart": 100 * many.norm_ratio[APART],
        "kernels_apart": 100 * many.kernels[APART],
        "norm_many": 100 * many.norm_ratio[SHARED],
        "deviation_many": 100 * many.deviation_ratio[SHARED],
        "cosine_many": many.cosine[SHARED],
        "apart_soup": alone["uniform soup"],
        "apart_restored": alone["soup restored"],
        "apart_shrunk": alone["member shrunk"],
        "norm_apart_few": 100 * total.xs(APART, level="start").norm_ratio.mean(),
        "top_departure": 100 * (100 * start.deviation_ratio) / law - 100,
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_many": max(p.sizes),
        "n_models": len(architectures(p)),
        "n_shown": len(p.protocol_models),
        "n_directions": p.n_directions,
        "n_line": p.n_line_images,
        "n_curvature": p.n_curvature_images,
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def norms_vs_members(table):
    """Draw what averaging leaves of a norm, against the number of members; a panel for each kind of norm.

    Columns panel (its title), model, replica, n_members, ratio (percent) and law (percent; what sampling without
    replacement gives, NaN where that does not apply).
    """
    import matplotlib.pyplot as plt

    from ..plot.style import DATASETS, MODELS, intervals

    titles, models = (list(dict.fromkeys(table[name])) for name in ("panel", "model"))
    size = (2.5 * len(titles) + 0.4, 3.1)
    fig, axes = plt.subplots(1, len(titles), figsize=size, sharey=True, layout="constrained", squeeze=False)
    handles, sizes = {}, np.array(sorted(table.n_members.unique()))
    for ax, title in zip(axes[0], titles, strict=True):
        part = table[table.panel == title]
        name = "1 / √N"
        handles[name] = ax.plot(sizes, 100 / np.sqrt(sizes), color="#999999", linestyle=":", linewidth=1.5)[0]
        law = part.dropna(subset=["law"]).groupby("n_members").law.first()
        if len(law):
            name = "sampling without replacement"
            handles[name] = ax.plot(law.index, law, color="#D55E00", linestyle="-", linewidth=5, alpha=0.4)[0]
        for model, (color, marker, dash) in zip(models, DATASETS, strict=False):
            line = intervals(part[part.model == model], ["n_members"], "ratio")
            handles[MODELS.get(model, model)] = ax.errorbar(
                line.n_members,
                line["mean"],
                line["mean"] - line.low,
                color=color,
                marker=marker,
                linestyle=dash,
                capsize=2.5,
                markersize=5,
            )
        ax.set(title=title, xlabel="Members N", xticks=sizes, ylim=(-4, 108))
    axes[0, 0].set_ylabel("Norm of the mean\n(%, usual norm = 100)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    plt.close(fig)
    return fig


def shrinking_gains(table):
    """Draw what soups, soups restored to the members' norms and members shrunk to the soup's gain over a member.

    Columns start (a panel each), model, replica, network (of `CONTROLS`) and gain (points).
    """
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, MODELS, intervals

    looks = dict(zip(CONTROLS, (LOOKS["uniform soup"][:2], ("#56B4E9", "D"), ("#D55E00", "X")), strict=True))
    starts, models = (list(dict.fromkeys(table[name])) for name in ("start", "model"))
    size = (3.4 * len(starts) + 1.6, 0.4 * len(models) + 1.5)
    fig, axes = plt.subplots(1, len(starts), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax, start in zip(axes[0], starts, strict=True):
        part = table[table.start == start]
        for index, (name, (color, marker)) in enumerate(looks.items()):
            rows = intervals(part[part.network == name], ["model"], "gain").set_index("model").reindex(models)
            y = np.arange(len(models)) + 0.24 * (index - 1)
            bars = [rows["mean"] - rows.low, rows.high - rows["mean"]]
            ax.errorbar(rows["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2, label=name)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        ax.set(title=start, xlabel="Points over a member")
    axes[0, 0].set_yticks(range(len(models)), [MODELS.get(model, model) for model in models])
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plt.close(fig)
    return fig


def loss_around(table):
    """Draw the loss along random directions through a member and through a soup; panels are architectures.

    Columns model, replica, network, direction, step and loss (nats). Drawn is the mean over directions, and over
    replicas with its interval.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, MODELS, intervals

    models = list(dict.fromkeys(table.model))
    n_columns = min(4, len(models))
    n_rows = math.ceil(len(models) / n_columns)
    size = (2.4 * n_columns + 0.5, 2.3 * n_rows + 0.7)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, sharex=True, layout="constrained", squeeze=False)
    handles = {}
    for ax, model in zip(axes.flat, models, strict=False):
        for name in ("member", "uniform soup"):
            part = table[(table.model == model) & (table.network == name)]
            pools = part.groupby(["replica", "step"]).loss.mean().reset_index()
            line = intervals(pools, ["step"], "loss")
            color, marker, dash = LOOKS[name]
            looks = {"color": color, "marker": marker, "linestyle": dash, "markersize": 4}
            handles[name] = ax.plot(line.step, line["mean"], label=name, **looks)[0]
            ax.fill_between(line.step, line.low, line.high, color=color, alpha=0.15, linewidth=0)
        ax.set(title=MODELS.get(model, model), xlabel="Step (filter norms = 1)", xticks=[-1, 0, 1])
        ax.set_ylim(bottom=0)
    for ax in axes.flat[len(models) :]:
        ax.set_axis_off()
    for row in axes:
        row[0].set_ylabel("Training loss (nats)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    plt.close(fig)
    return fig
