"""Is structure in the weights why merging works? Pairs of members with and without a shared start."""

import contextlib
import math
from statistics import fmean

import pandas as pd
from scipy.stats import spearmanr

from .. import align, data, evaluate, probe
from ..claims import measure as judged
from ..errors import AlignmentError
from ..merge import uniform_soup
from ..packed import pack
from ..pictures import N_SHOWN, class_pictures, stack
from ..runs import RunStore
from ..sweeps import STARTS, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
SHARED, INIT, APART = STARTS
PERMUTED = "permuted"  # a pair with a shared start, the units of one member in another order
KINDS = (SHARED, PERMUTED, INIT, APART)


def runs(p):
    """Pairs with and without a shared start on every data set; on the main one also from a shared random init."""
    sizes = {name: p.n_train if name == p.dataset else p.n_train_pairs for name in p.present(p.datasets)}
    cells = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_replicas": p.n_replicas}
    return {
        **pools_by_dataset(sizes, p.template_models, **cells),
        **pools_by_dataset({p.dataset: p.n_train}, p.template_models, starts=[INIT], **cells),
    }


# ---- What is measured on one pair ------------------------------------------------------------------------------------


def structure(pool, *, permute=False, n_images=None, n_gradients=300):
    """Measure the structure of two members, their likeness, and the gain of their soup.

    One row, or with ``permute`` a second one in which the units of the second member stand in a random order: permuted
    (bool), own (correlation of a member's effective templates with the centred class means, mean over classes and the
    two members), null (with other classes' means), retrieval (%), linear_share (see `wamlib.probe.effective_templates`,
    over ``n_gradients`` test images), likeness (correlation between the two members' templates of a class), cosine
    (between their weights, mean over layers), first_cosine (of the first layer), member_accuracy and soup_accuracy (%,
    on ``n_images`` test images; BatchNorm recalibrated in both), gain (points), soup_own, and agreement (predictions
    that the second member keeps, %).
    """
    a, b = pool.states
    means = probe.class_means(pool.dataset.train, len(pool.dataset.classes)).to(pool.device)
    images, few = (pool.dataset.test.take(slice(0, n)) for n in (n_images, n_gradients))

    def measure(state):
        module = pool.load(state, recalibrate=pool.has_batchnorm)
        logits, effective = evaluate.predict_logits(module, images), probe.effective_templates(module, few)
        match, k = probe.template_match(effective.pictures, means), len(means)
        return {
            "logits": logits,
            "accuracy": evaluate.accuracy(logits, images.labels),
            "pictures": effective.pictures,
            "linear_share": effective.linear_share,
            "own": match.own.mean().item(),
            "null": (match.correlation.sum() - match.own.sum()).item() / (k * (k - 1)),
            "retrieval": match.retrieval,
        }

    of_a, of_b = measure(a), measure(b)
    rows = []
    for permuted, other in _second_members(pool, permute).items():
        members, soup = (of_a, measure(other) if permuted else of_b), measure(uniform_soup([a, other]))
        cosines = list(probe.layer_cosines(a, other).values())
        accuracy = fmean(one["accuracy"] for one in members)
        likeness = probe.template_match(members[0]["pictures"], members[1]["pictures"])
        mean = {name: fmean(one[name] for one in members) for name in ("own", "null", "retrieval", "linear_share")}
        rows.append(
            {
                "permuted": permuted,
                **mean,
                "likeness": likeness.own.mean().item(),
                "cosine": fmean(cosines),
                "first_cosine": cosines[0],
                "member_accuracy": accuracy,
                "soup_accuracy": soup["accuracy"],
                "gain": soup["accuracy"] - accuracy,
                "soup_own": soup["own"],
                "agreement": evaluate.agreement(members[1]["logits"], of_b["logits"]),
            }
        )
    return pd.DataFrame(rows)


def layers(pool, *, permute=False):
    """Return the cosine between two members' weights in each layer: permuted, layer (weight key), depth, cosine."""
    rows = []
    for permuted, other in _second_members(pool, permute).items():
        cosines = probe.layer_cosines(pool.states[0], other)
        for depth, (key, cosine) in enumerate(cosines.items(), start=1):
            rows.append({"permuted": permuted, "layer": key, "depth": depth, "cosine": cosine})
    return pd.DataFrame(rows)


def _second_members(pool, permute):
    """Return the weights of the second member, and if asked also with its units in a random order.

    Where nobody knows how to permute the units of an architecture, there is no such order.
    """
    found = {False: pool.states[1]}
    if permute:
        with contextlib.suppress(AlignmentError):
            order = align.random_permutation(pool.module, seed=pool.runs[1].config.seed)
            found[True] = align.apply(order, found[False])
    return found


