"""How much of it is the evaluation? The corrected protocol turned into the released one, step by step."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import torch.nn.functional as F

from .. import data, ensemble, evaluate, models, released, sweeps
from ..claims import measure as judged
from ..merge import greedy_soup
from ..pools import Pool
from ..stats import interval_text, mean_interval
from ..sweeps import REDRAWN, STARTS

NAMES = ("model", "arm", "replica")  # of a large pool the arm is its start
# Trainings, in the order in which the released protocol is built up, each with the step that it stands for.
ARMS = {"augmented": "corrected", "this book's recipe": "D5", "released start": "D2, D9", "released training": "D6"}
EVALUATION = (*ARMS.values(), "D4", "D1")  # the steps that change more than feature ensembles and greedy soups
FIRST_HEAD = "feature ensemble, first head"
N_SELECTION = 500  # selection images that greedy soups are chosen on


def runs(p):
    """Per architecture an arm for each step of training; and pools of many members with a shared start or none."""
    n_train, epochs, trunk_epochs = sweeps.fit_passes(p.dataset, p.n_train_pools, p.epochs, p.trunk_epochs)
    common = {
        "dataset": p.dataset,
        "n_train": n_train,
        "n_eval": p.n_eval_pools,
        "n_members": p.n_pool_members,
        "epochs": epochs,
        "trunk_epochs": trunk_epochs,
    }
    protocol = {
        (model, arm, replica): configs
        for model in p.protocol_models
        for replica in range(p.n_replicas)
        for arm, configs in arms(model, replica, **common).items()
    }
    many = sweeps.pools_by_dataset(
        {p.dataset: p.n_train_pools},
        p.many_models,
        n_members=p.n_many,
        epochs=p.epochs,
        trunk_epochs=p.trunk_epochs,
        n_replicas=p.n_replicas,
        n_eval=p.n_eval_pools,
    )
    return protocol | {key[1:]: configs for key, configs in many.items()}


def arms(model, replica, **settings):
    """Return the pools of `ARMS`, each of which keeps what the one before it changed.

    A shared start with flips and crops, as the released code means to do; none, as it does (D5); parts drawn anew
    (D2, D9); a learning rate that warms up twice as long, to twice the peak (D6). Trunks are as they were.
    """
    settings = {"model": model, "replica": replica, **settings}
    recipe, begun = (sweeps.pool(start, **settings) for start in (STARTS[0], released_start(model)))
    augmented = [replace(config, augment="flip-crop") for config in recipe]
    doubled = [replace(c, peak_lr=2 * c.peak_lr, warmup_epochs=2 * c.warmup_epochs) for c in begun]
    return dict(zip(ARMS, (augmented, recipe, begun, doubled), strict=True))


def released_start(model):
    """Return the start that the paper's code gives members of an architecture, or of the one it is a small copy of."""
    if models.family(model) in ("mlp", "cnn"):
        return STARTS[2]
    head, stem_and_head = REDRAWN
    return stem_and_head if models.kind(model) == "vit" else head


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def steps_of_training(pool, *, n_selection):
    """Return the accuracies (percent) of members, soups and ensembles in eval mode, a row for each combination."""
    return as_rows(in_eval_mode(pool.first(n_selection=n_selection)))


def steps_of_evaluation(pool, *, n_selection):
    """Return the same from other normalisation on, with the columns step, combination and accuracy.

    Each step keeps all that came before; what it cannot change about a combination repeats the score.
    """
    pool = pool.first(n_selection=n_selection)
    other = seeing(pool, test=released.with_other_normalisation(pool.dataset.test))
    leaked = seeing(other, selection=released.leaked_selection(pool.dataset, 0))
    found = {"D4": in_eval_mode(other), "D1": in_train_mode(other) | greedy(other, train_mode=True)}
    found["D3"] = found["D1"] | before_norm(other)
    found["D7"] = found["D3"] | greedy(leaked, train_mode=True)
    found["D8"] = found["D7"] | greedy(leaked, train_mode=True, choose=released.greedy_soup_by_halves)
    return pd.concat([as_rows(scores).assign(step=step) for step, scores in found.items()], ignore_index=True)


