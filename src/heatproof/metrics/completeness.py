"""Completeness: does a map add up to what the network says of the image, over what it says of nothing?"""

import math

import torch

from heatproof.errors import InvalidInput
from heatproof.masking import checked_fill
from heatproof.metrics.catalogue import metric
from heatproof.metrics.sampling import answer
from heatproof.rounding import ANSWER_STEP, largest, rounded

UNDEFINED = "the network says the same of the image and of the fill"
SOURCE = "Sundararajan et al. 2017, proposition 1"


@metric(
    "completeness",
    family="fidelity",
    better="low",
    range=(0, None),
    passes="1 forward, once for all methods and metrics of that fill",
    degenerate=1.0,
    undefined=UNDEFINED,
    source=SOURCE,
)
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
    """What a map lacks, or has too much, to add up: `|Σ m − (f(x) − f(x₀))| / |f(x) − f(x₀)|`.

    The sum goes over the signed map as the method made it, channels and layer resolution included; x₀ is nothing but
    `fill`. `(N,)`, at least 0, lower is better; 1 for a map that sums to 0, and where the map says nothing. NaN where
    f(x) = f(x₀). Integrated gradients on enough steps, and input × gradient on a linear network, add up over the zero
    in z. A CAM before a linear head adds up to the logit less the bias: close only where x₀ says little.

    Args:
        fill: what x₀ is made of; a method adds up to its own.
        of: `logit` or `probability`, what the method explains.
    """
    gap, size = _gap(raw, answer(of, logits, target, p), nothing, fill, of)
    return torch.where(size > 0, gap / size, torch.nan)


@metric(
    "completeness-holds",
    family="fidelity",
    better="high",
    range=(0, 1),
    passes="1 forward, once for all methods and metrics of that fill",
    degenerate=0.0,
    undefined=UNDEFINED,
    source=f"{SOURCE}; Zhang et al. 2024",
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

    `(N,)`, higher is better; 0 where the map says nothing, NaN where f(x) = f(x₀). Paper F and Quantus ask whether two
    floats are equal to the last bit, which not even exact methods are.

    Args:
        tolerance: of the gap, as a share of f(x) − f(x₀). IG with 20 to 300 steps
            stays within 5 %, its authors say.
        fill, of: as for `completeness`.
    """
    if not 0 <= tolerance < math.inf:
        raise InvalidInput(f"`tolerance` must be at least 0. Got {tolerance!r}.")
    gap, size = _gap(raw, answer(of, logits, target, p), nothing, fill, of)
    within = rounded(gap - tolerance * size, size, ANSWER_STEP) <= 0
    return torch.where(size > 0, within.double(), torch.nan)


def _gap(raw: torch.Tensor, clean: torch.Tensor, nothing, fill: str, of: str):
    """`|Σ m − Δ|` and `|Δ|`, `Δ = f(x) − f(x₀)`, each `(N,)`; Δ is 0 where it is but rounding."""
    blank = nothing(checked_fill(fill), of)
    change = clean - blank
    differs = rounded(change, largest(torch.stack([clean, blank], 1))[:, 0], ANSWER_STEP) != 0
    change = torch.where(differs, change, 0.0)
    return (raw.double().flatten(1).sum(1) - change).abs(), change.abs()