def first_filters(pool):
    """Return the filters of the first layer as pictures: member ("A" or "B"), unit, picture and added.

    ``added`` is the difference to the random weights that the member, or its trunk, began with.
    """
    shape, rows = pool.dataset.test.images.shape[1:], []
    for letter, run in zip("AB", pool.runs, strict=True):
        random = RunStore().start_state(run.config.start or run.config)
        now, then = (probe.first_layer(state, shape)[:N_SHOWN] for state in (run.state, random))
        for unit, (picture, added) in enumerate(zip(now, now - then, strict=True)):
            rows.append({"member": letter, "unit": unit, "picture": pack(picture), "added": pack(added)})
    return pd.DataFrame(rows)


def effective_pictures(pool, *, n_gradients):
    """Return the effective templates of the first member for the first classes, as pictures."""
    few = pool.dataset.test.take(slice(0, n_gradients))
    pictures = probe.effective_templates(pool.load(pool.states[0]), few).pictures[:N_SHOWN].cpu()
    return pd.DataFrame({"picture": [pack(one) for one in pictures]})


def tables(here):
    """Structure and gain of all pairs, cosines of their layers, and pictures of some on the main data set."""
    p = here.p
    found = of_all(here, structure, n_images=p.n_images, n_gradients=p.n_gradients)
    by_layer = of_all(here, layers).drop(columns="permuted")
    first = here.groups_where(dataset=p.dataset, start=[SHARED, APART], replica=0)
    pictured = {key: group for key, group in first.items() if key[1] in (p.template_models[0], p.template_models[-1])}
    main = dict(list(first.items())[:1])
    return {
        "structure": here.save(last(found, "kind", "dataset", "model", "replica"), "structure"),
        "layers": here.save(last(by_layer, "dataset", "model", "kind", "replica"), "layers"),
        "filters": here.rows(first_filters, pictured),
        "class means": here.rows(class_pictures, main, centred=True),
        "effective": here.rows(effective_pictures, first, n_gradients=p.n_gradients),
    }


