"""Paired tests of several methods on the same blocks: Friedman, Kendall's W, Wilcoxon with Holm (protocols §11).

Values are `(blocks, methods)`. Friedman's test takes the blocks without a NaN and counts the others; the test of a pair
takes the blocks in which both have a value. Which methods can be told apart is decided once, by the tests of all pairs:
sentences, bars and marks follow from `Comparison.apart`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, rankdata, wilcoxon

from heatproof.errors import InvalidInput
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.agreement import LEAST_METHODS, cliques, nemenyi_distance

#: With fewer images no test of methods is computed.
LEAST_IMAGES = 10
#: The largest number of differences whose p is exact, without ties and with ties, as in SciPy.
MOST_EXACT, MOST_EXACT_TIED = 50, 13


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over `n` complete blocks (`dropped` were incomplete), and Kendall's W in [0, 1].

    ranks: average rank of each method, 1 = best. statistic: chi-squared with k − 1 degrees of freedom,
    corrected for ties. w: how alike the blocks rank the methods, 1 = all the same. Fewer than two blocks or
    three methods, or blocks in which all methods tie: NaN.
    """

    statistic: float
    p: float
    w: float
    ranks: np.ndarray
    n: int
    dropped: int


@dataclass(frozen=True)
class PairTest:
    """Wilcoxon's signed-rank test of two methods over the `n` blocks that both have a value in.

    ties: blocks without a difference. effect: rank-biserial correlation in [−1, 1], positive where `first` is better.
    p_holm: corrected for all tests made together. gap: mean of the differences, positive where `first` is better.
    """

    first: str
    second: str
    n: int
    ties: int
    statistic: float
    p: float
    p_holm: float
    effect: float
    gap: float

    @property
    def turned(self) -> "PairTest":
        """The same test seen from `second`."""
        return replace(self, first=self.second, second=self.first, effect=-self.effect, gap=-self.gap)


@dataclass(frozen=True)
class Comparison:
    """Several methods compared on the same blocks; methods in the order of the columns.

    apart: the pairs of methods that differ significantly. best: the method with the best mean (`by_mean`); None
    without any value. able: whether the blocks are enough for every pair to be significant, if all its differences have
    one sign. order: methods by their means, the best first.
    distance: Nemenyi's critical difference of average ranks at `alpha`, for reference only.
    """

    methods: tuple[str, ...]
    friedman: Friedman
    distance: float
    pairs: tuple[PairTest, ...]
    apart: frozenset[frozenset[str]]
    order: tuple[str, ...]
    able: bool
    alpha: float

    @property
    def best(self) -> str | None:
        """The method with the best mean."""
        return self.order[0] if self.order else None

    @property
    def top(self) -> tuple[str, ...]:
        """The best method and those that cannot be told from it, by their means."""
        return tuple(name for name in self.order if frozenset((self.order[0], name)) not in self.apart)

    @property
    def cliques(self) -> tuple[tuple[str, ...], ...]:
        """The largest groups of methods of which no two can be told apart, by their average ranks."""
        return cliques(list(self.ranks), self.apart) if self.friedman.n else ()

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
                return test.turned
        raise InvalidInput(f"`first` and `second` must be two of {', '.join(self.methods)}. Got {first}, {second}.")


def compared(
    blocks: pd.DataFrame,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    apart: Collection[frozenset[str]] | None = None,
) -> Comparison:
    """All tests on a frame of blocks × methods (see `robustness_tables.rm_blocks` and `image_blocks`).

    Two methods are told apart where Wilcoxon's test with Holm's correction over all pairs finds a difference at
    `alpha`, and the means have the same order. `apart`: the pairs that are told apart by another decision, in place of
    this one.
    """
    methods = tuple(map(str, blocks.columns))
    values = blocks.to_numpy(np.float64) * (1 if higher_is_better else -1)
    test = friedman(values)
    distance = nemenyi_distance(len(methods), test.n, alpha) if test.n else np.nan
    pairs = wilcoxon_pairs(values, methods)
    able = all(can_be_significant(pair.n, len(pairs), 1 - alpha) for pair in pairs)
    if apart is None:
        apart = [frozenset((pair.first, pair.second)) for pair in pairs if differs(pair, 1 - alpha)]
    return Comparison(methods, test, distance, pairs, frozenset(apart), by_mean(values, methods), able, alpha)


def by_mean(values: np.ndarray, methods: Sequence[str]) -> tuple[str, ...]:
    """The methods by their means, highest first, equal ones by name; those without any value are left out.

    Means are over the blocks that all methods have, so that none gains by having easy blocks alone. A method with a
    value in less than half of the blocks comes after the others and has no part in these: it must not decide by a few
    blocks how the others stand. Where no block is complete, means are over the blocks that each method has.
    """
    counts = (~np.isnan(values)).sum(0)
    most = [i for i in range(len(methods)) if counts[i] and 2 * counts[i] >= (~np.isnan(values)).any(1).sum()]
    few = [i for i in range(len(methods)) if counts[i] and i not in most]
    return (*_by_shared_mean(values, methods, most), *_by_shared_mean(values, methods, few))


