"""Agreement of a map with the truth, where the truth is known."""

import torch

from heatproof.metrics.robustness import cosine


def mask_cosine(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of display maps `(N, H, W)` with masks `(N, H, W)`: in [0, 1], higher is better.

    A perfect map scores 1. NaN for an empty mask or a map of zeros: neither has a direction. Domeniconi et al. 2026,
    section 3.4.
    """
    return cosine(maps, masks.to(maps.dtype))
