"""Masks that are smooth by construction: a coarse grid of numbers under a smooth maximum (Fong et al. 2019, eq. 8).

`m(u) = smax_i k(|u − u_i| / σ) p_i`, where the p_i in [0, 1] lie `cell` pixels apart, `k(r) = exp(−2 max(0, r − ½)²)`
and `smax v = Σ v e^{20 v} / Σ e^{20 v}`: TorchRay's kernel and temperature. One p of 1 makes a disc of about σ pixels,
and no mask can have finer detail than that.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from heatproof.transfers import on_device

#: How sharp the maximum is.
COLDNESS = 20.0


class SmoothMask:
    """From parameters `(M, *cells)` to masks `(M, *size)` in [0, 1]; any number of spatial dimensions.

    A position depends on the parameters at most `1 + ⌈σ / cell⌉` cells away. Outside the image those of the border are
    repeated, so that equal parameters make an even mask. (With nothing there, as in TorchRay, it is highest in the four
    corners, and where the score weighs little the area is spent on them.)
    """

    def __init__(self, size: Sequence[int], cell: int, sigma: float, like: torch.Tensor):
        self.size, self.cell = tuple(size), cell
        self.cells = tuple(math.ceil(side / cell) for side in size)
        self.radius = 1 + math.ceil(sigma / cell)
        self.table = on_device(_table(len(size), cell, self.radius, sigma), like.device, like.dtype)

    def __call__(self, parameters: torch.Tensor) -> torch.Tensor:
        padded = F.pad(parameters[:, None], [self.radius] * 2 * len(self.size), mode="replicate")[:, 0]
        mask = _SmoothMaximum.apply(padded, self.table, self.cells)
        whole = mask.reshape(len(mask), *(count * self.cell for count in self.cells))
        return whole[(slice(None), *(slice(side) for side in self.size))]


def _table(dims: int, cell: int, radius: int, sigma: float) -> torch.Tensor:
    """The kernel by (cell away along each dimension …, pixel within the cell along each dimension …)."""
    pixel, away = torch.arange(cell, dtype=torch.float64), torch.arange(-radius, radius + 1, dtype=torch.float64)
    along = (pixel - cell * away[:, None]).square()
    squared = torch.zeros((), dtype=torch.float64)
    for dim in range(dims):
        shape = [1] * 2 * dims
        shape[dim], shape[dims + dim] = along.shape
        squared = squared + along.view(shape)
    return torch.exp(-2 * (squared.sqrt() / sigma - 0.5).clamp_min(0).square())


class _SmoothMaximum(torch.autograd.Function):
    """One row of taps at a time, forward and backward: at σ = 3 cells all of them together are 81 masks.

    A mask is laid out `(M, cells, cell, cells, cell, …)`.
    """

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, table: torch.Tensor, cells: tuple[int, ...]) -> torch.Tensor:
        total = weight = torch.zeros((), device=padded.device)
        rest = tuple(range(1, len(cells)))
        for _, value, _ in _rows_of_taps(padded, table, cells):
            raised = (COLDNESS * value).exp()
            weight = weight + (raised.sum(rest) if rest else raised)
            raised = raised * value
            total = total + (raised.sum(rest) if rest else raised)
        mask = total / weight
        ctx.save_for_backward(padded, table, mask, weight)
        ctx.cells = cells
        return mask

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        padded, table, mask, weight = ctx.saved_tensors
        dims, found = len(ctx.cells), torch.zeros_like(padded)
        shared, mask = (_behind_taps(values, dims) for values in (gradients[0] / weight, mask))
        within = tuple(range(dims + 1, 3 * dims, 2))
        for row, value, kernel in _rows_of_taps(padded, table, ctx.cells):
            slope = (COLDNESS * value).exp() * (1 + COLDNESS * (value - mask)) * kernel
            slope = (shared * slope).sum(within)
            for rest in itertools.product(range(table.shape[0]), repeat=dims - 1):
                where = tuple(slice(k, k + count) for k, count in zip((row, *rest), ctx.cells, strict=True))
                found[(slice(None), *where)] += slope[(slice(None), *rest)]
        return found, None, None


def _rows_of_taps(
    padded: torch.Tensor, table: torch.Tensor, cells: tuple[int, ...]
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """For every tap along the first dimension: `k p` by the taps along the others, each laid out as a mask; and k."""
    dims, (taps, cell) = len(cells), (table.shape[0], table.shape[-1])
    for row in range(taps):
        near = padded.narrow(1, row, cells[0])
        for dim in range(1, dims):
            near = near.unfold(dim + 1, cells[dim], 1)
        near = near.movedim(1, dims).reshape(len(padded), *[taps] * (dims - 1), *(n for c in cells for n in (c, 1)))
        kernel = table[row].reshape(1, *[taps] * (dims - 1), *(n for _ in cells for n in (1, cell)))
        yield row, near * kernel, kernel


def _behind_taps(mask: torch.Tensor, dims: int) -> torch.Tensor:
    return mask.reshape(len(mask), *[1] * (dims - 1), *mask.shape[1:])
