"""How many images go through the network in one pass."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from heatproof.errors import InvalidInput

if TYPE_CHECKING:
    import torch

#: Most rows and most input values of one pass. On a CPU eight images of 224² stay in the cache
#: (ResNet-18, one thread: 23 ms an image at 8, 28 at 16, 34 at 64); other devices need larger passes.
CPU_ROWS, CPU_VALUES = 64, 8 * 3 * 224**2
DEVICE_ROWS, DEVICE_VALUES = 512, 128 * 3 * 224**2


def rows_per_pass(z: "torch.Tensor") -> int:
    """How many images of the size of those in `z` `(N, C, *spatial)` to give the network at a time."""
    rows, values = (CPU_ROWS, CPU_VALUES) if z.device.type == "cpu" else (DEVICE_ROWS, DEVICE_VALUES)
    return max(1, min(rows, values // max(1, z[0].numel())))


def parts(count: int, rows: int) -> Iterator[slice]:
    """Slices of at most `rows` that cover `count`."""
    return (slice(first, min(first + rows, count)) for first in range(0, count, rows))


def check_int(option: str, value: float, least: int = 1) -> int:
    """`value` as a whole number of at least `least`, or the error."""
    if not math.isfinite(value) or value != int(value):
        raise InvalidInput(f"`{option}` must be a whole number. Got {value!r}.")
    if value < least:
        raise InvalidInput(f"`{option}` must be at least {least}. Got {value!r}.")
    return int(value)
