"""Attribution methods: each a pure function that names the quantities it needs (README: CONTRIBUTING)."""

from heatproof.attributions import cam, controls
from heatproof.attributions.catalogue import ATTRIBUTIONS, Request, attribution, requested
from heatproof.attributions.display import display_maps, flags

__all__ = ["ATTRIBUTIONS", "Request", "attribution", "cam", "controls", "display_maps", "flags", "requested"]
