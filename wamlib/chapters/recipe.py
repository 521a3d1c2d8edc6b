"""Which should I use on Monday? Advice against the truth: what was predicted of a pool, and what each option gives."""

import io
import math

import numpy as np
import pandas as pd

from .. import advise as advising
from .. import align, data, evaluate, models
from ..costs import prediction_operations
from ..merge import uniform_soup
from ..stats import mean_interval, paired_difference
from ..sweeps import REDRAWN, STARTS, pools_by_dataset

NAMES = ("dataset", "model", "start", "replica")
REORDERED = "reordered"  # pools with a shared start whose members have their units in an order of their own
# What each recommendation of `wamlib.advise` is called where it is measured, the cheapest first: one pass and no
# labels, one pass and labels, one pass and labels and trials, one pass and a search, a pass per member.
CHEAPEST_FIRST = {
    "uniform soup": "uniform soup",
    "best member": "best member",
    "greedy soup": "greedy soup",
    "align first": "aligned soup",
    "logit ensemble": "logit ensemble",
}
BUDGETS = ("once", "many")  # one forward pass, or one per member
CLOSE = 0.5  # points: with few pools an interval leaves open what no user would call equal
POLICIES = ("advice", "uniform soup", "best member", "greedy soup", "logit ensemble")
# Of a prediction: what was said, and what was found.
STEPS = {
    "formula": ("predicted_gain", "selection_gain"),
    "images": ("selection_gain", "measured_gain"),
    "both": ("predicted_gain", "measured_gain"),
}
R2, MISSED, SPREAD = "R²", "mean absolute error (points)", "spread (points)"
UNKNOWN = "not measured"  # where there are no pools of a kind


def runs(p):
    """The pools of the architectures: a shared start on every data set, other starts on the main one."""
    cells = {
        "epochs": p.epochs,
        "trunk_epochs": p.trunk_epochs,
        "n_replicas": p.n_replicas,
        "n_members": p.n_pool_members,
        "n_eval": p.n_eval_pools,
    }
    everywhere, main = dict.fromkeys(p.present(p.datasets), p.n_train_pools), {p.dataset: p.n_train_pools}
    return {
        **pools_by_dataset(everywhere, p.pool_models, starts=[STARTS[0]], **cells),
        **pools_by_dataset(main, p.pool_models, starts=[STARTS[2]], **cells),
        **pools_by_dataset(main, p.arm_models, starts=[*REDRAWN, STARTS[1]], **cells),
    }


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def advice(pool, *, reordered=False):
    """Ask for advice on the selection images, and measure on the test images what every option gives.

    One row: kind (of architecture), n_members, n_selection; predicted_gain, predicted_noise (its standard error) and
    measured_gain (of the uniform soup over a member, points), selection_gain (the same on the selection images, which
    the advice itself never measures); distance and barrier (mean over pairs, on the selection images); shift (what
    recalibration gives the midpoints, NaN without BatchNorm); once and many (recommended at a budget of one pass and of
    one per member, a key of `CHEAPEST_FIRST`); and the test accuracy of "member" (mean) and of every value of
    `CHEAPEST_FIRST`, NaN for the aligned soup where the advice did not try to align.
    """
    pool = with_units_reordered(pool) if reordered else pool
    held_out, labels = pool.dataset.selection.labels, pool.dataset.test.labels
    recorded = pool.recorded("selection")

    def selection(state, recalibrate):
        for member, logits in zip(pool.states, recorded, strict=True):
            if state is member:
                return logits
        return pool.logits(state, "selection", recalibrate=recalibrate)

    settings = {"training_batches": pool.training_batches(), "alphas": (0.5,), "predict": selection}
    found = advising.advise(pool.states, pool.module, pool.dataset.selection, **settings)
    measured, members = found.measured, [evaluate.accuracy(logits, labels) for logits in pool.recorded()]
    greedy = pool.greedy(as_they_stand=True)
    # Both at once: its BatchNorm is recalibrated once.
    on_selection, on_test = pool.logits(pool.soup(), ("selection", "test"), recalibrate=True)
    alone = len(greedy.accepted) == 1  # such a soup is that member, which nobody recalibrates
    truth = {
        "member": sum(members) / len(members),
        "best member": members[measured.accuracies.index(max(measured.accuracies))],
        "uniform soup": evaluate.accuracy(on_test, labels),
        "greedy soup": members[greedy.accepted[0]] if alone else pool.accuracy(greedy.state, recalibrate=True),
        "aligned soup": math.nan,
        "logit ensemble": evaluate.accuracy(pool.ensemble(), labels),
    }
    if "aligned soup" in measured.options:
        moved = advising.aligned(pool.states, pool.module)
        truth["aligned soup"] = pool.accuracy(uniform_soup(moved), recalibrate=True)
    predicted, noise = measured.gain("uniform soup")
    pairs = pd.DataFrame([vars(pair) for pair in measured.pairs])
    row = {
        "kind": kind(pool),
        "n_members": len(pool),
        "n_selection": len(held_out),
        "predicted_gain": predicted,
        "predicted_noise": noise,
        "measured_gain": truth["uniform soup"] - truth["member"],
        "selection_gain": evaluate.accuracy(on_selection, held_out) - 100 * measured.members.mean().item(),
        "distance": pairs.distance.mean(),
        "barrier": pairs.barrier.mean(),
        "shift": pairs.batchnorm_shift.astype(float).mean(),
        "once": found.recommendation,
        "many": found.with_budget(len(pool)).recommendation,
    }
    return pd.DataFrame([row | truth])


