"""Completeness: does a map sum to the change of the network's output from a fill to the image?"""

import math
from functools import partial

import torch

from heatproof.errors import InvalidInput
from heatproof.masking import checked_fill
from heatproof.metrics.catalogue import metric
from heatproof.metrics.sampling import answer
from heatproof.rounding import ANSWER_STEP, largest, rounded

UNDEFINED = "the network says the same of the image and of the fill"
SOURCE = "Sundararajan et al. 2017, proposition 1"

#: What the metrics of this file share, unless they say otherwise.
completeness_metric = partial(
    metric, family="fidelity", passes="1 forward, once for all methods and metrics of that fill", undefined=UNDEFINED
)


@completeness_metric("completeness", better="low", range=(0, None), degenerate=1.0, source=SOURCE)
def completeness(
    logits: torch.Tensor,
    target: torch.Tensor,
    p: torch.Tensor,
    raw: torch.Tensor,
    nothing,
    *,
    fill: str = "mean",
    of: str = "logit",
) -> torch.Tensor:
    """Relative error of the map's sum: `|Σ m − (f(x) − f(x₀))| / |f(x) − f(x₀)|`.

    Σ m is the sum of the signed raw map, at its own resolution and over all channels; x₀ is an image of nothing but
    `fill`. `(N,)`, at least 0, lower is better; 1 for a map that sums to 0, and for a degenerate map. NaN where
    f(x) = f(x₀). For `fill="mean"` (0 in z), integrated gradients with enough steps are complete, and so is
    input × gradient on a linear network. Grad-CAM before a linear head sums to the logit minus the bias, so its error
    is small only where f(x₀) is close to the bias.

    Args:
        fill: what x₀ is made of; a method is complete for its own baseline.
        of: `logit` or `probability`, whichever the method explains.
    """
    gap, size = _gap(raw, answer(of, logits, target, p), nothing, fill, of)
    return torch.where(size > 0, gap / size, torch.nan)


@completeness_metric(
    "completeness-holds", better="high", range=(0, 1), degenerate=0.0, source=f"{SOURCE}; Zhang et al. 2024"
)
def completeness_holds(
    logits: torch.Tensor,
    target: torch.Tensor,
    p: torch.Tensor,
    raw: torch.Tensor,
    nothing,
    *,
    tolerance: float = 0.05,
    fill: str = "mean",
    of: str = "logit",
) -> torch.Tensor:
    """Whether `completeness` is at most `tolerance`: 1 or 0.

    `(N,)`, higher is better; 0 for a degenerate map, NaN where f(x) = f(x₀). Paper F and Quantus test two floats for
    equality to the last bit, which not even exact methods reach.

    Args:
        tolerance: largest error, as a share of |f(x) − f(x₀)|. The authors of IG report that 20 to 300 steps
            stay within 5 %.
        fill, of: as for `completeness`.
    """
    if not 0 <= tolerance < math.inf:
        raise InvalidInput(f"`tolerance` must be at least 0. Got {tolerance!r}.")
    gap, size = _gap(raw, answer(of, logits, target, p), nothing, fill, of)
    within = rounded(gap - tolerance * size, size, ANSWER_STEP) <= 0
    return torch.where(size > 0, within.double(), torch.nan)


def _gap(raw: torch.Tensor, clean: torch.Tensor, nothing, fill: str, of: str):
    """`|Σ m − Δ|` and `|Δ|`, `Δ = f(x) − f(x₀)`, each `(N,)`; Δ is 0 where it is no more than rounding."""
    blank = nothing(checked_fill(fill), of)
    change = clean - blank
    differs = rounded(change, largest(torch.stack([clean, blank], 1))[:, 0], ANSWER_STEP) != 0
    change = torch.where(differs, change, 0.0)
    return (raw.double().flatten(1).sum(1) - change).abs(), change.abs()
