"""One table function over many pools, and tables on disk."""

import pandas as pd

from ..config import home

__all__ = ["over", "save"]


def over(groups, table, names=("model", "start", "replica")):
    """Apply a table function to every pool and stack the results.

    Parameters
    ----------
    groups : dict of list of Run
        Keys are tuples, one entry per name.
    table : callable
        Takes one list of Run, returns a DataFrame.
    names : sequence of str
        Columns for the entries of the keys.

    Returns
    -------
    DataFrame
    """
    parts = [table(pool).assign(**dict(zip(names, key, strict=True))) for key, pool in groups.items()]
    stacked = pd.concat(parts, ignore_index=True)
    return stacked[[*names, *(column for column in stacked.columns if column not in names)]]


def save(table, name, profile):
    """Write a table to ``tables/<profile>/<name>.csv`` in `wamlib.config.home`, and return it."""
    folder = home() / "tables" / profile
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return table
