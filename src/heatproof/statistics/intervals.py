"""95 % intervals: DeLong for an AUC within one severity, bootstrap by image for everything pooled (protocols §5, §11).

Severities share images, so pairs are not independent: the bootstrap draws whole images. It draws each
image's multiplicity (multinomial) and uses weighted medians and a weighted AUC, so values are sorted only
once. Its intervals are expanded percentile intervals (Hesterberg 2015): plain ones are too narrow with few images, as
resamples spread by √((n − 1) / n) less than samples do, and have no allowance for an estimated spread.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from heatproof.errors import InvalidInput
from heatproof.rounding import rounded
from heatproof.seeds import derived_seed
from heatproof.statistics.robustness import Robustness, both_kinds, ranked, robustness_of, used
from heatproof.statistics.weighted import medians_of, weighted_aucs, weights
from heatproof.statistics.weighted import weighted_medians as weighted_medians

#: The quantities of a verdict; the last two are responsiveness and RM₀ within severities. A cell has κ besides.
QUANTITIES = ("consistency", "responsiveness", "rm", "rm0", "within", "rm0_within")


@dataclass(frozen=True)
class Interval:
    """A value with its interval; NaN bounds where there is none. `n` pairs, `seed` None for DeLong."""

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95
    seed: int | None = None


def delong(scores: np.ndarray, positive: np.ndarray, level: float = 0.95) -> Interval:
    """DeLong's interval for the AUC, symmetric on the logit scale; for independent pairs (one severity).

    Variance from the structural components (DeLong et al. 1988) by mid-ranks (Sun & Xu 2014). An AUC of 0
    or 1 has no interval on the logit scale, and fewer than two of a kind no variance: NaN bounds.
    """
    positive = np.asarray(positive, bool)
    scores = ranked(scores)
    high, low = scores[positive], scores[~positive]
    m, n = len(high), len(low)
    if m == 0 or n == 0:
        return Interval(np.nan, np.nan, np.nan, m + n, level)
    together = rankdata(np.concatenate([high, low]))
    wins = (together[:m] - rankdata(high)) / n  # for each positive, the share of negatives it beats
    losses = 1 - (together[m:] - rankdata(low)) / m
    value = float(wins.mean())
    if min(m, n) < 2 or not 0 < value < 1:
        return Interval(value, np.nan, np.nan, m + n, level)
    error = np.sqrt(wins.var(ddof=1) / m + losses.var(ddof=1) / n) / (value * (1 - value))
    reach = norm.ppf(0.5 + level / 2) * error
    bounds = expit(logit(value) + np.array([-reach, reach]))
    return Interval(value, float(bounds[0]), float(bounds[1]), m + n, level)


def multiplicities(images: int, resamples: int, seed: int, name: str = "") -> np.ndarray:
    """How often each of `images` images is drawn in each resample, `(images, resamples)` float64."""
    if images < 1 or resamples < 1:
        raise InvalidInput(f"`images` and `resamples` must be at least 1. Got {images} and {resamples}.")
    generator = np.random.default_rng(derived_seed(seed, name, "bootstrap"))
    counts = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


@dataclass(frozen=True)
class Replicates:
    """A cell's point values and those of each resample: quantity → `(resamples,)`, NaN where undefined."""

    point: Robustness
    values: Mapping[str, np.ndarray]
    seed: int
    images: int

    def interval(self, quantity: str, level: float = 0.95) -> Interval:
        """The interval around the point value."""
        value = getattr(self.point, quantity)
        low, high = (np.nan, np.nan)
        if not np.isnan(value):
            low, high = percentiles(self.values[quantity], self.images, level)
        return Interval(value, low, high, self.point.n, level, self.seed)


