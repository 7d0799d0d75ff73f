"""RISE: the mean of many random masks, each weighted by the target's score of the image seen through it."""

import math

import torch
import torch.nn.functional as F

from heatproof.attributions.asking import checked_score
from heatproof.attributions.catalogue import attribution
from heatproof.errors import InvalidInput
from heatproof.masking import ground, masked
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.transfers import on_device


@attribution("rise", form="display", source="Petsiuk et al. 2018, eq. 6 and §3.2")
def rise(
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    generator,
    *,
    masks: int = 8000,
    grid: int = 7,
    probability: float = 0.5,
    of: str = "probability",
    fill: str = "mean",
) -> torch.Tensor:
    """RISE: `1 / (N E[M]) Σ_i f(z ⊙ M_i) M_i` over random masks M, which are 1 with probability E[M] = `probability`.

    A mask is a `grid` × `grid` of zeros and ones, brought to `(grid + 1) · cell` pixels a side (bilinear) and cropped
    at random; `cell` = ⌈side / grid⌉. The defaults are the paper's for ResNet50: 8000 passes an image. Non-negative
    where the score is a probability.

    As in the authors' code the cell is rounded up (the paper's ⌊side / grid⌋ leaves too few pixels unless it divides),
    and the crop starts at 0 … cell − 1, so that every phase of the grid is as likely. Every image has masks of its
    own, from its generator; the first n of N masks are those of a run with `masks=n`. Works on signals and volumes.
    """
    masks, grid = check_int("masks", masks), check_int("grid", grid)
    if not 0 < probability < 1:
        raise InvalidInput(f"`probability` must be between 0 and 1. Got {probability!r}.")
    checked_score(of)
    background, rows = ground(fill, x, z), rows_per_pass(z)
    found = []
    for i in range(len(z)):
        drawn = RandomMasks(masks, grid, probability, z[i, 0], generator[i])
        one, behind = z[i : i + 1], background[i : i + 1]
        total = torch.zeros_like(one[0, 0]).flatten()
        for part in parts(masks, rows):
            some = drawn[part]
            total += score(masked(one, some, behind), i, of=of).to(total) @ some.flatten(1)
        found.append(total.view(one.shape[2:]) / (masks * probability))
    return torch.stack(found)


class RandomMasks:
    """The masks of one image: all bits and shifts drawn at once, the masks themselves computed on demand.

    Bilinear upsampling is a product of one matrix for each axis, and a crop takes rows of it, so a mask costs two
    small matrix products and the uncropped one is never made.
    """

    def __init__(self, count: int, grid: int, probability: float, like: torch.Tensor, generator: torch.Generator):
        self.grid, self.size, self.cells = grid, like.shape, grid ** like.dim()
        # One row of uniforms for each mask: the first n rows are the same whatever the count.
        uniform = torch.rand(count, self.cells + like.dim(), generator=generator)
        self.bits = on_device(uniform[:, : self.cells] < probability, like.device)
        self.phases = on_device(uniform[:, self.cells :], like.device)
        self.axes = [self._axis(side, like) for side in self.size]

    def __getitem__(self, part: slice) -> torch.Tensor:
        """The masks of that part, `(M, *spatial)` in [0, 1]."""
        mask = self.bits[part].to(self.axes[0]).view(-1, *[self.grid] * len(self.size))
        for axis, side, phase in zip(self.axes, self.size, self.phases[part].unbind(1), strict=True):
            cell = math.ceil(side / self.grid)
            first = (phase * cell).long().clamp_max(cell - 1)
            rows = axis[first[:, None] + torch.arange(side, device=axis.device)]
            mask = torch.einsum("ms...,mls->m...l", mask, rows)  # contracts the first axis, appends it as the last
        return mask

    def _axis(self, side: int, like: torch.Tensor) -> torch.Tensor:
        """What a position along a side takes from each cell, `((grid + 1) · cell, grid)`: each row sums to 1."""
        cell = math.ceil(side / self.grid)
        unit = torch.eye(self.grid, device=like.device, dtype=like.dtype)[None]
        return F.interpolate(unit, size=(self.grid + 1) * cell, mode="linear", align_corners=False)[0].T.contiguous()
