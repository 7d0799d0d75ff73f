"""Sensitivity: does the map stay the same when the image hardly changes (protocols §8)?

Both metrics read one set of explanations of images with a little noise, by the same method for the same target. A
map that ignores its image does not change at all and scores a perfect 0, as controls show.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from heatproof.errors import InvalidInput
from heatproof.metrics.catalogue import metric
from heatproof.models import Model
from heatproof.passes import check_int
from heatproof.transfers import on_device

Shifts = Callable[..., torch.Tensor]
ZERO = "the map is constant: its change has no measure"

#: What the metrics of this file share, unless they say otherwise.
sensitivity_metric = partial(
    metric,
    family="sensitivity",
    better="low",
    range=(0, None),
    passes="samples explanations",
    degenerate=math.nan,
    undefined=ZERO,
)


@sensitivity_metric("max-sensitivity", aliases=["sensitivity-max"], source="Yeh et al. 2019")
def max_sensitivity(shifts: Shifts, *, samples: int = 10, radius: float = 0.2) -> torch.Tensor:
    """The largest relative change of the map under a little noise: `max ‖S(x') − S(x)‖ / ‖S(x)‖`.

    Over `samples` draws of uniform noise in [−radius, radius] on the normalised image; S is the complete method for
    the same target. Yeh et al. 2019, eq. 5; radius .2 as in Zhang et al. 2024 and Quantus (Captum: .02). From 0 up,
    lower is better. NaN where the map is constant. `samples` explanations, shared with `average-sensitivity`.
    """
    return shifts(samples=samples, radius=radius).amax(1)


@sensitivity_metric("average-sensitivity", aliases=["avg-sensitivity"], source="Bhatt et al. 2020; Yeh et al. 2019")
def average_sensitivity(shifts: Shifts, *, samples: int = 10, radius: float = 0.2) -> torch.Tensor:
    """The mean relative change of the map under a little noise: `mean ‖S(x') − S(x)‖ / ‖S(x)‖`.

    As `max-sensitivity`, with the mean over the draws in place of their maximum; the explanations are shared.
    """
    return shifts(samples=samples, radius=radius).mean(1)


def relative_shifts(
    x: torch.Tensor,
    model: Model,
    maps: torch.Tensor,
    explain: Callable[..., torch.Tensor],
    generator: Sequence[torch.Generator],
    *,
    samples: int,
    radius: float,
) -> torch.Tensor:
    """`‖S(x') − S(x)‖ / ‖S(x)‖` for each draw, `(N, samples)` float64; NaN where the map is zero everywhere.

    One draw of all images at a time, so memory does not grow with `samples`; a method's own random numbers are new in
    each draw.
    """
    samples = check_int("samples", samples)
    if not (math.isfinite(radius) and radius >= 0):
        raise InvalidInput(f"`radius` must be at least 0. Got {radius}.")
    norm, scale, found = _norm(maps), radius * of_normalised(model, torch.ones_like(x[:1])), []
    for draw in range(samples):
        # The same numbers on every device and for every method; scaled so that normalising makes them `radius`.
        noise = torch.empty(x.shape, dtype=torch.float32)
        for one, drawn in zip(generator, noise, strict=True):
            drawn.uniform_(-1, 1, generator=one)
        moved = explain(torch.addcmul(x, on_device(noise, x.device, x.dtype), scale), condition=f"sensitivity-{draw}")
        found.append(_norm(moved - maps) / norm)
    return torch.stack(found, 1)


def of_normalised(model: Model, change: torch.Tensor) -> torch.Tensor:
    """The change of `x` that causes a change of `z`: `std · change`."""
    if not model.normalises:
        return change
    std = on_device(torch.tensor(model.std, dtype=change.dtype), change.device)
    return change * std.view(1, -1, *[1] * (change.dim() - 2))


def _norm(maps: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(maps.flatten(1).double(), dim=1)
