"""Removed pixels filled from those around them: ROAD's linear imputation, before its noise (protocols §7).

Every removed pixel is the weighted mean of its neighbours inside the image, 1/6 for the four direct ones and 1/12
for the four diagonal ones, and all removed pixels are solved together: `(D − W) u = b`. Conjugate gradients take up to
200 steps on smooth masks. With one cycle of multigrid as preconditioner they take 4 to 7 on any mask. No matrix is
built but that of the coarsest grid: the work is a few additions of shifted images.

The system has the same form on every grid: `cover` is the share of a position that is removed (0 or 1 on the image),
`tie` how strongly a position depends on kept pixels; then `W = a S a` with `a = √cover` and the fixed stencil S, and
`D = a S a 1 + tie`. Both are restricted to a coarser grid like a residual. That is no Galerkin product, but it has the
same row sums and costs one sweep. One undamped Jacobi sweep reduces every short wave of this stencil to a third.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from heatproof.errors import HeatproofWarning, InvalidInput, NotApplicable
from heatproof.passes import parts

#: Conjugate gradients continue down to this share of `tolerance`: on smooth masks the residual understates the error.
AIM = 0.1
#: Most steps, in the dtype of the images (float32 at least) and, where that was not enough, in float64.
STEPS, STEPS_AGAIN = 40, 400
#: The level at which a cycle is done twice: 6 steps instead of 8, and finer levels cost the most.
TWICE = 2
#: Most positions of the coarsest grid, which is solved by a dense inverse.
COARSEST = 64
#: Systems at a time, in values: one of 224² for each thread of a CPU stays in its cache; other devices take more.
CPU_VALUES, DEVICE_VALUES = 3 * 224**2, 128 * 3 * 224**2

#: Integers of a float's size, by its bytes.
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

Work = Callable[[], None]


@dataclass(frozen=True)
class Imputed:
    """Images with their removed pixels filled.

    Attributes:
        images: `(N, C, H, W)`; kept pixels are those of the image, bit for bit.
        residual: `(N,)` float64, `‖b − (D − W) u‖ / ‖b‖` of what is returned; NaN where an image has no solution.
        iterations: steps of conjugate gradients, those of the slowest system.
    """

    images: torch.Tensor
    residual: torch.Tensor
    iterations: int


@torch.no_grad()
def imputed(z: torch.Tensor, removed: torch.Tensor, *, tolerance: float = 1e-4) -> Imputed:
    """The images with every removed pixel solved for, on their device and in their dtype (solved in float32 at least).

    Where `tolerance` is not reached in float32, an image is solved again in float64. An image with nothing removed is
    unchanged. An image with everything removed is NaN, and so is every pixel that depends on a kept pixel that is not
    finite. Values of removed pixels are ignored. The result of an image does not depend on the others.

    Args:
        z: images `(N, C, H, W)`.
        removed: `(N, H, W)` bool, one mask for all channels.
        tolerance: the relative residual to reach.

    Raises:
        NotApplicable: signals or volumes: the weights are those of images.
        InvalidInput: shapes that do not fit, a mask that is no mask, a tolerance that is not above 0.

    A HeatproofWarning is issued if a residual stays above `tolerance`.
    """
    _check(z, removed, tolerance)
    height, width = z.shape[2:]
    if min(height, width) == 1:
        # A line has short waves that no sweep reduces. Two pixels wide it has the same solution, and no such waves.
        wide = [max(side, 2) for side in (height, width)]
        found = imputed(z.expand(*z.shape[:2], *wide), removed.expand(len(z), *wide), tolerance=tolerance)
        return replace(found, images=found.images[..., :height, :width].contiguous())
    with torch.autocast(z.device.type, enabled=False):
        found = _solve(z, removed, tolerance)
    missed = found.residual > tolerance
    if missed.any():
        warnings.warn(
            f"{int(missed.sum())} imputed images have a relative residual above {tolerance:.1e}, up to "
            f"{float(found.residual[missed].max()):.1e}, after {STEPS_AGAIN} steps.",
            HeatproofWarning,
            stacklevel=3,
        )
    return found


def _solve(z: torch.Tensor, removed: torch.Tensor, tolerance: float) -> Imputed:
    """In float32, several systems at a time, and those that miss the tolerance one by one in float64."""
    images, residual, steps = z.clone(), torch.zeros(len(z), dtype=torch.float64, device=z.device), [0]

    def put(part: slice, found: Imputed) -> None:
        images[part], residual[part] = found.images, found.residual
        steps.append(found.iterations)

    values = CPU_VALUES * torch.get_num_threads() if z.device.type == "cpu" else DEVICE_VALUES
    multigrid = None
    for part in parts(len(z), max(1, values // max(1, z[:1].numel()))):
        if multigrid is None or len(z[part]) != multigrid.batch:
            multigrid = Multigrid(z[part], torch.promote_types(z.dtype, torch.float32))
        put(part, multigrid.solution(z[part], removed[part], tolerance, STEPS))
    for row in (residual > tolerance).nonzero()[:, 0].tolist():
        part = slice(row, row + 1)
        put(part, Multigrid(z[part], torch.float64).solution(z[part], removed[part], tolerance, STEPS_AGAIN))
    return Imputed(images, residual, max(steps))


def _check(z: torch.Tensor, removed: torch.Tensor, tolerance: float) -> None:
    if z.dim() != 4 or not z.is_floating_point():
        raise NotApplicable(f"Imputation is for images (N, C, H, W) of floats. Got {z.dtype} {tuple(z.shape)}.")
    wanted = (len(z), *z.shape[2:])
    if removed.dtype != torch.bool or removed.shape != wanted:
        raise InvalidInput(f"`removed` must be bool {wanted}. Got {removed.dtype} {tuple(removed.shape)}.")
    if not tolerance > 0:
        raise InvalidInput(f"`tolerance` must be above 0. Got {tolerance}.")


class Board:
    """Work space of one grid: fields `(B, C, length)` that hold padded images, row after row.

    A row is `width + 2` long, so that a neighbour is a shift of the whole field, and an addition runs over memory once.
    The padding of a field is 0; one row more below lets a coarser grid reach over the edge. Operations on fields are
    functions without arguments: on small grids slicing takes longer than adding, so it is done once.
    """

    def __init__(self, batch: int, channels: int, height: int, width: int, like: torch.Tensor):
        self.shape, self.like = (batch, channels, height, width), like
        self.row = row = width + 2
        self.length = (height + 3) * row
        self.core = slice(row + 1, row + 1 + height * row)
        self.coarse = tuple(side // 2 + 1 if side > 1 else 1 for side in (height, width))
        self.first, self.second = self.field(), self.field()

    def field(self) -> torch.Tensor:
        """A field of zeros."""
        return self.like.new_zeros(*self.shape[:2], self.length)

    def image(self, field: torch.Tensor) -> torch.Tensor:
        """A field as `(B, C, H, W)`: a view."""
        height, width = self.shape[2:]
        return field[..., self.core].unflatten(-1, (height, self.row))[..., :width]

    def neighbours(self, field: torch.Tensor, out: torch.Tensor) -> Work:
        """12 S x into the core of a field, `out`: twice the direct neighbours and the diagonal ones once."""
        left, here, right = field[..., :-2], field[..., 1:-1], field[..., 2:]
        sides, rows = self.first[..., 1:-1], self.second[..., 1:-1]
        start, stop, row = self.core.start, self.core.stop, self.row
        above, below = self.second[..., start - row : stop - row], self.second[..., start + row : stop + row]
        beside, core = self.first[..., self.core], out[..., self.core]

        def work() -> None:
            torch.add(left, right, out=sides)
            torch.add(sides, here, alpha=2, out=rows)
            torch.add(above, below, out=core)
            core.add_(beside, alpha=2)

        return work

    def restriction(self, field: torch.Tensor, out: torch.Tensor) -> Work:
        """[1 2 1]² around every other position, 4 Pᵀ x, into an image of the coarser grid, `out`."""
        height, width = self.coarse
        rows = field.unflatten(-1, (-1, self.row))
        top, middle, bottom = (rows[..., start : start + 2 * height - 1 : 2, :] for start in range(3))
        flat = self.like.new_zeros(*self.shape[:2], height * self.row + 1)  # one more: a 0 beside the last position
        pairs = self.second[..., : height * self.row]
        tall, left, right = flat[..., :-1].unflatten(-1, (height, self.row)), flat[..., :-1], flat[..., 1:]
        even, odd = (pairs.unflatten(-1, (height, self.row))[..., start : 2 * width : 2] for start in range(2))

        def work() -> None:
            torch.add(top, bottom, out=tall)
            tall.add_(middle, alpha=2)
            torch.add(left, right, out=pairs)
            torch.add(even, odd, out=out)

        return work

    def prolongation(self, coarse: torch.Tensor, to: torch.Tensor) -> Work:
        """Adds P e, bilinear between the positions of the coarser grid, to an image of this one, `to`."""
        (batch, channels, height, width), down, right = self.shape, self.shape[2] // 2, self.shape[3] // 2
        wide = self.like.new_zeros(batch, channels, self.coarse[0], width)
        between = self.like.new_zeros(batch, channels, down, width)
        here, beside = coarse[..., : width - right], coarse[..., 1 : right + 1]
        before, wide_even, wide_odd = coarse[..., :right], wide[..., 0::2], wide[..., 1::2]
        rows, above, below = wide[..., : height - down, :], wide[..., :down, :], wide[..., 1 : down + 1, :]
        even, odd = to[..., 0::2, :], to[..., 1::2, :]

        def work() -> None:
            wide_even.copy_(here)
            torch.lerp(before, beside, 0.5, out=wide_odd)
            even.add_(rows)
            torch.add(above, below, out=between)
            odd.add_(between, alpha=0.5)

        return work


class Grid:
    """One level: the system, in fields of one channel, and the fields of all channels that a V-cycle works on."""

    def __init__(self, batch: int, channels: int, height: int, width: int, like: torch.Tensor):
        self.plan, self.board = (Board(batch, count, height, width, like) for count in (1, channels))
        fields = [self.plan.field() for _ in range(5)]
        self.cover, self.tie, self.root, self.diagonal, self.inverse = fields
        self.couple_root = self.plan.neighbours(self.root, self.diagonal)
        self.residual, self.change, self.weighted, self.coupled = (self.board.field() for _ in range(4))
        self.core = self.board.core
        self.root_core, self.diagonal_core, self.inverse_core = (field[..., self.core] for field in fields[2:])
        self.twelfth = torch.empty_like(self.root_core)
        self.residual_core, self.change_core, self.coupled_core = (
            field[..., self.core] for field in (self.residual, self.change, self.coupled)
        )
        self.couple = self.board.neighbours(self.weighted, self.coupled)
        self.couple_change = self.board.neighbours(self.change, self.coupled)
        self.residual_image, self.change_image = (self.board.image(f) for f in (self.residual, self.change))

    def set(self) -> None:
        """Computes what follows from `cover` and `tie`."""
        torch.sqrt(self.cover, out=self.root)
        self.couple_root()
        torch.addcmul(self.tie, self.diagonal, self.root, value=1 / 12, out=self.diagonal)
        # Where nothing is removed, the diagonal and every residual are 0: any finite number will do.
        torch.clamp_min(self.diagonal, 1e-20, out=self.inverse).reciprocal_()
        torch.mul(self.root_core, 1 / 12, out=self.twelfth)

    def minus_applied(self, core: torch.Tensor) -> torch.Tensor:
        """(W − D) x from a field's core and, in `coupled`, its neighbours."""
        return self.coupled_core.mul_(self.twelfth).addcmul_(core, self.diagonal_core, value=-1)

    def matrix_inverse(self) -> torch.Tensor:
        """`(B, n, n)`, of the whole system; positions that take no part get a 1 on the diagonal."""
        batch, _, height, width = self.plan.shape
        count = height * width
        board = Board(batch, count, height, width, self.plan.like)
        unit, matrix = board.field(), board.field()
        board.image(unit).copy_(torch.eye(count, dtype=unit.dtype, device=unit.device).view(count, height, width))
        board.neighbours(unit * self.root, matrix)()
        core, diagonal = matrix[..., self.core], self.diagonal_core
        core.mul_(self.twelfth).neg_().addcmul_(unit[..., self.core], diagonal + (diagonal <= 0))
        return torch.linalg.inv_ex(board.image(matrix).flatten(2)).inverse