def with_units_reordered(pool):
    """Return the pool with the units of every member but the first in a random order: the same functions."""
    moved, (first, *others) = pool.first(), pool.states
    permuted = [align.apply(align.random_permutation(pool.module, seed), state) for seed, state in enumerate(others)]
    moved.states = [first, *permuted]
    return moved


def kind(pool):
    """Return what the tables call the kind of a pool's architecture."""
    of = {"vit": "ViT", "mlp": "MLP", "linear": "MLP", "other": "other"}
    return of.get(models.kind(pool.model)) or ("CNN, BatchNorm" if pool.has_batchnorm else "CNN, no BatchNorm")


def operations(pool):
    """Return the operations of one prediction of one member, in millions."""
    return pd.DataFrame({"mflops": [prediction_operations(pool.model, pool.dataset)]})


def command(pool, *, n_images):
    """Return the lines that `wamlib advise` prints about the runs of a pool, in 80 columns."""
    from rich.console import Console

    ids, name = [run.config.run_id for run in pool.runs], pool.runs[0].config.dataset
    images = advising.open_selection(name, n_images).to(pool.device)
    batches = [batch for batch, _ in images.train.batches() if len(batch) > 1]
    found = advising.advise(pool.states, pool.module, images.selection, training_batches=batches)
    console = Console(file=io.StringIO(), width=80, highlight=False, color_system=None, force_jupyter=False)
    for part in advising.report(found, ids):
        console.print(part)
    words = " ".join(["advise", *ids, "--model", pool.model, "--data", name, "--n-images", str(n_images)])
    return pd.DataFrame({"line": [f"$ wamlib {words}", *console.file.getvalue().splitlines()]})


def tables(here):
    """Advice about all pools and those with units reordered, operations, and what the command prints about one pool."""
    p, shared = here.p, {"start": STARTS[0]}
    movable = [model for model in p.reordered_models if models.kind(model) not in ("vit", "other")]
    moved = here.groups_where(dataset=p.dataset, model=movable, **shared)
    parts = [here.rows(advice), *([here.rows(advice, moved, reordered=True).assign(start=REORDERED)] if moved else [])]
    table = pd.concat(parts, ignore_index=True)
    table = table[[*(name for name in table if name not in NAMES), *NAMES]]
    asked = here.groups_where(dataset=p.dataset, model=p.arm_models, **shared)
    asked = asked or here.groups_where(dataset=p.dataset, **shared)
    return {
        "recipe": described(here.save(table, "recipe"), p),
        "mflops": here.rows(operations, here.groups_where(replica=0, **shared)),
        "command": here.rows(command, dict([next(iter(asked.items()))]), n_images=600),
    }


# ---- What follows from it --------------------------------------------------------------------------------------------


def described(table, p):
    """Return the table with ``setting`` (whether the rules were set on a pool) and ``data`` (title and error)."""
    setting = (table.dataset == p.dataset) & (table.replica == 0) & (table.start != REORDERED)
    error = 100 - table[table.start == STARTS[0]].groupby("dataset").member.mean()
    names = {name: f"{data.title(name)} ({error[name]:.0f} % error)" for name in error.index}
    return table.assign(setting=setting, data=table.dataset.map(names))


def validation(table):
    """Return the pools on which the rules were not set."""
    return table[~table.setting].reset_index(drop=True)


