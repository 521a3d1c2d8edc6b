"""What does averaging do to a template? Means of weight rows: of two classes of one member, and of several members."""

import itertools
import math
from statistics import fmean

import pandas as pd
import torch

from ... import data, evaluate, probe
from ...claims import measure as judged
from ...ensemble import logit_ensemble
from ...errors import ProbeError
from ...linear import predict_together
from ...merge import interpolate
from ...pictures import N_SHOWN, class_pictures, normalised, row_pictures, stack
from ...stats import interval_text
from ...sweeps import RELEASED, SHUFFLED, linear_members

NAMES = ("dataset", "group")  # a group is a weight decay, or SHUFFLED or RELEASED
DECAY = 0.1  # of the members that are shown beside those without
KEPT = (0.0, DECAY, RELEASED, SHUFFLED)  # groups whose members are averaged
MAX_PAIRS = 45  # of classes: all pairs of ten
ALPHAS = [step / 20 for step in range(21)]  # stops of the slider


def runs(p):
    """The linear members of the chapter on templates."""
    return {
        (name, group): configs
        for name in p.present(p.datasets)
        for group, configs in linear_members(
            name, n_train=p.n_train, n_members=p.n_linear, epochs=p.linear_epochs
        ).items()
    }


# ---- What is measured ------------------------------------------------------------------------------------------------


def selection_accuracy(pool):
    """Return the accuracy of every member on the selection images, in percent."""
    return pd.DataFrame({"accuracy": [run.record["metrics"]["selection"]["accuracy"] for run in pool.runs]})


def class_pairs(pool):
    """Put the mean of two weight rows in place of both, for many pairs of classes.

    One row per member and pair (at most 45): seed, first, second, own (correlation of the mean row with the mean of
    the two centred class means), null (mean correlation with such means of pairs that share no class with it),
    lower_recall and mean_recall (% of the images of a class that the mean row wins: of the class it serves worse, and
    mean of the two), other_recall (% of the images of all other classes that it wins) and separate_recall (% of images
    of the two classes that one of the two separate rows wins). Fewer than four classes have no pairs to compare with.
    """
    dataset, labels = normalised(pool), pool.dataset.test.labels
    if (n_classes := len(dataset.classes)) < 4:
        raise ProbeError(
            "cannot compare pairs of classes",
            item=dataset.name,
            got=f"{n_classes} classes",
            wanted="at least 4",
            fix="Use a data set with more classes.",
        )
    pairs, shape = list(itertools.combinations(range(n_classes), 2)), dataset.test.images.shape[1:]
    pairs = pairs[:: math.ceil(len(pairs) / MAX_PAIRS)]
    means = probe.class_means(dataset.train, n_classes).cpu()
    first, second = (torch.tensor(part) for part in zip(*pairs, strict=True))
    mean_of_means = (means[first] + means[second]) / 2
    both = torch.stack([first, second], 1)
    disjoint = ~((first[:, None, None] == both).any(2) | (second[:, None, None] == both).any(2))
    rows = []
    for run in pool.runs:
        pictures = probe.templates(run.state, shape)
        correlation = probe.template_match((pictures[first] + pictures[second]) / 2, mean_of_means).correlation
        null = (correlation * disjoint).sum(1) / disjoint.sum(1)
        logits = pool.logits(run.state)
        for number, (i, j) in enumerate(pairs):
            recalls, own = [_wins(logits[labels == k], i, j, 0.5) for k in (i, j)], (labels == i) | (labels == j)
            separate = logits[own].argmax(1)
            rows.append(
                {
                    "seed": run.config.seed,
                    "first": dataset.classes[i],
                    "second": dataset.classes[j],
                    "own": correlation[number, number].item(),
                    "null": null[number].item(),
                    "lower_recall": min(recalls),
                    "mean_recall": sum(recalls) / 2,
                    "separate_recall": 100 * ((separate == i) | (separate == j)).double().mean().item(),
                    "other_recall": _wins(logits[~own], i, j, 0.5),
                }
            )
    return pd.DataFrame(rows)


