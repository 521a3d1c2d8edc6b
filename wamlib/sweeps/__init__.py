"""Sweeps: lists of configs, and training of those that are missing."""

from .book import CHAPTER_ONLY, DATASETS, book
from .linear_members import RELEASED, SHUFFLED, linear_members
from .pools import STARTS, fit_passes, pairs_by_dataset, pool, pools, width_pairs
from .training import SweepError, run, run_groups

__all__ = [
    "CHAPTER_ONLY",
    "DATASETS",
    "RELEASED",
    "SHUFFLED",
    "STARTS",
    "SweepError",
    "book",
    "fit_passes",
    "linear_members",
    "pairs_by_dataset",
    "pool",
    "pools",
    "run",
    "run_groups",
    "width_pairs",
]
