"""Figures: a DataFrame in, a Figure out. Nothing is computed here but means and intervals over replicas."""

from .curves import error_along_path, error_vs_members, scale_curves
from .members import learning_curves, member_strip
from .merging import alignment_paths, barrier_vs_width, merge_differences, recalibration_curves, spread_by_depth
from .overview import summary
from .templates import correlation_matrix, decay_trade_off, picture_grid

__all__ = [
    "alignment_paths",
    "barrier_vs_width",
    "correlation_matrix",
    "decay_trade_off",
    "error_along_path",
    "error_vs_members",
    "learning_curves",
    "member_strip",
    "merge_differences",
    "picture_grid",
    "recalibration_curves",
    "scale_curves",
    "spread_by_depth",
    "summary",
]
