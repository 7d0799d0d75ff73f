"""What methods that run the network share: the choice of a score, and whether a gradient reaches the image."""

from collections.abc import Mapping
from typing import Any

from heatproof.attributions.catalogue import check_choice
from heatproof.models import Model
from heatproof.models.differentiable import gradient_missing

#: Scores that methods may use; `output` is what the caller explains, by default the logit.
SCORES = ("output", "logit", "probability")


def checked_score(of: str) -> str:
    """`of`, or the error with near misses."""
    return check_choice("of", of, SCORES)


def no_gradient(model: Model, _layer: str, _options: Mapping[str, Any]) -> str:
    """Why a method that needs the gradient at the image cannot be used, for `applies`; empty where it can."""
    return gradient_missing(model)