def options_and_costs(table, mflops, p):
    """Return the mean test error of each option beside the operations of a prediction, for `cost_vs_error`."""
    options = ["member", "uniform soup", "greedy soup", "aligned soup", "logit ensemble"]
    shown = table[(table.start == STARTS[0]) | ((table.start == STARTS[2]) & (table.dataset == p.dataset))]
    cells = shown.groupby(["dataset", "start", "model"], sort=False)[options].mean()
    cells = cells.melt(var_name="option", value_name="accuracy", ignore_index=False).dropna().reset_index()
    costs = mflops.set_index(["dataset", "model"]).mflops
    passes = np.where(cells.option == "logit ensemble", p.n_pool_members, 1)
    of_one = [costs[key] for key in zip(cells.dataset, cells.model, strict=True)]
    panel = cells.dataset.map(data.title) + ", " + cells.start
    cells = cells.assign(mflops=passes * of_one, error=100 - cells.accuracy, panel=panel)
    return cells[(cells.option != "aligned soup") | (cells.start == STARTS[2])]


def decisions(table, by, budget):
    """Choose an option for each group of pools: the cheapest that is close to the best and not resolved from it.

    Columns: those of ``by``; n_pools; best (the option with the highest mean accuracy) and choice: the first of
    `CHEAPEST_FIRST` whose mean is less than half a point behind, and which the 95 % interval of the paired difference
    over the pools does not set apart; gain (of the choice over a member) and behind (the best), in points. A group of
    one pool has no interval: there the best is chosen. The aligned soup counts where every pool of the group has one.
    """
    rows = []
    for key, group in table.groupby(by, sort=False):
        options = [option for option in _allowed(budget) if group[option].notna().all()]
        means = group[options].mean()
        best = means.idxmax()
        behind = means[best] - means
        close = [name for name in options if behind[name] < CLOSE and _unresolved(group[best], group[name])]
        choice = next(option for option in options if option == best or option in close)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "n_pools": len(group),
                "best": best,
                "choice": choice,
                "gain": means[choice] - group["member"].mean(),
                "behind": behind[choice],
            }
        )
    return pd.DataFrame(rows)


def _unresolved(best, option):
    return paired_difference(best, option).low <= 0  # NaN of a single pool compares as False


def _allowed(budget):
    return [option for option in CHEAPEST_FIRST.values() if budget == "many" or option != "logit ensemble"]


def decided(table, budget):
    """Return the choices with their gains over a member in words, a column for each kind of architecture."""
    found = decisions(table, ["start", "data", "kind"], budget)
    found["text"] = [f"{row.choice} ({row.gain:+.1f})" for row in found.itertuples()]
    return found.pivot_table("text", ["start", "data"], "kind", aggfunc="first", sort=False).fillna("–")


def fits(pools):
    """Return how well each step of `STEPS` foretells the gain of the soup, for all pools and by what they share."""
    alike, rows = pools.start == STARTS[0], {}
    for name, part in {"all": pools, "shared start": pools[alike], "all others": pools[~alike]}.items():
        for step, (said, found) in STEPS.items():
            missed, spread = part[found] - part[said], part[found] - part[found].mean()
            share = 1 - (missed**2).sum() / (spread**2).sum()
            rows[name, step] = {R2: share, MISSED: missed.abs().mean(), SPREAD: part[found].std()}
    return pd.DataFrame(rows).T


def regrets(table, budget, policy):
    """Return how many points a policy stays behind the best option of a budget, on the test images, pool by pool.

    The policy is "advice", or a value of `CHEAPEST_FIRST` that is always taken.
    """
    best = table[_allowed(budget)].max(axis=1)
    if policy != "advice":
        return best - table[policy]
    taken = [row[CHEAPEST_FIRST[row[budget]]] for _, row in table.iterrows()]
    return best - pd.Series(taken, table.index, dtype=float)


def best_options(table, budget):
    """Return the option with the highest test accuracy in each pool, a key of `CHEAPEST_FIRST`; of equals the first."""
    names = {value: key for key, value in CHEAPEST_FIRST.items()}
    return table[_allowed(budget)].idxmax(axis=1).map(names)


def confusion(pools, budget):
    """Return in how many pools each option is recommended (rows) and best (columns)."""
    best = best_options(pools, budget).rename("best on the test images")
    return pd.crosstab(pools[budget].rename("recommended"), best)


