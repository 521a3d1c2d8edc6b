"""May I multiply all weights by ten? What a scale factor does to members, soups and ensembles."""

import itertools
import math
from statistics import fmean

import pandas as pd
import torch

from .. import data, evaluate, models, probe, released
from ..claims import measure as judged
from ..errors import ProbeError
from ..merge import greedy_soup, is_learnable, uniform_soup
from ..pools import ENSEMBLES, combine
from ..predictions import fingerprint
from ..stats import mean_interval, number_text
from ..sweeps import STARTS, pools_by_dataset

NAMES = ("model", "replica")
SHOWN = ("everything", "learnable", "batchnorm", "head")  # scopes that are scaled by all factors
TENSORS = ("weights and biases", "weights")  # and by few
COHERENT = ("homogeneous", "batchnorm")  # scopes that not every architecture has
WORDS = {"batchnorm": "coherent"}
COMBINATIONS = ("member", "uniform soup", "logit ensemble")
N_SELECTION = 300  # selection images that greedy soups are chosen on


def runs(p):
    """Pools of every architecture, all with a shared start."""
    cells = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_eval": p.n_eval_pools}
    cells |= {"n_replicas": p.n_replicas, "n_members": p.n_pool_members}
    found = pools_by_dataset({p.dataset: p.n_train_pools}, p.pool_models, starts=[STARTS[0]], **cells)
    return {(model, replica): configs for (_, model, _, replica), configs in found.items()}


def dear(p):
    """Return the architectures of the dearer parts: those that were chosen and have a pool, or all."""
    return [model for model in p.protocol_models if model in p.pool_models] or p.pool_models


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def scales(pool, *, factors, scopes, n_images):
    """Scale members, soups (BatchNorm recalibrated before) and ensembles, each by every factor in every scope.

    A row per scope, factor and combination, of a member the mean over all: accuracy, agreement with c = 1 and finite
    (images with finite logits only), in percent; nll and entropy (nats), margin (see `wamlib.evaluate.margin`). An
    image whose logits overflow counts as wrong and changed, and nll, entropy and margin are NaN. A scope that is not
    defined for the architecture is left out.
    """
    pool = pool.first(n_test=n_images, n_selection=N_SELECTION)
    networks = pool.networks(("uniform soup", "greedy soup"))
    if networks["greedy soup"] is networks["uniform soup"]:
        del networks["greedy soup"]  # it is not evaluated twice
    plain = {name: _logits(pool, state) for name, state in networks.items()}
    reference, known, rows = _combined(plain), {}, []
    for scope, factor in itertools.product(scopes, factors):
        if scope in COHERENT and not _is_defined(scope, networks["member 0"]):
            continue
        scaled = {name: probe.scale(state, factor, scope) for name, state in networks.items()}
        key = fingerprint(scaled["member 0"])  # scopes may multiply the same tensors, and at c = 1 all do
        if key not in known:
            if scope == "head":  # behind it nothing is left to compute
                logits = {name: factor * found for name, found in plain.items()}
            else:
                logits = {name: _logits(pool, state) for name, state in scaled.items()}
            known[key] = _rows(_combined(logits), reference, pool.dataset.test.labels)
        rows += [{"scope": scope, "c": factor, **row} for row in known[key]]
    return pd.DataFrame(rows)


def layer_scales(pool, *, factors, n_images):
    """Scale one layer at a time, of the first member and of the soup.

    A row per layer, factor and combination: layer, depth (its number, from 1), c and drop (of the accuracy, points).
    """
    pool, rows = pool.first(n_test=n_images), []
    labels = pool.dataset.test.labels
    for combination, state in (("member", pool.states[0]), ("uniform soup", pool.recalibrated(pool.soup()))):
        before = _accuracy(_logits(pool, state), labels)
        for (depth, layer), factor in itertools.product(enumerate(probe.layers(state), start=1), factors):
            after = _accuracy(_logits(pool, probe.scale(state, factor, layer=layer)), labels)
            row = {"layer": layer, "depth": depth, "c": factor, "combination": combination}
            rows.append(row | {"drop": before - after})
    return pd.DataFrame(rows)


