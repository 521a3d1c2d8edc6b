"""Probes: what the weights look like, what lies between two members, and what scale does."""

from .attacks import ATTACKS, attack
from .detecting import SCORES, Detection, detection, detection_scores
from .line import Barrier, barrier, barrier_height
from .lipschitz import local_lipschitz
from .magnitude import SCOPES, distance, scale, weight_norm
from .second_order import second_order_gap
from .similarity import first_layer, layer_cosines
from .stability import flip_rate, logit_spread
from .templates import EffectiveTemplates, TemplateMatch, class_means, effective_templates, template_match, templates
from .trust import Reliability, RiskCoverage, reliability, risk_coverage

__all__ = [
    "ATTACKS",
    "SCOPES",
    "SCORES",
    "Barrier",
    "Detection",
    "EffectiveTemplates",
    "Reliability",
    "RiskCoverage",
    "TemplateMatch",
    "attack",
    "barrier",
    "barrier_height",
    "class_means",
    "detection",
    "detection_scores",
    "distance",
    "effective_templates",
    "first_layer",
    "flip_rate",
    "layer_cosines",
    "local_lipschitz",
    "logit_spread",
    "reliability",
    "risk_coverage",
    "scale",
    "second_order_gap",
    "template_match",
    "templates",
    "weight_norm",
]
