"""Removed pixels filled from those around them: ROAD's linear imputation, before its noise (protocols §7).

Every removed pixel is the weighted mean of its neighbours inside the picture, 1/6 for the four direct ones and 1/12
for the four diagonal ones, and all removed pixels are solved together: `(D − W) u = b`. Conjugate gradients take up to
200 steps on smooth masks. With one V-cycle of multigrid as preconditioner they take 3 to 9 on any mask. No matrix is
built, and all that happens is a few additions of shifted pictures.

The system looks the same on every grid: `cover` is the share of a place that is removed (0 or 1 on the picture), `tie`
how strongly a place hangs on kept pixels; then `W = a S a` with `a = √cover` and the fixed stencil S, and
`D = a S a 1 + tie`. A coarser grid gets both restricted like a residual. That is no Galerkin product, but it has the
row sums of one for the price of a sweep. One undamped Jacobi sweep cuts every short wave of this stencil to a third.
"""

import warnings
from dataclasses import dataclass

import torch

from heatproof.errors import HeatproofWarning, InvalidInput, NotApplicable
from heatproof.passes import parts

#: Conjugate gradients go on to this share of `tolerance`: on smooth masks the residual understates the error.
AIM = 0.1
#: Steps at most, in the dtype of the pictures and, where that was not enough, in float64.
STEPS, STEPS_AGAIN = 40, 400
#: Places of the coarsest grid, which is solved by a dense inverse.
COARSEST = 64
#: Systems at a time: on a CPU one, which stays in the cache; elsewhere as many as have so many values.
DEVICE_VALUES = 128 * 3 * 224**2


@dataclass(frozen=True)
class Imputed:
    """Pictures with their removed pixels filled.

    Attributes:
        images: `(N, C, H, W)`; kept pixels are those of the picture, bit for bit.
        residual: `(N,)` float64, `‖b − (D − W) u‖ / ‖b‖` of what is returned; NaN where a picture has no solution.
        iterations: steps of conjugate gradients, those of the slowest system.
    """

    images: torch.Tensor
    residual: torch.Tensor
    iterations: int


