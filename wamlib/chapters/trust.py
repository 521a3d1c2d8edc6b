"""Does the soup know when it is wrong? Calibration, selective prediction, detection of foreign images."""

import itertools
import math
from functools import partial
from statistics import fmean

import numpy as np
import pandas as pd
import torch

from .. import data, evaluate, models, probe
from ..config import derive_seed
from ..data.foreign import PHOTOGRAPHS
from ..errors import ProbeError
from ..pools import ENSEMBLES, combine
from ..stats import interval_text, mean_interval, number_text, paired_difference
from ..sweeps import STARTS, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
KINDS = {STARTS[0]: ("uniform soup", *ENSEMBLES), STARTS[2]: ENSEMBLES}  # of independent members the soup guesses
FOUR = ("member", "uniform soup", "logit ensemble", "logit ensemble, independent")
PAIRS = ((FOUR[1], FOUR[0]), (FOUR[2], FOUR[0]), (FOUR[2], FOUR[1]), (FOUR[3], FOUR[1]))
COVERAGES = tuple(range(5, 101, 5))  # percent
N_BINS = 15
N_DRAWS = 2  # of labels, for what a calibrated network's calibration error would be
BINS = ("confidence", "bin accuracy", "share")  # measures of a bin
OWN = {"at": 0, "images": "", "score": ""}  # of a row about own images
# Logarithms of mean probabilities are no logits: their exponentials sum to 1 for every image.
SCORES = {"probability ensemble": ("maximum probability",)}


def runs(p):
    """Pools of every architecture, with a shared start and independent."""
    cells = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_eval": p.n_eval_pools}
    cells |= {"n_replicas": p.n_replicas, "n_members": p.n_pool_members}
    return pools_by_dataset({p.dataset: p.n_train_pools}, p.pool_models, starts=list(KINDS), **cells)


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def trust(pool, *, kinds, foreign, n_foreign):
    """How far members and combinations can be trusted; ``foreign`` names data sets, see `wamlib.data.foreign`."""
    return trust_in(pool, kinds, data.foreign(foreign, pool.dataset, n_foreign))


def trust_in(pool, kinds, foreign):
    """Measure how far members, soups (BatchNorm recalibrated) and ensembles can be trusted.

    A row per number: combination, temperature ("raw", or "refitted": on the selection split, to each member for itself
    and to ensembles behind the pooling), measure, value, and what it belongs to: at (number of the bin, coverage in
    percent, or 0), images (title of the foreign ones, or "") and score (of `wamlib.probe.SCORES`, or "").

    Measures: accuracy (percent), nll (nats), calibration error (points), calibration error by luck (points: if the
    labels were drawn from the network's own probabilities; refitted only), error area and excess error area (of
    `wamlib.probe.risk_coverage`), selective error (percent, by coverage), confidence, bin accuracy and share (percent,
    of bins that hold images), AUROC and false positives (percent, of `wamlib.probe.detection`). Of "member" each is the
    mean over the members, but bins hold the answers of all.
    """
    rows, labels = [], pool.dataset.test.labels
    for name, answers in _answers(pool, kinds, list(foreign.values())).items():
        fitted = [evaluate.fit_temperature(selection, pool.dataset.selection.labels) for _, selection, *_ in answers]
        for label, temperatures in (("raw", [1.0] * len(answers)), ("refitted", fitted)):
            divided = [
                [logits / t for logits in (test, *others)]
                for (test, _, *others), t in zip(answers, temperatures, strict=True)
            ]
            scores = SCORES.get(name, probe.SCORES)
            found = [
                _own(test, labels) + _detected(test, dict(zip(foreign, others, strict=True)), scores)
                for test, *others in divided
            ]
            # Of every member the same rows, in the same order.
            means = [same[0] | {"value": fmean(row["value"] for row in same)} for same in zip(*found, strict=True)]
            if label == "refitted":  # what a calibrated network would show is of use where calibration was tried
                luck = fmean(_luck(test) for test, *_ in divided)
                means.append(OWN | {"measure": "calibration error by luck", "value": luck})
            bins = _bins([test for test, *_ in divided], labels)
            rows += [{"combination": name, "temperature": label} | row for row in [*means, *bins]]
    return pd.DataFrame(rows)


def image_statistics(pool, *, foreign, n_foreign):
    """Detect foreign images without a network; ``foreign`` names data sets."""
    return statistics_of(pool.dataset, data.foreign(foreign, pool.dataset, n_foreign))


