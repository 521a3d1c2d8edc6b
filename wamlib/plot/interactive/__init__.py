"""Figures that readers play with, each a fragment of HTML that needs no server and loads nothing."""

from .mixing import Mixture, mixing_figure
from .walk import Quantity, walk_figure

__all__ = ["Mixture", "Quantity", "mixing_figure", "walk_figure"]
