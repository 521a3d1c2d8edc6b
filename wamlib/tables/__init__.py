"""Tidy tables: one function per question that a chapter asks of a pool of members."""

from .aligning import MATCHINGS, REPAIRS, alignment, hidden_permutation, unit_spread
from .averaging import class_mixtures, class_pairs, linear_soups, member_mixtures
from .between import pairs, path
from .combining import combinations, subsets
from .costs import inference_costs
from .depth import layer_similarity, structure
from .differences import judged_differences
from .distances import relative_distance
from .evaluator import Evaluator
from .fine_tuning import FINE_TUNING, fine_tuning
from .gaps import cross_terms, gain_at_distance, logit_gaps
from .mending import recalibrations
from .merging import merges
from .pools import over, save
from .protocol import RELEASED_STEPS, protocol_steps, train_mode_gaps
from .scaling import scales
from .spoiling import attack_accuracy, corruption_flips
from .stability import stability
from .templates import optima, stationarity, template_matches
from .trust import image_statistics, trust

__all__ = [
    "FINE_TUNING",
    "MATCHINGS",
    "RELEASED_STEPS",
    "REPAIRS",
    "Evaluator",
    "alignment",
    "attack_accuracy",
    "class_mixtures",
    "class_pairs",
    "combinations",
    "corruption_flips",
    "cross_terms",
    "fine_tuning",
    "gain_at_distance",
    "hidden_permutation",
    "image_statistics",
    "inference_costs",
    "judged_differences",
    "layer_similarity",
    "linear_soups",
    "logit_gaps",
    "member_mixtures",
    "merges",
    "optima",
    "over",
    "pairs",
    "path",
    "protocol_steps",
    "recalibrations",
    "relative_distance",
    "save",
    "scales",
    "stability",
    "stationarity",
    "structure",
    "subsets",
    "template_matches",
    "train_mode_gaps",
    "trust",
    "unit_spread",
]