def percentiles(values: np.ndarray, images: int, level: float = 0.95) -> tuple[float, float]:
    """The expanded percentile interval from the resamples of so many images.

    It is the central `2 Φ(w z) − 1` of the resamples, `z = Φ⁻¹(½ + level / 2)`, `w` the `widening`. NaN where fewer
    than half of the resamples gave a value, or there are fewer than two images.
    """
    valid = values[~np.isnan(values)]
    if len(valid) < len(values) / 2 or not len(valid) or images < 2:
        return np.nan, np.nan
    tail = float(ndtr(-ndtri(0.5 + level / 2) * widening(images, level)))
    low, high = np.quantile(valid, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(values: np.ndarray, images: int) -> float:
    """Two-sided p of a difference of 0, from the resamples of the difference over so many images.

    `1 − level` of the widest interval of `percentiles` that leaves 0 out, so that p < .05 where the 95 % interval does.
    The tail is `(1 + k) / (1 + resamples)`, k the resamples on the other side of 0 or at it (Davison & Hinkley 1997,
    §4.2.3), so p is never 0. NaN where `percentiles` gives none.
    """
    valid = rounded(values[~np.isnan(values)])
    if len(valid) < len(values) / 2 or not len(valid) or images < 2:
        return np.nan
    tail = min(0.5, (1 + min((valid <= 0).sum(), (valid >= 0).sum())) / (1 + len(valid)))
    return float(2 * student.sf(norm.isf(tail) / np.sqrt(images / (images - 1)), images - 1))


@lru_cache(maxsize=1024)  # asked for every interval
def widening(images: int, level: float = 0.95) -> float:
    """By how much an interval from resamples of so few images is too narrow: `√(n / (n − 1)) t / z`, at least 1."""
    if images < 2:
        return float("inf")
    upper = 0.5 + level / 2
    return float(np.sqrt(images / (images - 1)) * stdtrit(images - 1, upper) / ndtri(upper))


def bootstrap(
    rbo: np.ndarray,
    kappa: np.ndarray,
    changed: np.ndarray,
    image: np.ndarray,
    drawn: np.ndarray,
    seed: int = 0,
    stratum: np.ndarray | None = None,
    known: MutableMapping | None = None,
) -> Replicates:
    """Resamples a cell by image: `image` `(n,)` is each pair's row of `drawn` `(images, resamples)`.

    Differences between cells that share `drawn` are paired by image. `stratum` `(n,)`: each pair's severity. known: as
    of `weighted_aucs`, for cells that share `drawn`.
    Where the point values have no responsiveness (too few changed or unchanged pairs), the resamples have none
    either; a resample without changed or without unchanged pairs gives NaN.
    """
    keep = ~np.isnan(np.asarray(rbo, np.float64))
    stratum = np.zeros(len(keep)) if stratum is None else np.asarray(stratum)
    point = robustness_of(rbo, kappa, changed, stratum=stratum)
    rbo, kappa, changed = used(rbo, kappa, changed)
    image, stratum = np.asarray(image)[keep], stratum[keep]
    held = ~changed & ~np.isnan(kappa)
    drawn = weights(drawn, len(rbo))
    still, middle = medians_of([(rbo[~changed], image[~changed]), (kappa[held], image[held])], drawn)
    area = inside = np.full(drawn.shape[1], np.nan)
    if both_kinds(changed):
        area = inside = weighted_aucs(-rbo, changed, drawn, image, known=known)
        if len(np.unique(stratum)) > 1:
            inside = weighted_aucs(-rbo, changed, drawn, image, stratum, known)
    values = {
        "consistency": still,
        "responsiveness": area,
        "rm": still * area,
        "rm0": middle * np.maximum(0, 2 * area - 1),  # np.maximum keeps NaN
        "within": inside,
        "rm0_within": middle * np.maximum(0, 2 * inside - 1),
        "kappa": middle,
    }
    return Replicates(point, values, seed, len(drawn))


def resampled_means(each: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mean of `each` `(images, …)` in each resample, `(…, resamples)`; NaN counts as absent, and without any is NaN."""
    known = ~np.isnan(each)
    counts = known.astype(float).T @ drawn
    return np.divide(np.where(known, each, 0).T @ drawn, counts, out=np.full_like(counts, np.nan), where=counts > 0)


def blocks(resamples: int, pairs: int, size: int = 200_000) -> Iterator[slice]:
    """Slices of the resamples, at most `size` numbers each: memory is bounded and the sums fit the cache."""
    step = max(1, size // max(1, pairs))
    return (slice(start, min(start + step, resamples)) for start in range(0, resamples, step))
