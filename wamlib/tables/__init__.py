"""Tidy tables: one function per question that a chapter asks of a pool of members."""

from .aligning import MATCHINGS, REPAIRS, alignment, hidden_permutation, unit_spread
from .averaging import class_mixtures, class_pairs, linear_soups, member_mixtures
from .between import pairs, path
from .combining import combinations
from .depth import layer_similarity, structure
from .evaluator import Evaluator
from .mending import recalibrations
from .merging import merges
from .pools import over, save
from .scaling import scales
from .templates import optima, stationarity, template_matches

__all__ = [
    "MATCHINGS",
    "REPAIRS",
    "Evaluator",
    "alignment",
    "class_mixtures",
    "class_pairs",
    "combinations",
    "hidden_permutation",
    "layer_similarity",
    "linear_soups",
    "member_mixtures",
    "merges",
    "optima",
    "over",
    "pairs",
    "path",
    "recalibrations",
    "save",
    "scales",
    "stationarity",
    "structure",
    "template_matches",
    "unit_spread",
]