def released_scales(pool, *, factors, n_images):
    """The accuracy (percent) as the released code has it: every entry scaled, networks in training mode."""
    pool, rows = pool.first(n_test=n_images), []
    split = pool.dataset.test
    networks = [*pool.states, pool.soup()]  # batch statistics do away with running ones
    names = [*(f"member {index}" for index in range(len(pool))), "uniform soup"]
    for factor in factors:
        logits = {}
        for seed, (name, state) in enumerate(zip(names, networks, strict=True)):
            module = pool.load(probe.scale(state, factor, "everything"))
            logits[name] = released.train_mode_outputs(module, split, seed=seed)[0]
        combined = _combined(logits)
        for combination in COMBINATIONS:
            accuracy = fmean(_accuracy(one, split.labels) for one in combined[combination])
            rows.append({"c": factor, "combination": combination, "accuracy": accuracy})
    return pd.DataFrame(rows)


def one_member_scaled(pool, *, factors, n_images):
    """Compare the soup whose first member is scaled with the weighted average that gives it a larger share.

    A row per factor: c, share, difference (largest between any tensor of the soup and of the average, scaled as a
    whole, relative to the largest entry of that tensor), accuracy (of the soup), weighted (of the average) and
    agreement of the two (percent). BatchNorm is recalibrated in both.
    """
    pool = pool.first(n_test=n_images)
    labels, (first, *others) = pool.dataset.test.labels, pool.states
    rows = []
    for factor in factors:
        share, rest = factor / (factor + len(others)), 1 / (factor + len(others))
        soup = uniform_soup([probe.scale(first, factor, "learnable"), *others])
        weighted = uniform_soup([first, *others], weights=[share, *[rest] * len(others)])
        logits, expected = (_logits(pool, state, recalibrate=True) for state in (soup, weighted))
        scaled = probe.scale(weighted, 1 / (rest * len(pool)), "learnable")
        rows.append(
            {
                "c": factor,
                "share": share,
                "difference": _difference(soup, scaled),
                "accuracy": evaluate.accuracy(logits, labels),
                "weighted": evaluate.accuracy(expected, labels),
                "agreement": evaluate.agreement(logits, expected),
            }
        )
    return pd.DataFrame(rows)


def greedy_soups_of_scaled(pool, *, factors):
    """Count the scaled members that a greedy soup takes: all but the best are scaled, and offered with it.

    A row per factor and protocol: c, protocol, offered and accepted (scaled members) and accuracy (of the soup,
    percent). "corrected": learnable tensors are scaled, BatchNorm is recalibrated in every candidate. "released":
    everything is scaled, the soup averages by halves in the order of the members, and nothing is recalibrated.
    """
    pool, rows = pool.first(n_selection=N_SELECTION), []
    alone = [evaluate.accuracy(logits, pool.dataset.selection.labels) for logits in pool.recorded("selection")]
    best = max(range(len(pool)), key=alone.__getitem__)
    others = [state for index, state in enumerate(pool.states) if index != best]
    ways = {
        "corrected": ("learnable", greedy_soup, True),
        "released": ("everything", released.greedy_soup_by_halves, False),
    }
    for factor, (protocol, (scope, choose, recalibrate)) in itertools.product(factors, ways.items()):
        offered = [pool.states[best], *(probe.scale(state, factor, scope) for state in others)]
        soup = choose(offered, lambda state, again=recalibrate: pool.accuracy(state, "selection", recalibrate=again))
        accuracy, accepted = pool.accuracy(soup.state, recalibrate=recalibrate), len(set(soup.accepted) - {0})
        row = {"c": factor, "protocol": protocol, "offered": len(others), "accepted": accepted}
        rows.append(row | {"accuracy": accuracy})
    return pd.DataFrame(rows)


def _logits(pool, state, *, recalibrate=False):
    """Return logits on the test images; nobody asks for them again, so they are not kept."""
    module = pool.load(state, recalibrate=recalibrate and pool.has_batchnorm)
    return evaluate.predict_logits(module, pool.dataset.test)


