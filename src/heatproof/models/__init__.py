"""Classifiers: loading them, their target layers, and the one place where token layouts become grids."""

from heatproof.models.layer_names import resolve_layer
from heatproof.models.layers import Layers, find_layers
from heatproof.models.layout import Layout, layout_of
from heatproof.models.load import load_model
from heatproof.models.model import Model
from heatproof.models.wrapping import wrap
from heatproof.models.zero_shot import zero_shot

__all__ = ["Layers", "Layout", "Model", "find_layers", "layout_of", "load_model", "resolve_layer", "wrap", "zero_shot"]