def train_mode_gaps(pool, *, sizes):
    """Return logit ensemble minus soup of the first N members (gap, points) for each mode: "eval" and "train"."""
    rows = []
    for n in sizes:
        few = pool.first(n)
        eval_mode = scores(few, few.recorded(), few.logits(few.soup(), recalibrate=True))
        for mode, found in (("eval", eval_mode), ("train", in_train_mode(few))):
            rows.append({"n_members": n, "mode": mode, "gap": found["logit ensemble"] - found["uniform soup"]})
    return pd.DataFrame(rows)


def in_eval_mode(pool):
    """Return the accuracy of every combination by name, in percent; BatchNorm recalibrated in soups."""
    features = [pool.features(state) for state in pool.states]
    logits = [F.linear(read, *pool.head(state)) for read, state in zip(features, pool.states, strict=True)]
    soup = pool.logits(pool.soup(), recalibrate=True)
    return scores(pool, logits, soup) | feature_scores(pool, features) | greedy(pool)


def in_train_mode(pool):
    """Return the same, but for greedy soups, with every network left in training mode (D1)."""
    logits, features = zip(*(leave_in_train_mode(pool, state, i) for i, state in enumerate(pool.states)), strict=True)
    soup, _ = leave_in_train_mode(pool, pool.soup(), len(pool))
    return scores(pool, logits, soup) | feature_scores(pool, features)


def before_norm(pool):
    """Return the accuracy of feature ensembles without the last norm (D3), of architectures that have one."""
    if models.kind(pool.model) != "vit":
        return {}
    read = [released.features_before_norm(pool.load(state), pool.dataset.test) for state in pool.states]
    return feature_scores(pool, read)


def greedy(pool, *, train_mode=False, choose=greedy_soup):
    """Return the accuracy of a greedy soup; the released code selects in eval mode and does not recalibrate."""
    soup = pool.greedy(choose=choose, recalibrate=not train_mode).state
    read = leave_in_train_mode(pool, soup, len(pool))[0] if train_mode else pool.logits(soup, recalibrate=True)
    return {"greedy soup": accuracy(pool, read)}


def leave_in_train_mode(pool, state, seed):
    """Return (logits, features) of a network left in training mode; networks draw different dropout masks."""
    return released.train_mode_outputs(pool.load(state), pool.dataset.test, seed=seed)


def scores(pool, logits, soup):
    """Return the accuracies of members, soup and logit ensemble from their logits."""
    return {
        "member": sum(accuracy(pool, one) for one in logits) / len(logits),
        "uniform soup": accuracy(pool, soup),
        "logit ensemble": accuracy(pool, ensemble.logit_ensemble(logits)),
    }


def feature_scores(pool, features):
    """Return the accuracies of both feature ensembles from the members' features."""
    heads = [pool.head(state) for state in pool.states]
    return {
        f"feature ensemble, {head} head": accuracy(pool, ensemble.feature_ensemble(features, heads, head=head))
        for head in ("first", "averaged")
    }


def accuracy(pool, logits):
    return evaluate.accuracy(logits, pool.dataset.test.labels)


def seeing(pool, **splits):
    """Return a pool that is judged on other images."""
    dataset = replace(pool.dataset, **splits)
    return Pool(pool.runs, dataset, predictions=pool.predictions, device=pool.device)


def as_rows(scores):
    return pd.DataFrame({"combination": list(scores), "accuracy": list(scores.values())})


