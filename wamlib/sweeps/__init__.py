"""Sweeps: lists of configs, and training of those that are missing."""

from .cluster import cluster
from .linear_members import RELEASED, SHUFFLED, linear_members
from .pools import REDRAWN, STARTS, fit_passes, pool, pools, pools_by_dataset
from .shards import read_shard, shard
from .training import Failure, SweepError, run, run_groups

__all__ = [
    "REDRAWN",
    "RELEASED",
    "SHUFFLED",
    "STARTS",
    "Failure",
    "SweepError",
    "cluster",
    "fit_passes",
    "linear_members",
    "pool",
    "pools",
    "pools_by_dataset",
    "read_shard",
    "run",
    "run_groups",
    "shard",
]