def behind(pools):
    """Return `regrets` by budget and policy."""
    asked = [(budget, policy) for budget in BUDGETS for policy in POLICIES]
    return {key: regrets(pools, *key) for key in asked if key != ("once", "logit ensemble")}


def regret(pools):
    """Return the mean of the regrets, and the share of pools within half a point of the best."""
    rows = {
        key: {"points behind the best": part.mean(), "within 0.5 points (%)": 100 * (part <= 0.5).mean()}
        for key, part in behind(pools).items()
    }
    return pd.DataFrame(rows).T


def numbers(here, tables):
    """What the prose says."""
    p, table = here.p, tables["recipe"]
    pools, regretted = validation(table), behind(validation(table))
    together, asked = table[table.start == STARTS[0]], pools[pools.start == STARTS[0]]
    found = {}
    for (group, step), row in fits(pools).iterrows():
        found |= {f"r2_{step}_{group.split()[-1]}": row[R2], f"spread_{step}_{group.split()[-1]}": row[SPREAD]}
    for (budget, policy), part in regretted.items():
        found[f"behind_{budget}_{policy.split()[0]}"] = part.mean()
    for budget, policy in (("once", "greedy soup"), ("many", "logit ensemble")):
        name = f"against_{policy.split()[0]}"
        mean, low, high, _ = paired_difference(regretted[budget, "advice"], regretted[budget, policy])
        agree = 100 * (pools[budget] == best_options(pools, budget)).mean()
        found |= {name: mean, f"{name}_low": low, f"{name}_high": high, f"agree_{budget}": agree}
    soup, ensemble = (together[name] - together.member for name in ("uniform soup", "logit ensemble"))
    by_data = soup.groupby(together.dataset).mean()
    more = mean_interval((together["greedy soup"] - together["uniform soup"]).groupby(together.replica).mean())
    plain = pools.index[pools.start != REORDERED]
    share = table.member / 100
    return (
        found
        | of_reordered(pools[pools.start == REORDERED])
        | drawn_towards_the_mean(together, asked)
        | {
            "soup_least": by_data.min(),
            "soup_most": by_data.max(),
            "greedy_more": more.mean,
            "greedy_more_low": more.low,
            "greedy_more_high": more.high,
            "rank_start": asked.predicted_gain.corr(asked.measured_gain),
            "missed_others": fits(pools).loc[("all others", "both"), MISSED],
            "soup_shared": soup.mean(),
            "ensemble_shared": ensemble.mean(),
            "noise_start": asked.predicted_noise.mean(),
            "noise_high": max(100 * (share * (1 - share) / table.n_selection) ** 0.5),
            "against_plain": (regretted["once", "advice"] - regretted["once", "greedy soup"])[plain].mean(),
            "n_members": p.n_pool_members,
            "n_replicas": p.n_replicas,
            "n_setting": table.setting.sum(),
            "n_validation": len(pools),
            "main": data.title(p.dataset),
            "n_selection_low": table.n_selection.min(),
            "n_selection_high": table.n_selection.max(),
        }
    )


def of_reordered(pools):
    """Return the numbers of the reordered pools, and the sentence that they stand in."""
    loss = (pools.member - pools["uniform soup"]).mean()
    gain, share = (pools["aligned soup"] - pools.member).mean(), 100 * (pools.once == "align first").mean()
    aligned = UNKNOWN if math.isnan(gain) else f"{gain:+z.1f}"
    words = (
        f"Of the reordered pools, whose soups lose {loss:.0f} points and, aligned, gain {aligned}, {share:.0f} % "
        "are told to align."
        if len(pools)
        else "No pool was reordered in this profile."
    )
    return {"reordered_loss": loss, "reordered_aligned": gain, "aligned_share": share, "reordered_sentence": words}


def drawn_towards_the_mean(together, asked):
    """Return the R² of predictions that are drawn towards their mean by a line fitted on the setting pools."""
    known = together[together.setting]
    if len(known) < 2:
        return {"r2_drawn": math.nan, "drawn_r2": UNKNOWN}
    slope = np.cov(known.predicted_gain, known.measured_gain)[0, 1] / known.predicted_gain.var()
    drawn = known.measured_gain.mean() + slope * (asked.predicted_gain - known.predicted_gain.mean())
    share = 1 - ((drawn - asked.measured_gain) ** 2).mean() / asked.measured_gain.var(ddof=0)
    return {"r2_drawn": share, "drawn_r2": f"{share:.2f}"}


# ---- Figures ---------------------------------------------------------------------------------------------------------

