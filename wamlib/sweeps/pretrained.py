"""Lists of configs: pools of members that begin with pretrained weights."""

from ..errors import ConfigError
from ..models import lite0
from .pools import STARTS, pool

__all__ = ["PRETRAINED_STARTS", "pretrained_pools"]

# What the members of a pool share: start of `pool` that shares as much, and name of the pretrained weights.
PRETRAINED_STARTS = {
    "shared head": (STARTS[1], "DEFAULT"),
    "re-drawn head": (STARTS[2], "DEFAULT"),
    "random init": (STARTS[1], None),
}


def pretrained_pools(
    model=lite0.NAME, *, starts=tuple(PRETRAINED_STARTS), n_members=3, n_replicas=3, epochs=2, **settings
):
    """Return pools of members fine-tuned from pretrained weights, and a control: ``{(start, replica): configs}``.

    Parameters
    ----------
    model : str
        A name that `wamlib.models.build` knows, with pretrained weights.
    starts : sequence of str
        Of `PRETRAINED_STARTS`: members begin with the pretrained body and with one head, drawn
        for the pool ("shared head"); with the pretrained body, each with a head of its own, as in
        the paper's code ("re-drawn head"); or, for comparison, with one set of random weights drawn for
        the pool ("random init"). There is one set of pretrained weights, so pools share the body.
    n_members, n_replicas : int
        Members of a pool, which differ in ``seed``, and pools of each start.
    epochs : int
        Passes over the training images.
    **settings
        Further fields of `wamlib.config.TrainConfig`, as for `pool`.

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        If a start is unknown.
    """
    if unknown := [start for start in starts if start not in PRETRAINED_STARTS]:
        raise ConfigError(
            "cannot make pools of pretrained members",
            item="starts",
            got=repr(unknown[0]),
            wanted=f"some of {', '.join(PRETRAINED_STARTS)}",
            fix="Correct the name.",
        )
    return {
        (start, replica): pool(
            kind, model=model, n_members=n_members, replica=replica, epochs=epochs, weights=weights, **settings
        )
        for start, (kind, weights) in ((start, PRETRAINED_STARTS[start]) for start in starts)
        for replica in range(n_replicas)
    }