def statistics_of(dataset, foreign):
    """Detect foreign images by how far one number of an image is from its mean over the training images.

    A row per title and statistic: images, statistic ("mean pixel", or "roughness": mean absolute difference of pixels
    side by side), AUROC and false_positives (percent), of test images against foreign ones.
    """
    rows = []
    for (title, split), (name, of) in itertools.product(foreign.items(), STATISTICS.items()):
        typical = of(dataset.train.images).mean()
        own, other = (-(of(images) - typical).abs() for images in (dataset.test.images, split.images))
        found = probe.detection(own, other)
        row = {"images": title, "statistic": name, "AUROC": found.auroc}
        rows.append(row | {"false_positives": found.false_positives})
    return pd.DataFrame(rows)


def _brightness(images):
    return images.double().mean((1, 2, 3))


def _roughness(images):
    return images.double().diff(dim=3).abs().mean((1, 2, 3))


STATISTICS = {"mean pixel": _brightness, "roughness": _roughness}


def _answers(pool, kinds, foreign):
    """Return a dict of lists: logits on test, selection and foreign images, of the members and of each combination."""
    states = pool.networks([kind for kind in kinds if kind not in ENSEMBLES], as_they_stand=True)
    recorded = zip(pool.recorded("test"), pool.recorded("selection"), pool.states, strict=True)
    members = [(test, selection, *pool.logits(state, tuple(foreign))) for test, selection, state in recorded]
    found = {"member": members}
    for kind in kinds:
        if kind in ENSEMBLES:
            found[kind] = [[combine(parts, kind) for parts in zip(*members, strict=True)]]
        else:
            found[kind] = [pool.logits(states[kind], ("test", "selection", *foreign))]
    return found


def _own(logits, labels):
    """Return the rows about the test images."""
    curve = probe.risk_coverage(logits, labels)
    values = {
        "accuracy": evaluate.accuracy(logits, labels),
        "nll": evaluate.nll(logits, labels),
        "calibration error": evaluate.calibration_error(logits, labels),
        "error area": curve.area,
        "excess error area": curve.excess_area,
    }
    rows = [{"measure": name, "value": value} for name, value in values.items()]
    for coverage in COVERAGES:
        position = math.ceil(coverage / 100 * len(labels) - 1e-9) - 1
        rows.append({"measure": "selective error", "at": coverage, "value": curve.error[position].item()})
    return [OWN | row for row in rows]


def _luck(logits):
    draw = torch.Generator().manual_seed(derive_seed("labels from probabilities", 0))
    probabilities = logits.double().softmax(1).cpu()
    drawn = [torch.multinomial(probabilities, 1, generator=draw).squeeze(1) for _ in range(N_DRAWS)]
    return sum(evaluate.calibration_error(logits.cpu(), labels) for labels in drawn) / N_DRAWS


def _detected(logits, foreign, scores):
    """Return the rows about foreign images."""
    rows, own = [], {score: probe.detection_scores(logits, score) for score in scores}
    for (title, other), score in itertools.product(foreign.items(), scores):
        found = probe.detection(own[score], probe.detection_scores(other, score))
        for name, value in (("AUROC", found.auroc), ("false positives", found.false_positives)):
            rows.append({"measure": name, "at": 0, "images": title, "score": score, "value": value})
    return rows


def _bins(answers, labels):
    """Return the rows of a reliability diagram of all answers together."""
    found = probe.reliability(torch.cat(answers), labels.repeat(len(answers)), N_BINS)
    return [
        OWN | {"measure": name, "at": number, "value": part[number].item()}
        for number in range(N_BINS)
        if found.share[number] > 0
        for name, part in zip(BINS, found, strict=True)
    ]


def tables(here):
    """All numbers about all pools; three parts of them are written as tables of their own."""
    p, names = here.p, ["combination", "temperature", "model", "start", "replica"]
    others = [name for name in p.foreign_datasets if name != p.dataset]
    there = [name for name in others if name == PHOTOGRAPHS or p.present([name])]
    more = {"foreign": there or p.foreign_datasets, "n_foreign": p.n_foreign}  # where there is none, it says so
    parts = [here.rows(trust, {key: group}, kinds=list(KINDS[key[2]]), **more) for key, group in here.groups.items()]
    table = pd.concat(parts, ignore_index=True).drop(columns="dataset")
    table = table[[*(name for name in table if name not in names[2:]), *names[2:]]]
    table["combination"] += table.start.map({STARTS[0]: "", STARTS[2]: ", independent"})
    first = dict(itertools.islice(here.groups.items(), 1))
    statistics = here.rows(image_statistics, first, **more).drop(columns=list(NAMES))
    is_bin, is_error = table.measure.isin(BINS), table.measure == "selective error"
    here.save(table[~is_bin & ~is_error].drop(columns="at"), "trust")
    bins = table[is_bin].pivot(index=[*names, "at"], columns="measure", values="value")
    here.save(bins.reset_index(), "reliability")
    errors = table[is_error].pivot(index=names, columns="at", values="value")
    here.save(errors.reset_index(), "selective_error")
    found = here.save(differences(table), "trust_differences")
    return {"trust": table, "statistics": statistics, "differences": found}


