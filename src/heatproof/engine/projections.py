"""The projection of a map on a fixed random pattern: one number by which equal maps of two methods are recognised."""

import math
from functools import lru_cache

import torch

from heatproof.transfers import on_device

#: The seed of the pattern. It is part of the definition: other patterns give other numbers.
PATTERN = 20_250_101


def projections(maps: torch.Tensor) -> torch.Tensor:
    """Display maps `(N, *spatial)` in [0, 1] → `(N,)` float64: `Σ wᵢ mᵢ / √n`, `w` standard normal, `n` pixels.

    The projections of two maps differ by about the root mean square of the maps' difference: the expected square of
    the one is the square of the other. Every pixel counts, and the value is continuous in each, so it has no ranks that
    rounding noise could move.
    """
    flat = maps.detach().flatten(1)
    flat = (flat.cpu() if flat.device.type == "mps" else flat).double()  # MPS has no float64
    return flat @ _pattern(flat.shape[1], flat.device) / math.sqrt(flat.shape[1])


@lru_cache(maxsize=4)
def _pattern(count: int, device: torch.device) -> torch.Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(PATTERN), dtype=torch.float64)
    return on_device(drawn, device)
