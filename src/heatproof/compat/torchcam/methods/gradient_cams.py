"""The extractors that are one method with gradients, by the names of torchcam."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from heatproof.compat.torchcam.methods.core import Extractor


class GradCAM(Extractor):
    """`gradcam`."""

    method = "gradcam"


class GradCAMpp(Extractor):
    """`gradcam++`, whose weights are divided as in the paper; torchcam 0.5.0 leaves the division out."""

    method = "gradcam++"


class SmoothGradCAMpp(Extractor):
    """`smoothgradcam++`: all `num_samples` gradients weigh; torchcam 0.5.0 weighs by the last one's alone."""

    method = "smoothgradcam++"

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | Sequence[nn.Module | str] | None = None,
        num_samples: int = 4,
        std: float = 0.3,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **named: Any,
    ):
        super().__init__(model, target_layer, input_shape, samples=num_samples, std=std, **named)
        self.num_samples, self.std = num_samples, std

    def _about(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples, "std": self.std}


class XGradCAM(Extractor):
    """`xgradcam`."""

    method, settings = "xgradcam", {"eps": 1e-8}


class LayerCAM(Extractor):
    """`layercam`; maps m become `tanh(2 m)` before they are fused."""

    method = "layercam"

    @staticmethod
    def _before_fusing(cam: torch.Tensor) -> torch.Tensor:
        return torch.tanh(2 * cam)