# ---- What follows from it --------------------------------------------------------------------------------------------


def by_replica(table):
    """Return means over architectures of all measures of own images, a row for each replica."""
    own = table[~table.measure.isin([*BINS, "selective error"]) & (table.images == "")]
    return own.pivot_table("value", "replica", ["temperature", "measure", "combination"])


def in_words(table):
    """Return mean and interval of the chief measures, a row for each combination."""
    wide = by_replica(table)
    chosen = {
        "calibration error": ("raw", "calibration error"),
        "refitted": ("refitted", "calibration error"),
        "nll, refitted": ("refitted", "nll"),
        "error area": ("refitted", "error area"),
        "excess area": ("refitted", "excess error area"),
    }
    text = partial(interval_text, digits=2, signed=False)
    return pd.DataFrame({short: wide[key].agg(text) for short, key in chosen.items()}).loc[table.combination.unique()]


def detected(table, score=None):
    """Return the AUROC of all pools at refitted temperatures, by one score or by all."""
    found = table[(table.measure == "AUROC") & (table.temperature == "refitted")]
    return found if score is None else found[found.score == score]


def without_network(statistics):
    """Return the AUROC of the statistics, a row for each kind of foreign images."""
    return statistics.pivot_table("AUROC", "images", "statistic", sort=False)


def differences(table):
    """Return paired differences between combinations, measure by measure; see `judged_differences`."""
    wide, odds = by_replica(table), detected(table, "maximum probability")
    odds = odds.pivot_table("value", "replica", ["images", "combination"], sort=False)
    measures = ("calibration error", "nll", "error area", "excess error area")
    numbers = {
        "calibration error, raw": wide["raw", "calibration error"],
        **{name.replace("excess error", "excess"): wide["refitted", name] for name in measures},
        **{f"AUROC, {title}": odds[title] for title in odds.columns.unique("images")},
    }
    better = {name: "higher" if name.startswith("AUROC") else "lower" for name in numbers}
    return judged_differences(pd.concat(numbers, axis=1), PAIRS, better)


def judged_differences(table, pairs, better):
    """Judge one combination against another, measure by measure.

    ``table`` has a row per replica and columns (measure, combination); ``better`` says of each measure whether "lower"
    or "higher" is better. A row per measure and pair: measure, difference, mean, low and high (95 % interval), verdict:
    "better" or "worse" if the interval lies on that side of 0, else "undecided".
    """
    rows = []
    for measure, direction in better.items():
        if direction not in ("lower", "higher"):
            raise ProbeError(
                "cannot judge differences",
                item=measure,
                got=repr(direction),
                wanted="'lower' or 'higher'",
                fix="Say in which direction the measure is better.",
            )
        for first, second in pairs:
            mean, low, high, _ = paired_difference(table[measure, first], table[measure, second])
            fell, rose = ("better", "worse") if direction == "lower" else ("worse", "better")
            verdict = fell if high < 0 else rose if low > 0 else "undecided"
            row = {"measure": measure, "difference": f"{first} − {second}"}
            rows.append(row | {"mean": mean, "low": low, "high": high, "verdict": verdict})
    return pd.DataFrame(rows)


def differences_in_words(found):
    """Return differences with a row for each measure and a column for each pair."""
    cells = [
        f"{row.mean_:+.2f} [{row.low:+.2f}, {row.high:+.2f}] {row.verdict}"
        for row in found.rename(columns={"mean": "mean_"}).itertuples()
    ]
    wide = found.assign(cell=cells).pivot(index="measure", columns="difference", values="cell")
    return wide.loc[list(found.measure.unique()), list(found.difference.unique())]


