"""Do larger weights make a network nervous? Noise, attacks, and what a scale factor changes about them."""

import itertools
import math
from dataclasses import replace
from functools import partial
from statistics import fmean

import numpy as np
import pandas as pd
import torch

from .. import data, ensemble, evaluate, models, probe
from ..claims import measure as judged
from ..errors import ProbeError
from ..predictions import fingerprint
from ..stats import interval_text, mean_interval, number_text
from ..sweeps import STARTS, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
COMBINATIONS = ("member", "uniform soup", "logit ensemble")
WORDS = {"learnable": "weights and biases", "batchnorm": "coherent"}
LEAST = math.log2(1.05)  # doublings: a change below 5 % is none
N_SELECTION = 200  # selection images that temperatures are fitted on
N_DRAWS, SEVERITY = 2, 5  # of the Gaussian noise
N_ITERATIONS = 5  # of power iteration, and steps of PGD


def runs(p):
    """Pools of every architecture, all with a shared start."""
    cells = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_eval": p.n_eval_pools}
    cells |= {"n_replicas": p.n_replicas, "n_members": p.n_pool_members}
    return pools_by_dataset({p.dataset: p.n_train_pools}, p.pool_models, starts=[STARTS[0]], **cells)


def attacked(p):
    """Return the architectures that are attacked: those that were chosen and have a pool, or all."""
    return [model for model in p.attack_models if model in p.pool_models] or p.pool_models


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def stability(pool, *, factors, n_images, n_jacobians, n_draws=N_DRAWS, severity=SEVERITY):
    """Measure how stable networks are under noise; ``factors`` are scopes to lists of scale factors.

    At c = 1 all members, the soup (BatchNorm recalibrated before it is scaled) and the ensemble, else the first member
    and the soup: scope, c, network, combination (its name without a number), accuracy (without noise), flip_rate and
    finite (images with finite logits only, noisy or not) in percent; temperature; lipschitz (mean over images) and
    spread (`wamlib.probe.logit_spread`) of the logits divided by it, plain_lipschitz and plain_spread of those as they
    are. Where logits are not finite these are NaN, and the image counts as wrong and as changed. A scope that is not
    defined for the architecture is left out.
    """
    if unknown := [scope for scope in factors if scope not in probe.SCOPES]:
        raise ProbeError(
            "cannot measure stability",
            item="scope",
            got=repr(unknown[0]),
            wanted=f"one of {', '.join(probe.SCOPES)}",
            fix="Correct the name.",
        )
    pool = pool.first(n_test=n_images, n_selection=N_SELECTION)
    split = pool.dataset.test
    draws = [data.corrupt(split.images, "gaussian noise", severity, seed) for seed in range(n_draws)]
    shown = replace(split, images=torch.cat([split.images, *draws]), labels=split.labels.repeat(1 + n_draws))
    everybody, known, rows = pool.networks(), {}, []
    for scope, factor in [(scope, factor) for scope, several in factors.items() for factor in several]:
        states = everybody if factor == 1 else {name: everybody[name] for name in ("member 0", "uniform soup")}
        try:
            scaled = {name: probe.scale(state, factor, scope) for name, state in states.items()}
        except ProbeError:
            continue  # as of the ViT, whose LayerNorm does not pass scale on
        key = fingerprint(scaled["member 0"])  # scopes may multiply the same tensors, and at c = 1 all do
        if key not in known:
            known[key] = _shaken(pool, scaled, shown, n_jacobians, with_ensemble=factor == 1)
        rows += [{"scope": scope, "c": factor, **row} for row in known[key]]
    return pd.DataFrame(rows)


def corruption_flips(pool, *, corruptions, severities, n_images):
    """Compare how often members (mean), soup and ensemble change their answers when images are spoilt.

    A row per corruption, severity and combination: flip_rate, accuracy and clean_accuracy (without corruption), all in
    percent. BatchNorm of the soup is recalibrated.
    """
    pool = pool.first(n_test=n_images)
    split, chosen = pool.dataset.test, list(itertools.product(corruptions, severities))
    spoilt = torch.cat([split.images, *(data.corrupt(split.images, *one) for one in chosen)])
    many = replace(split, images=spoilt, labels=split.labels.repeat(1 + len(chosen)))
    logits = {
        name: evaluate.predict_logits(pool.load(state), many).view(1 + len(chosen), len(split), -1)
        for name, state in pool.networks().items()
    }
    members = [found for name, found in logits.items() if name.startswith("member")]
    pooled = torch.stack([ensemble.logit_ensemble(list(one)) for one in zip(*members, strict=True)])
    combined, rows = [members, [logits["uniform soup"]], [pooled]], []
    for index, (name, severity) in enumerate(chosen, start=1):
        for combination, networks in zip(COMBINATIONS, combined, strict=True):
            flips = fmean(probe.flip_rate(one[0], one[index : index + 1]) for one in networks)
            row = {"corruption": name, "severity": severity, "combination": combination, "flip_rate": flips}
            row["accuracy"] = fmean(evaluate.accuracy(one[index], split.labels) for one in networks)
            row["clean_accuracy"] = fmean(evaluate.accuracy(one[0], split.labels) for one in networks)
            rows.append(row)
    return pd.DataFrame(rows)


