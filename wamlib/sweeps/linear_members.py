"""Lists of configs: linear members, with their controls."""

from ..config import TrainConfig
from .pools import BY_ARCHITECTURE, fit_passes

__all__ = ["RELEASED", "SHUFFLED", "WEIGHT_DECAYS", "linear_members"]

# Up to where the rows reach the limit that strong decay has; the paper shows one model, at 0.1.
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
SHUFFLED, RELEASED = "shuffled labels", "released recipe"
N_RELEASED = 5  # members: one is what the paper shows
# What the paper's script for CIFAR-100 trains its one linear model with, but for the number of passes.
RELEASED_RECIPE = {
    "batch_size": 64,
    "peak_lr": 0.01,
    "weight_decay": 0.1,
    "warmup_epochs": 0,
    "schedule": "fifths",
    "pixels": "unit",
}


def linear_members(dataset, *, n_train=None, n_members=15, epochs=10, weight_decays=WEIGHT_DECAYS):
    """Return linear members over weight decays, and two groups beside them.

    Parameters
    ----------
    dataset : str
        A name that `wamlib.data.load` knows.
    n_train : int or None
        Training images; of a smaller data set all, passed over more often.
    n_members : int
        Members of each group; they share neither weights to begin with nor order of images.
    epochs : int
        Passes over ``n_train`` images.
    weight_decays : sequence of float

    Returns
    -------
    dict
        ``{weight decay: list of TrainConfig}``; under `SHUFFLED` members at the first weight
        decay whose labels were dealt out at random, anew for each; under `RELEASED` up to
        five trained as the paper's script does: weight decay 0.1, images as bytes divided by
        255, learning rate 0.01 in five steps, batches of 64, twice as many passes.
    """
    n_train, epochs = fit_passes(dataset, n_train, epochs)

    def members(n=n_members, **changes):
        common = {"model": "linear", "dataset": dataset, "n_train": n_train, "epochs": epochs}
        settings = {**common, **BY_ARCHITECTURE["linear"], **changes}
        return [TrainConfig(seed=seed, init_seed=seed, **settings) for seed in range(n)]

    return {
        **{decay: members(weight_decay=decay) for decay in weight_decays},
        SHUFFLED: members(weight_decay=weight_decays[0], shuffle_labels=True),
        RELEASED: members(min(N_RELEASED, n_members), **RELEASED_RECIPE | {"epochs": 2 * epochs}),
    }
