"""Coherency: does the map stay the same when the method explains the image masked by it?"""

from collections.abc import Callable

import torch

from heatproof import masking
from heatproof.metrics.catalogue import metric
from heatproof.metrics.explain_func import images
from heatproof.models import Model

#: Maps in [0, 1] whose Euclidean distance from their mean is below this are constant up to rounding.
_FLAT = 1e-6


@metric(
    "coherency",
    family="sensitivity",
    better="high",
    range=(0, 1),
    passes="1 explanation",
    degenerate=0,
    undefined="the map is constant",
    source="Poppi et al. 2021; Domeniconi et al. 2026",
)
def coherency(
    x: torch.Tensor, z: torch.Tensor, maps: torch.Tensor, explain: Callable, model: Model, *, fill: str = "mean"
) -> torch.Tensor:
    """Similarity of the map to the map of the image masked by it: `(pearson(m, S(x ⊙ m)) + 1) / 2`.

    S is the complete method (RefineCAM: with all its layers) for the same target; masked pixels become `fill` (`mean`,
    as in the published codes). In [0, 1], higher is better; .5 where the second map is constant, as its correlation
    counts as 0. A constant map scores 0. One explanation.
    """
    background = masking.ground(fill, x, z)
    masked = masking.masked(z, maps, background)
    again = explain(images(model, masked), condition="coherency")
    return (pearson(maps, again) + 1) / 2


def pearson(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Correlation of two maps `(N, *spatial)`, `(N,)` float64: 0 where only `other` is constant, NaN where `one` is."""
    a, b = (maps.flatten(1).double() for maps in (one, other))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    spread = [torch.linalg.vector_norm(part, dim=1) for part in (a, b)]
    first, second = (part > _FLAT for part in spread)
    value = ((a * b).sum(1) / (spread[0] * spread[1])).clamp(-1, 1)
    return torch.where(first, torch.where(second, value, 0), torch.nan)