def _is_defined(scope, state):
    """Return whether an architecture has a scope; a ViT has no coherent one, for LayerNorm passes no scale on."""
    try:
        probe.scale(state, 1.0, scope)
    except ProbeError:
        return False
    return True


def _combined(logits):
    """Return the logits of each combination as a list: of several for members, whose numbers are averaged."""
    members = [found for name, found in logits.items() if name.startswith("member")]
    uniform = logits["uniform soup"]
    soups = {"uniform soup": [uniform], "greedy soup": [logits.get("greedy soup", uniform)]}
    return {"member": members, **soups, **{kind: [combine(members, kind)] for kind in ENSEMBLES}}


def _rows(combined, reference, labels):
    rows = []
    for combination, networks in combined.items():
        pairs = zip(networks, reference[combination], strict=True)
        found = pd.DataFrame([_measured(logits, before, labels) for logits, before in pairs])
        rows.append({"combination": combination, **found.mean(skipna=False)})
    return rows


def _measured(logits, before, labels):
    finite = torch.isfinite(logits).all(1)
    same = finite & (logits.argmax(1) == before.argmax(1))
    row = {"accuracy": _accuracy(logits, labels)}
    row |= {name: 100 * of.double().mean().item() for name, of in (("agreement", same), ("finite", finite))}
    if not finite.all():
        return row | dict.fromkeys(("nll", "entropy", "margin"), math.nan)
    row |= {"nll": evaluate.nll(logits, labels), "entropy": evaluate.entropy(logits)}
    return row | {"margin": evaluate.margin(logits)}


def _accuracy(logits, labels):
    """Return the accuracy in percent; an image with a logit that overflowed counts as wrong."""
    right = (logits.argmax(1) == labels) & torch.isfinite(logits).all(1)
    return 100 * right.double().mean().item()


def _difference(state, other):
    learnable = [key for key in state if is_learnable(key)]
    apart = [(state[key] - other[key]).abs().max() / other[key].abs().max().clamp_min(1e-30) for key in learnable]
    return max(ratio.item() for ratio in apart)


