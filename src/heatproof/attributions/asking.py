"""What methods that query the network share: which score is asked for, and whether a gradient can come back."""

from collections.abc import Mapping
from typing import Any

from heatproof.attributions.catalogue import check_choice
from heatproof.models import Model
from heatproof.models.differentiable import gradient_missing

#: Scores that methods may ask for; `output` is what the caller explains, the logit unless told otherwise.
SCORES = ("output", "logit", "probability")


def checked_score(of: str) -> str:
    """`of`, or the error with near misses."""
    return check_choice("of", of, SCORES)


def no_gradient(model: Model, _layer: str, _options: Mapping[str, Any]) -> str:
    """Why a method that goes back to the image cannot serve, for `applies`."""
    return gradient_missing(model)
