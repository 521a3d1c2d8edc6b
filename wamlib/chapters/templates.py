"""Is a weight row a picture of its class? Linear members over weight decays, with controls."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from .. import data, evaluate, probe
from ..claims import measure as judged
from ..errors import ProbeError
from ..pictures import class_pictures, normalised, row_pictures, stack
from ..stats import interval_text, permutation_p
from ..sweeps import RELEASED, SHUFFLED, linear_members
from ..sweeps.pools import SIZES

NAMES = ("dataset", "group")  # a group is a weight decay, or SHUFFLED or RELEASED
BEST = "best accuracy"
N_PERMUTATIONS = 999
OPTIMA = [1.0, 10.0, 100.0, 1000.0]  # decays; below about 1e-3 the solver takes minutes
N_CORRELATED = 20  # classes at most in the matrix of correlations


def runs(p):
    """Linear members at every weight decay, and two groups beside them, on every data set."""
    return {
        (name, group): configs
        for name in p.present(p.datasets)
        for group, configs in linear_members(
            name, n_train=p.n_train, n_members=p.n_linear, epochs=p.linear_epochs
        ).items()
    }


# ---- What is measured ------------------------------------------------------------------------------------------------


def matches(pool, *, before=0, n_permutations=N_PERMUTATIONS):
    """Compare the rows of linear members with the class means of the images.

    One row per member: weight_decay, seed, own and raw (mean correlation with the centred and the plain mean of the
    own class), null (with the other classes' centred means), p (one-sided, of ``own`` under permuted classes),
    retrieval, null_retrieval and p_retrieval (%; mean and p-value under the same permutations), accuracy and
    selection_accuracy (%). ``before`` members have drawn permutations of the same generator already.
    """
    dataset = normalised(pool)
    n_classes, shape = len(dataset.classes), dataset.test.images.shape[1:]
    centred, raw = (probe.class_means(dataset.train, n_classes, centred=flag).cpu() for flag in (True, False))
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.stack([torch.randperm(n_classes, generator=generator) for _ in range(n_permutations)])

    for _ in range(before):
        draw()
    rows = []
    for run in pool.runs:
        pictures, orders = probe.templates(run.state, shape), draw()
        match = probe.template_match(pictures, centred)
        null = match.correlation[torch.arange(n_classes), orders].mean(1)
        # Retrieval under the same permutations: how many rows have their best match in the permuted class.
        null_retrieval = 100 * (match.correlation.argmax(1) == orders).double().mean(1)
        own = match.own.mean().item()
        others = (match.correlation.sum() - match.own.sum()).item() / (n_classes * (n_classes - 1))
        rows.append(
            {
                "weight_decay": run.config.weight_decay,
                "seed": run.config.seed,
                "own": own,
                "raw": probe.template_match(pictures, raw).own.mean().item(),
                "null": others,
                "p": permutation_p(own, null.numpy()),
                "retrieval": match.retrieval,
                "null_retrieval": null_retrieval.mean().item(),
                "p_retrieval": permutation_p(match.retrieval, null_retrieval.numpy()),
                "accuracy": run.record["metrics"]["test"]["accuracy"],
                "selection_accuracy": run.record["metrics"]["selection"]["accuracy"],
            }
        )
    return pd.DataFrame(rows)


def stationarity(pool):
    """Compare the rows of linear members with what holds at a stationary point of their training.

    One row per member and one for their uniform soup: weight_decay, combination, residual (distance of the rows from
    E[(1[y=k] - p_k(x)) x] / decay, % of their norm), limit_correlation (of each row with E[(1[y=k] - 1/K) x], mean
    over classes) and confidence (mean largest probability on the training images, %).
    """
    train, decay = pool.dataset.train, pool.runs[0].config.weight_decay
    one_hot = F.one_hot(train.labels, len(pool.dataset.classes)).float()
    images = F.pad(train.normalize(train.images).flatten(1), (0, 1), value=1.0)
    limit = (one_hot - 1 / one_hot.shape[1]).T @ images / len(images)
    states = [*pool.states, pool.soup()]
    # All of them below each other: one product with the images instead of many thin ones.
    weights = torch.cat([torch.cat([s["head.weight"], s["head.bias"][:, None]], 1) for s in states]).to(pool.device)
    probabilities = (images @ weights.T).unflatten(1, (len(states), -1)).softmax(2)
    right = (one_hot[:, None] - probabilities).flatten(1).T @ images / len(images) / decay
    rows = []
    for number, (row, wanted) in enumerate(zip(weights.chunk(len(states)), right.chunk(len(states)), strict=True)):
        rows.append(
            {
                "weight_decay": decay,
                "combination": "member" if number < len(pool) else "uniform soup",
                "residual": 100 * ((row - wanted).norm() / row.norm()).item(),
                "limit_correlation": probe.template_match(row[:, :-1], limit[:, :-1]).own.mean().item(),
                "confidence": 100 * probabilities[:, number].max(1).values.mean().item(),
            }
        )
    return pd.DataFrame(rows)


def optima(pool, *, weight_decays):
    """Solve the linear classifier to its optimum on the images of a pool, and compare its rows with the class means.

    Columns weight_decay, own (mean correlation with the centred mean of the own class) and accuracy (%). The solver,
    scikit-learn's L-BFGS, shares no code with training; two classes, for which it has one row, are refused.
    """
    from sklearn.linear_model import LogisticRegression

    dataset = pool.dataset.to("cpu")
    if (n_classes := len(dataset.classes)) < 3:
        raise ProbeError(
            "cannot solve the linear classifier",
            item=dataset.name,
            got=f"{n_classes} classes",
            wanted="at least 3",
            fix="Use a data set with more classes.",
        )
    means = probe.class_means(dataset.train, n_classes)
    train, test = (F.pad(s.normalize(s.images).flatten(1), (0, 1), value=1.0) for s in (dataset.train, dataset.test))
    rows = []
    for decay in weight_decays:
        # The bias is a weight of the constant 1, because training decays it too. scikit-learn's
        # sum of losses plus |w|^2 / (2 C) is ours for C = 1 / (n decay).
        model = LogisticRegression(C=1 / (len(train) * decay), fit_intercept=False, tol=1e-4, max_iter=1000)
        model.fit(train.numpy(), dataset.train.labels.numpy())
        weights = torch.from_numpy(np.asarray(model.coef_, dtype=np.float64))
        match = probe.template_match(weights[:, :-1].reshape(means.shape), means)
        accuracy = evaluate.accuracy(test.double() @ weights.T, dataset.test.labels)
        rows.append({"weight_decay": decay, "own": match.own.mean().item(), "accuracy": accuracy})
    return pd.DataFrame(rows)


def correlations(pool):
    """Return the correlation of the members' rows with the centred class means, mean over members.

    One row per template and class, of the first classes.
    """
    dataset = normalised(pool)
    means, shape = probe.class_means(dataset.train, len(dataset.classes)).cpu(), dataset.test.images.shape[1:]
    found = [probe.template_match(probe.templates(state, shape), means).correlation for state in pool.states]
    names = dataset.classes[:N_CORRELATED]
    matrix = (sum(found) / len(found))[: len(names), : len(names)].numpy()
    table = pd.DataFrame(matrix, index=pd.Index(names, name="template"), columns=names)
    return table.melt(ignore_index=False, var_name="class", value_name="correlation").reset_index()


def pixels(pool):
    """Return the standard deviation of each channel of the training images, in units of 0 to 255."""
    return pd.DataFrame({"std": normalised(pool).train.std.tolist()})


def tables(here):
    """Matches, stationarity and optima of all data sets, and the pictures that the figures show."""
    p, groups, before, parts = here.p, here.groups, {}, []
    for key, configs in groups.items():
        parts.append(here.rows(matches, {key: configs}, before=before.get(key[0], 0)))
        before[key[0]] = before.get(key[0], 0) + len(configs)
    table = titled(pd.concat(parts, ignore_index=True))
    settling = {key: g for key, g in groups.items() if g[0].weight_decay and not g[0].shuffle_labels}
    firsts = {name: {(name, 0.0): groups[name, 0.0]} for name in dict.fromkeys(name for name, _ in groups)}
    every, main = {key: group for first in firsts.values() for key, group in first.items()}, firsts[p.dataset]
    shown = {(p.dataset, group): groups[p.dataset, group] for group in lines(table).values()}
    for name in firsts:
        for group in (chosen(table)[data.title(name)], RELEASED):
            shown[name, group] = groups[name, group]
    settled = titled(here.rows(stationarity, settling))
    return {
        "templates": here.save(last(table), "templates"),
        "stationarity": here.save(last(settled), "stationarity"),
        "optima": titled(here.rows(optima, every, weight_decays=OPTIMA)).drop(columns="group"),
        "correlations": here.rows(correlations, main),
        "pixels": here.rows(pixels, every),
        "class means": titled(here.rows(class_pictures, every, centred=True)),
        "plain means": titled(here.rows(class_pictures, main, centred=False)),
        "rows": titled(here.rows(row_pictures, shown)),
    }


def titled(table):
    """Return rows with the titles of data sets in place of their names."""
    return table.assign(dataset=table.dataset.map(data.title))


def last(table):
    """Return a table with the data set behind all other columns."""
    return table[[*(name for name in table if name != "dataset"), "dataset"]]


# ---- What follows from it --------------------------------------------------------------------------------------------


def at_decays(table):
    """Return the members with true labels that were trained by this book's recipe."""
    return table[~table.group.isin([SHUFFLED, RELEASED])]


def chosen(table):
    """Return the decay with the best accuracy on the selection images, by data set."""
    by_decay = at_decays(table).groupby(["dataset", "weight_decay"], sort=False).selection_accuracy.mean()
    return by_decay.unstack().idxmax(axis=1)


def arms(table):
    """Return the members at the best decay, then those of the two other recipes."""
    decays = chosen(table)
    best = [part[part.group == decays[title]] for title, part in table.groupby("dataset", sort=False)]
    return pd.concat([pd.concat(best).assign(group=BEST), table[table.group.isin([RELEASED, SHUFFLED])]])


def means_by_group(table):
    """Return the mean over the members of each group."""
    columns = ["own", "raw", "null", "retrieval", "null_retrieval", "accuracy"]
    return table.groupby(["dataset", "group"], sort=False)[columns].mean()


def price(table):
    """Return correlation and accuracy at the best decay and at the strongest, by data set."""
    decays, best = at_decays(table), arms(table).query("group == @BEST")
    strongest = decays[decays.weight_decay == decays.weight_decay.max()]
    ends = {"best": best.groupby("dataset", sort=False), "strongest": strongest.groupby("dataset", sort=False)}
    found = {"best decay": chosen(table)}
    return pd.DataFrame(
        found
        | {f"{column} at {end}": part[column].mean() for column in ("own", "accuracy") for end, part in ends.items()}
    )


def interval(values):
    """Return mean and 95 % interval as text, with the digits that a column is told with."""
    return interval_text(values, 1 if values.name == "retrieval" else 2, signed=False)


def claims(here, tables):
    """Values that C1 and C2 are judged by."""
    rows, every, decays = [], arms(tables["templates"]), at_decays(tables["templates"])

    def add(claim, name, values, unit="correlation", **more):
        rows.append(judged(claim, name, values, bound=0, unit=unit, **more))

    for title, part in every.groupby("dataset", sort=False):
        for protocol, group in (("released", RELEASED), ("corrected", BEST)):
            cell, common = part[part.group == group], {"dataset": title, "protocol": protocol}
            add("C1", "own class mean minus other classes' means", cell.own - cell.null, **common)
            by_chance = cell.retrieval - cell.null_retrieval
            add("C1", "retrieval of the own class, minus permuted", by_chance, "points", **common)
        here_decays = decays[decays.dataset == title]
        none, strong = (here_decays[here_decays.weight_decay == decay].set_index("seed") for decay in (0.0, 0.1))
        paper, mild = (part[part.group == group].set_index("seed") for group in (RELEASED, BEST))
        clearer, better = (paper.own - mild.own).dropna(), (mild.accuracy - paper.accuracy).dropna()
        add("C2", "correlation at decay 0.1 minus at 0", strong.own - none.own, dataset=title)
        add("C2", "correlation, released recipe minus best decay", clearer, dataset=title)
        add("C2", "accuracy, best decay minus released recipe", better, "points", dataset=title)
    return rows


def numbers(here, tables):
    """What the prose says."""
    p, table, settled = here.p, tables["templates"], tables["stationarity"]
    main, strongest = data.title(p.dataset), at_decays(table).weight_decay.max()
    own, accuracy = (means_by_group(table).loc[main][column] for column in ("own", "accuracy"))
    true, fooled = table[table.group != SHUFFLED], table[table.group == SHUFFLED]
    scales = 0.1 * (255 / tables["pixels"]["std"]) ** 2
    members, soups = (settled[settled.combination == name] for name in ("member", "uniform soup"))
    limit = members[members.group == RELEASED].groupby("dataset").limit_correlation.mean()
    apart = arms(table).groupby(["group", "dataset"]).own.mean()
    exact = tables["optima"]
    return {
        "own_0": own[0.0],
        "own_max": own[strongest],
        "own_shuffled": own[SHUFFLED],
        "own_released": own[RELEASED],
        "acc_0": accuracy[0.0],
        "acc_max": accuracy[strongest],
        "acc_released": accuracy[RELEASED],
        "acc_best": accuracy[chosen(table)[main]],
        "p_true": true.p.max(),
        "p_retrieval": true.p_retrieval.max(),
        "n_shuffled": len(fooled),
        "n_fooled": int((fooled.p < 0.05).sum()),
        "n_expected": 0.05 * len(fooled),
        "decay_low": scales.min(),
        "decay_high": scales.max(),
        "limit_paper_low": limit.min(),
        "limit_paper_high": limit.max(),
        "own_released_low": apart[RELEASED].min(),
        "own_released_high": apart[RELEASED].max(),
        "own_best_low": apart[BEST].min(),
        "own_best_high": apart[BEST].max(),
        "residual_soup": soups[soups.weight_decay == strongest].residual.max(),
        "limit_low": exact[exact.weight_decay == OPTIMA[-1]].own.min(),
        "n_linear": p.n_linear,
        "n_released": len(here.groups[p.dataset, RELEASED]),
        "n_permutations": N_PERMUTATIONS,
        "n_digits": SIZES["digits"],
        "strongest": strongest,
        "main": main,
        "n_datasets": table.dataset.nunique(),
    }


# ---- Figures ---------------------------------------------------------------------------------------------------------


def lines(table):
    """Return the groups whose rows are shown large, by the label of their line."""
    strongest = at_decays(table).weight_decay.max()
    return {
        "row, decay 0": 0.0,
        f"row, decay {strongest:g}": strongest,
        "row, released\nrecipe": RELEASED,
        "row, shuffled\nlabels": SHUFFLED,
    }


def main_rows(tables, p):
    """Return the pictures of rows on the main data set, by the label of their line, and the names of the classes."""
    rows = tables["rows"][tables["rows"].dataset == data.title(p.dataset)]
    found = {label: rows[rows.group == group] for label, group in lines(tables["templates"]).items()}
    return {label: stack(part) for label, part in found.items()}, list(tables["plain means"]["class"])


def rows_beside_classes(tables, p):
    """Draw rows below the centred means of their classes."""
    from ..plot import picture_grid

    means, (rows, names) = tables["class means"], main_rows(tables, p)
    means = stack(means[means.dataset == data.title(p.dataset)])
    return picture_grid({"class mean\n− global mean": means, **rows}, names)


def stretched_rows(tables, p):
    """Draw rows and plain class means as the paper's code does."""
    rows, names = main_rows(tables, p)
    return stretched_grid({"class mean": stack(tables["plain means"]), **rows}, names)


def rows_elsewhere(tables, p):
    """Draw class means, rows at the best decay and rows of the released recipe on the other data sets."""
    from ..plot import picture_grid

    main, decays, shown, heads = data.title(p.dataset), chosen(tables["templates"]), {}, {}
    titles = list(dict.fromkeys(tables["class means"].dataset))
    for title in [title for title in titles if title != main] or [main]:
        means, rows = (tables[name][tables[name].dataset == title] for name in ("class means", "rows"))
        first = f"{title}\nmean − global mean"
        shown[first], heads[first] = stack(means), list(means["class"])
        shown[f"{title}\nrow, decay {decays[title]:g}\n(best accuracy)"] = stack(rows[rows.group == decays[title]])
        shown[f"{title}\nrow, released recipe"] = stack(rows[rows.group == RELEASED])
    return picture_grid(shown, heads)


def stretched_grid(rows, columns):
    """Draw lines of pictures, each stretched from its minimum to its maximum: sign and size are lost.

    Takes a dict of label to pictures, (picture, channel, height, width); colour is shown in colour, grey in grey.
    """
    import matplotlib.pyplot as plt

    from ..plot.templates import empty_grid

    fig, axes = empty_grid(len(rows), len(columns))
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, np.asarray(pictures, dtype=float), strict=True):
            low, high = picture.min(), picture.max()
            stretched = (picture - low) / ((high - low) or 1)
            shown = stretched[0] if len(picture) == 1 else stretched.transpose(1, 2, 0)
            ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="none")
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=9)
    fig.supxlabel("black: the smallest value of the picture, white: its largest", fontsize=8.5, color="#444444")
    plt.close(fig)
    return fig


