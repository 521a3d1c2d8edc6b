"""Must a member train for fifty epochs? Two recipes, some of them cut short: what accuracy costs in training."""

import pandas as pd

from ..config import TrainConfig
from ..costs import training_operations
from ..stats import mean_interval

NAMES = ("model", "recipe", "epochs")
RECIPES = ("paper", "fast")


def runs(p):
    """Members by recipe and length; see `recipe_members`."""
    sizes = {"n_train": p.n_train_recipes, "n_replicas": p.n_replicas, "n_eval": p.n_eval_pools}
    return recipe_members(p.recipe_models, lengths(p), dataset=p.dataset, **sizes)


def lengths(p):
    """Return how many epochs members are trained by each recipe."""
    return dict(zip(RECIPES, (p.paper_epochs, p.fast_epochs), strict=True))


def recipe_members(names, epochs, *, dataset, n_train, n_replicas=3, n_eval=None):
    """Return members by recipe and length: ``{(model, recipe, epochs): configs}``, one config per replica.

    The schedule always runs to its end: a shorter training is a steeper schedule, not the beginning of a longer one. A
    warm-up keeps its share of the epochs. Replicas have the same seeds in all recipes.
    """
    found = {}
    for model in names:
        for recipe, several in epochs.items():
            whole = TrainConfig.recipe(recipe)
            for length in several:
                changes = {"epochs": length, "warmup_epochs": whole.warmup_epochs * length / whole.epochs}
                common = {"dataset": dataset, "n_train": n_train, "n_eval": n_eval, "model": model, **changes}
                found[model, recipe, length] = [
                    TrainConfig.recipe(recipe, seed=seed, init_seed=seed, **common) for seed in range(n_replicas)
                ]
    return found


def training_costs(pool):
    """Compare accuracy with the floating-point operations of training.

    One row per member: replica, accuracy (percent, test images), nll (nats), gflops (billion operations of all forward
    and backward passes) and seconds (of training, on the machine that trained it).
    """
    per_image, rows = training_operations(pool.model, pool.dataset), []
    for replica, run in enumerate(pool.runs):
        metrics, gflops = run.record["metrics"]["test"], per_image * run.config.epochs * len(pool.dataset.train) / 1e9
        rows.append(
            {
                "replica": replica,
                "accuracy": metrics["accuracy"],
                "nll": metrics["nll"],
                "gflops": gflops,
                "seconds": run.record["seconds"],
            }
        )
    return pd.DataFrame(rows)


def tables(here):
    """Accuracy and cost of every member."""
    return {"recipes": here.save(here.rows(training_costs), "recipes")}


def longest(table, p):
    """Return the members of the longest training by each recipe."""
    most = {recipe: max(several) for recipe, several in lengths(p).items()}
    return table[table.epochs == table.recipe.map(most)]


def gains(table, p):
    """Return the longest fast training minus the longest of the paper, in points, by model and replica."""
    wide = longest(table, p).pivot_table("accuracy", ["model", "replica"], "recipe", sort=False)
    return (wide[RECIPES[1]] - wide[RECIPES[0]]).rename("fast − paper (points)")


def numbers(here, tables):
    """What the prose says."""
    p, table = here.p, tables["recipes"]
    gain, cost = gains(table, p), longest(table, p).groupby("recipe").gflops.sum()
    ends = {"all": gain.groupby("replica").mean(), "first": gain[p.recipe_models[0]], "last": gain[p.recipe_models[-1]]}
    found = {}
    for end, values in ends.items():
        mean, low, high, _ = mean_interval(values)
        found |= {f"gain_{end}": mean, f"gain_{end}_low": low, f"gain_{end}_high": high}
    return found | {
        "share": 100 * cost[RECIPES[1]] / cost[RECIPES[0]],
        "trained": here.costs()["training"],
        "paper_epochs": max(p.paper_epochs),
        "fast_epochs": max(p.fast_epochs),
        "n_replicas": p.n_replicas,
        "n_models": len(p.recipe_models),
        "n_train": here.images(p.dataset).n_train,
    }


def accuracy_vs_flops(table):
    """Draw test accuracy against the operations of training; panels are architectures, lines recipes, marks lengths."""
    import matplotlib.pyplot as plt

    from ..plot.style import MODELS, intervals

    looks = dict(zip(RECIPES, [("#7A7A7A", "o", (0, (5, 1.5))), ("#0173B2", "s", "-")], strict=True))
    names = list(dict.fromkeys(table.model))
    size = (3.4 * len(names) + 0.4, 3.3)
    fig, axes = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for ax, model in zip(axes[0], names, strict=True):
        for recipe, (color, marker, dash) in looks.items():
            part = table[(table.model == model) & (table.recipe == recipe)]
            line = intervals(part, ["gflops", "epochs"], "accuracy")
            ax.errorbar(
                line.gflops,
                line["mean"],
                line["mean"] - line.low,
                color=color,
                marker=marker,
                linestyle=dash,
                capsize=3,
                label=recipe,
            )
            for row in line.itertuples():
                place = {"xytext": (5, -11), "textcoords": "offset points", "fontsize": 8, "color": color}
                ax.annotate(f"{row.epochs:d}", (row.gflops, row.mean), **place)
        ax.set(xscale="log", title=MODELS.get(model, model), xlabel="Operations of training (billion)")
        ax.margins(x=0.1)
    axes[0, 0].set_ylabel("Test accuracy (%)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(RECIPES))
    plt.close(fig)
    return fig
