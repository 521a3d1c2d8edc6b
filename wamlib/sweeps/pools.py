"""Lists of configs: pools of members that begin together or apart."""

from .. import data
from ..config import TrainConfig, derive_seed
from ..errors import ConfigError

__all__ = ["BY_ARCHITECTURE", "REDRAWN", "STARTS", "fit_passes", "pool", "pools", "pools_by_dataset"]

STARTS = ("shared start", "shared init", "independent init")
# A shared start but for some layers, which every member draws anew.
REDRAWN = {"re-drawn head": ("head",), "re-drawn stem and head": ("stem", "head")}

# What each small architecture trains well with on a few thousand images; all else is TrainConfig's default.
BY_ARCHITECTURE = {
    "linear": {"peak_lr": 0.02, "weight_decay": 0.0, "batch_size": 128},
    "mlp": {"peak_lr": 0.05},
    "cnn": {"peak_lr": 0.05},
    "deep_linear": {"peak_lr": 0.02},
    "vgg": {"peak_lr": 0.03},
    "vgg_bn": {"peak_lr": 0.02},
    "resnet8": {"peak_lr": 0.1},
    "densenet": {"peak_lr": 0.2},
    "vit": {"peak_lr": 0.02},
    "efficientnet_lite0": {"peak_lr": 0.01, "batch_size": 32},  # from pretrained weights
}
# Training images of a data set that has fewer than most chapters ask for; those of a folder are counted.
SIZES = {"digits": 1_281}


def pool(start, *, model, n_members=5, replica=0, epochs=4, trunk_epochs=2, changes=None, **settings):
    """Return the configs of one pool of members.

    Every member has seen the same number of epochs when it is done, whatever the start.

    Parameters
    ----------
    start : str
        One of `STARTS`: members continue from one trunk trained for ``trunk_epochs``; or begin
        with the same random weights; or begin with random weights of their own. Or one of
        `REDRAWN`: they continue from one trunk, in which each draws the head, or stem and head, anew.
    model : str
        A name that `wamlib.models.build` knows.
    n_members : int
        Members of the pool. They differ in ``seed``: order of images, dropout.
    replica : int
        Pools with different numbers share no seed, so they are independent.
    epochs, trunk_epochs : int
        Epochs a member has seen in all, and how many of them in the trunk, if there is one.
    changes : dict or None
        Settings in which the members differ from their trunk.
    **settings
        Further fields of `wamlib.config.TrainConfig`.

    Returns
    -------
    list of TrainConfig
    """
    if start not in (*STARTS, *REDRAWN) or (start not in STARTS[1:] and not 0 < trunk_epochs < epochs):
        raise ConfigError(
            "cannot make a pool",
            item="start, epochs, trunk_epochs",
            got=f"{start!r}, {epochs}, {trunk_epochs}",
            wanted=f"one of {', '.join((*STARTS, *REDRAWN))}, and 0 < trunk_epochs < epochs",
            fix="Correct the arguments.",
        )
    common = {"model": model, **BY_ARCHITECTURE.get(model.partition("-x")[0], {}), **settings}
    seeds = [derive_seed("member", replica, member) % 2**31 for member in range(n_members)]
    shared = derive_seed("pool", replica) % 2**31
    changed = common | (changes or {})
    if start in STARTS[1:]:
        inits = seeds if start == "independent init" else [shared] * n_members
        return [TrainConfig(seed=s, init_seed=i, epochs=epochs, **changed) for s, i in zip(seeds, inits, strict=True)]
    trunk = TrainConfig(seed=shared, init_seed=shared, epochs=trunk_epochs, **common)
    redraw = REDRAWN.get(start, ())
    rest = {"start": trunk, "epochs": epochs - trunk_epochs, "redraw": redraw, **changed}
    return [TrainConfig(seed=seed, init_seed=seed if redraw else None, **rest) for seed in seeds]


def pools(models, *, n_replicas=3, **settings):
    """Return the pools of a sweep: ``{(model, start, replica): list of TrainConfig}``.

    Parameters
    ----------
    models : sequence of str
        Architectures.
    n_replicas : int
        Independent pools per architecture and start.
    **settings
        As for `pool`.
    """
    return {
        (model, start, replica): pool(start, model=model, replica=replica, **settings)
        for model in models
        for start in STARTS
        for replica in range(n_replicas)
    }


def fit_passes(dataset, n_train, *epochs):
    """Return the images and the passes over them where a data set may be smaller than ``n_train``.

    Parameters
    ----------
    dataset : str
        A name that `wamlib.data.load` knows.
    n_train : int or None
        Training images asked for; None means all.
    *epochs : int
        Passes over ``n_train`` images.

    Returns
    -------
    tuple
        ``n_train`` and ``epochs`` as they are; or, of a smaller data set, None (all its
        images) and as many times more passes, so that a member sees as many images.
    """
    size = SIZES.get(dataset) or data.training_size(dataset)
    if size is None or n_train is None or n_train <= size:
        return n_train, *epochs
    return None, *(count * round(n_train / size) for count in epochs)


def pools_by_dataset(
    sizes, models, *, epochs, trunk_epochs, starts=(STARTS[0], STARTS[2]), n_replicas=3, n_members=2, **settings
):
    """Return pools of members on several data sets: ``{(dataset, model, start, replica): list of TrainConfig}``.

    Parameters
    ----------
    sizes : dict of str to (int or None)
        Name of each data set to training images; see `fit_passes` for smaller data sets.
    models : sequence of str
        Architectures.
    epochs, trunk_epochs : int
        As for `pool`, and `fit_passes`.
    starts : sequence of str
        Of `STARTS` and `REDRAWN`.
    n_replicas, n_members : int
        Independent pools of each kind, and the members of each: the first ones of the larger
        pools with the same settings.
    **settings
        As for `pool`.
    """
    found = {}
    for dataset, n_train in sizes.items():
        images, passes, trunk = fit_passes(dataset, n_train, epochs, trunk_epochs)
        common = {"dataset": dataset, "n_train": images, "epochs": passes, "trunk_epochs": trunk, **settings}
        for model in models:
            for start in starts:
                for replica in range(n_replicas):
                    name = dataset, model, start, replica
                    found[name] = pool(start, model=model, replica=replica, n_members=n_members, **common)
    return found
