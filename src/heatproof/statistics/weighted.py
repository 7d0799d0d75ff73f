"""Medians and AUCs of many resamples at once, where a resample is how often each image was drawn.

Values are sorted once. Their weights are summed in groups, `(groups, images) @ (images, resamples)`, and only what
decides is looked at one by one: the group that holds a median; of an AUC nothing, as values between which none of the
other kind lies can be taken together. Weights are whole numbers, so sums are exact, in float32 up to `EXACT`.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

#: How far from the middle the median of a resample is looked for first, in square roots of the number of values. The
#: number of drawn values below the middle has a standard deviation of about half a square root; values of one image,
#: which are drawn together, have more.
REACH = 4.0
#: How many values are one group in the search for a median, and how many rows of sums are held at a time.
GROUP, HELD = 16, 512
#: Whole numbers up to here are exact in float32.
EXACT = 2**24
#: From so many columns on rows are added one by one, which is faster than a sum along the first axis.
WIDE = 64


def weights(drawn: np.ndarray, values: int) -> np.ndarray:
    """How often each image is drawn `(images, resamples)`, as float32 where sums over so many values are exact.

    values: the most values that an image has, in all.
    """
    if drawn.dtype == np.float32:
        return drawn
    exact = len(drawn) == 0 or float(drawn.max()) * values < EXACT
    return np.ascontiguousarray(drawn, np.float32 if exact else np.float64)


def weighted_medians(values: np.ndarray, drawn: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Median of each resample `(resamples,)`: exactly `np.median` of the values repeated; NaN where it is empty."""
    return medians_of([(values, image)], drawn)[0]


def medians_of(columns: Sequence[tuple[np.ndarray, np.ndarray]], drawn: np.ndarray) -> np.ndarray:
    """`weighted_medians` of several sets of values, each `(values, image)`, in the same resamples: `(sets, resamples)`.

    Of many values only those around the middle are looked at, as the median of a resample lies there; a resample whose
    median does not is looked through.
    """
    result = np.full((len(columns), drawn.shape[1]), np.nan)
    for start in range(0, len(columns), 32):
        some = [_Sorted.of(values, image) for values, image in columns[start : start + 32]]
        counts = np.zeros((2 * len(some), len(drawn)), drawn.dtype)
        for row, one in enumerate(some):
            counts[2 * row] = np.bincount(one.image, minlength=len(drawn))
            counts[2 * row + 1] = np.bincount(one.image[: one.first], minlength=len(drawn))
        sums = counts @ drawn
        for row, one in enumerate(some):
            if len(one.values):
                result[start + row] = _median(one, drawn, sums[2 * row], sums[2 * row + 1])
    return result


class _Sorted(NamedTuple):
    """Values in order with their images, and where their middle lies."""

    values: np.ndarray
    image: np.ndarray
    first: int
    end: int

    @classmethod
    def of(cls, values: np.ndarray, image: np.ndarray) -> "_Sorted":
        order = np.argsort(values, kind="stable")
        reach, middle = int(REACH * np.sqrt(len(values))), len(values) // 2
        return cls(values[order], image[order], max(0, middle - reach), min(len(values), middle + reach))


