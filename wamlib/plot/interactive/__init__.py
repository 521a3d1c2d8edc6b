"""Figures that readers play with, each a fragment of HTML that needs no server and loads nothing."""

from .walk import Quantity, walk_figure

__all__ = ["Quantity", "walk_figure"]
