"""Tidy tables: one function per question that a chapter asks of a pool of members."""

from .between import pairs, path
from .combining import combinations
from .evaluator import Evaluator
from .pools import over, save
from .scaling import scales
from .templates import template_matches

__all__ = [
    "Evaluator",
    "combinations",
    "over",
    "pairs",
    "path",
    "save",
    "scales",
    "template_matches",
]
