"""Architectures by name, each built from the image size and the number of classes."""

from . import lite0, published, small
from .registry import PARTS, Facts, build, facts, family, head, kind, redraw, register, stem

__all__ = [
    "NAMES",
    "PARTS",
    "PUBLISHED",
    "SMALL",
    "Facts",
    "build",
    "facts",
    "family",
    "head",
    "kind",
    "redraw",
    "register",
    "stem",
]

SMALL = small.NAMES  # train in seconds on two CPU cores
PUBLISHED = published.NAMES  # the sizes of the paper, from torchvision
NAMES = (*SMALL, *PUBLISHED, lite0.NAME)
