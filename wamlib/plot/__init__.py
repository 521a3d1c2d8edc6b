"""Figures that several chapters draw: a DataFrame in, a Figure out, with means and intervals over replicas."""

from .architectures import gains_by_model
from .curves import error_along_path
from .interactive import Quantity, walk_figure
from .overview import answers, summary
from .templates import picture_grid

__all__ = [
    "Quantity",
    "answers",
    "error_along_path",
    "gains_by_model",
    "picture_grid",
    "summary",
    "walk_figure",
]
