"""Merges: maps from the weights of several members to one set of weights.

Everything here works on state dicts, ``dict[str, Tensor]``, or on files of them.
What a merge needs from a data set, a score or a few batches, comes in as an argument.
"""

from .batchnorm import recalibrate_batchnorm
from .curvature import fisher, fisher_diagonal, gram_matrices, regmean
from .deltas import dare, task_arithmetic, ties
from .files import MergedFile, merge_files
from .learned import LearnedSoup, learned_soup
from .members import check_members, is_learnable, strip_prefixes
from .running import RunningAverage
from .soups import Soup, greedy_soup, interpolate, uniform_soup
from .sphere import model_stock, slerp

__all__ = [
    "LearnedSoup",
    "MergedFile",
    "RunningAverage",
    "Soup",
    "check_members",
    "dare",
    "fisher",
    "fisher_diagonal",
    "gram_matrices",
    "greedy_soup",
    "interpolate",
    "is_learnable",
    "learned_soup",
    "merge_files",
    "model_stock",
    "recalibrate_batchnorm",
    "regmean",
    "slerp",
    "strip_prefixes",
    "task_arithmetic",
    "ties",
    "uniform_soup",
]
