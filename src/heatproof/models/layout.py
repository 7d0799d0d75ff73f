"""How a layer's native output becomes `(N, C, *spatial)`, and back; only this module handles tokens."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from heatproof.errors import LayerError

Kind = Literal["channels-first", "channels-last", "tokens"]

#: The most prefix tokens (class, distillation, register, prompt) considered; networks in use have at most a dozen.
MAX_PREFIX = 16

#: A spread of log strides that no real grid has.
_NO_FIT = 100.0

_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
)


@dataclass(frozen=True)
class Layout:
    """Where the channels and the positions of a native output are.

    `kind` is `channels-first` `(N, C, *grid)`, `channels-last` `(N, *grid, C)` or `tokens`
    `(N, prefix + Πgrid, C)`; `prefix` counts the class, distillation and register tokens in front (elsewhere
    0); `grid` is the spatial size.
    """

    kind: Kind
    prefix: int
    grid: tuple[int, ...]

    def to_grid(self, native: torch.Tensor) -> torch.Tensor:
        """Native output → `(N, C, *grid)`: a differentiable view, prefix tokens dropped."""
        if self.kind == "channels-first":
            return native
        if self.kind == "channels-last":
            return native.movedim(-1, 1)
        positions = native[:, self.prefix :].transpose(1, 2)
        return positions.unflatten(2, self.grid)

    def from_grid(self, grid: torch.Tensor, native: torch.Tensor) -> torch.Tensor:
        """`(M, C, *grid)` → the native layout; prefix tokens are those of `native` (M rows or one)."""
        if self.kind == "channels-first":
            return grid
        if self.kind == "channels-last":
            return grid.movedim(1, -1)
        positions = grid.flatten(2).transpose(1, 2)
        if self.prefix == 0:
            return positions
        prefix = native[:, : self.prefix]
        if len(prefix) != len(grid):
            prefix = prefix.expand(len(grid), -1, -1)
        return torch.cat([prefix, positions], dim=1)


def layout_of(
    module: nn.Module,
    output: torch.Tensor,
    input_size: tuple[int, ...],
    prefix: int | None = None,
    *,
    single: bool = False,
) -> Layout:
    """The layout of the `output` of `module` for an input of spatial `input_size`: `(H, W)`, `(L,)` or `(D, H, W)`.

    Four dimensions: the module's own kind decides (convolution, batch norm, pooling: channels first; a plain
    LayerNorm or Linear: channels last), else the pair of dimensions whose aspect fits the input's. Where that
    does not decide: channels last for a block with a plain LayerNorm and no convolution, else channels first.
    Three dimensions on an image: tokens `(N, L, C)`, where L is a few prefix tokens plus the grid of some
    stride. `(N, C, L)` of a one-dimensional signal has the same form, so three dimensions are a signal only
    where the input itself is one. `prefix` overrides the count of prefix tokens.

    Raises LayerError where the output has no positions: `(N, K)`, a single position (unless `single`), or no grid that
    fits.
    """
    shape = tuple(output.shape)
    if not output.is_floating_point() or len(shape) < 3:
        raise LayerError(_not_spatial(module, shape))
    if len(shape) == 3 and len(input_size) != 1:
        layout = _token_layout(module, shape, input_size, prefix)
    elif _channels_are_last(module, shape, input_size):
        layout = Layout("channels-last", 0, shape[1:-1])
    else:
        layout = Layout("channels-first", 0, shape[2:])
    if math.prod(layout.grid) <= (0 if single else 1):
        raise LayerError(_not_spatial(module, shape))
    return layout


def token_layout(tokens: int, input_size: tuple[int, ...]) -> Layout | None:
    """The likeliest grid of that many tokens over an input of that size; None where none fits."""
    grids = _token_grids(tokens, input_size)
    return Layout("tokens", *grids[0][1:]) if grids else None


def fits(layout: Layout, input_size: tuple[int, ...]) -> bool:
    """Whether the grid has the input's aspect, up to rounding to whole positions."""
    return len(layout.grid) == len(input_size) and _misfit(layout.grid, input_size) < _NO_FIT