def attack_accuracy(pool, *, budgets, n_images, n_steps=N_ITERATIONS):
    """Measure what attacks leave of the accuracy (percent) of members, soup and ensemble.

    A row per kind, budget (how far a pixel may move, of 255; 0 is no attack) and combination. Each network is attacked
    by its own gradient, the ensemble as a whole; logits are divided by a fitted temperature before it is taken.
    """
    pool = pool.first(n_test=n_images, n_selection=N_SELECTION)
    modules = pool.map(lambda module: module, pool.networks())
    members = [module for name, module in modules.items() if name.startswith("member")]
    combined, rows = [members, [modules["uniform soup"]], [ensemble.LogitEnsemble(members)]], []
    for combination, networks in zip(COMBINATIONS, combined, strict=True):
        fitted = [_temperature(pool, evaluate.predict_logits(one, pool.dataset.selection)) for one in networks]
        for kind, budget in itertools.product(probe.ATTACKS, budgets):
            found = []
            for network, temperature in zip(networks, fitted, strict=True):
                split, settings = pool.dataset.test, {"temperature": temperature, "n_steps": n_steps}
                if budget:
                    moved = probe.attack(network, split, budget=budget, kind=kind, **settings)
                    split = replace(split, images=moved)
                found.append(evaluate.accuracy(evaluate.predict_logits(network, split), split.labels))
            rows.append({"kind": kind, "budget": budget, "combination": combination, "accuracy": fmean(found)})
    return pd.DataFrame(rows)


def _shaken(pool, states, shown, n_jacobians, with_ensemble):
    """Return one row per network; ``shown`` holds the test images, then every draw of the noise."""
    modules = pool.map(lambda module: module, states)
    logits = {
        name: tuple(evaluate.predict_logits(module, split) for split in (pool.dataset.selection, shown))
        for name, module in modules.items()
    }
    if with_ensemble:
        members = [name for name in modules if name.startswith("member")]
        modules["logit ensemble"] = ensemble.LogitEnsemble([modules[name] for name in members])
        pairs = zip(*(logits[name] for name in members), strict=True)
        logits["logit ensemble"] = tuple(torch.stack(pair).mean(0) for pair in pairs)
    split = pool.dataset.test
    at = split.normalize(split.images[:n_jacobians])
    return [
        {"network": name, "combination": name.rstrip("0123456789 "), **_row(pool, module, *logits[name], at)}
        for name, module in modules.items()
    ]


def _row(pool, module, held_out, logits, at):
    labels = pool.dataset.test.labels
    logits = logits.unflatten(0, (-1, len(labels)))
    clean, noisy, finite = logits[0], logits[1:], torch.isfinite(logits).all(-1)
    right = finite[0] & (clean.argmax(1) == labels)
    row = {"accuracy": 100 * right.double().mean().item(), "flip_rate": probe.flip_rate(clean, noisy)}
    row |= {"finite": 100 * finite.double().mean().item()}
    if not (finite.all() and torch.isfinite(held_out).all()):
        names = ("temperature", "lipschitz", "spread", "plain_lipschitz", "plain_spread")
        return row | dict.fromkeys(names, math.nan)
    fitted = _temperature(pool, held_out)
    steepest = probe.local_lipschitz(module, at, n_iterations=N_ITERATIONS).mean().item()
    spread, plain = probe.logit_spread(noisy, fitted), probe.logit_spread(noisy)
    row |= {"temperature": fitted, "lipschitz": steepest / fitted, "spread": spread}
    return row | {"plain_lipschitz": steepest, "plain_spread": plain}


def _temperature(pool, held_out):
    return evaluate.fit_temperature(held_out, pool.dataset.selection.labels)


