"""Tidy tables: one function per question that a chapter asks of a pool of members."""

from .combinations import combinations
from .evaluator import Evaluator
from .pairs import pairs, path
from .pools import over, save
from .scales import scales
from .templates import template_matches

__all__ = [
    "N_RECALIBRATION",
    "Evaluator",
    "combinations",
    "over",
    "pairs",
    "path",
    "save",
    "scales",
    "template_matches",
]
