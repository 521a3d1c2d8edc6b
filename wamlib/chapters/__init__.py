"""The chapters of the book: what each trains, measures, draws, says and judges, one module for each.

A chapter NN_NAME in notebooks/ has the module ``wamlib.chapters.NAME``, with

``runs(p)``
    configs by pool: a dict from keys, tuples with an entry for each of ``NAMES``, to lists of
    `wamlib.config.TrainConfig`; ``p`` holds the parameters of the notebook's parameters cell;
measures
    functions that take a `wamlib.pools.Pool` and plain arguments, and return rows, a DataFrame;
``tables(here)``
    what the chapter measures: a dict of name to DataFrame, ``here`` being a `Chapter`;
``numbers(here, tables)``, ``claims(here, tables)``
    what its prose says, and what its claims are judged by;

and the figures that only this chapter draws. No chapter imports another.
"""

from .chapter import Chapter, begin
from .parameters import PUBLISHED, check_parameters, defaults, names, read_parameters
from .sweep import all_runs, datasets, given

__all__ = [
    "PUBLISHED",
    "Chapter",
    "all_runs",
    "begin",
    "check_parameters",
    "datasets",
    "defaults",
    "given",
    "names",
    "read_parameters",
]
