"""Models by name."""

from typing import Any

from heatproof.models.model import Model


def load_model(spec: str, **settings: Any) -> Model:
    """Not written yet."""
    raise NotImplementedError(spec)
