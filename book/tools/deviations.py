"""What each departure from the paper does to a number: sentences for the page of deviations, from the chapters' tables.

Each is one substitution, ``{{ effect_d1 }}`` and the like. Where the tables lack what a sentence needs (a data set that
is not here, an architecture that a profile leaves out) it says so in place of a number.
"""

import pandas as pd

from wamlib import models
from wamlib.plot.style import MODELS
from wamlib.stats import mean_interval

__all__ = ["effects"]

NOTHING = "Effect not measured: this run lacks what the comparison needs."
GAP, SOUP = ("logit ensemble", "uniform soup"), ("uniform soup", "member")
GREEDY, FEATURES = ("greedy soup", "member"), ("feature ensemble, first head", "logit ensemble")
OWN_WEIGHTS = ("mlp", "cnn")  # families whose members the paper's code begins from random weights


def effects(folder):
    """Return the sentences by name, from the tables of one run."""
    found = {}
    for name, sentence in SENTENCES.items():
        try:
            found[f"effect_{name}"] = sentence(lambda table: pd.read_csv(folder / f"{table}.csv"))
        except (FileNotFoundError, Missing):
            found[f"effect_{name}"] = NOTHING
    return found


class Missing(Exception):
    """The tables hold nothing to compare."""


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def interval(values, unit="", digits=1, signed=True):
    """Return a mean with its 95 % interval over replicas."""
    values = pd.Series(values).dropna()
    if values.empty:
        raise Missing
    mean, low, high, n = mean_interval(values)
    show = (lambda x: f"{x:+z.{digits}f}") if signed else (lambda x: f"{x:z.{digits}f}")
    ends = f"[{show(low)}, {show(high)}]" if n > 1 else "(one replica, no interval)"
    return f"{show(mean)} {ends}{unit}"


def by(values, level, **how):
    """Return an interval for each value of one level of the index, as one phrase."""
    values = values.dropna()
    if values.empty:
        raise Missing
    phrases = [f"{MODELS.get(name, name)} {interval(part, **how)}" for name, part in values.groupby(level, sort=False)]
    return "; ".join(phrases)


def wide(table, keys):
    """Return accuracies with one column for each combination."""
    return table.pivot_table("accuracy", keys, "combination", sort=False)


def difference(scores, pair):
    if not set(pair) <= set(scores.columns):
        raise Missing
    return scores[pair[0]] - scores[pair[1]]


def step(read, before, after, pair=None, keep=lambda model: True):
    """Return how much a difference, or a member's accuracy, changes at one step, by model and replica."""
    scores = wide(read("protocol_steps"), ["model", "replica", "step"])
    values = (difference(scores, pair) if pair else scores["member"]).unstack("step", sort=False)
    if not {before, after} <= set(values.columns):
        raise Missing
    change = values[after] - values[before]
    return change[[keep(model) for model in change.index.get_level_values("model")]]


# ---- Sentences -------------------------------------------------------------------------------------------------------


def own_weights(model):
    return models.family(model) in OWN_WEIGHTS


def training_mode(read):
    modes = read("train_mode").pivot_table("gap", ["model", "replica"], "mode", sort=False)
    if not {"train", "eval"} <= set(modes.columns):
        raise Missing
    alone = by(modes["train"] - modes["eval"], "model")
    return (
        f"Change of the ensemble's lead over the soup, in points: {by(step(read, 'D4', 'D1', GAP), 'model')}. "
        f"By itself, in pools with a shared start that are otherwise sound: {alone}."
    )


def redrawn_start(read):
    change = step(read, "D5", "D2, D9", GAP, lambda model: not own_weights(model))
    sentence = f"Change of the ensemble's lead over the soup, in points: {by(change, 'model')}."
    try:
        pools = wide(read("architectures"), ["start", "dataset", "model", "replica"])
    except FileNotFoundError:
        return sentence
    gains, arms = difference(pools, SOUP).unstack("start", sort=False), []
    for start in ("re-drawn head", "re-drawn stem and head"):
        if {start, "shared start"} <= set(gains.columns):
            arms.append(f"with a {start}, {by(gains[start] - gains['shared start'], 'model')}")
    besides = f" Soup minus member, against a start shared to the last weight: {', and '.join(arms)}." if arms else ""
    return sentence + besides


def before_norm(read):
    change = step(read, "D1", "D3", FEATURES, lambda model: models.kind(model) == "vit")
    return f"Change of the feature ensemble (first head) against the logit ensemble, in points: {by(change, 'model')}."


def member_and_gap(before, after):
    def sentence(read):
        return (
            f"Change of a member's accuracy, in points: {by(step(read, before, after), 'model')}. "
            f"Of the ensemble's lead over the soup: {by(step(read, before, after, GAP), 'model')}."
        )

    return sentence


def greedy(before, after):
    def sentence(read):
        return f"Change of greedy soup minus member, in points: {by(step(read, before, after, GREEDY), 'model')}."

    return sentence


def own_random_weights(read):
    change = step(read, "D5", "D2, D9", GAP, own_weights)
    return f"Change of the ensemble's lead over the soup, in points: {by(change, 'model')}."


def networks(read):
    scores = wide(read("pretrained"), ["start", "replica"])
    gap, gain = difference(scores, GAP), difference(scores, SOUP)
    words = {"shared head": "pretrained", "small, shared start": "small"}
    gap, gain = (values[values.index.get_level_values("start").isin(words)].rename(words) for values in (gap, gain))
    if len(set(gap.index.get_level_values("start"))) < 2:
        raise Missing
    return f"Ensemble minus soup, in points: {by(gap, 'start')}. Soup minus member: {by(gain, 'start')}."


