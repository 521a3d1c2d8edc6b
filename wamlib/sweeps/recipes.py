"""Members by named recipes, some of them cut short: what accuracy costs in training."""

from ..config import TrainConfig

__all__ = ["recipe_members"]


def recipe_members(models, epochs, *, dataset, n_train, n_replicas=3, n_eval=None):
    """Return members by recipe and length: ``{(model, recipe, epochs): configs}``, one config per replica.

    Parameters
    ----------
    models : sequence of str
        Architectures.
    epochs : dict of str to sequence of int
        Recipes of `wamlib.config.TrainConfig.recipe`, and for each how many epochs its members are trained. The
        schedule always runs to its end: a shorter training is a steeper schedule, not the beginning of a longer one.
        A warm-up keeps its share of the epochs.
    dataset : str
        A name that `wamlib.data.load` knows.
    n_train : int or None
        Training images; None means all.
    n_replicas : int
        Members, each with seeds of its own; the same seeds in all recipes.
    n_eval : int or None
        See `wamlib.config.TrainConfig`.

    Returns
    -------
    dict
    """
    found = {}
    for model in models:
        for recipe, lengths in epochs.items():
            whole = TrainConfig.recipe(recipe)
            for length in lengths:
                changes = {"epochs": length, "warmup_epochs": whole.warmup_epochs * length / whole.epochs}
                common = {"dataset": dataset, "n_train": n_train, "n_eval": n_eval, "model": model, **changes}
                found[model, recipe, length] = [
                    TrainConfig.recipe(recipe, seed=seed, init_seed=seed, **common) for seed in range(n_replicas)
                ]
    return found