@torch.no_grad()
def imputed(z: torch.Tensor, removed: torch.Tensor, *, tolerance: float = 1e-4) -> Imputed:
    """The pictures with every removed pixel solved for, on their device, in their dtype (float32 at least).

    Where `tolerance` is not reached in float32, a picture is solved again in float64. A picture of which nothing is
    removed stays as it is; one of which everything is removed is NaN, as is one with non-finite kept pixels where they
    reach. Values of removed pixels are not looked at. Each picture's answer is its own, whatever its neighbours.

    Args:
        z: pictures `(N, C, H, W)`.
        removed: `(N, H, W)` bool, one mask for all channels.
        tolerance: relative residual that is kept to.

    Raises:
        NotApplicable: signals or volumes: the weights are those of pictures.
        InvalidInput: shapes that do not fit, a mask that is no mask, a tolerance that is not above 0.

    A HeatproofWarning says so if a residual stays above `tolerance` all the same.
    """
    _check(z, removed, tolerance)
    images, residual, iterations = z.clone(), torch.zeros(len(z), dtype=torch.float64, device=z.device), 0
    rows = 1 if z.device.type == "cpu" else max(1, DEVICE_VALUES // max(1, z[0].numel()))
    with torch.autocast(z.device.type, enabled=False):
        grids: dict[int, _Multigrid] = {}
        for part in parts(len(z), rows):
            size = len(z[part])
            if size not in grids:
                grids[size] = _Multigrid(z[part], torch.promote_types(z.dtype, torch.float32))
            found = grids[size].solution(z[part], removed[part], tolerance, STEPS)
            images[part], residual[part], iterations = found.images, found.residual, max(iterations, found.iterations)
        for row in (residual > tolerance).nonzero()[:, 0].tolist():
            part = slice(row, row + 1)
            found = _Multigrid(z[part], torch.float64).solution(z[part], removed[part], tolerance, STEPS_AGAIN)
            images[part], residual[part], iterations = found.images, found.residual, max(iterations, found.iterations)
    if (residual > tolerance).any():
        warnings.warn(
            f"The imputation of {int((residual > tolerance).sum())} pictures has a relative residual of up to "
            f"{float(residual.nan_to_num().max()):.1e} after {STEPS_AGAIN} steps, above {tolerance:.1e}.",
            HeatproofWarning,
            stacklevel=3,
        )
    return Imputed(images, residual, iterations)


def _check(z: torch.Tensor, removed: torch.Tensor, tolerance: float) -> None:
    if z.dim() != 4:
        raise NotApplicable(f"Imputation is for pictures (N, C, H, W). Got {tuple(z.shape)}.")
    if removed.dtype != torch.bool or removed.shape != (len(z), *z.shape[2:]):
        wanted = (len(z), *z.shape[2:])
        raise InvalidInput(f"`removed` must be bool {wanted}. Got {removed.dtype} {tuple(removed.shape)}.")
    if not tolerance > 0:
        raise InvalidInput(f"`tolerance` must be above 0. Got {tolerance}.")


class _Board:
    """Room to work on one grid: fields `(B, C, length)` that hold padded pictures, row after row.

    A row is `width + 2` long, so a neighbour is a shift of the whole field, and an addition runs over memory once. The
    padding of a field is 0; one row more below lets a coarser grid reach over the edge.
    """

    def __init__(self, batch: int, channels: int, height: int, width: int, like: torch.Tensor):
        self.shape, self.like = (batch, channels, height, width), like
        self.row = row = width + 2
        self.length = (height + 3) * row
        self.core = slice(row + 1, row + 1 + height * row)
        self.beside, self.across = self.field(), self.field()
        self.inside = (self.beside[..., 1:-1], self.across[..., 1:-1])
        self.shifts = (
            self.across[..., self.core.start - row : self.core.stop - row],
            self.across[..., self.core.start + row : self.core.stop + row],
            self.beside[..., self.core],
        )
        self.coarse = tuple(side // 2 + 1 if side > 1 else 1 for side in (height, width))
        self.tall = like.new_zeros(batch, channels, self.coarse[0] * row + 1)
        self.pairs = like.new_zeros(batch, channels, self.coarse[0] * row)
        self.wide = like.new_zeros(batch, channels, self.coarse[0], width)
        self.between = like.new_zeros(batch, channels, height // 2, width)

    def field(self) -> torch.Tensor:
        """A field of zeros."""
        return self.like.new_zeros(*self.shape[:2], self.length)

    def picture(self, field: torch.Tensor) -> torch.Tensor:
        """A field as `(B, C, H, W)`: a view."""
        height, width = self.shape[2:]
        return field[..., self.core].unflatten(-1, (height, self.row))[..., :width]

    @staticmethod
    def triple(field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Views of a field that lie left, at, and right of its places."""
        return field[..., :-2], field[..., 1:-1], field[..., 2:]

    def near(self, triple: tuple[torch.Tensor, torch.Tensor, torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        """12 S x into the core `out` of a field: twice the direct neighbours and the diagonal ones."""
        left, here, right = triple
        torch.add(left, right, out=self.inside[0])
        torch.add(self.inside[0], here, alpha=2, out=self.inside[1])
        above, below, beside = self.shifts
        torch.add(above, below, out=out)
        return out.add_(beside, alpha=2)

    def restrict(self, field: torch.Tensor, out: torch.Tensor) -> None:
        """[1 2 1]² around every other place, into a picture of the coarser grid: 4 Pᵀ x."""
        height, width = self.coarse
        rows = field.unflatten(-1, (-1, self.row))
        tall = self.tall[..., :-1].unflatten(-1, (height, self.row))
        first, last = 2 * height - 1, 2 * height + 1
        torch.add(rows[..., 0:first:2, :], rows[..., 2:last:2, :], out=tall)
        tall.add_(rows[..., 1 : first + 1 : 2, :], alpha=2)
        torch.add(self.tall[..., :-1], self.tall[..., 1:], out=self.pairs)
        pairs = self.pairs.unflatten(-1, (height, self.row))
        torch.add(pairs[..., 0 : 2 * width : 2], pairs[..., 1 : 2 * width : 2], out=out)

    def add_prolonged(self, coarse: torch.Tensor, to: torch.Tensor) -> None:
        """Adds P e, bilinear between the places of the coarser grid, to a picture of this one."""
        height, width = self.shape[2:]
        self.wide[..., 0::2].copy_(coarse[..., : (width + 1) // 2])
        half = width // 2
        torch.lerp(coarse[..., :half], coarse[..., 1 : half + 1], 0.5, out=self.wide[..., 1::2])
        to[..., 0::2, :].add_(self.wide[..., : (height + 1) // 2, :])
        half = height // 2
        torch.add(self.wide[..., :half, :], self.wide[..., 1 : half + 1, :], out=self.between)
        to[..., 1::2, :].add_(self.between, alpha=0.5)


class _Grid:
    """One level: the system as fields of one channel, and residual, change and scratch of all channels."""

    def __init__(self, batch: int, channels: int, height: int, width: int, like: torch.Tensor):
        self.plan, self.board = (_Board(batch, count, height, width, like) for count in (1, channels))
        self.residual, self.change, self.weighted, self.scratch = (self.board.field() for _ in range(4))
        core = self.board.core
        self.out, self.residual_core, self.change_core = (
            field[..., core] for field in (self.scratch, self.residual, self.change)
        )
        self.of_change, self.of_weighted = self.board.triple(self.change), self.board.triple(self.weighted)
        self.pictures = {name: self.board.picture(getattr(self, name)) for name in ("residual", "change")}

    def set(self, cover: torch.Tensor, tie: torch.Tensor) -> None:
        """The system of this level."""
        plan = self.plan
        self.cover, self.tie, self.root = cover, tie, cover.sqrt()
        self.diagonal = tie.clone()
        sums = plan.near(plan.triple(self.root), torch.empty_like(tie[..., plan.core])).div_(12)
        self.diagonal[..., plan.core].addcmul_(sums, self.root[..., plan.core])
        self.inverse = torch.where(self.diagonal > 0, self.diagonal.reciprocal(), 0.0)
        self.twelfth = self.root[..., plan.core] / 12
        self.inverse_core, self.diagonal_core = self.inverse[..., plan.core], self.diagonal[..., plan.core]


class _Multigrid:
    """The grids for systems of one size; set anew for each, so that the memory is taken once."""

    def __init__(self, z: torch.Tensor, dtype: torch.dtype):
        batch, channels, height, width = z.shape
        like = torch.empty(0, dtype=dtype, device=z.device)
        self.grids = [_Grid(batch, channels, height, width, like)]
        while height * width > COARSEST:
            height, width = self.grids[-1].board.coarse
            self.grids.append(_Grid(batch, channels, height, width, like))
        self.start, self.direction, self.image = (self.grids[0].board.field() for _ in range(3))

    def set(self, removed: torch.Tensor) -> None:
        """The systems of masks `(B, H, W)` on all grids."""
        plan = self.grids[0].plan
        cover, kept, tie = plan.field(), plan.field(), plan.field()
        plan.picture(cover).copy_(removed[:, None])
        plan.picture(kept).copy_(~removed[:, None])
        tie[..., plan.core] = plan.near(plan.triple(kept), tie[..., plan.core]) * cover[..., plan.core] / 12
        self.grids[0].set(cover, tie)
        for fine, grid in zip(self.grids, self.grids[1:], strict=False):
            cover, tie = grid.plan.field(), grid.plan.field()
            # Restriction is 4 Pᵀ, so every grid's system is taken times 4, to the power of its level.
            fine.plan.restrict(fine.cover, grid.plan.picture(cover))
            fine.plan.restrict(fine.tie, grid.plan.picture(tie))
            grid.set(cover.div_(4), tie)
        self.coarsest = _inverse(self.grids[-1])

    def correct(self, level: int = 0) -> None:
        """Puts into `change` what one V-cycle makes of `residual`: Jacobi, the coarser grid, Jacobi again."""
        grid = self.grids[level]
        if level == len(self.grids) - 1:
            right, change = grid.pictures["residual"], grid.pictures["change"]
            change.copy_((right.flatten(2) @ self.coarsest).view(right.shape))
            return
        torch.mul(grid.residual, grid.inverse, out=grid.change)
        if level:
            torch.mul(grid.change, grid.root, out=grid.weighted)
        # After a sweep from zero the residual is W D⁻¹ r.
        grid.board.near(grid.of_weighted if level else grid.of_change, grid.out).mul_(grid.twelfth)
        coarser = self.grids[level + 1].pictures
        grid.board.restrict(grid.scratch, coarser["residual"])
        self.correct(level + 1)
        grid.board.add_prolonged(coarser["change"], grid.pictures["change"])
        torch.mul(grid.change, grid.root, out=grid.weighted)
        grid.board.near(grid.of_weighted, grid.out)
        torch.addcmul(grid.residual_core, grid.out, grid.twelfth, out=grid.change_core).mul_(grid.inverse_core)

    def minus_applied(self, field: torch.Tensor) -> torch.Tensor:
        """(W − D) x of the finest grid, for a field that is 0 where nothing is removed; in the scratch."""
        grid = self.grids[0]
        grid.board.near(grid.board.triple(field), grid.out).mul_(grid.twelfth)
        grid.out.addcmul_(field[..., grid.board.core], grid.diagonal_core, value=-1)
        return grid.scratch

    def solution(self, z: torch.Tensor, removed: torch.Tensor, tolerance: float, most: int) -> Imputed:
        """The pictures filled, by preconditioned conjugate gradients from the mean of the kept neighbours."""
        hopeless = removed.flatten(1).all(1)
        known = removed & ~hopeless[:, None, None]
        self.set(known)
        grid = self.grids[0]
        board, x = grid.board, self.image.zero_()
        # What `u` is b for: the kept pixels next to removed ones. The system is solved for the distance from their mean.
        board.picture(self.start).copy_(torch.where(removed[:, None], 0.0, z))
        right = board.near(board.triple(self.start), grid.out).mul_(grid.twelfth)
        norm, tie = _dot(right, right), grid.tie.sum((1, 2), keepdim=True)
        mean = right.sum(2, keepdim=True) / torch.where(tie > 0, tie, 1.0)
        right.addcmul_(grid.tie[..., board.core], mean, value=-1)
        self.start.zero_()[..., board.core].copy_(right)
        grid.residual.copy_(self.start)
        goal = norm * (AIM * tolerance) ** 2
        steps = self._descend(x, goal, most)
        rest = self.minus_applied(x).add_(self.start)
        residual = (_dot(rest, rest) / torch.where(norm == 0, 1.0, norm)).sqrt().double().flatten()
        filled = (board.picture(x) + mean[..., None]).to(z.dtype)
        images = torch.where(removed[:, None], filled, z)
        nothing = hopeless[:, None, None, None] & removed[:, None]
        return Imputed(torch.where(nothing, torch.nan, images), torch.where(hopeless, torch.nan, residual), steps)

    def _descend(self, x: torch.Tensor, goal: torch.Tensor, most: int) -> int:
        """Conjugate gradients on `x`; systems that are done stay as they are while others go on."""
        residual, change, direction = self.grids[0].residual, self.grids[0].change, self.direction
        before, steps = None, 0
        while steps < most:
            left = _dot(residual, residual) > goal  # False where it is NaN
            if not left.any():
                break
            self.correct()
            weight = _dot(residual, change)
            if before is None:
                direction.copy_(change)
            else:
                torch.addcmul(change, direction, weight / before, out=direction)
            before = weight
            applied = self.minus_applied(direction)
            share = torch.where(left, -weight / _dot(direction, applied), 0.0)
            x.addcmul_(direction, share)
            residual.addcmul_(applied, share)
            steps += 1
        return steps


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of each system by itself, `(B, 1, 1)`."""
    return (one * other).sum((1, 2), keepdim=True)


def _inverse(grid: _Grid) -> torch.Tensor:
    """`(B, n, n)`: of the matrix of a small grid; places that take no part get a 1."""
    batch, _, height, width = grid.plan.shape
    count = height * width
    board = _Board(batch, count, height, width, grid.plan.like)
    unit, coupled = board.field(), board.field()
    board.picture(unit).copy_(torch.eye(count, dtype=unit.dtype, device=unit.device).view(1, count, height, width))
    near = board.near(board.triple(unit * grid.root), coupled[..., board.core]).mul_(grid.twelfth)
    near.neg_().addcmul_(unit[..., board.core], torch.where(grid.diagonal > 0, grid.diagonal, 1.0)[..., board.core])
    return torch.linalg.inv_ex(board.picture(coupled).flatten(2)).inverse
