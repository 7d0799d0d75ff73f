"""Does a metric follow the network's confidence: Spearman's correlation by image, within each method (paper F, §5).

A metric that only repeats the probability of the class says little about the map. The confidence of an image is the
probability of the class explained on the image as it is.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.condition_scores import conditions_of, under
from heatproof.statistics.intervals import multiplicities, percentiles
from heatproof.statistics.paired import LEAST_IMAGES

#: Columns of tables/confidence.csv, after model and dataset.
CONFIDENCE = ("target", "metric", "method", "control", "n", "spearman", "low", "high")
#: Columns of the means by confidence, for the figure.
BINS = ("target", "metric", "method", "bin", "n", "confidence", "value")
#: The most bins, and the fewest images of one; with fewer images than two bins need, there are as many bins as images.
MOST, FEWEST = 6, 5
#: The largest share of resamples without a correlation that still gives an interval.
UNDEFINED = 0.05

Frame = Any


def confidence_table(rows: Frame, confidences: Frame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Spearman's correlation of each metric with the confidence, by class explained and method; columns CONFIDENCE.

    In [−1, 1]; 95 % bootstrap interval by image, the same draws for every cell. NaN where all images have one value, or
    with fewer than three images. The interval is NaN with fewer than `LEAST_IMAGES` images, and where more than one
    resample in twenty has no correlation, as those left would be of the few images that differ.
    `rows` as in `condition_scores`; `confidences`: target, image, value.
    """
    lines = []
    for target, metric, method, control, cell in _cells(rows, confidences):
        x, y = (cell[name].to_numpy(np.float64) for name in ("confidence", "value"))
        drawn = multiplicities(len(x), resamples, seed, "confidence") if len(x) else np.empty((0, 1))
        value = spearmans(x, y, np.ones((len(x), 1)))[0]
        low = high = np.nan
        if np.isfinite(value) and len(x) >= LEAST_IMAGES:
            resampled = spearmans(x, y, drawn)
            if np.isnan(resampled).mean() <= UNDEFINED:
                low, high = np.clip(percentiles(resampled, len(x)), -1, 1).tolist()
        lines.append((target, metric, method, control, len(x), value, low, high))
    return pd.DataFrame(lines, columns=list(CONFIDENCE))


def confidence_bins(rows: Frame, confidences: Frame) -> pd.DataFrame:
    """Mean of each metric over images of like confidence, of equal counts; columns BINS."""
    lines = []
    for target, metric, method, _, cell in _cells(rows, confidences):
        ordered = cell.sort_values(["confidence", "image"], kind="stable")
        count = min(MOST, len(ordered) // FEWEST)
        parts = np.array_split(np.arange(len(ordered)), count if count > 1 else max(1, len(ordered)))
        for number, part in enumerate(parts):
            if len(part):
                few: Any = ordered.iloc[part]
                means = few["confidence"].mean(), few["value"].mean()
                lines.append((target, metric, method, number, len(part), *means))
    return pd.DataFrame(lines, columns=list(BINS))


def _cells(rows: Frame, confidences: Frame) -> Iterator[tuple[str, str, str, bool, Frame]]:
    """(target, metric, method, control, frame of image, confidence and value) where both are numbers."""
    for target, transformation in conditions_of(rows):
        if transformation:
            continue
        known = confidences[confidences["target"] == target].set_index("image")["value"].rename("confidence")
        cells = under(rows, target, "").groupby(["metric", "method", "control"], sort=False, observed=True)
        for (metric, method, control), cell in cells:
            both = cell[["image", "value"]].join(known, on="image").dropna().sort_values("image")
            yield target, str(metric), str(method), bool(control), both


def spearmans(x: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each resample, `drawn` `(images, resamples)` being how often each image is in it.

    It is that of the images repeated, with mid-ranks. NaN where x or y has one value in a resample, or below three
    images.
    """
    if len(x) < 3:
        return np.full(drawn.shape[1], np.nan)
    first, second = (_centred(_mid_ranks(values, drawn), drawn) for values in (x, y))
    both, one, other = ((drawn * a * b).sum(0) for a, b in ((first, second), (first, first), (second, second)))
    length = np.sqrt(one * other)
    found = np.divide(both, length, out=np.full_like(both, np.nan), where=length > 1e-9)
    return np.clip(found, -1, 1)


def _mid_ranks(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mid-ranks of each image in each resample, where it is repeated: `(images, resamples)`."""
    dense = rankdata(rounded(values, largest(values, None), ANSWER_STEP), method="dense") - 1
    weight = np.zeros((int(dense.max()) + 1, drawn.shape[1]))
    np.add.at(weight, dense, drawn)
    before = np.cumsum(weight, 0) - weight
    return (before + (weight + 1) / 2)[dense]


def _centred(ranks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Ranks less their mean over the images of each resample."""
    return ranks - (drawn * ranks).sum(0) / drawn.sum(0)
