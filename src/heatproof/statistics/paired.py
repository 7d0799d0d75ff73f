"""Paired tests of several methods on the same blocks: Friedman, Kendall's W, Wilcoxon with Holm (protocols §11).

Values are `(blocks, methods)`. A block with a NaN is left out of all tests (complete blocks only), and
counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, rankdata, wilcoxon

from heatproof.errors import InvalidInput
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.agreement import cliques, nemenyi_distance


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over `n` complete blocks (`dropped` were incomplete), and Kendall's W in [0, 1].

    ranks: average rank of each method, 1 = best. statistic: chi-squared with k − 1 degrees of freedom,
    corrected for ties. w: how alike the blocks rank the methods, 1 = all the same. Fewer than two blocks,
    or blocks in which all methods tie: NaN.
    """

    statistic: float
    p: float
    w: float
    ranks: np.ndarray
    n: int
    dropped: int


@dataclass(frozen=True)
class PairTest:
    """Wilcoxon's signed-rank test of two methods over `n` complete blocks, of which `ties` had no difference.

    effect: rank-biserial correlation in [−1, 1], positive where `first` is better. p_holm: corrected for
    all pairs.
    """

    first: str
    second: str
    n: int
    ties: int
    statistic: float
    p: float
    p_holm: float
    effect: float


@dataclass(frozen=True)
class Comparison:
    """Several methods compared on the same blocks; methods in the order of the columns.

    distance: Nemenyi's critical difference of average ranks at `alpha`; cliques: groups of methods within
    that distance.
    """

    methods: tuple[str, ...]
    friedman: Friedman
    distance: float
    cliques: tuple[tuple[str, ...], ...]
    pairs: tuple[PairTest, ...]
    alpha: float

    @property
    def ranks(self) -> dict[str, float]:
        """Average ranks, best first."""
        found = dict(zip(self.methods, map(float, self.friedman.ranks), strict=True))
        return dict(sorted(found.items(), key=lambda item: rounded(np.float64(item[1]))))

    def pair(self, first: str, second: str) -> PairTest:
        """The test of two methods, seen from `first`."""
        for test in self.pairs:
            if (test.first, test.second) == (first, second):
                return test
            if (test.first, test.second) == (second, first):
                return PairTest(first, second, test.n, test.ties, test.statistic, test.p, test.p_holm, -test.effect)
        raise InvalidInput(f"`first` and `second` must be two of {', '.join(self.methods)}. Got {first}, {second}.")


def compared(blocks: pd.DataFrame, higher_is_better: bool = True, alpha: float = 0.05) -> Comparison:
    """All tests on a frame of blocks × methods (see `table.rm_blocks` and `table.image_blocks`)."""
    methods = tuple(map(str, blocks.columns))
    values = blocks.to_numpy(np.float64) * (1 if higher_is_better else -1)
    test = friedman(values)
    distance = nemenyi_distance(len(methods), test.n, alpha) if test.n else np.nan
    groups = cliques(dict(zip(methods, test.ranks, strict=True)), distance) if test.n else ()
    return Comparison(methods, test, distance, groups, wilcoxon_pairs(values, methods), alpha)


def friedman(values: np.ndarray) -> Friedman:
    """Friedman's test with ties on `(blocks, methods)`, higher is better; k = 2 is allowed (the sign test's square).

    `χ² = [12 / (N k (k+1)) Σ R_j² − 3 N (k+1)] / [1 − Σ (t³ − t) / (N k (k² − 1))]`, `W = χ² / (N (k − 1))`.
    """
    values, dropped = complete(values)
    n, k = values.shape
    if n == 0:
        return Friedman(np.nan, np.nan, np.nan, np.full(k, np.nan), 0, dropped)
    ranks = rankdata(rounded(-values, largest(values), ANSWER_STEP), axis=1)
    tied = sum((counts**3 - counts).sum() for counts in (np.unique(row, return_counts=True)[1] for row in ranks))
    correction = 1 - tied / (n * k * (k**2 - 1))
    average = ranks.mean(0)
    if n < 2 or correction <= 1e-12:
        return Friedman(np.nan, np.nan, np.nan, average, n, dropped)
    spread = 12 / (n * k * (k + 1)) * (ranks.sum(0) ** 2).sum() - 3 * n * (k + 1)
    statistic = max(0.0, float(spread / correction))
    return Friedman(statistic, float(chi2.sf(statistic, k - 1)), statistic / (n * (k - 1)), average, n, dropped)


def wilcoxon_pairs(values: np.ndarray, methods: Sequence[str]) -> tuple[PairTest, ...]:
    """Every pair of methods on the complete blocks of `(blocks, methods)`, with Holm's correction over the pairs."""
    values, _ = complete(values)
    pairs = [(i, j) for i in range(len(methods)) for j in range(i + 1, len(methods))]
    found = [signed_ranks(differences(values[:, i], values[:, j])) for i, j in pairs]
    corrected = holm([test[1] for test in found])
    return tuple(
        PairTest(methods[i], methods[j], len(values), ties, statistic, raw, float(p), effect)
        for (i, j), (statistic, raw, effect, ties), p in zip(pairs, found, corrected, strict=True)
    )


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's correction `max over smaller p of min(1, (m − rank) p)`; NaN is left out and stays."""
    found = np.array(p, np.float64)
    order = np.argsort(found, kind="stable")[: int((~np.isnan(found)).sum())]  # NaN sorts last
    # statsmodels' `multipletests` gives the same, and collects garbage at every call: .4 s beside a loaded torch.
    found[order] = np.maximum.accumulate(np.minimum(1, (len(order) - np.arange(len(order))) * found[order]))
    return found


def is_worse(test: PairTest, level: float) -> bool:
    """Whether the second of a test is significantly worse than the first."""
    return bool(test.p_holm < 1 - level and test.effect > 0)


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`first − second`, rounded to five digits of the largest number in either: smaller ones are 0."""
    return rounded(first - second, largest(np.concatenate([first, second]), None), ANSWER_STEP)


def signed_ranks(moves: np.ndarray) -> tuple[float, float, float, int]:
    """Statistic, p, rank-biserial effect and number of zero differences of Wilcoxon's test, of `differences`.

    Zeros are left out, as by Wilcoxon; the effect is `(W₊ − W₋) / (W₊ + W₋)`. Without any difference p is 1
    and the effect 0; without any block both are NaN.
    """
    moved = moves[moves != 0]
    ties = len(moves) - len(moved)
    if not len(moves):
        return np.nan, np.nan, np.nan, 0
    if not len(moved):
        return 0.0, 1.0, 0.0, ties
    ranks = rankdata(np.abs(moved))
    up, down = float(ranks[moved > 0].sum()), float(ranks[moved < 0].sum())
    tested: Any = wilcoxon(moved)
    return min(up, down), float(tested.pvalue), (up - down) / (up + down), ties


def complete(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The blocks without NaN, and the number of blocks with one."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise InvalidInput(f"Values must be (blocks, methods) with at least two methods. Got {values.shape}.")
    keep = ~np.isnan(values).any(1)
    return values[keep], int((~keep).sum())