def class_mixtures(pool, *, alphas, n_classes=N_SHOWN):
    """Measure who is recalled by a mixture of two rows of the first member, which stands for both.

    One row per pair of the first classes and mixing weight: first, second (indices, first < second), alpha (share of
    the second), recall_first and recall_second (% of the test images of each class that the mixture wins).
    """
    logits, labels, rows = pool.logits(pool.states[0]), pool.dataset.test.labels, []
    for i, j in itertools.combinations(range(min(n_classes, len(pool.dataset.classes))), 2):
        of_first, of_second = logits[labels == i], logits[labels == j]
        for alpha in alphas:
            recalls = {"recall_first": _wins(of_first, i, j, alpha), "recall_second": _wins(of_second, i, j, alpha)}
            rows.append({"first": i, "second": j, "alpha": alpha, **recalls})
    return pd.DataFrame(rows)


def _wins(logits, i, j, alpha):
    """Return the share of images, in percent, whose mixed logit is above those of all classes but i and j."""
    mixed = (1 - alpha) * logits[:, i] + alpha * logits[:, j]
    others = logits.clone()
    others[:, [i, j]] = -torch.inf
    return 100 * (mixed > others.max(1).values).double().mean().item()


def member_mixtures(pool, *, alphas):
    """Measure the test accuracy (%) along the line between the first two members."""
    a, b = pool.states[:2]
    return pd.DataFrame({"alpha": alphas, "accuracy": [pool.accuracy(interpolate(a, b, alpha)) for alpha in alphas]})


def linear_soups(pool, *, sizes):
    """Average the weights of N linear members, and their logits, for subsets that share no member.

    One row per subset, M // N of each size N of M members: n_members, subset, own (correlation of the soup's rows with
    the centred mean of the own class), member_own (mean over members), accuracy, member_accuracy and ensemble_accuracy
    (%), and difference (largest between a logit of the soup and of the logit ensemble, over all test images, in
    float64 from the soup's float32 weights).
    """
    dataset, test = normalised(pool), pool.dataset.test
    means, shape = probe.class_means(dataset.train, len(dataset.classes)).cpu(), test.images.shape[1:]
    chosen = [slice(first, first + n) for n in sizes for first in range(0, len(pool) - n + 1, n)]
    states = [*pool.states, *(pool.soup(range(len(pool))[members]) for members in chosen)]
    own = [probe.template_match(probe.templates(state, shape), means).own.mean().item() for state in states]
    logits = predict_together(states, test, torch.float64)
    accuracy, rows = [evaluate.accuracy(one, test.labels) for one in logits], []
    for place, members in enumerate(chosen, start=len(pool)):
        of_ensemble, n = logit_ensemble(logits[members]), members.stop - members.start
        rows.append(
            {
                "n_members": n,
                "subset": members.start // n,
                "own": own[place],
                "member_own": fmean(own[members]),
                "accuracy": accuracy[place],
                "member_accuracy": fmean(accuracy[members]),
                "ensemble_accuracy": evaluate.accuracy(of_ensemble, test.labels),
                "difference": (logits[place] - of_ensemble).abs().max().item(),
            }
        )
    return pd.DataFrame(rows)


def tables(here):
    """Pairs of classes and linear soups on all data sets; pictures and curves of the main one."""
    p, groups = here.p, here.groups
    names = list(dict.fromkeys(name for name, _ in groups))
    decays = {key: group for key, group in groups.items() if not isinstance(key[1], str)}
    held_out = here.rows(selection_accuracy, decays)
    best = {name: best_decay(held_out[held_out.dataset == name]) for name in names}
    pairs = here.rows(class_pairs, {(n, g): groups[n, g] for n in names for g in (RELEASED, best[n])})
    pairs["protocol"] = pairs.group.map(lambda group: "released" if group == RELEASED else "corrected")
    soups = here.rows(linear_soups, {(n, g): groups[n, g] for n in names for g in KEPT}, sizes=fitting(p))
    zero, strong, paper = ({(p.dataset, group): groups[p.dataset, group]} for group in (0.0, DECAY, RELEASED))
    rows = [here.rows(row_pictures, zero | strong, member=member).assign(member=member) for member in (0, 1)]
    return {
        "class_pairs": here.save(titled(pairs, "protocol").drop(columns="group"), "class_pairs"),
        "linear_soups": here.save(titled(soups), "linear_soups"),
        "class means": here.rows(class_pictures, zero, centred=True),
        "released rows": here.rows(row_pictures, paper, member=0),
        "rows": pd.concat(rows, ignore_index=True),
        "member mixtures": here.rows(member_mixtures, zero | strong, alphas=ALPHAS),
        "class mixtures": here.rows(class_mixtures, strong, alphas=ALPHAS),
    }


