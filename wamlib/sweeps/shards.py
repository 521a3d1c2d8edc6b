"""A share of a sweep for one of several machines that know nothing of each other."""

from ..errors import ConfigError

__all__ = ["read_shard", "shard"]

DOING = "cannot take a share of a sweep"


def shard(configs, index, n_shards):
    """Return one share of a list of configs, the same on every machine.

    What begins from one trunk stays together, so that no trunk is trained twice; shares are as even as that allows.

    Parameters
    ----------
    configs : sequence of TrainConfig
        The whole list, the same on every machine.
    index : int
        Which share, from 1 to ``n_shards``.
    n_shards : int

    Returns
    -------
    list of TrainConfig
        In the order of ``configs``. Together the shares hold each config once.

    Raises
    ------
    ConfigError
        If there is no such share.
    """
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (index, n_shards))
    if not (whole and 1 <= index <= n_shards):
        wanted, fix = "1/N to N/N, with whole numbers", "Number the shares from 1 on."
        raise ConfigError(DOING, "the shard", f"{index!r} of {n_shards!r}", wanted, fix)
    families = {}
    for config in configs:
        families.setdefault(_first_start(config), []).append(config)
    loads, mine = [0] * n_shards, set()
    # The largest family first, each to the share that has least; run ids break ties the same way everywhere.
    for root, family in sorted(families.items(), key=lambda item: (-len(item[1]), item[0].run_id)):
        lightest = loads.index(min(loads))
        loads[lightest] += len(family)
        if lightest == index - 1:
            mine.add(root)
    return [config for config in configs if _first_start(config) in mine]


def read_shard(text):
    """Return (index, n_shards) of "i/n".

    Raises
    ------
    ConfigError
        If it is something else.
    """
    parts = text.split("/")
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal()]
    if not (len(numbers) == len(parts) == 2 and 1 <= numbers[0] <= numbers[1]):
        wanted, fix = "i/n, the i-th of n shares, such as 2/8", "Number the shares from 1 on."
        raise ConfigError(DOING, "--shard", repr(text), wanted, fix)
    return tuple(numbers)


def _first_start(config):
    while config.start is not None:
        config = config.start
    return config