def numbers(here, tables):
    """What the prose says."""
    p, table, judged = here.p, tables["trust"], tables["differences"]
    wide, cells = by_replica(table), judged.set_index(["measure", "difference"])
    asked = {"ece": ("calibration error, raw", 0), "refitted": ("calibration error", 0)}
    asked |= {"area_soup": ("error area", 0), "area_ensemble": ("error area", 1)}
    found = {
        f"{name}_{end}": cells.loc[(measure, " − ".join(PAIRS[pair])), end]
        for name, (measure, pair) in asked.items()
        for end in ("mean", "low", "high")
    }
    bins = table[table.measure.isin(BINS) & (table.temperature == "raw")]
    bins = bins.pivot_table("value", ["combination", "model", "replica", "at"], "measure")
    said = (bins.confidence * bins.share / 100).groupby(["combination", "model", "replica"]).sum()
    sure = ((bins.confidence - bins["bin accuracy"]) * bins.share / 100).groupby(["combination", "model", "replica"])
    sure = sure.sum().groupby("combination").mean()
    bare = [model for model in p.pool_models if models.kind(model) == "cnn" and not models.facts(model).batchnorm]
    raw = table[(table.temperature == "raw") & (table.measure == "calibration error")]
    raw = raw.pivot_table("value", ["model", "replica"], "combination")
    rest = (raw["uniform soup"] - raw["member"]).drop(bare, level="model").groupby("replica").mean()
    less = (said["member"] - said["uniform soup"]).reset_index(name="less")
    silent, both = wide["refitted", "accuracy"].mean(), wide.mean().unstack("temperature")
    luck = wide["refitted", "calibration error by luck"]
    excess = (wide["refitted", "calibration error"] - luck).mean()
    soup = detected(table, "maximum probability")
    soup = soup[soup.combination == "uniform soup"].pivot_table("value", "images", "model", sort=False)
    alone = without_network(tables["statistics"])
    knowing = np.maximum(alone, 100 - alone)  # if one knew on which side of the mean they lie
    found |= {
        "ece_soup": wide["raw", "calibration error", "uniform soup"].mean(),
        "ece_member": wide["raw", "calibration error", "member"].mean(),
        "ece_rest": rest.mean(),
        "ece_rest_low": mean_interval(rest).low,
        "ece_rest_high": mean_interval(rest).high,
        "sure_member": sure["member"],
        "sure_soup": sure["uniform soup"],
        "sure_ensemble": sure["logit ensemble"],
        "sure_independent": sure["logit ensemble, independent"],
        "unsure_bare": less.less[less.model.isin(bare)].mean(),
        "own_lead": silent["member, independent"] - silent["member"],
        "excess_low": excess.min(),
        "excess_high": excess.max(),
        "luck": luck.mean().mean(),
        "area_shift": (both.raw - both.refitted).loc["error area"].abs().max(),
        "n_members": p.n_pool_members,
        "n_replicas": p.n_replicas,
        "n_models": len(p.pool_models),
        "n_selection": here.images(p.dataset).n_selection,
        "n_judged": len(judged),
        "n_foreign": p.n_foreign,
        "n_below": int(soup.lt(alone.max(axis=1), axis=0).sum().sum()),
        "n_cells": soup.size,
        "n_below_knowing": int(soup.lt(knowing.max(axis=1), axis=0).sum().sum()),
        "foreign_titles": " and ".join(tables["statistics"].images.unique()),
    }
    forms = dict.fromkeys(("ece_rest", "ece_rest_low", "ece_rest_high"), "+z.1f") | {"unsure_bare": ".1f"}
    return found | {f"{name}_text": number_text(found[name], form) for name, form in forms.items()}


# ---- Figures ---------------------------------------------------------------------------------------------------------

SMALLEST = 1  # percent of the images: smaller bins are left out, for chance moves them far
DASHES = {"mean pixel": (0, (1, 1.5)), "roughness": (0, (5, 1.5))}