def tables(here):
    """Noise at every scale, corruptions, and attacks on some of the architectures."""
    p, top = here.p, max(here.p.noise_factors)
    factors = {"learnable": p.noise_factors, "batchnorm": sorted({min(p.noise_factors), 1.0, top})}
    factors["everything"] = [1.0, top]
    shaken = here.rows(stability, factors=factors, n_images=p.n_noisy, n_jacobians=p.n_jacobians)
    flips = here.rows(corruption_flips, corruptions=p.corruptions, severities=p.severities, n_images=p.n_noisy)
    chosen = here.groups_where(model=attacked(p))
    attacks = here.rows(attack_accuracy, chosen, budgets=[0, *p.budgets], n_images=p.n_attacked)
    return {
        "stability": here.save(shaken, "stability"),
        "corruptions": here.save(flips, "corruptions"),
        "attacks": here.save(attacks, "attacks"),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def against_one(shaken):
    """Return the rows of the first member and the soup with what changed since c = 1.

    New columns: lipschitz_ratio, plain_lipschitz_ratio and spread_ratio, change (of the flip rate, points) and works:
    whether the architecture keeps half of its accuracy in every network and pool.
    """
    scaled = shaken[shaken.network.isin(["member 0", "uniform soup"])].copy()
    at = ["scope", "model", "replica", "network"]
    own = scaled[scaled.c == 1].set_index(at).reindex(pd.MultiIndex.from_frame(scaled[at]))
    for column in ("lipschitz", "plain_lipschitz", "spread"):
        scaled[f"{column}_ratio"] = scaled[column].to_numpy() / own[column].to_numpy()
    scaled["change"] = scaled.flip_rate - own.flip_rate.to_numpy()
    works = scaled.accuracy >= own.accuracy.to_numpy() / 2
    scaled["works"] = works.groupby([scaled[name] for name in ("scope", "model", "c")]).transform("all")
    return scaled


def at_equal_scale(tables):
    """Return means over architectures at c = 1, a row for each combination and replica."""
    once, flips = _once(tables), tables["corruptions"].groupby(["combination", "replica"], sort=False)
    means = once.groupby(["combination", "replica"], sort=False)[["flip_rate", "lipschitz", "spread"]].mean()
    changed = flips[["flip_rate", "accuracy"]].mean()
    return means.assign(corrupted=changed.flip_rate, accuracy=changed.accuracy)


def minus_member(means):
    """Return soup and ensemble minus member, pool by pool: a dict of DataFrames."""
    return {name: means.loc[name] - means.loc["member"] for name in COMBINATIONS[1:]}


def difference_table(tables):
    """Return the same in words: mean and interval over replicas, a row for each measure."""
    labels = {
        "flip_rate": "changed under noise (points)",
        "lipschitz": "local Lipschitz",
        "spread": "logit spread",
        "corrupted": "changed, all corruptions (points)",
        "accuracy": "accuracy, all corruptions (points)",
    }
    apart = minus_member(at_equal_scale(tables))
    found = {name: part.agg(partial(interval_text, digits=2)) for name, part in apart.items()}
    return pd.DataFrame(found).rename(index=labels)


def _once(tables):
    shaken = tables["stability"]
    return shaken[(shaken.c == 1) & (shaken.scope == "learnable")]


def at_the_top(tables, p):
    """Return what the claims are judged by: doublings and changes at the largest factor where networks still work."""
    scaled = against_one(tables["stability"])
    ends = scaled[(scaled.c == max(p.noise_factors)) & scaled.works]
    return ends.assign(lipschitz=np.log2(ends.lipschitz_ratio), spread=np.log2(ends.spread_ratio))


def claims(here, tables):
    """Values that C16 is judged by."""
    ends, common, rows = at_the_top(tables, here.p), {"dataset": data.title(here.p.dataset)}, []
    columns = {
        "change": ("changed predictions", 0.5, "points"),
        "lipschitz": ("local Lipschitz constant", LEAST, "doublings"),
        "spread": ("logit spread", LEAST, "doublings"),
    }
    ways = [("everything", "released", "whole state dict"), ("batchnorm", "corrected", "coherent")]
    for (scope, protocol, said), (column, (name, bound, unit)) in itertools.product(ways, columns.items()):
        part = ends[ends.scope == scope]
        if len(part):
            more = {"note": f"{said}, mean over {part.model.nunique()} architectures", "protocol": protocol, **common}
            rows.append(judged("C16", name, part.groupby("replica")[column].mean(), bound=bound, unit=unit, **more))
    for model, part in ends[ends.scope == "everything"].groupby("model", sort=False):
        more = {"note": f"whole state dict, {model}", "protocol": "released", **common}
        values = part.groupby("replica").change.mean()
        rows.append(judged("C16", "changed predictions", values, bound=0.5, unit="points", **more))
    return rows


def numbers(here, tables):
    """What the prose says."""
    p, top, attacks = here.p, max(here.p.noise_factors), tables["attacks"]
    scaled, means = against_one(tables["stability"]), at_equal_scale(tables)
    one, last = (scaled[(scaled.c == c) & (scaled.scope == "learnable")] for c in (1, top))
    facts = {model: models.facts(model) for model in p.pool_models}
    bare = [model for model, said in facts.items() if said.kind != "vit" and said.batchnorm is False]
    normed, mlps, vits = (
        [model for model, said in facts.items() if chosen(said)]
        for chosen in (lambda said: said.batchnorm, lambda said: said.kind == "mlp", lambda said: said.kind == "vit")
    )

    def of(some, table=last):
        return table[table.model.isin(some)]

    clean = tables["corruptions"].groupby(["combination", "replica"]).clean_accuracy.mean()
    pgd = attacks[attacks.kind == "pgd"].groupby(["budget", "combination", "replica"]).accuracy.mean()
    hit, intact = pgd[max(p.budgets)], pgd[0]
    soup, pooled = COMBINATIONS[1:]
    steep = np.log(_once(tables).pivot_table("lipschitz", ["model", "replica"], "combination"))
    steep = (steep[soup] - steep["member"]).reset_index(name="more")
    dense = steep.model.map(models.family) == "densenet"
    ends = at_the_top(tables, p)
    found = {
        "top": top,
        "budget": max(p.budgets),
        "coherent_change": scaled.change[(scaled.scope == "batchnorm") & (scaled.c == top)].abs().max(),
        "vit_change": of(vits).change.mean(),
        "acc_norm_one": of(normed, one).accuracy.mean(),
        "acc_norm_top": of(normed).accuracy.mean(),
        "acc_vit_one": of(vits, one).accuracy.mean(),
        "acc_vit_top": of(vits).accuracy.mean(),
        "flip_vit_one": of(vits, one).flip_rate.mean(),
        "flip_vit_top": of(vits).flip_rate.mean(),
        "lip_vit": math.exp(np.log(of(vits).lipschitz_ratio).mean()),
        "relu_lip": 100 * (of(bare).lipschitz_ratio.mean() - 1),
        "plain_mlp": of(mlps).plain_lipschitz_ratio.mean(),
        "lip_member": means.lipschitz["member"].mean(),
        "spread_member": means.spread["member"].mean(),
        "soup_clean": (clean[soup] - clean["member"]).mean(),
        "ensemble_clean": (clean[pooled] - clean["member"]).mean(),
        "acc_clean": intact["member"].mean(),
        "acc_attack": hit["member"].mean(),
        "soup_intact": (intact[soup] - intact["member"]).mean(),
        "ensemble_intact": (intact[pooled] - intact["member"]).mean(),
        "n_attacked": p.n_attacked,
        "n_attack_models": len(attacked(p)),
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_models": len(p.pool_models),
        "n_working": int(ends[ends.scope == "everything"].model.nunique()),
        **_ends("relu_change", of(bare).groupby("replica").change.mean()),
        **_ends("soup_flip", minus_member(means)[soup].corrupted),
        **_ends("soup_net", (hit - intact)[soup] - (hit - intact)["member"]),
        **_ends("soup_attack", hit[soup] - hit["member"]),
        **_ends("ensemble_attack", hit[pooled] - hit["member"]),
    }
    for name, part in (("soup_lip", steep), ("rest_lip", steep[~dense])):
        more = _ends(name, part.groupby("replica").more.mean())
        found |= {key: 100 * float(np.expm1(value)) for key, value in more.items()}
    forms = {
        "coherent_change": ".1f",
        "vit_change": "+z.0f",
        "plain_mlp": ",.0f",
        "lip_vit": ".0f",
        "relu_lip": "+z.1f",
    }
    forms |= {f"{name}{end}": "+z.1f" for name in ("relu_change", "rest_lip") for end in ("", "_low", "_high")}
    whole = ("acc_norm_top", "acc_norm_one", "acc_vit_one", "acc_vit_top", "flip_vit_one", "flip_vit_top")
    forms |= dict.fromkeys(whole, ".0f")
    return found | {f"{name}_text": number_text(found[name], form) for name, form in forms.items()}


def _ends(name, values):
    """Return mean and ends of an interval by the names that the prose has for them; NaN of nothing."""
    return {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), mean_interval(values)[:3], strict=True)}