def _median(one: _Sorted, drawn: np.ndarray, total: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The median of each resample of `total` values, `below` of which come before the middle part."""
    part = slice(one.first, one.end)
    found, inside = _medians_between(one.values[part], one.image[part], drawn, below, total)
    if (missed := ~inside).any():
        some = np.ascontiguousarray(drawn[:, missed])
        found[missed], _ = _medians_between(one.values, one.image, some, np.zeros_like(total[missed]), total[missed])
    return np.where(total > 0, found, np.nan)


def _medians_between(
    values: np.ndarray, image: np.ndarray, drawn: np.ndarray, below: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The medians of resamples of `total` values, `below` of which come before these; and whether they lie here."""
    if not len(values):
        return np.full(len(total), np.nan), np.zeros(len(total), bool)
    ends = np.append(np.arange(0, len(values), GROUP), len(values))
    upto = np.empty((len(ends), len(total)), drawn.dtype)
    upto[0] = below
    for start, sums in _sums(image, ends, drawn):
        upto[start + 1 : start + 1 + len(sums)] = sums
    _run(upto)
    ranks = (total - 1) // 2, total // 2
    inside = (below <= ranks[0]) & (ranks[1] < upto[-1])
    lower, reached = _position(image, drawn, upto, ranks[0])
    upper = lower.copy()
    if (further := inside & (reached <= ranks[1])).any():
        some = np.flatnonzero(further)
        upper[some], _ = _position(image, drawn, upto[:, some], ranks[1][some], some)
    last = len(values) - 1
    return (values[np.minimum(lower, last)] + values[np.minimum(upper, last)]) / 2, inside


def _position(
    image: np.ndarray, drawn: np.ndarray, upto: np.ndarray, rank: np.ndarray, columns: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Where the value of a rank lies in each resample, and how many values there are up to it."""
    columns = np.arange(drawn.shape[1]) if columns is None else columns
    group = np.minimum((upto[1:] <= rank).sum(0), len(upto) - 2)
    places = group * GROUP + np.arange(GROUP)[:, None]
    there = places < len(image)
    run = drawn[image[np.minimum(places, len(image) - 1)], columns] * there
    run[0] += upto[group, np.arange(len(rank))]
    run = run.cumsum(0)
    within = np.minimum((run <= rank).sum(0), GROUP - 1)
    return group * GROUP + within, run[within, np.arange(len(rank))]


def _sums(image: np.ndarray, ends: np.ndarray, drawn: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Sums of the weights of consecutive values, a row for each group between two `ends`; some at a time."""
    for start in range(0, len(ends) - 1, HELD):
        here = ends[start : start + HELD + 1]
        some = image[here[0] : here[-1]]
        parts = np.ones(len(some), drawn.dtype), some, here - here[0]
        yield start, csr_matrix(parts, shape=(len(here) - 1, len(drawn))) @ drawn


def _run(rows: np.ndarray) -> None:
    """Running sums down the rows, in place."""
    if rows.shape[1] < WIDE:
        np.cumsum(rows, axis=0, out=rows)
        return
    for before, row in pairwise(rows):
        np.add(before, row, out=row)


class Runs(NamedTuple):
    """Scores in order, taken together where no score of the other kind lies between; for `wins`.

    high, low: the images of the positives and the negatives in the order of their scores. high_ends, low_ends: where
    each run begins, and the end. A run's positives are above its negatives; in `tied` ones they are equal.
    """

    high: np.ndarray
    low: np.ndarray
    high_ends: np.ndarray
    low_ends: np.ndarray
    tied: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray, image: np.ndarray) -> "Runs":
        """The runs of scores that are rounded already."""
        order = np.argsort(scores, kind="stable")
        scores, positive, image = scores[order], positive[order], image[order]
        group = np.cumsum(np.append(False, scores[1:] != scores[:-1]))
        number = int(group[-1]) + 1 if len(group) else 0
        has = [np.bincount(group[kind], minlength=number) > 0 for kind in (positive, ~positive)]
        both, before = has[0] & has[1], np.append(False, (has[0] & has[1])[:-1])
        falls = ~has[0] & np.append(False, has[0][:-1])  # negatives after positives
        starts = both | before | falls
        starts[:1] = False
        of_group = np.cumsum(starts)
        run = of_group[group]
        tied = np.zeros(int(run[-1]) + 1 if len(run) else 0, bool)
        tied[of_group[both]] = True
        edges = np.arange(len(tied) + 1)
        high_ends, low_ends = (np.searchsorted(run[kind], edges) for kind in (positive, ~positive))
        return cls(image[positive], image[~positive], high_ends, low_ends, tied)

    @property
    def key(self) -> tuple[bytes, ...]:
        """What `wins` depends on, beside the resamples."""
        return tuple(part.tobytes() for part in self)


def wins(runs: Runs, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a positive and a negative that the positive wins (a tie counts half), and all pairs; by weight."""
    won, positives = np.zeros(drawn.shape[1]), np.zeros(drawn.shape[1])
    ahead = np.zeros((1, drawn.shape[1]), drawn.dtype)
    sums = (_sums(image, ends, drawn) for image, ends in ((runs.high, runs.high_ends), (runs.low, runs.low_ends)))
    for (start, high), (_, low) in zip(*sums, strict=True):
        tied = np.flatnonzero(runs.tied[start : start + len(low)])
        before = np.concatenate([ahead, low])
        _run(before)
        ahead = before[-1:].copy()
        before[1 + tied] -= low[tied] / 2
        wide = high.astype(np.float64)
        won += np.einsum("ij,ij->j", wide, before[1:].astype(np.float64))
        positives += wide.sum(0)
    return won, positives * ahead[0]


def weighted_aucs(
    scores: np.ndarray,
    positive: np.ndarray,
    drawn: np.ndarray,
    image: np.ndarray,
    stratum: np.ndarray | None = None,
    known: MutableMapping | None = None,
) -> np.ndarray:
    """AUC with mid-ranks of each resample `(resamples,)`, or `stratified_auc`; NaN without positives or negatives.

    known: what was found for the same scores of the same images in these resamples, which is looked up and filled.
    """
    from heatproof.statistics.robustness import ranked

    scores = ranked(scores)
    stratum = np.zeros(len(scores)) if stratum is None else stratum
    won, pairs = np.zeros(drawn.shape[1]), np.zeros(drawn.shape[1])
    for one in np.unique(stratum):
        here = stratum == one
        runs = Runs.of(scores[here], positive[here], image[here])
        key = runs.key if known is not None else ()
        more = known.get(key) if known is not None else None
        if more is None:
            more = wins(runs, drawn)
            if known is not None:
                known[key] = more
        won += more[0]
        pairs += more[1]
    return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
