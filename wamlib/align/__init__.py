"""Alignment: bring the units of one member into the order of another, and repair what is merged then.

A network computes the same function when the units of a layer are put in another
order with all their weights; which weights those are is read off the traced network.
"""

from .graph import Specification, trace
from .matching import merge_many, permutation
from .permuting import Permutation, apply, random_permutation
from .repair import repair

__all__ = [
    "Permutation",
    "Specification",
    "apply",
    "merge_many",
    "permutation",
    "random_permutation",
    "repair",
    "trace",
]