# ---- Figures ---------------------------------------------------------------------------------------------------------

COLUMNS = {
    "flip_rate": "Changed predictions (%)",
    "plain_lipschitz_ratio": "Lipschitz, logits as they\nare (c = 1 is 1)",
    "lipschitz_ratio": "Lipschitz, matched\n(c = 1 is 1)",
    "spread_ratio": "Logit spread, matched\n(c = 1 is 1)",
}
MARKERS = "osDX^vP*"
NUMBERS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # at narrow logarithmic axes


def _curves(axes, table, panel_by, x, y):
    """Draw the mean and the interval over replicas of each combination, one panel for each value of a column."""
    from ..plot.style import LOOKS, MODELS, intervals

    for ax, panel in zip(axes, dict.fromkeys(table[panel_by]), strict=True):
        values = sorted(table[x].unique())
        aside = 0.025 * (values[-1] - values[0])  # so that whiskers stand side by side
        for place, combination in enumerate(COMBINATIONS, start=-1):
            part = table[(table[panel_by] == panel) & (table.combination == combination)]
            part = part.groupby(["replica", x], as_index=False)[y].mean()  # over architectures, where there are several
            line = intervals(part, [x], y)
            color, marker, dash = LOOKS[combination]
            look = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2.5, "label": combination}
            ax.errorbar(line[x] + place * aside, line["mean"], line["mean"] - line.low, **look)
        ax.set_title(MODELS.get(panel, panel.capitalize()))


