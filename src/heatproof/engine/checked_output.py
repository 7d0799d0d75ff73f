"""What methods and metrics gave, checked where it enters the engine: a bug in one is named, and stops nothing else."""

from typing import Any

import torch

from heatproof.errors import InvalidInput
from heatproof.metrics.arrays import as_numbers
from heatproof.metrics.catalogue import Curve
from heatproof.transfers import on_host


def checked_maps(found: Any, key: str, form: str, x: torch.Tensor) -> torch.Tensor:
    """The raw maps of a method for images `x` `(N, C, *size)`, as floating point on their device.

    `(N, *spatial)` of any resolution for the form `cam`, `(N, C, *size)` for `rgb`, else `(N, *size)`.

    Raises:
        InvalidInput: no tensor, complex numbers, or another shape.
    """
    if not isinstance(found, torch.Tensor):
        raise InvalidInput(f"The method {key!r} must give a tensor. Got {type(found).__name__}.")
    size = tuple(x.shape[2:])
    wanted = {"cam": (len(x), *found.shape[1:]), "rgb": (len(x), *found.shape[1:2], *size)}.get(form, (len(x), *size))
    dimensions = x.dim() if form == "rgb" else x.dim() - 1
    if found.dim() != dimensions or tuple(found.shape) != wanted or (not found.numel() and len(x)):
        sides = ", ".join(["…"] * len(size)) if form == "cam" else ", ".join(map(str, size))
        shape = f"({len(x)}, {'channels, ' if form == 'rgb' else ''}{sides})"
        raise InvalidInput(
            f"The method {key!r} must give one map for each of {len(x)} images: {shape}. Got {tuple(found.shape)}."
        )
    if found.is_complex():
        raise InvalidInput(f"The method {key!r} must give real numbers. Got {found.dtype}.")
    return (found if found.is_floating_point() else found.float()).to(x.device)


def checked_values(found: Any, key: str, count: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """The values of a metric for `count` images, float64 on the CPU, and the curve behind them where there is one.

    Raises:
        InvalidInput: not one real number for each image, or a curve of another shape.
    """
    if not isinstance(found, Curve):
        return as_numbers(found, count, key), None
    value, at, points = on_host([found.value, found.at, found.points])
    values = as_numbers(value, count, key)
    if at.dim() != 1 or tuple(points.shape) != (count, len(at)):
        raise InvalidInput(
            f"The curve of {key!r} must have points (images, positions) = {(count, *at.shape)}. Got "
            f"{tuple(points.shape)}."
        )
    return values, (at, points)
