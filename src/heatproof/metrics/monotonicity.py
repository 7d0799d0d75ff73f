"""Monotonicity: does the target's probability grow while pixels are restored, least important first?

Pixels are restored on a fill, by default black in 28 steps. These are the images of `deletion` in reverse order, so
with `deletion` the three metrics here cost no pass of their own.
"""

from functools import partial

import torch

from heatproof import tensors
from heatproof.errors import InvalidInput
from heatproof.masking import checked_fill
from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.curves import pixel_counts, reversed_ranks, shares
from heatproof.passes import check_int
from heatproof.rounding import ANSWER_STEP, largest
from heatproof.transfers import on_device

ARYA = "Arya et al. 2019 (AIX360); Luss et al. 2019"

#: What the metrics of this file share, unless they say otherwise.
monotonicity_metric = partial(
    metric,
    family="fidelity",
    better="high",
    range=(0, 1),
    passes="steps forwards",
    degenerate=0,
    undefined="the network has no answer to a masked image",
)


@monotonicity_metric("monotonicity", source=ARYA)
def monotonicity(
    curve, values, *, fill: str = "black", steps: int = 28, ties: str = "jitter", tolerance: float = 1e-6
) -> Curve:
    """The share of steps at which the target's probability does not fall as pixels are restored, least important first.

    In [0, 1], higher is better; about half for a random order. A fall of no more than `tolerance` counts as rounding
    (of a network of values: `tolerance` times the largest of the curve, at least 1e-5 of it).
    The curve goes from an image of nothing but fill to the whole one, so it has `steps` steps; AIX360 has single
    features and leaves out the first step. A constant map scores 0. NaN where the output is not finite.
    """
    points, rising = _rising_steps(curve, values, fill, steps, ties, tolerance)
    return Curve(rising.mean(1), shares(points.shape[1] - 1, points.device), points)


@monotonicity_metric("monotonicity-strict", source=ARYA)
def monotonicity_strict(
    curve, values, *, fill: str = "black", steps: int = 28, ties: str = "jitter", tolerance: float = 1e-6
) -> torch.Tensor:
    """Whether the target's probability never falls while pixels are restored, least important first: AIX360's boolean.

    0 or 1, higher is better; parameters and deviations as in `monotonicity`. (Quantus 0.6.0 fills an already blank
    image, so its curve is flat and its value always 1.)
    """
    return _rising_steps(curve, values, fill, steps, ties, tolerance)[1].amin(1)


def _rising_steps(
    curve, values: bool, fill: str, steps: int, ties: str, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The curve, and 1 for each step that does not fall; NaN for a step from or to NaN."""
    if not tolerance >= 0:
        raise InvalidInput(f"`tolerance` must be at least 0. Got {tolerance}.")
    points = _returning_steps(curve, fill, steps, ties)
    moves = points.diff(dim=1)
    least = max(tolerance, ANSWER_STEP) * largest(points) if values else tolerance
    return points, torch.where(moves.isnan(), torch.nan, (moves >= -least).double())


def _returning_steps(curve, fill: str, steps: int, ties: str) -> torch.Tensor:
    steps = check_int("steps", steps)
    return curve(fill=checked_fill(fill), steps=steps, first="least", restore=True, ties=ties)


@monotonicity_metric(
    "monotonicity-pearson",
    range=(-1, 1),
    degenerate=float("nan"),
    undefined="the map or the probability is the same all along",
    source="Zhang, Torres & Hermanns 2024",
)
def monotonicity_pearson(
    curve, maps: torch.Tensor, ranks, *, fill: str = "black", steps: int = 28, ties: str = "jitter"
) -> torch.Tensor:
    """Pearson correlation of the attribution of a growing set of pixels with the target's probability on that set.

    Over the sets S₀ ⊂ S₁ ⊂ … of the least important pixels, 0/steps … steps/steps of them: `Σ_{S_i} m` against
    `f(x ⊙ 1_{S_i})`, the fill elsewhere. In [−1, 1], higher is better; 1 where the map is what each pixel adds. NaN
    where either is constant, and for a degenerate map. Zhang, Torres & Hermanns 2024, section 2: their text (“m_i with
    f(x ⊙ m_i)”) leaves the weight of a set open; here it is the sum of its attributions. The “mono” of their Table 1 is
    another metric, Quantus' MonotonicityCorrelation. One set of images serves all three metrics of this module.
    """
    points = _returning_steps(curve, fill, steps, ties)
    counts = on_device(torch.tensor(pixel_counts(maps.shape[1:].numel(), points.shape[1] - 1)), maps.device)
    return _pearson(set_sums(maps, reversed_ranks(ranks(ties)), counts).to(points.device), points)


def set_sums(maps: torch.Tensor, ranks: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The sum of each map over its pixels of rank < count: `(N, *spatial)`, `(P,)` → `(N, P)` float64."""
    flat = maps.flatten(1).double()
    by_rank = torch.zeros_like(flat).scatter_add_(1, ranks.flatten(1), flat)
    return torch.nn.functional.pad(by_rank.cumsum(1), (1, 0))[:, counts]


def _pearson(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Over the last dimension; NaN where one of them is constant to float32 rounding, or not finite."""
    a, b = (values - values.mean(1, keepdim=True) for values in (one, other))
    value = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    undefined = tensors.degenerate(one) | tensors.degenerate(other)
    return value.clamp(-1, 1).masked_fill(undefined, torch.nan)