def titled(table, *columns):
    """Return rows with the titles of data sets, these and some other columns behind all others."""
    behind = ["dataset", *columns]
    table = table.assign(dataset=table.dataset.map(data.title))
    return table[[*(name for name in table if name not in behind), *behind]]


def best_decay(held_out):
    """Return the decay whose members are best on the selection images."""
    return max(dict.fromkeys(held_out.group), key=lambda group: sum(held_out[held_out.group == group].accuracy))


def fitting(p):
    """Return the sizes of soups for which there are members."""
    return [n for n in p.linear_sizes if n <= p.n_linear]


# ---- What follows from it --------------------------------------------------------------------------------------------


def by_seed(pairs):
    """Return the mean over the pairs of classes of each member, with the share of pairs that are served both (%)."""
    columns = ["own", "null", "lower_recall", "other_recall", "both", "mean_recall", "separate_recall"]
    pairs = pairs.assign(both=100.0 * (pairs.lower_recall > pairs.other_recall))
    return pairs.groupby(["dataset", "protocol", "seed"], sort=False)[columns].mean()


def changes(soups):
    """Return soups with what they change against the mean of their members: correlation, and accuracy in points."""
    return soups.assign(own_change=soups.own - soups.member_own, accuracy_change=soups.accuracy - soups.member_accuracy)


