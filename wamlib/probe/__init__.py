"""Probes: what the weights look like, what lies between two members, and what scale does."""

from .attacks import ATTACKS, attack
from .detecting import SCORES, Detection, detection, detection_scores
from .flatness import filter_normalised_direction, loss_along, top_hessian_eigenvalue
from .line import Barrier, barrier, barrier_height
from .lipschitz import local_lipschitz
from .magnitude import SCOPES, distance, layers, scale, weight_norm
from .norms import layer_norms, relative_distance, rescale_to
from .plane import Plane, plane
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
    "Plane",
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
    "filter_normalised_direction",
    "first_layer",
    "flip_rate",
    "layer_cosines",
    "layer_norms",
    "layers",
    "local_lipschitz",
    "logit_spread",
    "loss_along",
    "plane",
    "relative_distance",
    "reliability",
    "rescale_to",
    "risk_coverage",
    "scale",
    "second_order_gap",
    "template_match",
    "templates",
    "top_hessian_eigenvalue",
    "weight_norm",
]
