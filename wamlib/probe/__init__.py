"""Probes: what the weights look like, what lies between two members, and what scale does."""

from .line import Barrier, barrier, barrier_height
from .magnitude import SCOPES, distance, scale, weight_norm
from .second_order import second_order_gap
from .similarity import first_layer, layer_cosines
from .templates import EffectiveTemplates, TemplateMatch, class_means, effective_templates, template_match, templates

__all__ = [
    "SCOPES",
    "Barrier",
    "EffectiveTemplates",
    "TemplateMatch",
    "barrier",
    "barrier_height",
    "class_means",
    "distance",
    "effective_templates",
    "first_layer",
    "layer_cosines",
    "scale",
    "second_order_gap",
    "template_match",
    "templates",
    "weight_norm",
]
