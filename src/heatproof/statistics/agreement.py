"""Agreement of several raters: Kendall's W, and Nemenyi's critical difference of average ranks (protocols §11)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, rankdata, studentized_range

from heatproof.errors import InvalidInput
from heatproof.rounding import ANSWER_STEP, largest, rounded


@dataclass(frozen=True)
class Agreement:
    """Kendall's W in [0, 1] of `raters` on `items` that all of them rate, 1 = the same order; p of W = 0.

    NaN where there are fewer than two raters or items, or where every rater ties all items.
    """

    w: float
    p: float
    raters: int
    items: int


def kendall_w(scores: np.ndarray) -> Agreement:
    """`W = 12 S / (m² (n³ − n) − m T)` of scores `(raters, items)`: S squared deviations of the rank sums, T ties.

    Items without a score from some rater are left out. p from `m (n − 1) W`, chi-squared with n − 1 degrees
    of freedom.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2:
        raise InvalidInput(f"`scores` must be (raters, items). Got shape {scores.shape}.")
    scores = scores[:, ~np.isnan(scores).any(0)]
    m, n = scores.shape
    if m < 2 or n < 2:
        return Agreement(np.nan, np.nan, m, n)
    ranks = rankdata(rounded(scores, largest(scores), ANSWER_STEP), axis=1)
    counts = [np.unique(row, return_counts=True)[1] for row in ranks]
    ties = sum(float((c**3 - c).sum()) for c in counts)
    room = m**2 * (n**3 - n) - m * ties
    if room <= 0:
        return Agreement(np.nan, np.nan, m, n)
    sums = ranks.sum(0)
    w = float(12 * ((sums - sums.mean()) ** 2).sum() / room)
    return Agreement(w, float(chi2.sf(m * (n - 1) * w, n - 1)), m, n)


def segmenter_agreement(table: pd.DataFrame, value: str = "rm", controls: bool = False) -> pd.DataFrame:
    """Kendall's W of the method rankings across segmenters, one row per model, dataset, layer, perturbation, severity.

    `table`: see `robustness_tables.robustness_table`. Columns: the five keys, segmenters, methods, w, p (NaN with one
    segmenter). Controls are left out by default: they are at the ends of every ranking and would raise W.
    """
    keys = ["model", "dataset", "layer", "perturbation", "severity"]
    kept: Any = table if controls else table[~table["control"].astype(bool)]
    rows = []
    for key, cell in kept.groupby(keys, sort=True):
        scores = cell.pivot(index="segmenter", columns="method", values=value)
        found = kendall_w(scores.to_numpy(np.float64))
        rows.append((*key, found.raters, found.items, found.w, found.p))
    return pd.DataFrame(rows, columns=[*keys, "segmenters", "methods", "w", "p"])


def nemenyi_distance(methods: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of average ranks, `q_α √(k (k+1) / (6 N))` (Demšar 2006).

    Two of the k methods whose average ranks over N blocks differ by more are significantly different. q_α: the
    studentised range for k groups and infinite degrees of freedom, over √2.
    """
    if methods < 2 or blocks < 1:
        raise InvalidInput(f"Two methods and one block are needed. Got {methods} and {blocks}.")
    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def cliques(ranks: Mapping[str, float], distance: float) -> tuple[tuple[str, ...], ...]:
    """Maximal groups of at least two methods whose average ranks lie within `distance`, best first."""
    order = sorted(ranks, key=lambda name: rounded(np.float64(ranks[name])))
    groups: list[tuple[str, ...]] = []
    reached = 0
    for start, name in enumerate(order):
        stop = start
        while stop < len(order) and rounded(np.float64(ranks[order[stop]] - ranks[name] - distance)) <= 0:
            stop += 1
        if stop - start >= 2 and stop > reached:
            groups.append(tuple(order[start:stop]))
            reached = stop
    return tuple(groups)