def _by_shared_mean(values: np.ndarray, methods: Sequence[str], chosen: Sequence[int]) -> tuple[str, ...]:
    if not chosen:
        return ()
    values = values[:, list(chosen)]
    whole = values[~np.isnan(values).any(1)]
    found = np.nanmean(whole if len(whole) else values, axis=0)
    near = rounded(found, largest(found, None), ANSWER_STEP)
    means = {methods[i]: float(mean) for i, mean in zip(chosen, near, strict=True)}
    return tuple(sorted(means, key=lambda name: (-means[name], name)))


def can_be_significant(n: int, tests: int, level: float, one_sided: bool = False) -> bool:
    """Whether `n` differences of one sign would be significant, with Holm's correction for so many tests."""
    return tests * 2.0 ** ((0 if one_sided else 1) - n) < 1 - level  # 2.0**n has no value above 1,023


def friedman(values: np.ndarray) -> Friedman:
    """Friedman's test with ties on `(blocks, methods)`, higher is better; statistic, p and w need `LEAST_METHODS`.

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
    if n < 2 or k < LEAST_METHODS or correction <= 1e-12:
        return Friedman(np.nan, np.nan, np.nan, average, n, dropped)
    spread = 12 / (n * k * (k + 1)) * (ranks.sum(0) ** 2).sum() - 3 * n * (k + 1)
    statistic = max(0.0, float(spread / correction))
    return Friedman(statistic, float(chi2.sf(statistic, k - 1)), statistic / (n * (k - 1)), average, n, dropped)


def wilcoxon_pairs(values: np.ndarray, methods: Sequence[str]) -> tuple[PairTest, ...]:
    """Every pair of methods `(blocks, methods)`, on the blocks that both have a value in; Holm over the pairs."""
    columns = {name: np.asarray(values, np.float64)[:, i] for i, name in enumerate(methods)}
    return tested([(columns[a], columns[b]) for a, b in combinations(methods, 2)], list(combinations(methods, 2)))


def tested(columns: Sequence[tuple[np.ndarray, np.ndarray]], names: Sequence[tuple[str, str]]) -> tuple[PairTest, ...]:
    """Wilcoxon's test of each pair of columns, where both have a value; Holm's correction over all of them."""
    found = []
    for first, second in columns:
        known = ~(np.isnan(first) | np.isnan(second))
        moves = differences(first[known], second[known])
        found.append((len(moves), *signed_ranks(moves), _mean_gap(first[known], second[known])))
    corrected = holm([p for _, _, p, _, _, _ in found])
    return tuple(
        PairTest(*pair, n, ties, statistic, p, float(together), effect, gap)
        for pair, (n, statistic, p, effect, ties, gap), together in zip(names, found, corrected, strict=True)
    )


def _mean_gap(first: np.ndarray, second: np.ndarray) -> float:
    """The difference of the means, to five digits of the largest number; NaN without one."""
    if not len(first):
        return np.nan
    return float(rounded(first.mean() - second.mean(), largest(np.concatenate([first, second]), None), ANSWER_STEP))


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's correction `max over smaller p of min(1, (m − rank) p)`; NaN is left out and stays."""
    found = np.array(p, np.float64)
    order = np.argsort(found, kind="stable")[: int((~np.isnan(found)).sum())]  # NaN sorts last
    # statsmodels' `multipletests` gives the same, and collects garbage at every call: .4 s beside a loaded torch.
    found[order] = np.maximum.accumulate(np.minimum(1, (len(order) - np.arange(len(order))) * found[order]))
    return found


def is_worse(test: PairTest, level: float) -> bool:
    """Whether the second of a test is significantly worse than the first, by its ranks and by its mean."""
    return bool(test.p_holm < 1 - level and test.effect > 0 and test.gap > 0)


def differs(test: PairTest, level: float) -> bool:
    """Whether one of the two methods of a test is significantly worse than the other."""
    return is_worse(test, level) or is_worse(test.turned, level)


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
    return min(up, down), signed_rank_p(moved, ranks, up), (up - down) / (up + down), ties


def signed_rank_p(moved: np.ndarray, ranks: np.ndarray, up: float) -> float:
    """The two-sided p of Wilcoxon's test of differences without zeros: exact where SciPy's is, which it equals.

    That is up to `MOST_EXACT` differences, with ties among them up to `MOST_EXACT_TIED`; normal beyond.
    """
    tied = len(np.unique(ranks)) < len(ranks)
    if len(ranks) > (MOST_EXACT_TIED if tied else MOST_EXACT):
        beyond: Any = wilcoxon(moved)
        return float(beyond.pvalue)
    # SciPy goes through all 2ⁿ signs of tied differences one by one: .1 s a test, and a page has thousands.
    twice = np.rint(2 * ranks).astype(int)  # ranks that are shared may be halves
    ways = np.zeros(twice.sum() + 1)  # of the signs, by twice the sum of the ranks that are up
    ways[0] = 1
    for rank in twice:
        ways[rank:] += ways[:-rank].copy()
    at = round(2 * up)
    return min(1.0, 2 * float(min(ways[: at + 1].sum(), ways[at:].sum())) / 2.0 ** len(ranks))


def complete(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The blocks without NaN, and the number of blocks with one."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise InvalidInput(f"Values must be (blocks, methods) with at least two methods. Got {values.shape}.")
    keep = ~np.isnan(values).any(1)
    return values[keep], int((~keep).sum())
