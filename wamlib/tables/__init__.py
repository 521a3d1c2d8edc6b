"""Tidy tables: one function per question that a chapter asks of a pool of members."""

from .aligning import MATCHINGS, REPAIRS, alignment, hidden_permutation, unit_spread
from .between import pairs, path
from .combining import combinations
from .evaluator import Evaluator
from .mending import recalibrations
from .merging import merges
from .pools import over, save
from .scaling import scales
from .templates import template_matches

__all__ = [
    "MATCHINGS",
    "REPAIRS",
    "Evaluator",
    "alignment",
    "combinations",
    "hidden_permutation",
    "merges",
    "over",
    "pairs",
    "path",
    "recalibrations",
    "save",
    "scales",
    "template_matches",
    "unit_spread",
]
