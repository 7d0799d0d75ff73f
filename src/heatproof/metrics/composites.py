"""Composites: from the values of other metrics, so from rows alone, without a network.

ADCC and ARCC are harmonic means for each map (protocols §7). The composites of pairs (paper N, protocols §5) have one
value for many pairs of maps: those of a method under a perturbation, at all its severities.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from heatproof.metrics.catalogue import composite
from heatproof.statistics.robustness import Robustness, robustness_of

#: Keeps a part of 0 from dividing by 0; the mean is then 0 to six digits.
EPSILON = 1e-8


#: What the composites share.
harmonic_mean = partial(composite, better="high", range=(0, 1), degenerate=0)


@harmonic_mean(
    "adcc",
    parts={"coherency": "coherency", "complexity": "complexity", "drop": "average-drop[fill=mean]"},
    values="it needs the average drop, a share of the target's probability",
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
    values="it brings ROAD to [0, 1] as a difference of probabilities",
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


class PairComposite(NamedTuple):
    """A composite of pairs; higher is better. parts: the columns of the rows that it is made of."""

    summary: str
    range: tuple[float, float]
    parts: tuple[str, ...]
    value: Callable[[Robustness], float]


PAIR_COMPOSITES = {
    "consistency": PairComposite(
        "Median RBO of the pairs whose prediction did not change.",
        (0, 1), ("rbo", "changed"), lambda cell: cell.consistency,
    ),
    "responsiveness": PairComposite(
        "Area under the ROC curve of −RBO for a changed prediction; .5 is chance.",
        (0, 1), ("rbo", "changed"), lambda cell: cell.responsiveness,
    ),
    "responsiveness-within": PairComposite(
        "The same over pairs of equal severity, averaged over the severities.",
        (0, 1), ("rbo", "changed", "severity"), lambda cell: cell.within,
    ),
    "rm": PairComposite(
        "Consistency × responsiveness.", (0, 1), ("rbo", "changed"), lambda cell: cell.rm,
    ),
    "rm0": PairComposite(
        "Median κ of the pairs whose prediction did not change × max(0, 2 · responsiveness − 1).",
        (-1, 1), ("rbo", "kappa", "changed"), lambda cell: cell.rm0,
    ),
    "rm0-within": PairComposite(
        "RM₀ with the responsiveness within severities.",
        (-1, 1), ("rbo", "kappa", "changed", "severity"), lambda cell: cell.rm0_within,
    ),
}  # fmt: skip


def of_pairs(
    name: str, rbo: np.ndarray, kappa: np.ndarray, changed: np.ndarray, severity: np.ndarray | None = None
) -> float:
    """A composite of pairs from their rows, each `(n,)`; `severity` None: all pairs are of one.

    NaN below ten changed or ten unchanged predictions (consistency: without an unchanged one).
    """
    return PAIR_COMPOSITES[name].value(robustness_of(rbo, kappa, changed, stratum=severity))