def flips_by_severity(table):
    """Draw changed predictions against severity, means over architectures; panels are corruptions."""
    import matplotlib.pyplot as plt

    n = table.corruption.nunique()
    fig, axes = plt.subplots(1, n, figsize=(2.3 * n + 0.6, 3.0), layout="constrained", squeeze=False)
    _curves(axes[0], table, "corruption", "severity", "flip_rate")
    for ax in axes[0]:
        ax.set(xlabel="Severity", xticks=sorted(table.severity.unique()))
        ax.set_ylim(0, max(ax.get_ylim()[1], 1))
    axes[0, 0].set_ylabel("Changed predictions (%)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plt.close(fig)
    return fig


def attack_curves(table):
    """Draw accuracy under attack against the budget; rows are kinds of attack, columns architectures."""
    import matplotlib.pyplot as plt

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
    plt.close(fig)
    return fig


def stability_vs_scale(table, columns=COLUMNS):
    """Draw measures of stability against the scale factor; rows are scopes, lines architectures.

    Rows of one replica are averaged first; NaN is a gap. A column whose label ends with "is 1)" has a logarithmic axis.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import NullLocator

    from ..plot.style import MODELS, intervals

    table = table.replace({"scope": WORDS})
    scopes, shown = (list(dict.fromkeys(table[name])) for name in ("scope", "model"))
    factors = sorted(table.c.unique())
    size = (2.6 * len(columns), 2.2 * len(scopes) + 1.0)
    grid = {"figsize": size, "sharex": True, "sharey": "col", "layout": "constrained", "squeeze": False}
    fig, axes = plt.subplots(len(scopes), len(columns), **grid)
    looks, handles = list(zip(shown, sns.color_palette("colorblind", len(shown)), itertools.cycle(MARKERS))), {}
    for (row, scope), (place, (column, label)) in itertools.product(
        zip(axes, scopes, strict=True), enumerate(columns.items())
    ):
        ax, is_ratio = row[place], label.endswith("is 1)")
        for model, color, marker in looks:
            part = table[(table.scope == scope) & (table.model == model)]
            part = part.groupby(["replica", "c"], as_index=False)[column].mean()
            line = intervals(part, ["c"], column, log=is_ratio)
            if len(line):
                bars = [line["mean"] - line.low, line.high - line["mean"]]
                look = {"markersize": 4, "linewidth": 1.3, "elinewidth": 0.8, "capsize": 2}
                handles[model] = ax.errorbar(line.c, line["mean"], bars, color=color, marker=marker, **look)
        ax.set(xscale="log", yscale="log" if is_ratio else "linear", ylabel=label)
        if not is_ratio:
            ax.set_ylim(bottom=0)
        ax.set_xticks(factors, [f"{factor:g}" for factor in factors])
        ax.xaxis.set_minor_locator(NullLocator())
        if not place:
            ax.set_title(scope, loc="left")
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
    plt.close(fig)
    return fig