def data_sets(read):
    table = read("architectures")
    pools = wide(table[table.start == "shared start"], ["dataset", "model", "replica"])
    values = difference(pools, GAP).groupby(["dataset", "replica"], sort=False).mean()
    shown = by(values, "dataset", digits=2)
    return f"Ensemble minus soup with a shared start, mean over architectures, in points: {shown}."


def recipe(read):
    table = read("recipes")
    last = table[table.epochs == table.groupby("recipe").epochs.transform("max")]
    scores = last.pivot_table("accuracy", ["model", "replica"], "recipe", sort=False)
    if not {"fast", "paper"} <= set(scores.columns):
        raise Missing
    change = by(scores["fast"] - scores["paper"], "model")
    return f"Accuracy of a member, a shorter recipe minus the paper's, in points: {change}."


def members(read):
    table = read("how_many")
    pools = wide(table[table.start == "shared start"], ["model", "replica", "n_members"])
    gap = difference(pools, GAP).unstack("n_members")
    least, most = min(gap.columns), max(gap.columns)
    if least == most:
        raise Missing
    return f"Ensemble minus soup at N = {most} against N = {least}, in points: {by(gap[most] - gap[least], 'model')}."


def replicas(read):
    table = read("architectures")
    pools = wide(table[table.start == "shared start"], ["dataset", "model", "replica"])
    spread = difference(pools, GAP).groupby(["dataset", "model"]).std().dropna()
    if spread.empty:
        raise Missing
    return (
        "On the mean, none. But one pool with a shared start misses the mean of its kind by "
        f"{spread.median():.2f} points of the gap (standard deviation over pools, median of {len(spread)} cells; "
        f"{spread.max():.2f} in the worst)."
    )


def statistics(read):
    barriers = read("barriers").pivot_table("barrier", ["model", "start", "replica"], "recalibrated", sort=False)
    if len(barriers.columns) < 2:
        raise Missing
    change = (barriers[False] - barriers[True]).dropna()
    return f"Barrier with averaged statistics minus recalibrated, in points: {by(change, 'start')}."


def scaling(read):
    table = read("scale")
    table = table[(table.combination == "member") & (table.c != 1)]
    scores = table.pivot_table("accuracy", ["model", "replica", "c"], "scope", sort=False)
    if not {"everything", "learnable"} <= set(scores.columns):
        raise Missing
    change = (scores["everything"] - scores["learnable"]).dropna().groupby(["model", "replica"], sort=False).mean()
    change = change[change.groupby("model").transform(lambda part: part.abs().max()) > 0]
    factors = sorted(table[table.scope == "everything"].c.unique())
    return (
        "Accuracy of a member, every entry multiplied minus weights and biases alone, mean over "
        f"{len(factors)} factors from {factors[0]:g} to {factors[-1]:g}, in points: {by(change, 'model')}. "
        "Without BatchNorm the two are the same."
    )


def templates(read):
    table = read("templates")
    rows = []
    for name, part in table.groupby("dataset", sort=False):
        released = part[part.group == "released recipe"]
        decays = part[~part.group.isin(["released recipe", "shuffled labels"])]
        best = decays[decays.weight_decay == decays.groupby("weight_decay").accuracy.mean().idxmax()]
        likeness = [interval(group.own, digits=2, signed=False) for group in (released, best)]
        accuracy = [interval(group.accuracy, " %", signed=False) for group in (released, best)]
        rows.append(
            f"{name}: {likeness[0]} at {accuracy[0]} accuracy, against {likeness[1]} at {accuracy[1]} "
            f"with decay {best.weight_decay.iloc[0]:g}"
        )
    if not rows:
        raise Missing
    shown = "; ".join(rows)
    return f"Correlation of row and centred class mean, released recipe against the most accurate decay. {shown}."


def class_means(read):
    table = read("templates")
    table = table[table.group == "released recipe"].set_index("dataset")
    return (
        "Correlation with the plain class mean minus correlation with the centred one, released recipe: "
        f"{by(table.raw - table.own, 'dataset', digits=2)}."
    )


def class_pairs(read):
    table = read("class_pairs").astype({"first": str, "second": str})
    parts = []
    for name, part in table[table.protocol == "released"].groupby("dataset", sort=False):
        # Classes in the order of their labels: the first one's partners come in that order.
        place = {label: n for n, label in enumerate(dict.fromkeys([*part["first"].head(1), *part.second]))}
        five = part.second.map(place) == part["first"].map(place) + 5
        own = part.assign(five=five).groupby(["seed", "five"]).own.mean().unstack("five")
        if len(own.columns) == 2:
            parts.append((own[True] - own[False]).rename("own").reset_index().assign(dataset=name))
    if not parts:
        raise Missing
    values = pd.concat(parts).set_index("dataset").own
    return (
        "Correlation of mean row and mean of the two class means, released recipe, pairs five apart minus all "
        f"others: {by(values, 'dataset', digits=3)}."
    )


SENTENCES = {
    "d1": training_mode,
    "d2": redrawn_start,
    "d3": before_norm,
    "d4": member_and_gap("D6", "D4"),
    "d5": member_and_gap("corrected", "D5"),
    "d6": member_and_gap("D2, D9", "D6"),
    "d7": greedy("D3", "D7"),
    "d8": greedy("D7", "D8"),
    "d9": own_random_weights,
    "networks": networks,
    "data_sets": data_sets,
    "recipe": recipe,
    "members": members,
    "replicas": replicas,
    "statistics": statistics,
    "scaling": scaling,
    "templates": templates,
    "class_means": class_means,
    "class_pairs": class_pairs,
}
