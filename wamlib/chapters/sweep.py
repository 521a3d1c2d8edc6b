"""Every run that the chapters of the book use."""

import importlib

from .parameters import Parameters, check_parameters, defaults, names, notebook

__all__ = ["all_runs", "datasets", "given", "module"]


def module(name):
    """Return the module of a chapter."""
    notebook(name)  # refuses what is none
    return importlib.import_module(f"{__package__}.{name}")


def given(name, overrides):
    """Return the parameters of a chapter: those of its cell, overridden where other values are given.

    Names that the chapter does not have are for other chapters, and left out.
    """
    found = defaults(name)
    return Parameters(**{key: overrides.get(key, value) for key, value in found.items()})


def all_runs(overrides=None, chapters=None):
    """Return every config that chapters train, each once.

    Parameters
    ----------
    overrides : dict or None
        Parameters to values other than those of the notebooks, as `read_parameters` returns them.
    chapters : sequence of str or None
        Names of chapters; None means all.

    Returns
    -------
    list of TrainConfig
        Of data sets that are not here, and of networks whose weights are not, there are none.

    Raises
    ------
    ConfigError
        As `check_parameters`.
    """
    overrides = overrides or {}
    check_parameters(overrides)
    chapters = names() if chapters is None else chapters
    groups = [group for name in chapters for group in module(name).runs(given(name, overrides)).values()]
    return list(dict.fromkeys(config for group in groups for config in group))


def datasets(overrides=None):
    """Return the names of all data sets that chapters would use if they were here, in the order of the book."""
    found = [getattr(given(name, overrides or {}), "datasets", []) for name in names()]
    return list(dict.fromkeys(name for several in found for name in several))
