"""When are the two averages the same? The gap between logit ensemble and soup, and what it follows from."""

import math

import numpy as np
import pandas as pd
import torch

from .. import data, ensemble, evaluate, models, probe
from ..claims import measure as judged
from ..merge import interpolate
from ..predictions import fingerprint
from ..sweeps import STARTS, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
STEPS = {"half way": 0.5, "at the soup": None}  # of the second difference; None is the derivative
N_DERIVATIVES = 100  # images that the derivative is taken for, which is slower
EXPLAINED, HALF = "explained, at the soup", "explained, half way"
UNKNOWN = "an unmeasured share"  # where there is no architecture of a kind
# Columns of the gaps, as the table in the text calls them.
SHORT = {
    "distance": "distance",
    HALF: "half way",
    EXPLAINED: "at the soup",
    "nll_gap": "nll_gap",
    "predicted_nll_gap, half way": "predicted",
}


def runs(p):
    """Pools with a shared start and independent ones, of linear networks and of deep ones."""
    cells = {
        "epochs": p.epochs,
        "trunk_epochs": p.trunk_epochs,
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_eval": p.n_eval_pools,
    }
    return pools_by_dataset({p.dataset: p.n_train_pools}, [*flat(p), *p.pool_models], **cells)


def flat(p):
    """Return the architectures for which there is a formula: without a nonlinearity."""
    return [model for model in p.flat_models if models.kind(model) == "linear"]


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def cross_terms(pool, *, n_images=1_000):
    """Compare the gap of linear networks with the formula for it, in float64.

    With :math:`f_i(x) = H_i F_i x + b_i` and centred :math:`\\tilde H_i, \\tilde F_i`, ensemble minus soup is
    :math:`\\frac1N \\sum_i \\tilde H_i \\tilde F_i x`; with one layer it is zero. One row: layers; spread (standard
    deviation of a logit of the ensemble), gap (root mean square of a logit's difference), formula (the same of what
    the formula says), difference (largest absolute one between the two); soup_error and ensemble_error (percent).
    """
    split = pool.dataset.test.take(slice(0, n_images))
    pixels = split.normalize(split.images).flatten(1).double()
    members = [{key: tensor.to(pixels.device, torch.float64) for key, tensor in state.items()} for state in pool.states]
    logits = torch.stack([_linear_logits(member, pixels) for member in members])
    mean = {key: torch.stack([member[key] for member in members]).mean(0) for key in members[0]}
    soup, pooled = _linear_logits(mean, pixels), logits.mean(0)
    formula, deep = torch.zeros_like(soup), "fc.weight" in mean
    for member in members if deep else ():
        head, hidden = (member[key] - mean[key] for key in ("head.weight", "fc.weight"))
        formula += pixels @ hidden.T @ head.T / len(members)
    row = {
        "layers": 1 + deep,
        "spread": pooled.std().item(),
        "gap": _rms(pooled - soup),
        "formula": _rms(formula),
        "difference": (pooled - soup - formula).abs().max().item(),
        "soup_error": 100 - evaluate.accuracy(soup, split.labels),
        "ensemble_error": 100 - evaluate.accuracy(pooled, split.labels),
    }
    return pd.DataFrame([row])


def _linear_logits(state, pixels):
    hidden = pixels @ state["fc.weight"].T if "fc.weight" in state else pixels
    return hidden @ state["head.weight"].T + state["head.bias"]


def logit_gaps(pool, *, ways, n_images=500):
    """Measure the gap between logit ensemble and soup as the members move towards their soup, and predict it.

    A member stands at ``soup + way (member - soup)``, BatchNorm's running statistics as well. One row per way: way,
    distance (of the members from the soup, its norm = 1), gap (root mean square over images and classes of ensemble
    minus soup, each image's mean over classes taken off), nll_gap (soup minus ensemble, nats); for each of `STEPS`
    predicted_gap, explained (share of the squared gap that the prediction accounts for; below 0 where it is worse than
    predicting none) and predicted_nll_gap. Source: Wortsman et al. (2022), Section 4.
    """
    pool = pool.first(n_test=n_images)
    labels, soup = pool.dataset.test.labels, pool.soup()
    middle, distance = pool.logits(soup), probe.relative_distance(pool.states)
    bends = {name: _centred(_bend(pool, step)) for name, step in STEPS.items()}
    slope = torch.nn.functional.one_hot(labels, middle.shape[1]) - middle.double().softmax(1)
    rows = []
    for way in ways:
        moved = pool.states if way == 1 else [interpolate(soup, state, way) for state in pool.states]
        pooled = ensemble.logit_ensemble([pool.logits(state) for state in moved])
        gap = _centred(pooled - middle)
        row = {"way": way, "distance": way * distance, "gap": _rms(gap)}
        row["nll_gap"] = evaluate.nll(middle, labels) - evaluate.nll(pooled, labels)
        for name, bend in bends.items():
            predicted, seen = bend * way**2, gap[: len(bend)]
            row[f"predicted_gap, {name}"] = _rms(predicted)
            row[f"explained, {name}"] = 1 - (seen - predicted).square().sum().item() / seen.square().sum().item()
            # To first order in the gap, with the gradient of the loss at the soup.
            row[f"predicted_nll_gap, {name}"] = (slope[: len(bend)] * predicted).sum(1).mean().item()
        rows.append(row)
    return pd.DataFrame(rows)


