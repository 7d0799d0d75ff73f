"""Agreement of scores: rank correlation of every two metrics over the methods, image by image."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.score_tables import ARROWS, Directions, better, score_rows, wide_scores

#: The fewest methods for which a rank correlation is computed.
METHODS = 3


def metric_agreement(rows: pd.DataFrame, directions: Directions, equal: EqualMaps = DISTINCT) -> pd.DataFrame:
    """Spearman's correlation of every two metrics, metrics × metrics in the order of the rows.

    It is computed within each image over the real methods that have a value, then averaged over the images (protocols
    §9, b). In [−1, 1]; 1 is the same order from best to worst. NaN where no image has, for both metrics, a number for
    every method and two different ones. Empty with fewer than three methods or two metrics. `rows` are of one model and
    dataset. `equal`: methods that count as one.
    """
    frame: Any = equal.kept(score_rows(rows))
    frame = frame[~frame["control"].astype(bool)]
    frame = frame[frame["method"].isin(frame.loc[frame["value"].notna(), "method"])]
    methods, images = sorted(frame["method"].unique()), sorted(frame["image"].unique())
    metrics = [name for name in dict.fromkeys(frame["metric"]) if better(directions, name) in ARROWS]
    if len(methods) < METHODS or len(metrics) < 2:
        return pd.DataFrame()
    ranks = np.full((len(metrics), len(images), len(methods)), np.nan)
    for position, metric in enumerate(metrics):
        wide: Any = wide_scores(frame[frame["metric"] == metric]).reindex(index=images, columns=methods)
        sign = 1 if better(directions, metric) == "high" else -1
        ranks[position] = _standard(sign * wide.to_numpy(np.float64))
    known: Any = ~np.isnan(ranks).any(2)
    flat = np.where(known[..., None], ranks, 0.0)
    shared = known.astype(float) @ known.T.astype(float)
    sums = np.einsum("aim,bim->ab", flat, flat)
    values = np.divide(sums, shared, out=np.full_like(sums, np.nan), where=shared > 0)
    return pd.DataFrame(values, index=metrics, columns=metrics)


def _standard(values: np.ndarray) -> np.ndarray:
    """Ranks of each row with mean 0 and length 1; NaN for rows with a NaN or without two different values."""
    found = np.full_like(values, np.nan)
    whole = ~np.isnan(values).any(1)
    ranks = rankdata(rounded(values[whole], largest(values[whole]), ANSWER_STEP), axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    length = np.sqrt((ranks**2).sum(1, keepdims=True))
    found[whole] = np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)
    return found
