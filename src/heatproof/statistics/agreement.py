"""Agreement of several raters: Kendall's W, and Nemenyi's critical difference of average ranks (protocols §11)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, rankdata, studentized_range

from heatproof.errors import InvalidInput
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps

#: With fewer methods an order of them is not tested.
LEAST_METHODS = 3


@dataclass(frozen=True)
class Agreement:
    """Kendall's W in [0, 1] of `raters` on `items` that all of them rate, 1 = the same order; p of W = 0.

    NaN where there are fewer than two raters or items, or where every rater ties all items.
    """

    w: float
    p: float
    raters: int
    items: int


def kendall_w(scores: np.ndarray, least: int = 2) -> Agreement:
    """`W = 12 S / (m² (n³ − n) − m T)` of scores `(raters, items)`: S squared deviations of the rank sums, T ties.

    Items without a score from some rater are left out; with fewer than `least` W is not computed. p from
    `m (n − 1) W`, chi-squared with n − 1 degrees of freedom.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2:
        raise InvalidInput(f"`scores` must be (raters, items). Got shape {scores.shape}.")
    scores = scores[:, ~np.isnan(scores).any(0)]
    m, n = scores.shape
    if m < 2 or n < max(2, least):
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


def segmenter_agreement(
    table: pd.DataFrame,
    value: str = "rm",
    controls: bool = False,
    equal: Mapping[tuple[str, str], EqualMaps] = MappingProxyType({}),
) -> pd.DataFrame:
    """Kendall's W of the method rankings across segmenters, one row per model, dataset, layer, perturbation, severity.

    `table`: see `robustness_tables.robustness_table`. Columns: the five keys, segmenters, methods, w, p (NaN with one
    segmenter or fewer than `LEAST_METHODS` methods). Controls are left out by default: they are at the ends
    of every ranking and would raise W. `equal`: (model, dataset) → methods with equal maps, which count as one.
    """
    keys = ["model", "dataset", "layer", "perturbation", "severity"]
    kept: Any = table if controls else table[~table["control"].astype(bool)]
    rows = []
    for key, cell in kept.groupby(keys, sort=True):
        scores = equal.get(key[:2], DISTINCT).kept(cell).pivot(index="segmenter", columns="method", values=value)
        found = kendall_w(scores.to_numpy(np.float64), LEAST_METHODS)
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


def cliques(order: Sequence[str], apart: Collection[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """The largest groups of at least two names of which no two are `apart`, each in `order`, sorted by their members.

    Every pair that is not apart is in a group, and no group holds a pair that is (Bron & Kerbosch 1973).
    """
    near = {a: {b for b in order if b != a and frozenset((a, b)) not in apart} for a in order}
    position = {name: number for number, name in enumerate(order)}
    found: list[tuple[str, ...]] = []

    def grow(group: set[str], possible: set[str], excluded: set[str]) -> None:
        if not possible and not excluded:
            found.append(tuple(sorted(group, key=position.__getitem__)))
            return
        pivot = max(possible | excluded, key=lambda name: (len(near[name] & possible), -position[name]))
        for name in sorted(possible - near[pivot], key=position.__getitem__):
            grow(group | {name}, possible & near[name], excluded & near[name])
            possible, excluded = possible - {name}, excluded | {name}

    grow(set(), set(order), set())
    return tuple(sorted((group for group in found if len(group) > 1), key=lambda g: [position[name] for name in g]))