def tables(here):
    """Accuracies at every step, the gap in both modes at one step, and how it grows with the number of members."""
    p = here.p
    trained = here.rows(steps_of_training, here.groups_where(arm=list(ARMS)), n_selection=N_SELECTION)
    trained["step"] = trained.arm.map(ARMS)
    evaluated = here.groups_where(arm="released training")
    evaluated = here.rows(steps_of_evaluation, evaluated, n_selection=N_SELECTION)
    steps = pd.concat([trained, evaluated])
    # The steps of an architecture and replica one after the other.
    steps = pd.concat([part for _, part in steps.groupby(["model", "replica"], sort=False)], ignore_index=True)
    alone = here.rows(train_mode_gaps, here.groups_where(arm="this book's recipe"), sizes=[p.n_pool_members])
    many = here.groups_where(arm=[STARTS[0], STARTS[2]])
    growth = here.rows(train_mode_gaps, many, sizes=[2, p.n_many]).rename(columns={"arm": "start"})
    growth = growth.pivot_table("gap", ["model", "start", "replica", "mode"], "n_members", sort=False)
    return {
        "protocol_steps": here.save(steps[["step", "combination", "accuracy", "model", "replica"]], "protocol_steps"),
        "train_mode": here.save(alone[["n_members", "mode", "gap", "model", "replica"]], "train_mode"),
        "growth": (growth[p.n_many] - growth[2]).rename("growth").reset_index(),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def difference(steps, a, b):
    """Return the accuracy of one combination minus another's (value, points) by model, replica and step."""
    wide = steps.pivot_table("accuracy", ["model", "replica", "step"], "combination", sort=False)
    return (wide[a] - wide[b]).rename("value").reset_index()


def gap(steps):
    """Return logit ensemble minus soup, in points."""
    return difference(steps, "logit ensemble", "uniform soup")


def features(steps):
    """Return the feature ensemble with the first head minus the logit ensemble, in points, up to where it changes."""
    found = difference(steps, FIRST_HEAD, "logit ensemble")
    return found[found.step.isin([*EVALUATION, "D3"])]


def against_vit(steps):
    """Return by how much the soups of CNNs gain more than those of the ViT, in points; model is the CNN.

    Of CNNs whose members the released code gives one body; there are no rows if there is no such CNN or no ViT.
    """
    gain = difference(steps, "uniform soup", "member")
    wide = gain[gain.step.isin(EVALUATION)].pivot_table("value", ["replica", "step"], "model", sort=False)
    vit = next((model for model in wide if models.kind(model) == "vit"), None)
    cnns = [model for model in wide if models.kind(model) == "cnn" and released_start(model) not in STARTS]
    parts = [(wide[cnn] - wide[vit]).rename("value").reset_index().assign(model=cnn) for cnn in cnns if vit]
    return pd.concat(parts) if parts else gain.iloc[:0]


def change_of_mode(alone):
    """Return the gap in eval and in training mode by model and replica, and their difference (change), in points."""
    wide = alone.pivot_table("gap", ["model", "replica"], "mode", sort=False)
    return wide.assign(change=wide["train"] - wide["eval"])


def claims(here, tables):
    """Values that the released side of C6, C8, C9 and C10 is judged by, and C13."""
    steps, growth, rows = tables["protocol_steps"], tables["growth"], []

    def add(claim, name, values, bound=0, unit="points", protocol="released", note=""):
        title = data.title(here.p.dataset)
        rows.append(judged(claim, name, values, bound=bound, unit=unit, dataset=title, protocol=protocol, note=note))

    last = gap(steps)
    last = last[last.step == "D8"].groupby("replica").value
    add("C6", "gap, mean over architectures", last.mean())
    share = last.agg(lambda gaps: 100 * (gaps > 0).mean())
    add("C6", "share of architectures with a gap above 0", share, 50, "%")
    against = against_vit(steps)
    for model, part in against[against.step == "D1"].groupby("model", sort=False):
        add("C8", "soup minus member, CNN minus ViT", part.value, note=model)
    for (model, start), part in growth[growth["mode"] == "train"].groupby(["model", "start"], sort=False):
        name = f"gap at N = {here.p.n_many} minus gap at N = 2, {start}"
        add("C9", name, part.growth, note=f"{model}, training mode")
    by_features = features(steps)
    by_features = by_features[by_features.step == "D3"].groupby("replica").value.mean()
    add("C10", "first head minus logit ensemble, mean over architectures", by_features, -0.5)
    for model, part in change_of_mode(tables["train_mode"]).groupby("model", sort=False):
        facts = models.facts(model)
        if facts.dropout is not False or facts.batchnorm is not False:  # else the mode changes nothing
            name = "gap in training mode minus gap in eval mode, shared start"
            add("C13", name, part.change, protocol="corrected", note=model)
    return rows


def numbers(here, tables):
    """What the prose says."""
    from ..plot.style import MODELS

    p, steps = here.p, tables["protocol_steps"]
    gaps, against = gap(steps), against_vit(steps)
    mean, at_end = gaps.groupby("step").value.mean(), gaps[gaps.step == "D1"].groupby("model").value.mean()
    cnn_minus_vit = against.groupby(["step", "replica"]).value.mean()
    first, last = (cnn_minus_vit[cnn_minus_vit.index.get_level_values("step") == step] for step in ("corrected", "D1"))
    start, end = mean_interval(first), last.mean()
    member = steps[steps.combination == "member"].groupby(["model", "step"]).accuracy.mean()
    with_norm = next((model for model in p.protocol_models if models.facts(model).batchnorm), None)
    d6, d4, d1 = (member.get((with_norm, step), math.nan) for step in ("D6", "D4", "D1"))
    cost, back, where = d6 - d4, d1 - d4, MODELS.get(with_norm, with_norm)
    unknown = "a difference that was not measured here"
    return {
        "gap_corrected": mean["corrected"],
        "gap_released": mean["D1"],
        "gap_start": mean["D2, D9"] - mean["D5"],
        "gap_mode": mean["D1"] - mean["D4"],
        "gap_least": at_end.min(),
        "gap_most": at_end.max(),
        "vit_corrected": start.mean,
        "vit_corrected_low": start.low,
        "vit_corrected_high": start.high,
        "vit_released": end,
        "vit_corrected_said": f"{interval_text(first)} points in favour of the CNN" if len(first) else unknown,
        "vit_released_said": f"{end:+.0f} points" if len(last) else unknown,
        "normalisation_cost": cost,
        "normalisation_back": back,
        "normalisation_said": f"{cost:.0f} and {back:.0f} points in {where}"
        if with_norm
        else "not measured here, where no architecture has it",
        "n_models": len(p.protocol_models),
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_many": p.n_many,
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def waterfall(table, ylabel):
    """Draw how a number changes as one defect after the other is switched on; panels are architectures.

    Columns model, replica, step and value. The first step is the corrected protocol, the last one stands for the
    released one; of each step a bar reaches from the value before to the value after. Whiskers: 95 % interval of the
    value at the two ends, and of the change at each step.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import MODELS

    shown = list(dict.fromkeys(table.model))
    n_columns = max(1, min(2, len(shown)))
    n_rows = max(1, math.ceil(len(shown) / n_columns))
    size = ((0.5 * max(5, table.step.nunique()) + 1.1) * n_columns, 2.5 * n_rows + 0.3)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, sharey=False, layout="constrained", squeeze=False)
    for ax, model in zip(axes.flat, shown, strict=False):
        _one(ax, table[table.model == model].pivot_table("value", "replica", "step", sort=False))
        ax.set(title=MODELS.get(model, model), ylabel=ylabel)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    if not shown:
        axes[0, 0].text(0.5, 0.5, "not measured: no such architectures", ha="center", transform=axes[0, 0].transAxes)
    plt.close(fig)
    return fig


def _one(ax, wide):
    up, down, level, grey = "#0173B2", "#D55E00", "#333333", "#999999"
    names, means = list(wide.columns), wide.mean()
    for x, (before, step) in enumerate(itertools.pairwise(names), start=1):
        change = means[step] - means[before]
        ax.bar(x, change, bottom=means[before], width=0.6, color=up if change >= 0 else down)
        ax.plot([x - 0.7, x + 0.3], [means[before]] * 2, color=grey, linewidth=0.8)
        ax.errorbar(x, means[step], _half(wide[step] - wide[before]), color="#777777", capsize=2, linewidth=1)
    for x, step in ((0, names[0]), (len(names), names[-1])):
        ax.bar(x, means[step], width=0.6, color=level, alpha=0.35)
        ax.errorbar(x, means[step], _half(wide[step]), color=level, capsize=3)
    ax.axhline(0, color=grey, linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(names) + 1), [*(name.replace(", ", ",\n") for name in names), "released"])
    for label in (ax.get_xticklabels()[0], ax.get_xticklabels()[-1]):
        label.set_rotation(30)


def _half(values):
    line = mean_interval(values)
    return line.mean - line.low
