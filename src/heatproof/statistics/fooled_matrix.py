"""Which control fools which metric, by a test of ranks and a test of means (protocols §9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from heatproof.statistics.fooling import MetricRanking
from heatproof.statistics.mean_test import mean_p
from heatproof.statistics.paired import can_be_significant, differences, holm, tested
from heatproof.statistics.score_tables import score_rows, wide_scores

#: How a control is told from the best method: by both tests, by one of them, by none, or not tested.
BOTH, BY_RANKS, BY_MEANS, FOOLED, UNTESTED = "apart", "by ranks", "by means", "fooled", "not tested"


@dataclass(frozen=True)
class FooledCell:
    """One metric and one control, on one model and set of images.

    best: the real method with the best mean. n: images that both have a value for. gap: mean of the differences,
    positive where the method is better. p_ranks: Wilcoxon's signed-rank test; p_means: Fisher and Pitman's test of
    means (`mean_test.mean_p`); both with Holm's correction over both tests of all controls of the metric. verdict: one
    of `BOTH`, `BY_RANKS`, `BY_MEANS`, `FOOLED` (neither test finds the control worse) and `UNTESTED` (too few images).
    ahead: both tests find the control better.
    """

    metric: str
    control: str
    best: str
    n: int
    gap: float
    p_ranks: float
    p_means: float
    verdict: str
    ahead: bool


def fooled_matrix(scores: pd.DataFrame, rankings: Mapping[str, MetricRanking]) -> list[FooledCell]:
    """A cell for every metric with a best method and every control that has values, metrics as in `rankings`.

    A test of ranks ignores zeros and sizes: it is defeated by scores that are mostly 0, such as average gain. A test of
    means is defeated by a few wild values. So a metric counts as fooled only where neither finds a difference.
    """
    frame: Any = score_rows(scores)
    return [cell for metric, one in rankings.items() if one.best
            for cell in _cells(wide_scores(frame[frame["metric"] == metric]), one)]  # fmt: skip


def _cells(wide: Any, one: MetricRanking) -> list[FooledCell]:
    sign = 1 if one.better == "high" else -1
    known = sign * wide.dropna(axis=1, how="all")
    fakes = [name for name in one.controls if name in known.columns]
    columns = {name: known[name].to_numpy(np.float64) for name in (one.best, *fakes)}
    tests = tested([(columns[one.best], columns[name]) for name in fakes], [(str(one.best), name) for name in fakes])
    means = [_mean_p(columns[one.best], columns[name]) for name in fakes]
    corrected = holm([*(test.p for test in tests), *means])
    cells = []
    for i, (test, name) in enumerate(zip(tests, fakes, strict=True)):
        ranks, mean = float(corrected[i]), float(corrected[len(fakes) + i])
        able = can_be_significant(test.n, 2 * len(fakes), one.level)
        apart = ranks < 1 - one.level, mean < 1 - one.level
        by = (apart[0] and test.effect > 0, apart[1] and test.gap > 0)
        ahead = able and all(apart) and test.effect < 0 and test.gap < 0
        verdict = {(True, True): BOTH, (True, False): BY_RANKS, (False, True): BY_MEANS}.get(by, FOOLED)
        shown = verdict if able else UNTESTED
        cells.append(FooledCell(one.metric, name, str(one.best), test.n, test.gap, ranks, mean, shown, ahead))
    return cells


def _mean_p(first: np.ndarray, second: np.ndarray) -> float:
    both = ~(np.isnan(first) | np.isnan(second))
    return mean_p(differences(first[both], second[both]))


def fooling_controls(cells: Sequence[FooledCell]) -> dict[str, tuple[str, ...]]:
    """Metric → the controls that fool it by both tests; only metrics that are fooled."""
    found: dict[str, tuple[str, ...]] = {}
    for cell in cells:
        if cell.verdict == FOOLED:
            found[cell.metric] = (*found.get(cell.metric, ()), cell.control)
    return found


def untested_controls(
    cells: Sequence[FooledCell], metrics: Sequence[str], controls: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Metric → the controls of which it is not known whether they fool it; only metrics with such a control."""
    known = {(cell.metric, cell.control) for cell in cells if cell.verdict != UNTESTED}
    found = {metric: tuple(name for name in controls if (metric, name) not in known) for metric in metrics}
    return {metric: names for metric, names in found.items() if names}
