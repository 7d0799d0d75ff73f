"""Complexity of a map: how much of the image does it highlight (protocols §8)?

All metrics here read the display map. A degenerate map (constant or not finite) is a map of zeros, which would count as
the simplest there is, so each metric gives it the worst value it has.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch

from heatproof.errors import InvalidInput
from heatproof.metrics.catalogue import metric
from heatproof.metrics.sampling import random_images, streamed
from heatproof.models import Model
from heatproof.passes import check_int
from heatproof.rounding import ANSWER_STEP, rounded
from heatproof.transfers import on_device

#: What the metrics of this file share, unless they say otherwise.
complexity_metric = partial(metric, family="complexity", better="low", passes="none")


@complexity_metric("complexity", range=(0, 1), degenerate=1.0, source="Poppi et al. 2021; Domeniconi et al. 2026")
def complexity(maps: torch.Tensor) -> torch.Tensor:
    """Mean of the map, `Σ |m| / pixels`: the share of the image that it highlights.

    `(N,)`, in [0, 1], lower is simpler. 1 for a degenerate map.
    """
    return maps.flatten(1).double().abs().mean(1)


@complexity_metric(
    "entropy", range=(0, None), source="Bhatt et al. 2020 (“complexity” there, and in Zhang et al. 2024)"
)
def entropy(maps: torch.Tensor) -> torch.Tensor:
    """Entropy of the map's shares, `−Σ p ln p` with `p = |m| / Σ|m|`, in nats.

    `(N,)`, from 0 (one pixel) to ln(pixels) (all alike: 10.82 at 224²); lower is simpler. ln(pixels) for a degenerate
    map.
    """
    weight = maps.flatten(1).double().abs()
    total = weight.sum(1, keepdim=True)
    share = torch.where(total > 0, weight / total, 1 / weight.shape[1])
    return torch.special.entr(share).sum(1)


@complexity_metric(
    "sparseness",
    better="high",
    range=(0, 1),
    degenerate=0.0,
    source="Chalasani et al. 2020 (the Gini index of Hurley & Rickard 2009)",
    aliases=["gini"],
)
def sparseness(maps: torch.Tensor) -> torch.Tensor:
    """Gini index of the map, `Σ_i (2i − P − 1) m_(i) / (P Σ m)` with the P values in increasing order.

    `(N,)`, from 0 (all pixels alike) to 1 − 1/P (one pixel); higher is simpler. 0 for a degenerate map.
    """
    ordered = maps.flatten(1).double().abs().sort(1).values
    pixels = ordered.shape[1]
    weight = 2 * torch.arange(1, pixels + 1, dtype=torch.float64, device=maps.device) - pixels - 1
    total = ordered.sum(1)
    return torch.where(total > 0, (ordered @ weight) / (pixels * total), 0.0)


@complexity_metric(
    "nonzero-count", range=(0, None), source="Zhang et al. 2024, table 1 (“effective complexity” there, and in Quantus)"
)
def nonzero_count(maps: torch.Tensor, *, threshold: float = 1e-5) -> torch.Tensor:
    """Number of pixels to which the map gives more than `threshold`, `#(m > threshold)`.

    `(N,)`, at most the number of pixels; lower is simpler. Paper F's table lists this number as effective complexity:
    50175 for a Fake-CAM at 224². The number of pixels for a degenerate map.

    Args:
        threshold: in the units of the display map.
    """
    flat = maps.flatten(1)
    count = (rounded(flat.double() - _check_bounds("threshold", threshold, 0, 1)) > 0).sum(1).double()
    return torch.where((flat == 0).all(1), flat.shape[1], count)


@complexity_metric(
    "effective-complexity",
    range=(0, 1),
    passes="up to (steps − 1) · samples forwards",
    degenerate=1.0,
    source="Nguyen & Martínez 2020",
)
def effective_complexity(
    z: torch.Tensor,
    p: torch.Tensor,
    ranks,
    score,
    model: Model,
    generator,
    *,
    tolerance: float = 0.1,
    steps: int = 20,
    samples: int = 10,
) -> torch.Tensor:
    """The smallest share of top pixels that keeps the probability: `min k/P` with `E[(p(x_k) − p)²] / p² ≤ tolerance`.

    x_k keeps the k most important pixels; the others are drawn from U[0, 1] in x, each channel by itself, as in
    `monotonicity-correlation`. Shares are tried on a grid of `steps`, smallest first, until one suffices (the loss need
    not fall with k, so bisection could miss it). All shares use the same random images. `(N,)`, from 1/steps to 1,
    lower is simpler; 1 for a degenerate map.

    The paper leaves loss, tolerance and distribution open. The loss is relative here; an absolute one would make every
    map simple on an image with a low probability. Quantus calls `nonzero-count` by this name.

    Args:
        tolerance: largest expected squared loss, in units of p²; at .1 the probability is off by a third.
        steps: number of shares on the grid.
        samples: random images for each share.
    """
    steps, samples = check_int("steps", steps, 2), check_int("samples", samples)
    _check_bounds("tolerance", tolerance, 0, float("inf"))
    position, pixels, states = ranks(), z[0, 0].numel(), [one.get_state() for one in generator]
    value, left = torch.ones_like(p), list(range(len(z)))
    for step in range(1, steps):
        if not left:
            break
        again = [torch.Generator().set_state(state) for state in states]
        kept = position * steps < step * pixels
        loss = _expected_loss(kept, left, samples, z, p, score, model, again)
        # The root is in units of p, as rounding is.
        enough = rounded(loss.sqrt() - math.sqrt(tolerance), step=ANSWER_STEP) <= 0
        done = [row for row, one in zip(left, enough.tolist(), strict=True) if one]
        value[on_device(torch.tensor(done, dtype=torch.int64), z.device)] = step / steps
        left = [row for row in left if row not in done]
    return value


def _expected_loss(
    kept: torch.Tensor, left: Sequence[int], samples: int, z: torch.Tensor, p: torch.Tensor, score, model, generator
) -> torch.Tensor:
    """Mean over `samples` of `(p(x') / p − 1)²` for the images `left`, where x' is random outside `kept`."""

    which = on_device(torch.tensor(left), z.device)

    def loss(owner: torch.Tensor, _turn: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
        rows = which[owner]
        drawn = random_images([left[one] for one in owners], z, model, generator)
        variants = torch.where(kept[rows, None], z[rows], drawn)
        return (score(variants, rows) / p[rows] - 1).square()

    return streamed(len(left), samples, z, loss).mean(1)


def _check_bounds(option: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise InvalidInput(f"`{option}` must lie between {low:g} and {high:g}. Got {value!r}.")
    return float(value)
