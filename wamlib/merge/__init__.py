"""Merges: maps from the weights of several members to one set of weights.

Everything here works on state dicts, ``dict[str, Tensor]``, or on files of them.
What a merge needs from a data set, a score or a few batches, comes in as an argument.
"""

from .batchnorm import recalibrate_batchnorm
from .deltas import dare, task_arithmetic, ties
from .members import check_members, is_learnable, strip_prefixes
from .soups import Soup, greedy_soup, interpolate, uniform_soup
from .sphere import model_stock, slerp

__all__ = [
    "Soup",
    "check_members",
    "dare",
    "greedy_soup",
    "interpolate",
    "is_learnable",
    "model_stock",
    "recalibrate_batchnorm",
    "slerp",
    "strip_prefixes",
    "task_arithmetic",
    "ties",
    "uniform_soup",
]
