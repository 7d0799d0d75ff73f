"""Which method a metric puts first, which share the top, and which controls fool it (protocols §9, §11)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.paired import PairTest, differences, holm, is_worse, signed_ranks
from heatproof.statistics.score_tables import ARROWS, Directions, better, reaches, score_rows, wide_scores


@dataclass(frozen=True)
class MetricRanking:
    """The methods ranked by one metric, and the controls that fool it (on one model and set of images).

    best: the real method with the best mean, None where none has a number. top: it and the real methods that are not
    significantly worse, best first. fooled: the controls that are not significantly worse. tests: every other method
    → Wilcoxon's test of the best against it, paired by image; Holm's correction over the real methods and over the
    controls separately. ahead: the controls whose mean is at least as good as the best's. n: images with a number for
    the best. ranked, exposed: whether the images are enough for the tests of methods, of controls, to be significant.
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
    ranked: bool
    exposed: bool
    level: float


def fooled(
    rows: pd.DataFrame, directions: Directions, *, controls: Iterable[str] = (), level: float = 0.95
) -> list[MetricRanking]:
    """Judges every metric that has a direction, for each model and dataset, in the order of the rows (protocols §9).

    A metric is fooled where a control is not significantly worse than the best real method. Where there are too few
    images for any test to be significant, nothing counts as fooled: `exposed` is then False. `controls`: names of
    controls besides those of the column `control`.
    """
    frame: Any = score_rows(rows)
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
        return MetricRanking(*key, way, None, (), (), (), {}, means, given, 0, False, False, level)
    best, top, tests, ranked = leaders(known[real], level)
    against = trials(known, best, fakes)
    exposed = bool(against) and all(can_be_significant(test.n, len(against), level) for test in against.values())
    keeping = tuple(name for name in fakes if not is_worse(against[name], level)) if exposed else ()
    ahead = tuple(name for name in fakes if reaches(sign * means[name], sign * means[best]))
    count = int(known[best].notna().sum())
    tests |= against
    return MetricRanking(*key, way, best, top, keeping, ahead, tests, means, given, count, ranked, exposed, level)


def leaders(wide: pd.DataFrame, level: float) -> tuple[str, tuple[str, ...], dict[str, PairTest], bool]:
    """From images × methods (higher is better): the best, the top, the tests, and whether there are enough images.

    The best method is found on the images on which all methods have a number, where there are such. The top: it and
    those not significantly worse.
    """
    whole = wide.dropna()
    means: Any = (whole if len(whole) else wide).mean()
    means = rounded(means, largest(means.to_numpy(), None), ANSWER_STEP)
    order = sorted(map(str, wide.columns), key=lambda name: (-means[name], name))
    tests = trials(wide, order[0], order[1:])
    ranked = all(can_be_significant(test.n, len(tests), level) for test in tests.values())
    top = (order[0], *(name for name in order[1:] if not is_worse(tests[name], level)))
    return order[0], top, tests, ranked


def trials(wide: pd.DataFrame, best: str, others: Sequence[str]) -> dict[str, PairTest]:
    """Wilcoxon's test of `best` against each of `others` on the images both have a number for; Holm over `others`."""
    found = {}
    for name in others:
        pair = wide[[best, name]].dropna().to_numpy(np.float64)
        found[name] = (len(pair), *signed_ranks(differences(pair[:, 0], pair[:, 1])))
    corrected = holm([p for _, _, p, _, _ in found.values()])
    return {
        name: PairTest(best, name, n, ties, statistic, p, float(together), effect)
        for (name, (n, statistic, p, effect, ties)), together in zip(found.items(), corrected, strict=True)
    }


def can_be_significant(n: int, tests: int, level: float, one_sided: bool = False) -> bool:
    """Whether `n` differences of one sign would be significant, with Holm's correction for so many tests."""
    return tests * 2.0 ** (0 if one_sided else 1) / 2.0**n < 1 - level
