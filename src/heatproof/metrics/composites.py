"""Composites: harmonic means of other metrics' values, from rows alone, without a network (protocols §7)."""

from functools import partial

import torch

from heatproof.metrics.catalogue import composite

#: Keeps a part of 0 from dividing by 0; the mean is then 0 to six digits.
EPSILON = 1e-8


#: What the composites share.
harmonic_mean = partial(composite, better="high", range=(0, 1), degenerate=0)


@harmonic_mean(
    "adcc",
    parts={"coherency": "coherency", "complexity": "complexity", "drop": "average-drop[fill=mean]"},
    source="Poppi et al. 2021",
)
def adcc(coherency: torch.Tensor, complexity: torch.Tensor, drop: torch.Tensor) -> torch.Tensor:
    """Harmonic mean of coherency, 1 − complexity and 1 − average drop.

    `3 / (1/(coh + ε) + 1/(1 − cx + ε) + 1/(1 − AD + ε))`, ε = 1e-8, the drop with fill `mean`, for each image by
    itself. In [0, 1], higher is better. NaN where a part is; a constant map scores 0. The control `half` fools it.
    """
    return harmonic(coherency, 1 - complexity, 1 - drop)


@harmonic_mean(
    "arcc",
    parts={"coherency": "coherency", "complexity": "complexity", "road": "road"},
    source="Domeniconi et al. 2026",
)
def arcc(coherency: torch.Tensor, complexity: torch.Tensor, road: torch.Tensor) -> torch.Tensor:
    """Harmonic mean of coherency, 1 − complexity and ROAD brought to [0, 1].

    `3 / (1/(coh + ε) + 1/(1 − cx + ε) + 1/(R' + ε))`, `R' = clip(2 · ROAD, 0, 1)`, ε = 1e-8, for each image by itself.
    In [0, 1], higher is better: 0 where ROAD is not positive. NaN where a part is; a constant map scores 0.
    """
    return harmonic(coherency, 1 - complexity, (2 * road).clip(0, 1))


def harmonic(*parts: torch.Tensor) -> torch.Tensor:
    """The harmonic mean, `n / Σ 1 / (part + ε)`."""
    return len(parts) / sum(1 / (part + EPSILON) for part in parts)  # type: ignore[return-value]
