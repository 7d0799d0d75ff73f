"""Does the order of the methods hold under other conditions: Friedman's test under each, Kendall's W between them.

Rows as in `condition_scores`. Only real methods count: controls stand at the end of an order and would raise W.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.condition_scores import conditions_of, under
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.intervals import multiplicities, percentiles
from heatproof.statistics.paired import LEAST_IMAGES, LEAST_METHODS, friedman, holm
from heatproof.statistics.score_tables import ARROWS, Directions, better, wide_scores

#: Columns of tables/rankings.csv, after model and dataset. `test` is `friedman`, under one condition: do the methods
#: differ (p_holm over the conditions of the metric), how far the images agree on the order (w), and the methods from
#: best to worst by their average ranks; or `kendall-targets` and `kendall-transformations`: how far the conditions
#: agree on the order of the methods' means (w, with a bootstrap interval by image), 1 where all have the same order.
RANKINGS = (
    *(
        "metric",
        "test",
        "target",
        "transformation",
        "methods",
        "conditions",
        "n",
        "dropped",
        "statistic",
        "p",
        "p_holm",
    ),
    *("w", "low", "high", "order"),
)

Frame = Any


def ranking_table(
    rows: Frame, directions: Directions, equal: EqualMaps = DISTINCT, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Every test of the order of the methods, columns RANKINGS; empty with fewer than two methods.

    Statistics and W are NaN with fewer than `LEAST_METHODS` methods or `LEAST_IMAGES` images.
    """
    real: Any = equal.kept(rows[~rows["control"].astype(bool)])
    methods = list(dict.fromkeys(real.loc[real["value"].notna(), "method"]))
    conditions, lines = conditions_of(real), []
    if len(methods) < 2:
        return pd.DataFrame(columns=list(RANKINGS))
    for metric in dict.fromkeys(real["metric"]):
        way = better(directions, metric)
        if way not in ARROWS:
            continue
        cells = real[real["metric"] == metric]
        sign = 1.0 if way == "high" else -1.0
        wide = {one: sign * wide_scores(under(cells, *one)).reindex(columns=methods) for one in conditions}
        wide = {one: values for one, values in wide.items() if values.notna().any().all()}
        lines += _friedman_lines(metric, wide, methods)
        plain = {one: values for one, values in wide.items() if not one[1]}
        turned = {one: values for one, values in wide.items() if one[1] or one == conditions[0]}
        for test, some in (("kendall-targets", plain), ("kendall-transformations", turned)):
            if len(some) > 1:
                lines.append({"metric": metric, "test": test, **_agreement(list(some.values()), resamples, seed)})
    table = pd.DataFrame(lines, columns=list(RANKINGS))
    return table.astype({"n": "Int64", "dropped": "Int64", "conditions": "Int64", "methods": "Int64"})


def _friedman_lines(metric: str, wide: dict[tuple[str, str], Frame], methods: Sequence[str]) -> list[dict[str, Any]]:
    found = {one: friedman(values.to_numpy(np.float64)) for one, values in wide.items()}
    corrected = holm([test.p if test.n >= LEAST_IMAGES else np.nan for test in found.values()])
    lines = []
    for ((target, transformation), test), p_holm in zip(found.items(), corrected, strict=True):
        line: dict[str, Any] = {
            "metric": metric,
            "test": "friedman",
            "target": target,
            "transformation": transformation,
        }
        line |= {"methods": len(methods), "n": test.n, "dropped": test.dropped}
        ranks = sorted(zip(rounded(test.ranks), methods, strict=True)) if test.n else []
        tested = {"statistic": test.statistic, "p": test.p, "p_holm": float(p_holm), "w": test.w}
        if test.n < LEAST_IMAGES:
            tested = dict.fromkeys(tested, np.nan)
        lines.append(line | tested | {"order": "; ".join(method for _, method in ranks)})
    return lines


def _agreement(wide: Sequence[Frame], resamples: int, seed: int) -> dict[str, Any]:
    """Kendall's W of the orders of the methods' means under several conditions, and the span of its resamples.

    The means of a resample are noisier than the means, so its orders agree less: the span lies mostly below W, and is
    no interval of confidence for it.
    """
    images = sorted(set().union(*(values.index for values in wide)))
    values = np.stack([one.reindex(images).to_numpy(np.float64) for one in wide])
    count = values.shape[2]
    counts = {"methods": count, "conditions": len(wide), "n": len(images)}
    if count < LEAST_METHODS or len(images) < LEAST_IMAGES:
        return {**counts, "w": np.nan, "low": np.nan, "high": np.nan}
    drawn = multiplicities(len(images), resamples, seed, "orders")
    point = kendall_ws(_means(values, np.ones((len(images), 1))))[0]
    low, high = percentiles(kendall_ws(_means(values, drawn)), len(images))
    return {**counts, "w": point, "low": low, "high": high}


def _means(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Means of `(conditions, images, methods)` in each resample, `(conditions, methods, resamples)`."""
    known = ~np.isnan(values)
    sums = np.einsum("cim,ir->cmr", np.where(known, values, 0.0), drawn)
    counts = np.einsum("cim,ir->cmr", known.astype(float), drawn)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def kendall_ws(scores: np.ndarray) -> np.ndarray:
    """Kendall's W of each column of scores `(raters, items, columns)`, ties counted as in `agreement.kendall_w`.

    With mid-ranks r of m raters and R the sums over them, `W = Σ (R − R̄)² / (m ΣΣ (r − r̄)²)`, which is the usual
    formula with its correction for ties. NaN where a score is missing, or where every rater ties all items.
    """
    ranks = rankdata(rounded(scores, largest(scores, 1), ANSWER_STEP), axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    between, within = (ranks.sum(0) ** 2).sum(0), len(ranks) * (ranks**2).sum((0, 1))
    known = ~np.isnan(scores).any((0, 1)) & (within > 1e-12)
    return np.divide(between, within, out=np.full(scores.shape[2], np.nan), where=known)