ALIGNED = ("#CC78BC", "X", "-")  # the aligned soup, which has no line in other figures
START_LOOKS = {
    "shared start": ("#0173B2", "s"),
    "re-drawn head": ("#56B4E9", "^"),
    "shared init": ("#029E73", "D"),
    "re-drawn stem and head": ("#DE8F05", "v"),
    "independent init": ("#7A7A7A", "o"),
    REORDERED: ("#D55E00", "X"),
}
NEAR = 6  # points: the second panel shows gains up to here


def cost_vs_error(table):
    """Draw the error of every option against the operations of a prediction with all its passes; see its rows above."""
    import matplotlib.pyplot as plt

    from ..plot.style import LOOKS, log_percent

    looks = LOOKS | {"aligned soup": ALIGNED}
    panels = list(dict.fromkeys(table.panel))
    n_columns = min(2, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    size = (4.6 * n_columns + 0.4, 3.2 * n_rows + 0.7)
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    handles = {}
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        cells = table[table.panel == panel]
        by_error = cells[cells.option == "logit ensemble"].sort_values("error").model.tolist()
        for model, part in cells.groupby("model", sort=False):
            ends = part[part.option.isin(["member", "logit ensemble"])].sort_values("mflops")
            ax.plot(ends.mflops, ends.error, color="#BBBBBB", linewidth=0.8, zorder=0)
            last, above = ends.iloc[-1], by_error.index(model) % 2  # by turns, so that neighbours keep apart
            ax.annotate(
                _short(model),
                (last.mflops, last.error),
                xytext=(6, 2 if above else -8),
                textcoords="offset points",
                fontsize=8,
            )
            for row in part.itertuples():
                color, marker, _ = looks[row.option]
                mark = {"color": color, "marker": marker, "linestyle": "", "markersize": 6, "alpha": 0.85}
                handles[row.option] = ax.plot(row.mflops, row.error, **mark)[0]
        ax.set(title=panel, xscale="log", xlabel="Operations of a prediction (million)", ylabel="Test error (%)")
        ax.margins(x=0.2)
        low, high = ax.get_xlim()
        ticks = [tick for tick in np.outer(10.0 ** np.arange(-2, 6), [1, 2, 5]).flat if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        log_percent([ax])
    shown = [name for name in looks if name in handles]
    fig.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=len(shown))
    plt.close(fig)
    return fig


def _short(model):
    """Return a name that has room beside a mark."""
    family = models.family(model)
    words = {"densenet": "DenseNet", "resnet": "ResNet", "efficientnet": "EfficientNet", "vit": "ViT", "other": model}
    with_norm = family == "vgg" and models.facts(model).batchnorm
    return words.get(family, family.upper()) + ("-BN" if with_norm else "")


def predicted_gain(table):
    """Draw the measured gain of the uniform soup against the predicted one: all pools, and those near zero.

    The second panel holds the pools of which neither gain is beyond `NEAR` points, with bars of one standard error of
    the prediction; without any it is left out.
    """
    import matplotlib.pyplot as plt

    gains = ["predicted_gain", "measured_gain"]
    near = table[table[gains].abs().max(axis=1) <= NEAR]
    parts = [table] if near.empty else [table, near]
    fig, axes = plt.subplots(1, len(parts), figsize=(4.9 * len(parts), 4.6), layout="constrained", squeeze=False)
    handles = {}
    for ax, part in zip(axes[0], parts, strict=True):
        for (start, setting), rows in part.groupby(["start", "setting"], sort=False):
            color, marker = START_LOOKS[start]
            looks = {
                "color": color,
                "marker": marker,
                "markerfacecolor": "none" if setting else color,
                "markersize": 6,
                "elinewidth": 0.6,
                "alpha": 0.8,
                "linestyle": "",
            }
            bars = rows.predicted_noise if part is near else None
            points = ax.errorbar(rows.predicted_gain, rows.measured_gain, xerr=bars, **looks)
            if not setting or start not in handles:
                handles[start] = points
        values = part[gains].to_numpy()
        ends = np.array([values.min(), values.max()])
        ax.plot(ends, ends, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
        for line in (ax.axhline, ax.axvline):
            line(0, color="#DDDDDD", linewidth=0.8, zorder=0)
        title = "all pools" if part is table else "those near zero, enlarged"
        ax.set(xlabel="Predicted gain of the soup (points)", ylabel="Measured gain (points)", title=title)
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    plt.close(fig)
    return fig