def claimed_size(p):
    """Return the largest size of soups of which there are three that share no member."""
    return max(n for n in p.linear_sizes if n > 1 and p.n_linear // n >= 3)


def claims(here, tables):
    """Values that C3 and C4 are judged by."""
    rows, n, pairs = [], claimed_size(here.p), by_seed(tables["class_pairs"])
    soups = changes(tables["linear_soups"])
    soups = soups[soups.n_members == n]

    def add(claim, name, values, bound, unit, **more):
        rows.append(judged(claim, name, values, bound=bound, unit=unit, **more))

    for title, part in soups.groupby("dataset", sort=False):
        for protocol in ("released", "corrected"):
            cell, common = pairs.loc[title, protocol], {"dataset": title, "protocol": protocol}
            apart = cell.own - cell["null"]
            add("C3", "mean row and mean of the two class means, minus other pairs", apart, 0, "correlation", **common)
            apart = cell.lower_recall - cell.other_recall
            add("C3", "recall of the class served worse, minus that of all others", apart, 0, "points", **common)
            add("C3", "pairs of which the mean row serves both", cell.both, 50, "%", **common)
        for group in (0.0, DECAY):
            cell, common = part[part.group == group], {"dataset": title, "note": f"decay {group:g}, soups of {n}"}
            add("C4", "correlation of the soup minus a member's", cell.own_change, -0.01, "correlation", **common)
            add("C4", "accuracy of the soup minus a member's", cell.accuracy_change, -0.5, "points", **common)
        worst, common = part.groupby("subset").difference.max(), {"dataset": title, "note": f"soups of {n}"}
        add("C4", "largest difference of a logit, soup and ensemble", worst, 1e-5, "logit", side="below", **common)
    return rows


def numbers(here, tables):
    """What the prose says."""
    p, soups, main = here.p, tables["linear_soups"], data.title(here.p.dataset)
    most, merged = soups.n_members.max(), soups[soups.n_members > 1]
    largest = soups[(soups.n_members == most) & (soups.dataset == main) & (soups.group == 0.0)]
    return {
        "own_soup": largest.own.mean(),
        "own_member": largest.member_own.mean(),
        "difference": merged.difference.max(),
        "accuracy_gap": (merged.accuracy - merged.ensemble_accuracy).abs().max(),
        "n_most": most,
        "n_linear": p.n_linear,
        "max_pairs": MAX_PAIRS,
        "decay": DECAY,
        "main": main,
        "half": len(tables["class means"]) // 2,
        "n_claim": claimed_size(p),
        "n_subsets": p.n_linear // claimed_size(p),
    }


def interval(values):
    """Return mean and 95 % interval of a change as text."""
    return interval_text(values, 3 if values.name == "own_change" else 2)


# ---- Figures ---------------------------------------------------------------------------------------------------------


def mean_rows(tables):
    """Draw means of two class means and of two rows: class i with class i + half, as the paper's script pairs them."""
    from ...plot import picture_grid

    names, means, rows = (
        list(tables["class means"]["class"]),
        stack(tables["class means"]),
        stack(tables["released rows"]),
    )
    half = len(names) // 2
    of_means, of_rows = ((each[:half] + each[half : 2 * half]) / 2 for each in (means, rows))
    labels = [f"{a} + {b}" for a, b in zip(names[:half], names[half:], strict=False)]
    return picture_grid({"mean of\ntwo means": of_means, "mean of\ntwo rows": of_rows}, labels)


def mix(tables):
    """Return the figure in which the reader mixes two members, or two classes of one."""
    from ...plot import picture_grid
    from .mixing import Mixture, mixing_figure

    names, means = list(tables["class means"]["class"]), stack(tables["class means"])
    rows, lines = tables["rows"], tables["member mixtures"]
    a, b, c, d = (stack(rows[(rows.group == g) & (rows.member == m)]) for g in (0.0, DECAY) for m in (0, 1))
    mixtures = [
        Mixture("two members, decay 0", a, b, lines[lines.group == 0.0], "members"),
        Mixture(f"two members, decay {DECAY}", c, d, lines[lines.group == DECAY], "members"),
        Mixture(f"two classes of one member, decay {DECAY}", c, c, tables["class mixtures"], "classes"),
    ]
    static = picture_grid({"member A": a, "half and half": (a + b) / 2, "member B": b}, names)
    alt = (
        "Weight rows of two members and their mean: the speckle of the two differs and fades in the mean, the pictures "
        "of the classes stay."
    )
    return mixing_figure(mixtures, means, names, static=static, alt=alt)


def rows_vs_members(table):
    """Draw what a linear soup changes against the number of members; columns are data sets.

    Intervals are drawn where there are at least three subsets.
    """
    import matplotlib.pyplot as plt

    from ...plot.style import DATASETS, intervals

    names, groups = list(dict.fromkeys(table.dataset)), list(dict.fromkeys(table.group))
    fig, axes = plt.subplots(
        2,
        len(names),
        figsize=(2.9 * len(names) + 0.6, 5.0),
        sharex=True,
        sharey="row",
        layout="constrained",
        squeeze=False,
    )
    handles, ticks = {}, sorted(table.n_members.unique())
    for (top, bottom), name in zip(axes.T, names, strict=True):
        for group, (color, marker, dash) in zip(groups, itertools.cycle(DATASETS)):
            part = table[(table.dataset == name) & (table.group == group)]
            n_subsets = part.groupby("n_members").subset.nunique()
            for ax, column in ((top, "own_change"), (bottom, "accuracy_change")):
                line = intervals(part, ["n_members"], column)
                bar = (line["mean"] - line.low).where(line.n_members.map(n_subsets) >= 3, 0)
                looks = {"color": color, "marker": marker, "linestyle": dash, "capsize": 2.5}
                handles[group] = ax.errorbar(line.n_members, line["mean"], bar, **looks)
        for ax in (top, bottom):
            ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
        top.set(title=name)
        bottom.set(xlabel="Members in the soup", xscale="log")
        bottom.minorticks_off()
        bottom.set_xticks(ticks, [f"{n}" for n in ticks])
    axes[0, 0].set(ylabel="Correlation with class mean,\nsoup minus member")
    axes[1, 0].set(ylabel="Test accuracy, soup\nminus member (points)")
    labels = [group if isinstance(group, str) else f"weight decay {group:g}" for group in handles]
    fig.legend(handles.values(), labels, loc="outside lower center", ncols=2)
    plt.close(fig)
    return fig