def of_all(here, measure, **arguments):
    """Return the rows of all pairs with their kind; those with a shared start are also measured permuted."""
    parts = [
        here.rows(measure, {key: group}, permute=key[2] == SHARED, **arguments) for key, group in here.groups.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    kind = table.start.where(~table.permuted, PERMUTED)
    return table.assign(dataset=table.dataset.map(data.title), kind=kind).drop(columns="start")


def last(table, *columns):
    """Return a table with some columns behind all others."""
    return table[[*(name for name in table if name not in columns), *columns]]


# ---- What follows from it --------------------------------------------------------------------------------------------


def by_kind(found):
    """Return the means over the pairs of each data set, architecture and kind."""
    columns = ["gain", "cosine", "own", "soup_own", "likeness", "member_accuracy"]
    orders = {"dataset": list(dict.fromkeys(found.dataset)), "kind": KINDS}
    shown = found.assign(**{name: pd.Categorical(found[name], order) for name, order in orders.items()})
    return shown.groupby(["dataset", "model", "kind"], observed=True)[columns].mean()


def ranks(found):
    """Return Spearman's rank correlation with the gain of all pairs, and of those that are not permuted.

    Among the pairs of one architecture on one data set, mean over these; templates_kept is the soup's own minus the
    members'.
    """
    names = ["own", "likeness", "cosine", "first_cosine", "templates_kept"]
    found = found.assign(templates_kept=found.soup_own - found.own)

    def rank(cell):
        defined = [name for name in names if min(cell[name].nunique(), cell.gain.nunique()) > 1]
        return pd.Series({name: spearmanr(cell[name], cell.gain).statistic for name in defined}, index=names)

    some = {"all pairs": found, "without permuted": found[found.kind != PERMUTED]}
    columns = [*names, "gain"]
    return pd.DataFrame(
        {
            name: part.groupby(["dataset", "model"], sort=False)[columns].apply(rank).mean()
            for name, part in some.items()
        }
    )


def claims(here, tables):
    """Values that C5 is judged by."""
    rows = []
    for (title, model), part in tables["structure"].groupby(["dataset", "model"], sort=False):
        apart, moved = (part[part.kind == kind] for kind in (APART, PERMUTED))

        def add(name, values, bound, unit, title=title, model=model, **more):
            rows.append(judged("C5", name, values, bound=bound, unit=unit, dataset=title, note=model, **more))

        structured = "premise: independent members are structured (own minus other class means)"
        add(structured, apart.own - apart["null"], 0, "correlation", premise=True)
        add("soup minus member, independent init", apart.gain, -1, "points")
        if len(moved):
            add("soup minus member, shared start with permuted units", moved.gain, -1, "points")
    return rows


def numbers(here, tables):
    """What the prose says."""
    p, found = here.p, tables["structure"]
    gain, share, rank = found.groupby("kind").gain.mean(), 100 * found.linear_share, ranks(found)["all pairs"]
    wide = found.pivot_table("own", ["dataset", "model", "replica"], "kind")
    failed = found[found.kind.isin([PERMUTED, APART])].groupby("model", sort=False)[["own", "soup_own"]].mean()
    names = {model: look_up(model) for model in p.template_models}
    told = [
        f"{names[model]}: {row.own:.2f} in members, {row.soup_own:.2f} in the soup" for model, row in failed.iterrows()
    ]
    return {
        "own_difference": (wide[APART] - wide[SHARED]).mean(),
        "gain_shared": gain[SHARED],
        "gain_independent": gain[APART],
        "gain_permuted": gain.get(PERMUTED, math.nan),
        "agreement": found[found.kind == PERMUTED].agreement.min(),
        "share_low": share.min(),
        "share_high": share.max(),
        "rank_own": rank.own,
        "rank_cosine": rank.cosine,
        **{f"failed_{model}": row.soup_own for model, row in failed.iterrows()},
        **{f"members_{model}": row.own for model, row in failed.iterrows()},
        "failed": "; ".join(told),
        "first_model": names[p.template_models[0]],
        "last_model": names[p.template_models[-1]],
        "n_replicas": p.n_replicas,
        "n_gradients": p.n_gradients,
        "n_pairs": len(found),
        "main": data.title(p.dataset),
        "n_datasets": found.dataset.nunique(),
    }


def look_up(model):
    """Return what the book calls an architecture."""
    from ..plot.style import MODELS

    return MODELS.get(model, model)


# ---- Figures ---------------------------------------------------------------------------------------------------------


def filters(tables, p):
    """Draw filters of the first layer: what training added to those of the first architecture, the last one's as is."""
    from ..plot import picture_grid

    table, shown = tables["filters"], {}
    for model, start in ((model, start) for model in (0, -1) for start in (SHARED, APART)):
        name = p.template_models[model]
        for letter, part in table[(table.model == name) & (table.start == start)].groupby("member"):
            if not shown:
                shown[f"{letter} as it is,\n{start}"] = stack(part)
            if model == 0:
                shown[f"{letter} added,\n{start}"] = stack(part.assign(picture=part.added))
            else:
                shown[f"{letter}, {start},\n{name}"] = stack(part)
    n_units = min(map(len, shown.values()))
    shown = {label: pictures[:n_units] for label, pictures in shown.items()}
    return picture_grid(shown, [f"unit {number}" for number in range(n_units)])


def effective(tables):
    """Draw the effective templates of one member of each kind below the class means."""
    from ..plot import picture_grid

    means, kinds = tables["class means"], tables["effective"].groupby(["model", "start"], sort=False)
    shown = {f"{model},\n{start}": stack(part) for (model, start), part in kinds}
    return picture_grid({"class mean\n− global mean": stack(means), **shown}, list(means["class"]), unit="gradient")


def layer_profiles(table):
    """Draw the cosine between two members' weights layer by layer; columns are architectures.

    A replica has the same seeds on every data set, so that these are averaged over first.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import KINDS, LOOKS, MODELS, intervals

    table = table.groupby(["model", "kind", "replica", "depth"], sort=False).cosine.mean().reset_index()
    models = list(dict.fromkeys(table.model))
    size = (4.2 * len(models) + 0.5, 3.1)
    fig, axes = plt.subplots(1, len(models), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for ax, model in zip(axes[0], models, strict=True):
        part = table[table.model == model]
        for kind, (color, marker) in KINDS.items():
            line = intervals(part[part.kind == kind], ["depth"], "cosine")
            if line.empty:
                continue
            dash = LOOKS["member"][2] if kind == APART else "-"
            looks = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2.5, "label": kind}
            ax.errorbar(line.depth, line["mean"], line["mean"] - line.low, **looks)
        ax.set(title=MODELS.get(model, model), xlabel="Layer", ylim=(-0.3, 1.05))
        ax.set_xticks(sorted(part.depth.unique()))
    axes[0, 0].set(ylabel="Cosine between the\nweights of two members")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plt.close(fig)
    return fig


def structure_and_gain(table):
    """Draw the gain of a soup of two against structure, likeness and the cosine of the weights, one panel each."""
    import matplotlib.pyplot as plt

    from ..plot.style import KINDS

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
    plt.close(fig)
    return fig
