"""Which method a metric puts first, which share the top, and which controls fool it (protocols §9, §11)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.paired import (
    Comparison,
    PairTest,
    can_be_significant,
    compared,
    is_worse,
    tested,
)
from heatproof.statistics.score_tables import ARROWS, Directions, better, reaches, score_rows, wide_scores


@dataclass(frozen=True)
class MetricRanking:
    """The methods ranked by one metric, and the controls that fool it (on one model and set of images).

    best: the real method with the best mean, None where none has a number. top: it and the real methods that are not
    significantly worse, best first. fooled: the controls that are not significantly worse. tests: every other method
    → Wilcoxon's test of the best against it, paired by image; Holm's correction over all pairs of real methods, and
    over the controls. Of methods with equal maps only the first is here (`EqualMaps`). comparison: the tests of all
    pairs of real methods, which decide the top; None with fewer than two. ahead: the controls whose mean is at least as
    good as the best's. n: images with a number for the best. whole: images with a number for every real method. ranked,
    exposed: whether the images are enough for the tests of methods, of controls, to be significant.
    """

    model: str
    dataset: str
    metric: str
    better: str
    best: str | None
    top: tuple[str, ...]
    fooled: tuple[str, ...]
    ahead: tuple[str, ...]
    tests: Mapping[str, PairTest]
    means: Mapping[str, float]
    controls: tuple[str, ...]
    n: int
    whole: int
    ranked: bool
    exposed: bool
    level: float
    comparison: Comparison | None = None


def fooled(
    rows: pd.DataFrame,
    directions: Directions,
    *,
    controls: Iterable[str] = (),
    level: float = 0.95,
    equal: EqualMaps = DISTINCT,
) -> list[MetricRanking]:
    """Judges every metric that has a direction, for each model and dataset, in the order of the rows (protocols §9).

    A metric is fooled where a control is not significantly worse than the best real method. Where there are too few
    images for any test to be significant, nothing counts as fooled: `exposed` is then False. `controls`: names of
    controls besides those of the column `control`. `equal`: methods that are one arm.
    """
    frame: Any = equal.kept(score_rows(rows))
    useless = {str(name) for name in frame.loc[frame["control"].astype(bool), "method"].unique()} | set(controls)
    found = []
    for (model, dataset, metric), cell in frame.groupby(["model", "dataset", "metric"], sort=False, observed=True):
        way = better(directions, metric)
        if way in ARROWS:
            wide = wide_scores(cell)
            found.append(_metric_ranking((str(model), str(dataset), str(metric)), way, wide, useless, level))
    return found


def _metric_ranking(
    key: tuple[str, str, str], way: str, wide: pd.DataFrame, useless: set[str], level: float
) -> MetricRanking:
    sign = 1 if way == "high" else -1
    known: Any = sign * wide.dropna(axis=1, how="all")
    real = [str(name) for name in known.columns if name not in useless]
    fakes = [str(name) for name in known.columns if name in useless]
    means = {str(name): float(value) for name, value in (sign * known.mean()).items()}
    given = tuple(str(name) for name in wide.columns if name in useless)
    if not real:
        return MetricRanking(*key, way, None, (), (), (), {}, means, given, 0, 0, False, False, level)
    wide_real = known[real]
    comparison = compared(wide_real, alpha=1 - level) if len(real) > 1 else None
    best = comparison.best if comparison else real[0]
    assert best is not None
    tests = {name: comparison.pair(best, name) for name in comparison.order[1:]} if comparison else {}
    against = trials(known, best, fakes)
    exposed = bool(against) and all(can_be_significant(test.n, len(against), level) for test in against.values())
    keeping = tuple(name for name in fakes if not is_worse(against[name], level)) if exposed else ()
    ahead = tuple(name for name in fakes if reaches(sign * means[name], sign * means[best]))
    count, whole = int(known[best].notna().sum()), len(wide_real.dropna())
    top, ranked = (comparison.top, comparison.able) if comparison else ((best,), True)
    return MetricRanking(
        *key, way, best, top, keeping, ahead, tests | against, means, given, count, whole, ranked, exposed, level,
        comparison,
    )  # fmt: skip


def trials(wide: pd.DataFrame, best: str, others: Sequence[str]) -> dict[str, PairTest]:
    """Wilcoxon's test of `best` against each of `others` on the images both have a number for; Holm over `others`."""
    column = {name: wide[name].to_numpy(np.float64) for name in (best, *others)}
    tests = tested([(column[best], column[name]) for name in others], [(best, name) for name in others])
    return {test.second: test for test in tests}
