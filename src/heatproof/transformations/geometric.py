"""Rotation and crop: the sampling grids of affine maps. They keep the size of the image."""

import math
from collections.abc import Sequence

import torch

from heatproof.errors import InvalidInput
from heatproof.transformations.catalogue import transformation


@transformation("rotation", source="Zhang et al. 2024 (F), section 4")
def rotation(x: torch.Tensor, *, degrees: float = 45.0) -> torch.Tensor:
    """Rotates counter-clockwise about the centre, bilinear; corners get the image's mean colour."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    return affine_grid(matrix.expand(len(x), 2, 3), x)


@transformation("crop", aliases=["random-resized-crop"], source="Zhang et al. 2024 (F), section 4")
def crop(
    x: torch.Tensor, generator: Sequence[torch.Generator], *, smallest: float = 0.08, seed: float = 0
) -> torch.Tensor:
    """A random crop of the image's aspect ratio, resized to its size; `smallest` is the least share of its area.

    The share of the area is uniform in [smallest, 1], and so is the place among those inside of the image. Another
    `seed` draws other crops.
    """
    if not 0 < smallest <= 1:
        raise InvalidInput(f"`smallest` must lie in (0, 1], a share of the area. Got {smallest}.")
    drawn = torch.stack([torch.rand(3, generator=one) for one in generator])
    side = (smallest + (1 - smallest) * drawn[:, 0]).sqrt()
    shift = (2 * drawn[:, 1:] - 1) * (1 - side)[:, None]
    matrix = torch.zeros(len(x), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = side
    matrix[:, :, 2] = shift
    return affine_grid(matrix, x)


def affine_grid(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The sampling grid `(N, H, W, 2)` of affine maps `(N, 2, 3)`, which act on pixels relative to the centre."""
    height, width = x.shape[2:]
    sides = torch.tensor([width, height], dtype=matrix.dtype)
    scaled = matrix.clone()  # the grid goes from -1 to 1 along both sides, so angles are those of a square
    scaled[:, :, :2] = matrix[:, :, :2] * sides[None, None, :] / sides[None, :, None]
    return torch.nn.functional.affine_grid(scaled, [len(x), x.shape[1], height, width], align_corners=False)
