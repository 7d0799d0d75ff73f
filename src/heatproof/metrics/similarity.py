"""Pixelwise similarity of two display maps: mean absolute difference, cosine, SSIM (protocols §5).

Each takes maps `(…, H, W)` that broadcast over the leading dimensions and gives float64: rows are summed in
the maps' own type, the sums of rows in float64, which costs less than 1e-6.
"""

import functools
from dataclasses import dataclass

import torch

from heatproof.memo import cached_property
from heatproof.transfers import on_device

#: SSIM: side of the reduced maps, side of the window, and the constants for data of range 1.
SSIM_SIDE, SSIM_WINDOW, SSIM_C1, SSIM_C2 = 56, 7, 0.01**2, 0.03**2
_SAMPLE = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)


def l1(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Normalised L1: mean absolute difference of display maps `(…, H, W)`, in [0, 1], lower is more alike."""
    return (one - other).abs_().mean(-1).double().mean(-1)


def cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle between maps `(…, H, W)`, in [0, 1] for display maps; NaN for a map of zeros."""
    return cosine_of(one, other, norm(one), norm(other))


def ssim(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Structural similarity of display maps `(…, H, W)` reduced to 56² by area, in [−1, 1], 1 for equal maps.

    7×7 uniform window, range 1, sample covariance, mean over the windows that fit: scikit-image's
    `structural_similarity(a, b, win_size=7, data_range=1)`. A side below 56 stays as it is; below 7 there
    is no window: NaN. Wang et al. 2004.
    """
    return ssim_of(Reduced.of(one), Reduced.of(other))


@dataclass(frozen=True)
class Reduced:
    """Maps at 56² by area means, `(…, s, s)` float64, and what SSIM needs of them, computed on demand."""

    maps: torch.Tensor

    @classmethod
    def of(cls, maps: torch.Tensor) -> "Reduced":
        """Reduces maps `(…, H, W)`; a side that is smaller than 56 stays."""
        down, across = (_area(length, maps.dtype, maps.device) for length in maps.shape[-2:])
        return cls((down.t() @ maps @ across).double())

    @cached_property
    def mean(self) -> torch.Tensor:
        """Mean in each window that fits."""
        return _window_means(self.maps)

    @cached_property
    def variance(self) -> torch.Tensor:
        """Sample variance in each window that fits."""
        return _SAMPLE * (_window_means(self.maps * self.maps) - self.mean * self.mean)


def ssim_of(a: Reduced, b: Reduced) -> torch.Tensor:
    """Wang et al. 2004, eq. 13, averaged over the windows; NaN where there is none."""
    if min(a.maps.shape[-2:]) < SSIM_WINDOW:
        return torch.full_like(a.maps[..., 0, 0] + b.maps[..., 0, 0], torch.nan)
    covariance = _SAMPLE * (_window_means(a.maps * b.maps) - a.mean * b.mean)
    likeness = (2 * a.mean * b.mean + SSIM_C1) * (2 * covariance + SSIM_C2)
    spread = (a.mean * a.mean + b.mean * b.mean + SSIM_C1) * (a.variance + b.variance + SSIM_C2)
    return (likeness / spread).mean((-2, -1))


def norm(maps: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of `(…, H, W)`: each row in the maps' own type, their sum in float64."""
    return torch.linalg.vector_norm(torch.linalg.vector_norm(maps, dim=-1).double(), dim=-1)


def cosine_of(one: torch.Tensor, other: torch.Tensor, norm1: torch.Tensor, norm2: torch.Tensor) -> torch.Tensor:
    """`cosine` where the norms are known."""
    dot = (one * other).sum(-1).double().sum(-1)
    return (dot / (norm1 * norm2)).clamp(-1, 1)


def _window_means(maps: torch.Tensor) -> torch.Tensor:
    """Means over the 7×7 windows that fit: two banded matrix products, four times as fast as pooling."""
    down, across = (_band(length, maps.device) for length in maps.shape[-2:])
    return down.t() @ maps @ across


@functools.lru_cache(maxsize=16)
def _area(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`(length, 56)`: weights of an area mean over `length` / 56 pixels; the identity if length ≤ 56."""
    side = min(SSIM_SIDE, length)
    edges = torch.arange(side + 1, dtype=torch.float64) * (length / side)
    pixel = torch.arange(length, dtype=torch.float64)[:, None]
    share = torch.minimum(pixel + 1, edges[1:]) - torch.maximum(pixel, edges[:-1])
    return on_device(share.clamp(min=0) * (side / length), device, dtype)


@functools.lru_cache(maxsize=16)
def _band(length: int, device: torch.device) -> torch.Tensor:
    """`(length, length − 6)` float64: 1/7 where a position lies in a window."""
    offset = torch.arange(length)[:, None] - torch.arange(length - SSIM_WINDOW + 1)
    return on_device(((offset >= 0) & (offset < SSIM_WINDOW)).double() / SSIM_WINDOW, device)