def tables(here):
    """All scopes and factors; and layers, the released way, scaled members and greedy soups, of fewer pools."""
    p = here.p
    few, images = here.groups_where(model=dear(p)), {"n_images": p.n_scaled_images}
    every = here.rows(scales, factors=p.factors, scopes=list(SHOWN), **images)
    tensors = here.rows(scales, factors=[1.0, *p.few_factors], scopes=list(TENSORS), **images)
    greedy = here.rows(greedy_soups_of_scaled, few, factors=[1.0, *p.few_factors])
    return {
        "scale": here.save(pd.concat([every, tensors], ignore_index=True), "scale"),
        "layers": here.rows(layer_scales, factors=p.few_factors, **images),
        "released": here.rows(released_scales, few, factors=p.factors, **images),
        "shares": here.rows(one_member_scaled, few, factors=p.factors, **images),
        "greedy": greedy.assign(taken=100 * greedy.accepted / greedy.offered),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def drops(scale, p):
    """Return what members lose at few factors, in points (column drop), a row for each pool, scope and factor."""
    member = scale[scale.combination == "member"]
    at_one = member[member.c == 1].groupby(["model", "replica"]).accuracy.first()
    some = member[member.c.isin(p.few_factors)]
    before = some.set_index(["model", "replica"]).index.map(at_one)
    return some.assign(drop=before - some.accuracy.to_numpy())


def drops_by_scope(scale, p):
    """Return the mean drop of members with a row for each architecture and a column for each scope."""
    order = ["batchnorm", "head", *reversed(TENSORS), "learnable", "everything"]
    mean = drops(scale, p).groupby(["model", "scope", "replica"], sort=False)["drop"].mean()
    wide = mean.groupby(["model", "scope"], sort=False).mean().unstack("scope", sort=False)
    wide = wide.reindex(columns=order).rename(columns=WORDS)
    return (wide.round(1) + 0.0).astype(object).where(wide.notna(), "not defined")


def scaled_both_ways(tables):
    """Return accuracies, those of the released way with the scope "released code", and relative drops (points)."""
    scale, keys = tables["scale"], ["scope", "model", "replica", "combination"]
    both = pd.concat([scale[scale.scope.isin(SHOWN)], tables["released"].assign(scope="released code")])
    at_one = both.accuracy.where(both.c == 1).groupby([both[key] for key in keys]).transform("max")
    return both.assign(drop=100 - 100 * both.accuracy / at_one)


def soup_minus_member(tables):
    """Return the relative drop of the soup minus that of a member, mean over c, by scope, model and replica."""
    both = scaled_both_ways(tables)
    by_pool = both[both.c != 1].groupby(["scope", "model", "replica", "combination"], sort=False)
    drop = by_pool["drop"].mean().unstack("combination")
    return (drop["uniform soup"] - drop["member"]).rename("soup − member")


def coherent(scale):
    """Return the rows of members that were scaled coherently by 0.1 to 100."""
    return scale[(scale.scope == "batchnorm") & (scale.combination == "member") & scale.c.between(0.1, 100)]


def claims(here, tables):
    """Values that C14, C15, C19 and C20 are judged by."""
    p, title, scale = here.p, data.title(here.p.dataset), tables["scale"]
    rows, less = [], soup_minus_member(tables)

    def add(claim, name, values, bound, **more):
        rows.append(judged(claim, name, values, bound=bound, dataset=title, **more))

    ways = [("learnable", "corrected", p.pool_models), ("released code", "released", dear(p))]
    for scope, protocol, where in ways:
        common = {"side": "below", "unit": "points", "protocol": protocol}
        name = "relative drop, soup minus member, mean over architectures and c"
        add("C14", name, less[scope].groupby("replica").mean(), 0, **common)
        for model in where:
            add("C14", "the same", less[scope, model], 0, **common, note=model)
    same = coherent(scale)
    if len(same):
        name = "agreement with c = 1, coherent scope, least over c from 0.1 to 100 and the architectures that have one"
        add("C15", name, same.groupby("replica").agreement.min(), 99, unit="%")
    mismatch = drops(scale, p).groupby(["scope", "replica"])["drop"].mean()
    name = "drop of a member, learnable scope, mean over architectures and c"
    add("C15", name, mismatch["learnable"], 1, unit="points")
    shares = tables["shares"]
    shares = shares[shares.model.map(models.kind) != "vit"]
    if len(shares):
        more = shares.assign(more=shares.accuracy - shares.weighted).groupby(["replica", "model"]).more.mean()
        name = "one scaled member minus weighted average, mean over c, most over the architectures"
        name += " without LayerNorm"
        add("C19", name, more.groupby("replica").max(), 0.5, unit="points")
    greedy = tables["greedy"]
    for protocol, part in greedy[greedy.c != 1].groupby("protocol", sort=False):
        taken = part.groupby("replica").taken.mean()
        add("C20", "scaled members taken", taken, 5, side="below", unit="%", protocol=protocol)
    return rows


def numbers(here, tables):
    """What the prose says."""
    p, scale, greedy = here.p, tables["scale"], tables["greedy"]
    layers = tables["layers"].pivot_table("drop", ["replica", "model", "layer", "c"], "combination")
    intervals = {
        "less": soup_minus_member(tables)["learnable"].groupby("replica").mean(),
        "layer_soup": (layers["uniform soup"] - layers["member"]).groupby("replica").mean(),
    }
    intervals = {name: mean_interval(values) for name, values in intervals.items()}
    same, both = coherent(scale), scaled_both_ways(tables)
    resnet = next((model for model in dear(p) if models.family(model) == "resnet"), None)
    mine = both[(both.model == resnet) & (both.combination == "member")]
    known = {model: models.facts(model) for model in p.pool_models}
    kinds = {
        "bare": [model for model, said in known.items() if said.kind != "vit" and said.batchnorm is False],
        "norm": [model for model, said in known.items() if said.batchnorm],
        "vit": [model for model, said in known.items() if said.kind == "vit"],
    }
    larger = scale[(scale.scope == "learnable") & (scale.combination == "member")].pivot_table("accuracy", "model", "c")
    lost = larger[max(p.few_factors)] - larger[1.0]
    found = {
        "agree_coherent": same.agreement.min(),
        "coherent_low": same.c.min(),
        "c_low": min(p.factors),
        "c_high": max(p.factors),
        "ten": max(p.few_factors),
        **{f"ten_{name}": lost[some].mean() for name, some in kinds.items()},
        "drop_everything": drops(scale, p).groupby("scope")["drop"].mean()["everything"],
        "less_mean": intervals["less"].mean,
        "less_low": intervals["less"].low,
        "less_high": intervals["less"].high,
        "layer_soup": intervals["layer_soup"].mean,
        "layer_soup_low": intervals["layer_soup"].low,
        "layer_soup_high": intervals["layer_soup"].high,
        "train_mode_kept": _kept(mine[mine.scope == "released code"], p),
        "eval_mode_kept": _kept(mine[mine.scope == "everything"], p),
        "share_difference": tables["shares"].difference.max(),
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_models": len(p.pool_models),
        "n_offered": int(greedy.groupby(["protocol", "model", "c"]).offered.sum().max()),
        "few_factors": ", ".join(f"{c:g}" for c in p.few_factors),
    }
    forms = {
        "ten_bare": "+z.1f",
        "ten_norm": "+z.0f",
        "ten_vit": "+z.0f",
        "agree_coherent": ".1f",
        "coherent_low": ".1f",
        "train_mode_kept": ".0f",
        "eval_mode_kept": ".0f",
    }
    return found | {f"{name}_text": number_text(found[name], form) for name, form in forms.items()}


def _kept(rows, p):
    """Return the share of the accuracy that is left at the largest factor, in percent."""
    last, first = (rows[rows.c == c].accuracy.mean() for c in (max(p.factors), 1))
    return 100 - 100 * (1 - last / first)


# ---- Figures ---------------------------------------------------------------------------------------------------------

OVERFLOW = {"marker": "x", "color": "#B00020", "linestyle": "", "markersize": 7, "label": "some logits overflow"}


def scale_curves(table):
    """Draw accuracy against the scale factor; rows are architectures, columns scopes. What overflows is crossed."""
    import matplotlib.pyplot as plt

    from ..plot.style import facets

    table = table.replace({"scope": WORDS})
    labels = {"xlabel": "Scale factor c", "ylabel": "accuracy (%)"}
    fig = facets(table, "c", "accuracy", "combination", COMBINATIONS, column_by="scope", log=True, height=1.5, **labels)
    panels, crossed = itertools.product(*(dict.fromkeys(table[name]) for name in ("model", "scope"))), None
    for ax, (model, scope) in zip(fig.axes, panels, strict=True):
        ax.set_ylim(0, 100)
        ax.set_ylabel(ax.get_ylabel().replace(" (BatchNorm)", "\n(BatchNorm)"))  # the panels are low
        cell = table[(table.model == model) & (table.scope == scope) & table.combination.isin(COMBINATIONS)]
        if cell.empty:
            ax.text(0.5, 0.5, "not defined", transform=ax.transAxes, ha="center", va="center", color="#777777")
        spoilt = cell[cell.finite < 100].groupby(["combination", "c"]).accuracy.mean().reset_index()
        if len(spoilt):
            crossed = ax.plot(spoilt.c, spoilt.accuracy, clip_on=False, zorder=5, **OVERFLOW)[0]
    _legend(fig, dict(zip(*reversed(fig.axes[0].get_legend_handles_labels()), strict=True)), crossed)
    plt.close(fig)
    return fig


def scale_quantities(table, quantities):
    """Draw quantities, column to label, against the scale factor; rows are architectures, of one scope.

    What is NaN because logits overflowed is marked at the upper edge; "nll" has a logarithmic axis.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, MODELS, intervals

    shown = list(dict.fromkeys(table.model))
    size = (2.6 * len(quantities) + 0.4, 1.8 * len(shown) + 0.9)
    grid = {"figsize": size, "sharex": True, "layout": "constrained", "squeeze": False}
    fig, axes = plt.subplots(len(shown), len(quantities), **grid)
    handles, crossed = {}, None
    for row, model in zip(axes, shown, strict=True):
        for ax, (column, title) in zip(row, quantities.items(), strict=True):
            for name in COMBINATIONS:
                cell = table[(table.model == model) & (table.combination == name)]
                line = intervals(cell, ["c"], column, log=column == "nll")
                color, marker, dash = LOOKS[name]
                bars = [line["mean"] - line.low, line.high - line["mean"]]
                look = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2, "markersize": 4}
                handles[name] = ax.errorbar(line.c, line["mean"], bars, label=name, **look)
                for c in cell.c[cell[column].isna()].unique():
                    crossed = ax.plot(c, 1, transform=ax.get_xaxis_transform(), clip_on=False, **OVERFLOW)[0]
            ax.set(xscale="log", yscale="log" if column == "nll" else "linear")
            if ax in axes[0]:
                ax.set_title(title)
        row[0].set_ylabel(MODELS.get(model, model))
    for ax in axes[-1]:
        ax.set_xlabel("Scale factor c")
    _legend(fig, handles, crossed)
    plt.close(fig)
    return fig


def _legend(fig, handles, crossed):
    """Write the legend anew, with the mark of what overflows, if there is one."""
    for legend in list(fig.legends):
        legend.remove()
    handles = {name: handles[name] for name in COMBINATIONS if name in handles}
    if crossed is not None:
        handles[crossed.get_label()] = crossed
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4 if crossed is not None else 3)


def layer_heat_maps(table):
    """Draw the mean drop in accuracy of one combination: panels are architectures, rows layers, columns factors."""
    import matplotlib.pyplot as plt

    from ..plot.style import MODELS

    shown = list(dict.fromkeys(table.model))
    n_columns = min(4, len(shown))
    n_rows = math.ceil(len(shown) / n_columns)
    size = (2.6 * n_columns, 3.0 * n_rows)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    for ax, model in zip(axes.flat, shown, strict=False):
        wide = table[table.model == model].pivot_table("drop", "depth", "c")
        image = ax.imshow(wide, cmap="magma_r", vmin=0, vmax=80, aspect="auto")
        for (y, x), drop in wide.stack().items():
            at = wide.columns.get_loc(x), wide.index.get_loc(y)
            tint = "white" if drop > 45 else "black"
            ax.text(*at, f"{round(drop)}", ha="center", va="center", fontsize=7, color=tint)
        ax.grid(False)
        ax.set_xticks(range(wide.shape[1]), [f"{c:g}" for c in wide.columns])
        ax.set_yticks(range(wide.shape[0]), wide.index)
        ax.set(title=MODELS.get(model, model), xlabel="Scale factor c", ylabel="Layer, from the image on")
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    fig.colorbar(image, ax=axes, shrink=0.6, label="Drop in accuracy (points)")
    plt.close(fig)
    return fig


def share_curves(table):
    """Draw accuracy against the share of the first member: of the weighted average, and of soups in which it is scaled.

    Panels are architectures.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, MODELS, intervals

    shown = list(dict.fromkeys(table.model))
    fig, axes = plt.subplots(1, len(shown), figsize=(2.6 * len(shown) + 0.4, 3.0), layout="constrained", squeeze=False)
    handles = {}
    for ax, model in zip(axes[0], shown, strict=True):
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
    plt.close(fig)
    return fig


def scale_yourself(scale, static, alt):
    """Return the figure in which the reader chooses scope, architecture and factor."""
    from ..plot import Quantity, walk_figure

    quantities = [
        Quantity("accuracy", "Test accuracy (%)", low=0, high=100),
        Quantity("agreement", "Agreement with c = 1 (%)", low=0, high=100),
        Quantity("entropy", "Entropy (nats)", "", "nats", 2),
    ]
    words = {"everything": "everything, as the released code", "head": "head only", **WORDS}
    return walk_figure(
        scale,
        "c",
        COMBINATIONS,
        quantities,
        {"scope": "Multiply", "model": "Architecture"},
        x_label="Scale factor c",
        x_name="c",
        difference=("uniform soup", "member"),
        words=words,
        log=True,
        first=1.0,
        static=static,
        alt=alt,
    )