class Multigrid:
    """The grids for systems of one size: reused for each mask, so that memory is allocated once."""

    def __init__(self, z: torch.Tensor, dtype: torch.dtype):
        self.batch, channels, height, width = z.shape
        like = torch.empty(0, dtype=dtype, device=z.device)
        self.grids = [Grid(self.batch, channels, height, width, like)]
        while height * width > COARSEST:
            height, width = self.grids[-1].board.coarse
            self.grids.append(Grid(self.batch, channels, height, width, like))
        self.coarsen, self.down, self.up = [], [], []
        for fine, grid in zip(self.grids, self.grids[1:], strict=False):
            plan = fine.plan
            pairs = ((fine.cover, grid.cover), (fine.tie, grid.tie))
            self.coarsen.append([plan.restriction(one, grid.plan.image(other)) for one, other in pairs])
            self.down.append(fine.board.restriction(fine.coupled, grid.residual_image))
            self.up.append(fine.board.prolongation(grid.change_image, fine.change_image))
        grid = self.grids[0]
        self.image, self.start, self.direction = (grid.board.field() for _ in range(3))
        self.couple_image, self.couple_start, self.couple_direction = (
            grid.board.neighbours(field, grid.coupled) for field in (self.image, self.start, self.direction)
        )
        self.direction_core = self.direction[..., grid.core]

    def set(self, removed: torch.Tensor) -> None:
        """Sets up the systems of masks `(B, H, W)`, on all grids."""
        grid = self.grids[0]
        grid.plan.image(grid.cover).copy_(removed[:, None])
        grid.plan.image(grid.root).copy_(~removed[:, None])
        grid.couple_root()
        torch.mul(grid.diagonal, grid.cover, out=grid.tie).div_(12)
        grid.set()
        for works, grid in zip(self.coarsen, self.grids[1:], strict=True):
            for work in works:
                work()
            grid.cover.div_(4)  # restriction is 4 Pᵀ, so a system is taken four times for every level
            grid.set()
        self.coarsest = self.grids[-1].matrix_inverse()

    def correct(self, level: int = 0) -> None:
        """Writes into `change` what one cycle makes of `residual`; at level `TWICE` the cycle is done twice."""
        grid = self.grids[level]
        if level == len(self.grids) - 1:
            grid.change_image.copy_((grid.residual_image.flatten(2) @ self.coarsest).view_as(grid.change_image))
            return
        self._cycle(level)
        if level == TWICE:
            first = grid.change.clone()
            torch.mul(grid.change, grid.root, out=grid.weighted)
            grid.couple()
            grid.residual_core.add_(grid.minus_applied(grid.change_core))
            self._cycle(level)
            grid.change.add_(first)

    def _cycle(self, level: int) -> None:
        """A Jacobi sweep, the coarser grid, a Jacobi sweep: symmetric."""
        grid = self.grids[level]
        torch.mul(grid.residual, grid.inverse, out=grid.change)
        if level:
            torch.mul(grid.change, grid.root, out=grid.weighted)
            grid.couple()
        else:  # the roots are 0 and 1 there
            grid.couple_change()
        grid.coupled_core.mul_(grid.twelfth)  # after a sweep from 0, the residual is W D⁻¹ r
        self.down[level]()
        self.correct(level + 1)
        self.up[level]()
        torch.mul(grid.change, grid.root, out=grid.weighted)
        grid.couple()
        torch.addcmul(grid.residual_core, grid.coupled_core, grid.twelfth, out=grid.change_core)
        grid.change_core.mul_(grid.inverse_core)

    def solution(self, z: torch.Tensor, removed: torch.Tensor, tolerance: float, most: int) -> Imputed:
        """The filled images; solved for the difference of `u` from the mean of the kept pixels that it depends on."""
        hopeless = removed.flatten(1).all(1)
        self.set(removed & ~hopeless[:, None, None])
        grid, everywhere = self.grids[0], removed[:, None]
        self.start.zero_()
        grid.board.image(self.start).copy_(_choose_by_bits(everywhere, torch.zeros_like(z), z))
        self.couple_start()
        right = grid.coupled_core.mul_(grid.twelfth)
        norm, tie = _dot(right, right), grid.tie.sum((1, 2), keepdim=True)
        mean = right.sum(2, keepdim=True) / (tie + (tie == 0))
        mean = mean.masked_fill(hopeless[:, None, None], torch.nan)  # and so everything computed from it
        right.addcmul_(grid.tie[..., grid.core], mean, value=-1)
        self.start.zero_()[..., grid.core].copy_(right)
        steps = self._descend(norm * (AIM * tolerance) ** 2, most)
        self.couple_image()
        rest = grid.minus_applied(self.image[..., grid.core]).add_(self.start[..., grid.core])
        residual = (_dot(rest, rest) / (norm + (norm == 0))).sqrt().double().flatten()
        filled = (grid.board.image(self.image) + mean[..., None]).to(z.dtype)
        return Imputed(_choose_by_bits(everywhere, filled, z), residual, steps)

    def _descend(self, goal: torch.Tensor, most: int) -> int:
        """Solves for `image` with right-hand side `start`; finished systems stay as they are while others go on."""
        grid, before = self.grids[0], None
        self.image.zero_()
        image = self.image[..., grid.core]
        grid.residual.copy_(self.start)
        for step in range(most):
            left = _dot(grid.residual_core, grid.residual_core) > goal  # False where it is NaN
            if not left.any():
                return step
            self.correct()
            weight = _dot(grid.residual_core, grid.change_core)
            if before is None:
                self.direction.copy_(grid.change)
            else:
                share = torch.where(left, weight / before, 0.0)
                torch.addcmul(grid.change, self.direction, share, out=self.direction)
            before = weight
            self.couple_direction()
            applied = grid.minus_applied(self.direction_core)
            share = torch.where(left, -weight / _dot(self.direction_core, applied), 0.0)
            image.addcmul_(self.direction_core, share)
            grid.residual_core.addcmul_(applied, share)
        return most


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The dot product of each system, `(B, 1, 1)`."""
    return (one * other).sum((1, 2), keepdim=True)


def _choose_by_bits(mask: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`torch.where`, by bits: a CPU takes twenty times as long for the original."""
    bits = BITS[other.element_size()]
    first, second = one.contiguous().view(bits), other.contiguous().view(bits)
    return ((first ^ second) & -mask.to(bits)).bitwise_xor_(second).view(other.dtype)