def _bend(pool, step):
    """Return the second difference of the logits on the test images, or the second derivative on the first of them."""
    split = pool.dataset.test
    images = split.normalize(split.images)[: N_DERIVATIVES if step is None else None]
    weights = [fingerprint(state) for state in pool.states]
    key = ["second_order_gap", pool.model, *weights, fingerprint({"images": images}), str(step)]
    return pool.keep(key, lambda: probe.second_order_gap(pool.load(pool.states[0]), pool.states, images, step))


def _centred(logits):
    """Take off each image's mean over classes, which no softmax sees."""
    wide = logits.double()
    return wide - wide.mean(1, keepdim=True)


def _rms(tensor):
    return tensor.double().square().mean().sqrt().item()


def tables(here):
    """Cross terms of the linear networks, and gaps of the deep ones."""
    p = here.p
    layers = here.rows(cross_terms, here.groups_where(model=flat(p)))
    here.save(layers.drop(columns="layers"), "cross_terms")
    gaps = here.rows(logit_gaps, here.groups_where(model=p.pool_models), ways=list(p.ways))
    return {"cross_terms": layers, "logit_gaps": here.save(gaps, "logit_gaps")}


# ---- What follows from it --------------------------------------------------------------------------------------------


def trained(gaps):
    """Return the gaps of members where they were trained, those with a shared start first."""
    return gaps[gaps.way == 1].sort_values("start", key=lambda start: start != STARTS[0], kind="stable")


def exponents(gaps):
    """Return the exponent of the gap in the distance, from the first way to the last, a row for each pool."""
    ends = gaps.groupby(["start", "model", "replica"], sort=False)[["distance", "gap"]]
    ends = ends.agg(lambda values: np.log(values.iloc[-1] / values.iloc[0]))
    return (ends.gap / ends.distance).rename("exponent").reset_index()


def claims(here, tables):
    """Values that C11 and C12 are judged by."""
    layers, gaps, rows = tables["cross_terms"], tables["logit_gaps"], []

    def add(claim, name, values, **more):
        if len(values):
            rows.append(judged(claim, name, values, dataset=data.title(here.p.dataset), **more))

    one, two = (layers[layers.layers == n] for n in (1, 2))
    small = {"bound": 1e-5, "side": "below", "unit": "logit"}
    add("C11", "one layer: largest difference of any logit", one.difference + one.gap, **small)
    add("C11", "two layers: largest difference between gap and cross terms", two.difference, **small)
    for start, part in exponents(gaps).groupby("start", sort=False):
        name, values = f"exponent of the gap in the distance, {start}", part.groupby("replica").exponent.mean()
        add("C11", name, values, bound=0, note="mean over architectures")
    together = trained(gaps)
    for model, part in together[together.start == STARTS[0]].groupby("model", sort=False):
        name = "share of the squared gap that the derivative at the soup explains, shared start"
        add("C12", name, part[EXPLAINED], bound=0.5, unit="share", note=model)
    return rows


