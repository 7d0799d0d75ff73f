"""The change of the targets' outputs on the image seen through its map."""

from typing import Any

import numpy as np
import torch

from heatproof.compat.missing import missing_names
from heatproof.compat.pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric


def multiply_tensor_with_cam(input_tensor: torch.Tensor, cam: torch.Tensor) -> torch.Tensor:
    """`z ⊙ m`: covered pixels become the mean colour."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """`y(z ⊙ m) − y(z)`."""

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)


class DropInConfidence(CamMultImageConfidenceChange):
    """`relu(y(z) − y(z ⊙ m))`; no share of `y(z)`, as `average-drop` is."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _of_change(super().__call__(*arguments, **named), lambda change: np.maximum(-change, 0))


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """1 where `y(z ⊙ m) > y(z)`, else 0."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _of_change(super().__call__(*arguments, **named), lambda change: np.float32(change > 0))


def _of_change(found: Any, value: Any) -> Any:
    """The value of the scores, beside the images where those were asked for."""
    return (value(found[0]), found[1]) if isinstance(found, tuple) else value(found)


__getattr__ = missing_names(__name__, {})