def _not_spatial(module: nn.Module, shape: tuple[int, ...]) -> str:
    sizes = " × ".join(map(str, ("N", *shape[1:])))
    return (
        f"Expected a layer whose output has positions, such as N × C × h × w or N × tokens × C. "
        f"Got {sizes} from {type(module).__name__}. Choose a layer before the pooling."
    )


def _token_layout(module: nn.Module, shape: tuple[int, ...], input_size: tuple[int, ...], prefix: int | None) -> Layout:
    grids = _token_grids(shape[1], input_size)
    fitting = [(count, grid) for _, count, grid in grids if prefix is None or count == prefix]
    if not fitting:
        raise LayerError(_not_spatial(module, shape))
    return Layout("tokens", *fitting[0])


def _token_grids(tokens: int, input_size: tuple[int, ...]) -> list[tuple[bool, int, tuple[int, ...]]]:
    """(leaves a border, prefix, grid) with prefix + Πgrid = tokens, the likeliest first.

    A patch size that divides the image comes before one that does not, then the shorter prefix: of 20 tokens on
    70 × 42 five prefix tokens and 5 × 3 patches of 14, not two and 6 × 3 of 11.
    """
    found = set()
    for stride in range(1, max(input_size) + 1):
        border = any(side % stride for side in input_size)
        for grid in (tuple(s // stride for s in input_size), tuple(-(-s // stride) for s in input_size)):
            prefix = tokens - math.prod(grid)
            if math.prod(grid) > 1 and 0 <= prefix <= MAX_PREFIX:
                found.add((border, prefix, grid))
    return sorted(found)


def _channels_are_last(module: nn.Module, shape: tuple[int, ...], input_size: tuple[int, ...]) -> bool:
    if isinstance(module, _CHANNELS_FIRST):
        return False
    width = _last_width(module)
    if width is not None and (shape[-1] == width) != (shape[1] == width):
        return shape[-1] == width
    if width is not None and shape[-1] == width:
        return not _permutes(module)
    if len(shape) - 2 != len(input_size):
        return False
    first, last = _misfit(shape[2:], input_size), _misfit(shape[1:-1], input_size)
    if math.isclose(first, last, abs_tol=1e-9) or min(first, last) >= _NO_FIT:
        return _mostly_last(module, shape[-1])
    return last < first


def _last_width(module: nn.Module) -> int | None:
    """The channel count of a layer that works on channels alone."""
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0]
    return module.out_features if isinstance(module, nn.Linear) else None


def _permutes(module: nn.Module) -> bool:
    """Whether a LayerNorm is channels first: timm's and torchvision's LayerNorm2d are subclasses that permute."""
    return type(module) is not nn.LayerNorm and type(module).__name__.lower().endswith("2d")


def _misfit(grid: tuple[int, ...], input_size: tuple[int, ...]) -> float:
    """The spread of the axes' log strides; at least `_NO_FIT` where rounding to positions cannot explain it."""
    axes = list(zip(input_size, grid, strict=True))
    shortest = max(side / (positions + 0.999) for side, positions in axes)
    longest = min(side / max(positions - 0.999, 1e-3) for side, positions in axes)
    strides = [math.log(side / positions) for side, positions in axes]
    return max(strides) - min(strides) + (0.0 if shortest <= longest else _NO_FIT)


def _mostly_last(module: nn.Module, width: int) -> bool:
    """Where both layouts fit: whether a block has a plain LayerNorm of this width and no channels-first module."""
    inner = list(module.modules())
    norms = any(type(m) is nn.LayerNorm and m.normalized_shape == (width,) for m in inner)
    return norms and not any(isinstance(m, _CHANNELS_FIRST) for m in inner)