def correlation_matrix(table):
    """Draw the correlation of each class's template with each class mean."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    from ..plot import style  # noqa: F401  the book's look

    matrix = table.set_index(["template", "class"]).correlation.unstack(sort=False)
    fig, ax = plt.subplots(figsize=(6.0, 5.0), layout="constrained")
    sns.heatmap(
        matrix,
        vmin=-1,
        vmax=1,
        cmap="RdBu_r",
        square=True,
        annot=len(matrix) <= 12,
        fmt=".1f",
        annot_kws={"size": 8},
        cbar_kws={"label": "Pearson correlation"},
        linewidths=0.5,
        ax=ax,
    )
    ax.set(xlabel="Class mean minus global mean", ylabel="Weight row (mean over members)")
    plt.close(fig)
    return fig


def decay_trade_off(table):
    """Draw template correlation and accuracy against weight decay, 0 at the left end; columns are data sets."""
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, intervals

    names = list(dict.fromkeys(table.dataset))
    size = (2.9 * len(names) + 0.9, 4.6)
    fig, axes = plt.subplots(2, len(names), figsize=size, sharex=True, layout="constrained", squeeze=False)
    decays = sorted(table.weight_decay.unique())
    place = {decay: index for index, decay in enumerate(decays)}
    for (top, bottom), name in zip(axes.T, names, strict=True):
        part = table[table.dataset == name]
        for ax, column, look, label in [
            (top, "own", "uniform soup", "own class"),
            (top, "null", "member", "another class"),
            (bottom, "accuracy", "uniform soup", None),
        ]:
            line = intervals(part, ["weight_decay"], column)
            color, marker, dash = LOOKS[look]
            x, bar = line.weight_decay.map(place), line["mean"] - line.low
            ax.errorbar(x, line["mean"], bar, color=color, marker=marker, linestyle=dash, capsize=3, label=label)
        top.set(title=name, ylim=(-0.35, 1.05))
        bottom.set(xlabel="Weight decay")
        bottom.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays], rotation=45)
    axes[0, 0].set(ylabel="Correlation with\ncentred class mean")
    axes[1, 0].set(ylabel="Test accuracy (%)")
    axes[0, 0].legend(title="row compared with the mean of", loc="best", fontsize=8, title_fontsize=8)
    plt.close(fig)
    return fig


def limit_correlation(table):
    """Draw how close rows are to the limit of strong decay: distance, confidence, correlation; a line per data set."""
    import matplotlib.pyplot as plt

    from ..plot.templates import over_decays

    fig, axes = plt.subplots(1, 3, figsize=(10.2, 3.0), layout="constrained")
    columns = {
        "residual": "Distance from the\nstationary point (% of the norm)",
        "confidence": "Mean largest\nprobability (%)",
        "limit_correlation": "Correlation of a row\nwith its limit",
    }
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        over_decays(ax, table, column)
        ax.set(xlabel="Weight decay", ylabel=label)
        ax.tick_params(axis="x", rotation=45)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 100)
    axes[1].legend(loc="upper right")
    plt.close(fig)
    return fig