def numbers(here, tables):
    """What the prose says; shares in percent."""
    p, layers, gaps = here.p, tables["cross_terms"], tables["logit_gaps"]
    together = trained(gaps)
    near = 100 * together[together.start == STARTS[0]].groupby("model")[[EXPLAINED, HALF]].mean()
    vits = [model for model in p.pool_models if models.kind(model) == "vit"]
    relu = near.loc[[model for model in p.pool_models if model not in vits]]
    two, slopes = layers[layers.layers == 2], exponents(gaps)
    apart = two[two.start == STARTS[2]]
    found = {
        "deep_difference": two.difference.max(),
        "deep_loss": (apart.soup_error - apart.ensemble_error).mean(),
        "exponent_shared": slopes.exponent[slopes.start == STARTS[0]].mean(),
        "vit_derivative": near[EXPLAINED].get(vits[0], math.nan) if vits else math.nan,
        "half_low": relu[HALF].min(),
        "half_high": relu[HALF].max(),
        "derivative_low": relu[EXPLAINED].min(),
        "derivative_high": relu[EXPLAINED].max(),
    }
    said = {
        "deep_agreement": f"{found['deep_difference']:.0e}" if len(two) else "not measured",
        "deep_lost": f"{found['deep_loss']:.1f}" if len(two) else "not measured",
        "vit_share": f"{found['vit_derivative']:.0f} %" if vits else UNKNOWN,
        "derivative_shares": _from_to(found["derivative_low"], found["derivative_high"]),
        "half_shares": _from_to(found["half_low"], found["half_high"]),
    }
    counts = {"n_replicas": p.n_replicas, "n_relu": len(relu), "n_half_better": (relu[HALF] > relu[EXPLAINED]).sum()}
    return found | said | counts


def _from_to(low, high):
    return UNKNOWN if math.isnan(low) else f"{low:.0f} to {high:.0f} %"


# ---- Figures ---------------------------------------------------------------------------------------------------------


def gap_vs_distance(table):
    """Draw the gap against the distance of the members from their soup; a panel per architecture, a line per pool."""
    import matplotlib.pyplot as plt

    from ..plot.style import KINDS, MODELS

    names = list(dict.fromkeys(table.model))
    n_columns = min(4, len(names))
    n_rows = math.ceil(len(names) / n_columns)
    fig, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.5 * n_columns + 0.5, 2.3 * n_rows + 0.7),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    handles = {}
    for ax, model in zip(axes.flat, names, strict=False):
        for start, (color, marker) in KINDS.items():
            part = table[(table.model == model) & (table.start == start)]
            for _, line in part.groupby("replica"):
                looks = {"color": color, "marker": marker, "markersize": 4, "alpha": 0.8}
                handles[start] = ax.plot(line.distance, line.gap, **looks)[0]
        ax.set(title=MODELS.get(model, model), xscale="log", yscale="log")
    anchor = table.groupby("model").gap.median().median() / table.distance.median() ** 2
    for ax in axes.flat[: len(names)]:
        ends = np.array(ax.get_xlim())
        handles["square of the distance"] = ax.plot(ends, anchor * ends**2, color="#999999", linewidth=0.8, ls=":")[0]
        ax.set_xlim(*ends)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for column in range(n_columns):  # the last panel of each column
        lowest = axes[(len(names) - 1 - column) // n_columns, column]
        lowest.set_xlabel("Distance from the soup\n(its norm = 1)")
        lowest.tick_params(labelbottom=True)
    for row in axes:
        row[0].set_ylabel("Gap (logit)")
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    plt.close(fig)
    return fig


def explained_gap(table):
    """Draw the shares explained of members where they were trained; panels are starts; below -1 is drawn at -1."""
    import matplotlib.pyplot as plt

    from ..plot.style import MODELS, intervals

    table = table[table.way == 1]
    starts, names = (list(dict.fromkeys(table[name])) for name in ("start", "model"))
    size = (3.4 * len(starts) + 1.2, 0.33 * len(names) + 1.4)
    fig, axes = plt.subplots(1, len(starts), figsize=size, sharey=True, layout="constrained", squeeze=False)
    looks = [
        (HALF, "second difference, half the way", "#0173B2", "s"),
        (EXPLAINED, "second derivative at the soup", "#D55E00", "x"),
    ]
    for ax, start in zip(axes[0], starts, strict=True):
        for index, (column, label, color, marker) in enumerate(looks):
            rows = intervals(table[table.start == start], ["model"], column).set_index("model").loc[names]
            ends, y = rows.clip(lower=-1, upper=1), np.arange(len(names)) + 0.2 * (index - 0.5)
            bars = [ends["mean"] - ends.low, ends.high - ends["mean"]]
            ax.errorbar(ends["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2.5, label=label)
        ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        ax.set(title=start, xlim=(-1.08, 1.08), xlabel="Share of the squared gap explained\n(-1: that or less)")
    axes[0, 0].set_yticks(range(len(names)), [MODELS.get(model, model) for model in names])
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    plt.close(fig)
    return fig
