"""Figures: a DataFrame in, a Figure out. Nothing is computed here but means and intervals over replicas."""

from .architectures import gains_by_model, gap_vs_error
from .curves import error_along_path, error_vs_members
from .gaps import explained_gap, gap_vs_distance
from .interactive import Mixture, Quantity, mixing_figure, walk_figure
from .landscape import loss_landscape
from .members import learning_curves, member_strip
from .merging import alignment_paths, barrier_vs_width, merge_differences, recalibration_curves, spread_by_depth
from .overview import answers, summary
from .protocol import waterfall
from .recipe import cost_vs_error, option_gains, predicted_gain
from .regulariser import loss_around, norms_vs_members, shrinking_gains
from .scaling import layer_heat_maps, scale_curves, scale_quantities, share_curves
from .stability import attack_curves, flips_by_severity, stability_vs_scale
from .structure import layer_profiles, rows_vs_members, structure_and_gain
from .templates import correlation_matrix, decay_trade_off, limit_correlation, picture_grid, stretched_grid
from .training import accuracy_vs_flops
from .trust import detection_marks, error_vs_coverage, reliability_diagram

__all__ = [
    "Mixture",
    "Quantity",
    "accuracy_vs_flops",
    "alignment_paths",
    "answers",
    "attack_curves",
    "barrier_vs_width",
    "correlation_matrix",
    "cost_vs_error",
    "decay_trade_off",
    "detection_marks",
    "error_along_path",
    "error_vs_coverage",
    "error_vs_members",
    "explained_gap",
    "flips_by_severity",
    "gains_by_model",
    "gap_vs_distance",
    "gap_vs_error",
    "layer_heat_maps",
    "layer_profiles",
    "learning_curves",
    "limit_correlation",
    "loss_around",
    "loss_landscape",
    "member_strip",
    "merge_differences",
    "mixing_figure",
    "norms_vs_members",
    "option_gains",
    "picture_grid",
    "predicted_gain",
    "recalibration_curves",
    "reliability_diagram",
    "rows_vs_members",
    "scale_curves",
    "scale_quantities",
    "share_curves",
    "shrinking_gains",
    "spread_by_depth",
    "stability_vs_scale",
    "stretched_grid",
    "structure_and_gain",
    "summary",
    "walk_figure",
    "waterfall",
]
