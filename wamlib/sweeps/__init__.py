"""Sweeps: lists of configs, and training of those that are missing."""

from .book import CHAPTER_ONLY, DATASETS, book
from .cluster import cluster
from .linear_members import RELEASED, SHUFFLED, linear_members
from .parameters import check_parameters, read_parameters
from .pools import REDRAWN, STARTS, fit_passes, pool, pools, pools_by_dataset, width_pairs
from .pretrained import PRETRAINED_STARTS, pretrained_pools
from .protocols import PROTOCOL_ARMS, equal_cost_members, protocol_pools
from .recipes import recipe_members
from .shards import read_shard, shard
from .training import Failure, SweepError, run, run_groups

__all__ = [
    "CHAPTER_ONLY",
    "DATASETS",
    "PRETRAINED_STARTS",
    "PROTOCOL_ARMS",
    "REDRAWN",
    "RELEASED",
    "SHUFFLED",
    "STARTS",
    "Failure",
    "SweepError",
    "book",
    "check_parameters",
    "cluster",
    "equal_cost_members",
    "fit_passes",
    "linear_members",
    "pool",
    "pools",
    "pools_by_dataset",
    "pretrained_pools",
    "protocol_pools",
    "read_parameters",
    "read_shard",
    "recipe_members",
    "run",
    "run_groups",
    "shard",
    "width_pairs",
]
