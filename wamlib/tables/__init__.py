"""Tidy tables: one function per question that a chapter asks of a pool of members."""

from .advice import CHEAPEST_FIRST, advice, best_options, decisions, regrets, reordered
from .aligning import MATCHINGS, REPAIRS, alignment, hidden_permutation, unit_spread
from .averaging import class_mixtures, class_pairs, linear_soups, member_mixtures
from .between import pairs, path, plane
from .combining import combinations, subsets
from .costs import inference_costs
from .depth import layer_similarity, structure
from .differences import judged_differences
from .distances import relative_distance
from .evaluator import Evaluator
from .fine_tuning import FINE_TUNING, fine_tuning
from .flatness import flatness, sharpness
from .gaps import cross_terms, gain_at_distance, logit_gaps
from .mending import recalibrations
from .merging import merges
from .norms import norm_ratios
from .outcomes import lines, outcomes
from .pools import over, save
from .protocol import RELEASED_STEPS, protocol_steps, train_mode_gaps
from .scaled_members import greedy_soups_of_scaled, one_member_scaled
from .scaling import layer_scales, released_scales, scales
from .shrinking import shrinking
from .spoiling import attack_accuracy, corruption_flips
from .stability import stability
from .templates import optima, stationarity, template_matches
from .training import training_costs
from .trust import image_statistics, trust

__all__ = [
    "CHEAPEST_FIRST",
    "FINE_TUNING",
    "MATCHINGS",
    "RELEASED_STEPS",
    "REPAIRS",
    "Evaluator",
    "advice",
    "alignment",
    "attack_accuracy",
    "best_options",
    "class_mixtures",
    "class_pairs",
    "combinations",
    "corruption_flips",
    "cross_terms",
    "decisions",
    "fine_tuning",
    "flatness",
    "gain_at_distance",
    "greedy_soups_of_scaled",
    "hidden_permutation",
    "image_statistics",
    "inference_costs",
    "judged_differences",
    "layer_scales",
    "layer_similarity",
    "linear_soups",
    "lines",
    "logit_gaps",
    "member_mixtures",
    "merges",
    "norm_ratios",
    "one_member_scaled",
    "optima",
    "outcomes",
    "over",
    "pairs",
    "path",
    "plane",
    "protocol_steps",
    "recalibrations",
    "regrets",
    "relative_distance",
    "released_scales",
    "reordered",
    "save",
    "scales",
    "sharpness",
    "shrinking",
    "stability",
    "stationarity",
    "structure",
    "subsets",
    "template_matches",
    "train_mode_gaps",
    "training_costs",
    "trust",
    "unit_spread",
]
