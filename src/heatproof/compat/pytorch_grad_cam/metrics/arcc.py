"""ARCC and its parts (Domeniconi et al. 2026), by heatproof's functions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.compat.given_models import checked
from heatproof.compat.missing import missing_names
from heatproof.compat.pytorch_grad_cam.metrics.perturbation_confidence import as_maps
from heatproof.compat.pytorch_grad_cam.metrics.road import ROADCombined
from heatproof.metrics import coherency, complexity, composites


class Complexity:
    """The mean of the map's magnitude."""

    def __call__(self, grayscale_cams: Any) -> np.ndarray:
        """Maps `(N, H, W)` → `(N,)`, in [0, 1]; lower is simpler."""
        return complexity.complexity(torch.as_tensor(np.asarray(grayscale_cams))).numpy()


class Coherency:
    """The similarity of a map to that of the image seen through it, `(pearson + 1) / 2`; 0 for a constant map."""

    def __call__(
        self,
        input_tensor: torch.Tensor,
        grayscale_cams: Any,
        targets: Sequence[Callable[[Any], Any]],
        model: nn.Module,
        base_method: Callable[..., np.ndarray],
    ) -> np.ndarray:
        """`base_method` is the CAM that made the maps `(N, H, W)`. `(N,)`, in [0, 1], higher is better."""
        images, maps = checked(input_tensor), as_maps(grayscale_cams, input_tensor)
        again = base_method(input_tensor=images * maps[:, None].to(images), targets=targets)
        return ((coherency.pearson(maps, torch.from_numpy(again)) + 1) / 2).nan_to_num(0).numpy()


class ARCC:
    """The harmonic mean of coherency, 1 − complexity and ROAD brought to [0, 1]; 0 where a map is constant."""

    def __init__(self, base_method: Callable[..., np.ndarray], road_percentiles: Sequence[float] = (20, 40, 60, 80)):
        self.complexity, self.coherency = Complexity(), Coherency()
        self.road, self.base_method = ROADCombined(road_percentiles), base_method

    def __call__(self, input_tensor: torch.Tensor, grayscale_cams: Any, targets: Any, model: nn.Module) -> np.ndarray:
        """Maps `(N, H, W)` → `(N,)`, in [0, 1], higher is better."""
        parts = (
            self.coherency(input_tensor, grayscale_cams, targets, model, self.base_method),
            self.complexity(grayscale_cams),
            self.road(input_tensor, grayscale_cams, targets, model),
        )
        return composites.arcc(*(torch.as_tensor(part).double() for part in parts)).numpy()


__getattr__ = missing_names(__name__, {})
