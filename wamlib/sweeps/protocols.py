"""Lists of configs: the protocol of the paper's released code, and pools that cost as much to train as others."""

import math

from .pools import BY_ARCHITECTURE, REDRAWN, STARTS, pool

__all__ = ["PROTOCOL_ARMS", "equal_cost_members", "protocol_pools"]

# In the order in which the released protocol is built up from the corrected one.
PROTOCOL_ARMS = ("augmented", "this book's recipe", "released start", "released training")


def protocol_pools(models, *, n_replicas=3, **settings):
    """Return pools over steps from a corrected training to the released one: ``{(model, arm, replica): configs}``.

    Parameters
    ----------
    models : sequence of str
        Architectures.
    n_replicas : int
        Independent pools per architecture and arm.
    **settings
        As for `pool`.

    Returns
    -------
    dict
        Per architecture four arms, each of which keeps what the arm before it changed:
        "augmented" (a shared start, flips and crops: what the released code means to do);
        "this book's recipe" (no augmentation, as the released code really does it: defect D5);
        "released start" (heads drawn anew, for the ViT the stem too, which is D2; for the
        architectures that the paper trains from random weights of their own, D9); "released
        training" (a learning rate that warms up twice as long, to twice the peak: D6).
    """
    found = {}
    for model in models:
        peak_lr = settings.get("peak_lr", BY_ARCHITECTURE.get(model.partition("-x")[0], {}).get("peak_lr", 0.05))
        warmup = settings.get("warmup_epochs", 0.5)
        doubled = {"peak_lr": 2 * peak_lr, "warmup_epochs": 2 * warmup}
        arms = {
            "augmented": (STARTS[0], {"augment": "flip-crop"}),
            "this book's recipe": (STARTS[0], {}),
            "released start": (released_start(model), {}),
            "released training": (released_start(model), doubled),
        }
        for arm, (start, changes) in arms.items():
            for replica in range(n_replicas):
                found[model, arm, replica] = pool(start, model=model, replica=replica, changes=changes, **settings)
    return found


def released_start(model):
    """Return the start that the paper's code gives members of an architecture, or of the one it is a small copy of."""
    if model.startswith(("mlp", "cnn")):
        return STARTS[2]
    head, stem_and_head = REDRAWN
    return stem_and_head if model.startswith("vit") else head


def equal_cost_members(models, *, n_members, epochs, trunk_epochs, n_replicas=3, **settings):
    """Return single members that cost as much to train as a whole pool: ``{(model, kind, replica): [TrainConfig]}``.

    Parameters
    ----------
    models : sequence of str
        Architectures, without a width.
    n_members, epochs, trunk_epochs : int
        Of the pool: with a shared start it takes ``trunk_epochs`` and then ``epochs - trunk_epochs``
        for each member, with independent members ``epochs`` for each.
    n_replicas : int
        Independent members per architecture and kind.
    **settings
        As for `pool`.

    Returns
    -------
    dict
        Per architecture three kinds: "longer, as shared start" and "longer, as independent init", which
        take as many passes as such a pool, and "wider", with the square root of ``n_members`` times as many
        units in every hidden layer, so that a pass, and a prediction, costs about as much as those of all members.
    """
    longer = {STARTS[0]: trunk_epochs + n_members * (epochs - trunk_epochs), STARTS[2]: n_members * epochs}
    kinds = {f"longer, as {start}": ("", passes) for start, passes in longer.items()}
    kinds["wider"] = (f"-x{math.sqrt(n_members):.2f}", epochs)
    return {
        (model, kind, replica): pool(
            STARTS[2], model=f"{model}{width}", replica=replica, n_members=1, epochs=passes, trunk_epochs=1, **settings
        )
        for model in models
        for kind, (width, passes) in kinds.items()
        for replica in range(n_replicas)
    }
