"""torchcam's call style (0.5.0) on heatproof's methods: `methods` with the extractors, `metrics`, `explain`, `utils`.

from heatproof.compat.torchcam.methods import LayerCAM
from heatproof.compat.torchcam.utils import overlay_mask

with LayerCAM(model, "layer4") as extractor:
    scores = model(z)
    maps = extractor(scores[0].argmax().item(), scores)
"""

from importlib import import_module
from typing import Any

from heatproof.compat.missing import missing_names

__all__ = ["explain", "methods", "metrics", "utils"]  # pyright: ignore[reportUnsupportedDunderAll]

_missing = missing_names(__name__, {})


def __getattr__(name: str) -> Any:
    """The modules are imported when they are first asked for: torch is not needed before."""
    return import_module(f"{__name__}.{name}") if name in __all__ else _missing(name)
