"""Attribution methods: each a pure function that names the quantities it needs (see CONTRIBUTING).

A module of methods is imported here; that is what puts them into the registry.
"""

# ruff: noqa: F401 - imported for what they register
from heatproof.attributions import (
    ablation,
    attention,
    backprop,
    bottleneck,
    cam,
    controls,
    eigen,
    fullgrad,
    input_gradients,
    opticam,
    perturbation,
    relevance,
    rise,
    scorecam,
    smoothgradcam,
    superpixels,
)
from heatproof.attributions.catalogue import ATTRIBUTIONS, FORMS, attribution
from heatproof.attributions.display import degeneracy, display_maps, flags, flags_of
from heatproof.attributions.method_request import Request, parsed, requested

__all__ = [
    "ATTRIBUTIONS",
    "FORMS",
    "Request",
    "attribution",
    "cam",
    "controls",
    "degeneracy",
    "display_maps",
    "flags",
    "flags_of",
    "parsed",
    "requested",
]
