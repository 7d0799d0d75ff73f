"""ROAD: the change of the targets' outputs when pixels are imputed from those around them (Rong et al. 2022)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.compat.missing import missing_names
from heatproof.compat.pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from heatproof.imputation import imputed

#: The kept percentages of the averages.
PERCENTILES = tuple(range(10, 100, 10))


class NoisyLinearImputer:
    """Fills pixels linearly from those around them and adds noise: N(0, `noise`²), drawn with a fixed seed.

    `weighting` is accepted and ignored, as in the original: direct neighbours count 1/6, diagonal ones 1/12.
    """

    def __init__(self, noise: float = 0.01, weighting: Any = None):
        self.noise, self.weighting = noise, weighting

    def __call__(self, img: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Image `(C, H, W)` and mask `(H, W)`, 0 where a pixel is filled → the image filled."""
        removed = mask == 0
        filled = imputed(img[None], removed[None].to(img.device)).images[0]
        drawn = torch.randn(img.shape, generator=torch.Generator().manual_seed(0)).to(img)
        return torch.where(removed.to(img.device), filled + self.noise * drawn, filled)


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change when the most relevant pixels are imputed; `percentile` percent stay. Lower is better."""

    def __init__(self, percentile: float | str = 80):
        super().__init__(RemoveMostRelevantFirst(percentile, NoisyLinearImputer()))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change when the least relevant pixels are imputed; `percentile` percent stay. Higher is better."""

    def __init__(self, percentile: float | str = 20):
        super().__init__(RemoveLeastRelevantFirst(percentile, NoisyLinearImputer()))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of `ROADMostRelevantFirst` over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES):
        super().__init__(ROADMostRelevantFirst, percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of `ROADLeastRelevantFirst` over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES):
        super().__init__(ROADLeastRelevantFirst, percentiles)


class ROADCombined:
    """`mean_P (LeRF − MoRF) / 2`; higher is better, 0 for a random order on average."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES):
        self.percentiles = list(percentiles)
        self.morf_averager = ROADMostRelevantFirstAverage(percentiles)
        self.lerf_averager = ROADLeastRelevantFirstAverage(percentiles)

    def __call__(self, input_tensor: torch.Tensor, cams: Any, targets: Any, model: nn.Module) -> np.ndarray:
        """As `PerturbationConfidenceMetric`, float32 `(N,)`."""
        given = input_tensor, cams, targets, model  # the outputs of the images themselves cancel
        return (self.lerf_averager.perturbed(*given) - self.morf_averager.perturbed(*given)) / 2


__getattr__ = missing_names(__name__, {})
