"""How well metrics agree with the ground truth: correlation with the cosine to the mask, in three ways (protocols §9).

A metric whose low values are good has its sign flipped, so that a positive correlation is good for every metric.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.intervals import blocks, multiplicities, percentiles, resampled_means
from heatproof.statistics.paired import (
    LEAST_IMAGES,
    LEAST_METHODS,
    Comparison,
    PairTest,
    can_be_significant,
    compared,
    tested,
)
from heatproof.statistics.score_tables import ARROWS, Directions, better, wide_scores
from heatproof.statistics.special_rows import TRUTH

#: Over what a correlation is taken: all points of image × method; the methods of each image, averaged over the images;
#: the means of the methods.
POOLED, WITHIN, MEANS = WAYS = ("pooled", "within", "means")
PEARSON, SPEARMAN = COEFFICIENTS = ("pearson", "spearman")
#: With fewer, nothing is computed.
METHODS, IMAGES = LEAST_METHODS, LEAST_IMAGES
#: Columns of `Validity.table`.
COLUMNS = ("metric", "way", "coefficient", "value", "std", "low", "high", "images", "methods", "why")


@dataclass(frozen=True)
class Validity:
    """The agreement of metrics with the ground truth on one model and set of images.

    table: columns COLUMNS; a row for each metric, way and coefficient. `value` in [−1, 1], 1 is best; `std` over the
    images, for `within` alone; `low`, `high`: 95 % interval, bootstrap by image; `images`, `methods`: those that the
    number is taken over; `why` says why there is no value.
    within: images × metrics, the rank correlation over the methods of each image. above_chance: metric → Wilcoxon's
    test of these against 0, Holm over the metrics that are tested (`_testable`). comparison: the same metrics compared
    with each other, paired by image; None with fewer than two. known: images with a ground truth.
    """

    table: pd.DataFrame
    within: pd.DataFrame
    above_chance: Mapping[str, PairTest]
    comparison: Comparison | None
    known: int

    def value(self, metric: str, way: str = WITHIN, coefficient: str = SPEARMAN) -> Any:
        """The row of the table for a metric."""
        table: Any = self.table
        found = table[(table["metric"] == metric) & (table["way"] == way) & (table["coefficient"] == coefficient)]
        return found.iloc[0]


def metric_validity(
    scores: pd.DataFrame,
    directions: Directions,
    *,
    seeing: Collection[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Validity:
    """Correlates every metric of known direction with the ground truth, over the methods in `scores`.

    scores: rows of one model and set of images (columns image, method, metric, value), of real methods alone, those of
    the metric `TRUTH` among them. A point takes part where metric and ground truth both have a number. seeing: metrics
    that read the ground truth; they have correlations, and no part in the tests.
    """
    frame: Any = scores
    metrics = [m for m in dict.fromkeys(frame["metric"]) if m != TRUTH and better(directions, m) in ARROWS]
    truth: Any = wide_scores(frame[frame["metric"] == TRUTH])
    drawn = multiplicities(max(1, len(truth)), resamples, seed, "metric validity")
    lines, within = [], {}
    for metric in metrics:
        sign = 1 if better(directions, metric) == "high" else -1
        wide: Any = wide_scores(frame[frame["metric"] == metric])
        points = _Points.of(sign * wide.reindex(index=truth.index, columns=truth.columns), truth, drawn, level)
        lines += [(metric, *line) for line in points.lines()]
        within[metric] = points.within(SPEARMAN)
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    blocks_of = pd.DataFrame(within, index=truth.index).dropna(axis=1, how="all")
    known = _testable(blocks_of.drop(columns=[name for name in blocks_of if name in seeing]), level)
    zero = np.zeros(len(blocks_of))
    tests = tested([(blocks_of[name].to_numpy(), zero) for name in known], [(name, "0") for name in known])
    comparison = compared(blocks_of.reindex(columns=known), alpha=1 - level) if len(known) > 1 else None
    images = int(truth.notna().any(axis=1).sum())
    return Validity(table, blocks_of, {test.first: test for test in tests}, comparison, images)


def _testable(blocks_of: pd.DataFrame, level: float) -> list[str]:
    """The most metrics of which each has images enough to be significant in a family of so many."""
    counts: Any = blocks_of.notna().sum().sort_values(ascending=False, kind="stable")
    for size in range(len(counts), 0, -1):
        if can_be_significant(int(counts.iloc[size - 1]), size, level):
            chosen = set(counts.index[:size])
            return [str(name) for name in blocks_of if name in chosen]
    return []


@dataclass(frozen=True)
class _Points:
    """One metric and the ground truth, both images × methods, NaN where either has no number."""

    metric: np.ndarray
    truth: np.ndarray
    drawn: np.ndarray
    level: float

    @classmethod
    def of(cls, metric: pd.DataFrame, truth: pd.DataFrame, drawn: np.ndarray, level: float) -> "_Points":
        one, other = metric.to_numpy(np.float64), truth.to_numpy(np.float64)
        missing = np.isnan(one) | np.isnan(other)
        near = [rounded(np.where(missing, np.nan, part), largest(part, None), ANSWER_STEP) for part in (one, other)]
        return cls(near[0], near[1], drawn, level)

    @property
    def known(self) -> np.ndarray:
        return ~np.isnan(self.metric)

    @property
    def why(self) -> str:
        """Why there is no correlation at all; empty where there may be one."""
        images, methods = int(self.known.any(1).sum()), int(self.known.any(0).sum())
        if methods < METHODS:
            return f"not computed: {methods} of at least {METHODS} methods have a value"
        if few := _too_few(POOLED, images):
            return few
        for name, values in (("the metric", self.metric), ("the ground truth", self.truth)):
            found = values[self.known]
            if found.min() == found.max():
                return f"not computed: {name} is constant"
        return ""

    def lines(self) -> Iterator[tuple[Any, ...]]:
        """The rest of each row of the table."""
        for way in WAYS:
            for coefficient in COEFFICIENTS:
                images, methods = self._counts(way, coefficient)
                std, bounds, value, why = np.nan, (np.nan, np.nan), np.nan, self.why or _too_few(way, images)
                if not why:
                    value, replicates, std = self._found(way, coefficient)
                    why = "not computed: no image has two different values" if np.isnan(value) else ""
                    bounds = bounds if why else percentiles(replicates, images, self.level)
                yield (way, coefficient, value, std, *bounds, images, methods, why)

    @cached_property
    def whole(self) -> np.ndarray:
        """Whether an image has a value of every method that has any."""
        methods = self.known.any(0)
        return np.asarray(self.known[:, methods].all(1) & methods.any())

    def _counts(self, way: str, coefficient: str) -> tuple[int, int]:
        """The images and the methods that a number is taken over."""
        used = {POOLED: self.known.any(1), MEANS: self.whole}.get(way)
        if used is None:
            used = self.known.any(1) if self.why else ~np.isnan(self._each(coefficient))
        return int(used.sum()), int(self.known[used].any(0).sum())

    def _found(self, way: str, coefficient: str) -> tuple[float, np.ndarray, float]:
        """The value, that of each resample, and the standard deviation over the images."""
        every = np.ones((len(self.metric), 1))
        if way == WITHIN:
            each = self._each(coefficient)
            return float(np.nanmean(each)), resampled_means(each, self.drawn), _std(each)
        found = self._pooled if way == POOLED else self._of_means
        return float(found(coefficient, every)[0]), found(coefficient, self.drawn), np.nan

    def within(self, coefficient: str) -> np.ndarray:
        """The correlation over the methods of each image; NaN without one, and where too few images have one."""
        each = self._each(coefficient)
        few = self.why or _too_few(WITHIN, int((~np.isnan(each)).sum()))
        return np.full(len(each), np.nan) if few else each

    def _each(self, coefficient: str) -> np.ndarray:
        """The correlation over the methods of each image; NaN below `METHODS` of them, or without two values."""
        return np.array([_correlation(one[here], other[here], coefficient) if here.sum() >= METHODS else np.nan
                         for one, other, here in zip(self.metric, self.truth, self.known, strict=True)])  # fmt: skip

    def _pooled(self, coefficient: str, drawn: np.ndarray) -> np.ndarray:
        image = np.nonzero(self.known)[0]
        return weighted_correlations(self.metric[self.known], self.truth[self.known], drawn, image, coefficient)

    def _of_means(self, coefficient: str, drawn: np.ndarray) -> np.ndarray:
        """Correlation of the methods' means in each resample `(resamples,)`, over images that all methods have.

        A method that lacks hard images would else have the better mean.
        """
        parts = [np.where(self.whole[:, None], part, np.nan) for part in (self.metric, self.truth)]
        means = [resampled_means(part, drawn) for part in parts]
        near = [rounded(part, largest(part, None), ANSWER_STEP) for part in means]
        whole = [~(np.isnan(near[0][:, i]) | np.isnan(near[1][:, i])) for i in range(drawn.shape[1])]
        return np.array([_correlation(near[0][here, i], near[1][here, i], coefficient) if here.sum() >= METHODS
                         else np.nan for i, here in enumerate(whole)])  # fmt: skip


def _too_few(way: str, images: int) -> str:
    """Why a correlation over so few images is not computed; empty where it is."""
    have = {POOLED: "have a value", WITHIN: "have a correlation", MEANS: "have a value for every method"}[way]
    return f"not computed: {images} of at least {IMAGES} images {have}" if images < IMAGES else ""


def _correlation(first: np.ndarray, second: np.ndarray, coefficient: str) -> float:
    if first.min() == first.max() or second.min() == second.max():
        return np.nan  # the mean of equal values may differ from them in the last bit
    if coefficient == SPEARMAN:
        first, second = rankdata(first), rankdata(second)
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / length) if length > 0 else np.nan


def weighted_correlations(
    first: np.ndarray, second: np.ndarray, drawn: np.ndarray, image: np.ndarray, coefficient: str
) -> np.ndarray:
    """The correlation in each resample `(resamples,)`: of the points `(n,)`, each as often as its image is drawn.

    drawn: `(images, resamples)`. image: `(n,)`, the row of `drawn` of each point. Spearman's ranks are taken anew in
    each resample, ties at their mean rank. NaN where a resample does not hold two different values of both.
    """
    sides: list[Callable[[np.ndarray], np.ndarray]] = [_side(values, coefficient) for values in (first, second)]
    found = np.full(drawn.shape[1], np.nan)
    for part in blocks(drawn.shape[1], len(first)):
        weight = drawn[image, part]
        total = np.maximum(weight.sum(0), 1)
        one, other = (side(weight) for side in sides)
        one, other = (values - (weight * values).sum(0) / total for values in (one, other))
        length = np.sqrt((weight * one**2).sum(0) * (weight * other**2).sum(0))
        size = largest(length, None)
        np.divide((weight * one * other).sum(0), length, out=found[part], where=length > 1e-12 * size)
    return found


def _side(values: np.ndarray, coefficient: str) -> Callable[[np.ndarray], np.ndarray]:
    """Weights `(n, resamples)` → the values or mid-ranks `(n, resamples or 1)` of one side of a correlation."""
    if coefficient == PEARSON:
        centred = (values - values.mean())[:, None]
        return lambda weight: centred
    order = np.argsort(values, kind="stable")
    _, group = np.unique(values, return_inverse=True)
    last = np.searchsorted(values[order], np.unique(values), "right") - 1

    def mid_ranks(weight: np.ndarray) -> np.ndarray:
        upto = weight[order].cumsum(0)[last]
        below = np.concatenate([np.zeros_like(upto[:1]), upto[:-1]])
        return ((below + upto + 1) / 2)[group]

    return mid_ranks


def _std(each: np.ndarray) -> float:
    known = each[~np.isnan(each)]
    return float(known.std(ddof=1)) if len(known) > 1 else np.nan


def over_models(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation over models of each correlation: metric, way, coefficient, mean, std, models."""
    whole: Any = pd.concat(tables, ignore_index=True)
    found: Any = whole.groupby(["metric", "way", "coefficient"], sort=False)["value"]
    return found.agg(mean="mean", std="std", models="count").reset_index()
