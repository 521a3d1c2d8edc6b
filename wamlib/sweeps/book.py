"""Every run that the chapters of the book use."""

import inspect

from .. import data
from ..errors import ConfigError
from ..models import lite0
from .linear_members import linear_members
from .pools import REDRAWN, STARTS, fit_passes, pools, pools_by_dataset, width_pairs
from .pretrained import pretrained_pools
from .protocols import equal_cost_members, protocol_pools
from .recipes import recipe_members

__all__ = ["CHAPTER_ONLY", "DATASETS", "book"]

# Those of the first perspective; CIFAR-10 from its official files, or as a zip of class folders.
DATASETS = ("digits", "fashion-mnist", "cifar10", "folder:cifar10-jpeg.zip")

# Parameters of chapters that do not decide which runs there are, and what their values are: [int] is a list of int.
CHAPTER_ONLY = {
    "members": [str], "model": str, "budget": int, "output": str, "mean": str, "std": str,
    "profile": str, "toy_model": str, "plane_model": str, "batchnorm_model": str,
    "reordered_models": [str], "attack_models": [str], "foreign_datasets": [str], "corruptions": [str],
    "n_images": int, "n_gradients": int, "n_scaled_images": int, "n_subsets": int, "n_foreign": int, "n_noisy": int,
    "n_jacobians": int, "n_attacked": int, "n_directions": int, "n_line_images": int, "n_curvature_images": int,
    "n_plane": int, "n_plane_images": int,
    "sizes": [int], "linear_sizes": [int], "n_recalibration": [int], "severities": [int], "budgets": [int],
    "alphas": [float], "line": [float], "ways": [float], "factors": [float], "few_factors": [float],
    "noise_factors": [float],
}  # fmt: skip


def book(
    *,
    dataset="fashion-mnist",
    datasets=DATASETS,
    n_train=8_000,
    models=("mlp", "cnn", "resnet8"),
    n_members=5,
    n_replicas=3,
    epochs=4,
    trunk_epochs=2,
    n_linear=15,
    linear_epochs=10,
    template_models=("mlp", "resnet8"),
    n_train_pairs=3_000,
    wide_models=("mlp", "resnet8"),
    widths=(0.5, 1, 2),
    n_train_pools=2_000,
    n_eval_pools=2_000,
    n_pool_members=3,
    pool_models=("mlp", "cnn", "vgg", "vgg_bn", "resnet8", "densenet", "vit"),
    arm_models=("resnet8", "densenet", "vit"),
    protocol_models=("cnn", "vgg", "resnet8", "vit"),
    many_models=("mlp", "resnet8"),
    n_many=10,
    flat_models=("linear", "deep_linear"),
    recipe_models=("cnn", "resnet8"),
    n_train_recipes=2_000,
    paper_epochs=(10, 50),
    fast_epochs=(2, 5, 10),
    pretrained_datasets=("cifar10", "folder:cifar10-jpeg.zip", "fashion-mnist"),
    n_train_pretrained=1_000,
    n_eval_pretrained=1_000,
    n_members_pretrained=3,
    epochs_pretrained=2,
    **others,
):
    """Return every config that the chapters of the book use.

    The defaults are those of the chapters' parameter cells: the laptop profile. Of
    ``datasets`` only those count whose files are here, of ``pretrained_datasets`` the first of
    them. Members that begin with pretrained weights, and their control, are left out where the
    package that brings the weights is not installed. Chapters have further parameters,
    which do not decide about training; they are accepted, so that a profile in params/
    serves both.

    Returns
    -------
    list of TrainConfig
        Each once.

    Raises
    ------
    ConfigError
        If a name is no parameter of any chapter, or no list is given where one is wanted.
    """
    if unknown := sorted(others.keys() - CHAPTER_ONLY.keys()):
        known = sorted({*inspect.signature(book).parameters, *CHAPTER_ONLY} - {"others"})
        raise ConfigError(
            "cannot read the parameters of a sweep",
            item=f"name {unknown[0]!r}",
            got="a name that no chapter has",
            wanted=f"one of {', '.join(known)}",
            fix="Correct the name, or remove it.",
        )
    lists = {"datasets": datasets, "models": models, "template_models": template_models, "wide_models": wide_models,
             "widths": widths, "pool_models": pool_models, "arm_models": arm_models,
             "protocol_models": protocol_models, "many_models": many_models, "flat_models": flat_models,
             "recipe_models": recipe_models, "paper_epochs": paper_epochs, "fast_epochs": fast_epochs,
             "pretrained_datasets": pretrained_datasets}  # fmt: skip
    if wrong := [name for name, value in lists.items() if not isinstance(value, (list, tuple))]:
        raise ConfigError(
            "cannot read the parameters of a sweep",
            item=f"parameter {wrong[0]!r}",
            got=repr(lists[wrong[0]]),
            wanted="a list",
            fix="Write [a, b], or [] for none.",
        )
    present = [name for name in datasets if data.is_present(name)]
    recipe = {"n_replicas": n_replicas, "epochs": epochs, "trunk_epochs": trunk_epochs}
    trained = {"n_train": n_train, **recipe}
    # Of the second perspective: fewer images, the same number of every data set.
    cells, main = {**recipe, "n_eval": n_eval_pools}, {dataset: n_train_pools}
    settings = dict(
        zip(("n_train", "epochs", "trunk_epochs"), fit_passes(dataset, n_train_pools, epochs, trunk_epochs))
    )
    one = {"dataset": dataset, "n_replicas": n_replicas, "n_eval": n_eval_pools, **settings}
    common = {"dataset": dataset, "n_members": n_members, **trained}
    parts = [
        *(linear_members(name, n_train=n_train, n_members=n_linear, epochs=linear_epochs) for name in present),
        pools(models, **common),
        width_pairs(wide_models, widths, **common),
        pools_by_dataset(
            {name: n_train if name == dataset else n_train_pairs for name in present},
            template_models,
            **recipe,
        ),
        pools_by_dataset(
            dict.fromkeys(present, n_train_pools), pool_models, starts=STARTS[:1], n_members=n_pool_members, **cells
        ),
        pools_by_dataset(main, pool_models, starts=STARTS[2:], n_members=n_pool_members, **cells),
        pools_by_dataset(main, flat_models, n_members=n_pool_members, **cells),
        pools_by_dataset(main, arm_models, starts=[*REDRAWN, STARTS[1]], n_members=n_pool_members, **cells),
        pools_by_dataset(main, many_models, n_members=n_many, **cells),
        protocol_pools(protocol_models, n_members=n_pool_members, **one),
        equal_cost_members(many_models, n_members=n_pool_members, **one),
        recipe_members(
            recipe_models,
            {"paper": paper_epochs, "fast": fast_epochs},
            dataset=dataset,
            n_train=n_train_recipes,
            n_replicas=n_replicas,
            n_eval=n_eval_pools,
        ),
    ]
    photographs = next((name for name in pretrained_datasets if data.is_present(name)), None)
    if photographs is not None and lite0.is_present():
        counts = {"n_members": n_members_pretrained, "n_replicas": n_replicas, "epochs": epochs_pretrained}
        sizes = {"n_train": n_train_pretrained, "n_eval": n_eval_pretrained}
        parts.append(pretrained_pools(dataset=photographs, **counts, **sizes))
    # A pair is part of a pool: dict.fromkeys() names it once.
    return list(dict.fromkeys(c for part in parts for members in part.values() for c in members))