def reliability_diagram(table, combinations=FOUR):
    """Draw accuracy against confidence; columns are combinations, rows temperatures.

    Thick are all pools together, thin each architecture; bars are shares of the images.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS

    table = table[table.measure.isin(BINS)]
    temperatures = list(dict.fromkeys(table.temperature))
    size = (2.35 * len(combinations) + 0.8, 2.3 * len(temperatures) + 0.7)
    grid = {"figsize": size, "sharex": True, "sharey": True, "layout": "constrained", "squeeze": False}
    fig, axes = plt.subplots(len(temperatures), len(combinations), **grid)
    for (i, temperature), (j, name) in itertools.product(enumerate(temperatures), enumerate(combinations)):
        ax, (color, marker, _) = axes[i, j], LOOKS[name]
        part = table[(table.temperature == temperature) & (table.combination == name)]
        for _, one in part.groupby("model", sort=False):
            line = _pooled_bins(one)
            thin = ax.plot(line.confidence, line.accuracy, color=color, linewidth=0.7, alpha=0.55)[0]
        ideal = ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, linestyle=":", zorder=0)[0]
        line = _pooled_bins(part)
        bold = ax.plot(line.confidence, line.accuracy, color=color, marker=marker, markersize=4)[0]
        bars = ax.bar(line.confidence, line.share, width=4, color=color, alpha=0.3)
        ax.set(xlim=(0, 100), ylim=(0, 100))
        if i == 0:
            ax.set_title(name.replace(", ", ",\n"))
        if j == 0:
            ax.set_ylabel(f"{temperature}\nAccuracy, share (%)")
        if i == len(temperatures) - 1:
            ax.set_xlabel("Confidence (%)")
    names = ["all pools", "one architecture", "calibrated", "share of images"]
    fig.legend([bold, thin, ideal, bars], names, loc="outside lower center", ncols=4)
    plt.close(fig)
    return fig


def _pooled_bins(rows):
    """Return confidence, accuracy and share of the bins of several pools together."""
    wide = rows.pivot_table("value", ["model", "replica", "at"], "measure")
    weighted = wide[["confidence", "bin accuracy"]].mul(wide.share, axis=0).assign(share=wide.share)
    total = weighted.groupby("at").sum()
    found = total[["confidence", "bin accuracy"]].div(total.share, axis=0).rename(columns={"bin accuracy": "accuracy"})
    return found.assign(share=total.share / len(wide.groupby(["model", "replica"]))).query(f"share >= {SMALLEST}")


def error_vs_coverage(table, combinations=FOUR):
    """Draw the error of the answers given against coverage, and beside it the same minus that of a member.

    Both at refitted temperatures; each replica counts with its mean over the architectures.
    """
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, intervals

    table = table[(table.measure == "selective error") & (table.temperature == "refitted")]
    mean = table.groupby(["combination", "replica", "at"]).value.mean()
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.7), layout="constrained")
    for name in combinations:
        color, marker, dash = LOOKS[name]
        for ax, values in zip(axes, (mean[name], mean[name] - mean["member"]), strict=True):
            line = intervals(values.reset_index(), ["at"], "value")
            ax.plot(line["at"], line["mean"], color=color, marker=marker, linestyle=dash, markersize=4, label=name)
            if ax is axes[1] and name != "member":
                ax.fill_between(line["at"], line.low, line.high, color=color, alpha=0.15, linewidth=0)
    axes[0].set(ylabel="Error of the answers (%)", ylim=(0, None))
    axes[1].set(ylabel="The same, minus the member's (points)")
    for ax in axes:
        ax.set(xlabel="Coverage: images answered, surest first (%)", xlim=(0, 102))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(combinations)))
    plt.close(fig)
    return fig


def detection_marks(table, statistics, combinations=FOUR):
    """Draw AUROC by architecture; panels are kinds of foreign images, lines what needs no network."""
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, MODELS, intervals

    panels, shown = (list(dict.fromkeys(table[name])) for name in ("images", "model"))
    size = (3.3 * len(panels) + 1.6, 0.42 * len(shown) + 1.7)
    grid = {"figsize": size, "sharex": True, "sharey": True, "layout": "constrained", "squeeze": False}
    fig, axes = plt.subplots(1, len(panels), **grid)
    for ax, images in zip(axes[0], panels, strict=True):
        for index, name in enumerate(combinations):
            part = table[(table.images == images) & (table.combination == name)]
            rows = intervals(part, ["model"], "value").set_index("model").reindex(shown)
            y = np.arange(len(shown)) + 0.62 / len(combinations) * (index - (len(combinations) - 1) / 2)
            bars = [rows["mean"] - rows.low, rows.high.clip(upper=100) - rows["mean"]]
            color, marker, _ = LOOKS[name]
            ax.errorbar(rows["mean"], y, xerr=bars, linestyle="", color=color, marker=marker, capsize=2, label=name)
        for name, dash in DASHES.items():
            line = statistics[(statistics.images == images) & (statistics.statistic == name)]
            for value in line.AUROC:
                ax.axvline(value, color="#333333", linewidth=1.1, linestyle=dash, zorder=0, label=f"{name} alone")
        ax.axvline(50, color="#999999", linewidth=0.8, zorder=0, label="guessing")
        ax.set(title=f"against {images}", xlabel="AUROC (%)", xlim=(max(0, ax.get_xlim()[0]), 100))
    axes[0, 0].set_yticks(range(len(shown)), [MODELS.get(model, model) for model in shown])
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, 2 * len(panels)))
    plt.close(fig)
    return fig
