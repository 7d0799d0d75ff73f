"""One method against every other: Wilcoxon's test of each pair on the same blocks, Holm's correction over these pairs.

For a paper that proposes a method the question is not which of all methods differ, but whether this one is better than
each other. There are fewer tests than of all pairs, so they find smaller differences.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from heatproof.statistics.equal_maps import EqualMaps
from heatproof.statistics.fooling import MetricRanking
from heatproof.statistics.paired import PairTest, can_be_significant, is_worse, tested
from heatproof.statistics.score_tables import score_rows, wide_scores
from heatproof.statistics.score_verdict import ScoreVerdict, rank_blocks
from heatproof.statistics.wording import counted, listed

#: The name of the comparison by the mean rank over all counted scores.
ALL_SCORES = "mean rank over the scores"


@dataclass(frozen=True)
class ReferenceTests:
    """A reference against every other real method, by one quantity.

    reference: the method that stands for it in the tests. tests: other → the test, the reference first; a positive
    effect and gap are in favour of the reference. means: method → mean over the blocks it has, in the quantity's units.
    better, worse: the methods than which the reference is significantly better, worse. able: whether the blocks are
    enough for every test to be significant.
    """

    reference: str
    tests: Mapping[str, PairTest]
    means: Mapping[str, float]
    better: tuple[str, ...]
    worse: tuple[str, ...]
    able: bool

    @property
    def open(self) -> tuple[str, ...]:
        """The methods that cannot be told from the reference."""
        return tuple(name for name in self.tests if name not in (*self.better, *self.worse))

    def confirmed(self, higher: Collection[tuple[str, str]]) -> "ReferenceTests":
        """With a second test that must find a difference too, and decides alone where the blocks are too few.

        higher: the pairs of which it finds the first significantly higher.
        """
        better = tuple(name for name in self.tests if (self.reference, name) in higher)
        worse = tuple(name for name in self.tests if (name, self.reference) in higher)
        if self.able:
            better = tuple(name for name in better if name in self.better)
            worse = tuple(name for name in worse if name in self.worse)
        return replace(self, better=better, worse=worse)

    def answer(self, other: str) -> str:
        """`better`, `worse` or `not told apart`: the reference, beside another method."""
        return "better" if other in self.better else "worse" if other in self.worse else "not told apart"


def reference_tests(
    blocks: pd.DataFrame, reference: str, higher_is_better: bool = True, level: float = 0.95
) -> ReferenceTests | None:
    """The tests on a frame of blocks × methods; None where the reference, or every other method, has no value."""
    known: Any = blocks.dropna(axis=1, how="all")
    others = [str(name) for name in known.columns if name != reference]
    if reference not in known.columns or not others:
        return None
    sign = 1 if higher_is_better else -1
    columns = {str(name): sign * known[name].to_numpy(np.float64) for name in known.columns}
    found = tested([(columns[reference], columns[name]) for name in others], [(reference, name) for name in others])
    tests = {test.second: test for test in found}
    return ReferenceTests(
        reference,
        tests,
        {str(name): float(value) for name, value in known.mean().items()},
        tuple(name for name, test in tests.items() if is_worse(test, level)),
        tuple(name for name, test in tests.items() if is_worse(test.turned, level)),
        all(can_be_significant(test.n, len(tests), level) for test in found),
    )


def score_reference_tests(
    rows: pd.DataFrame,
    rankings: Mapping[str, MetricRanking],
    verdict: ScoreVerdict | None,
    families: Mapping[str, str],
    reference: str,
    equal: EqualMaps,
) -> dict[str, ReferenceTests]:
    """By the mean rank over the counted scores first, then by every metric with a direction; by name.

    rows: of one model and set of images, a row per image, method and metric.
    """
    frame: Any = equal.kept(score_rows(rows))
    frame = frame[~frame["method"].isin({name for one in rankings.values() for name in one.controls})]
    return dict(_of_scores(frame, rankings, verdict, families, equal.arm(reference)))


def _of_scores(
    frame: Any,
    rankings: Mapping[str, MetricRanking],
    verdict: ScoreVerdict | None,
    families: Mapping[str, str],
    reference: str,
) -> Iterator[tuple[str, ReferenceTests]]:
    if verdict is not None and verdict.comparison is not None:
        counted_ones = [rankings[metric] for metric in verdict.counted]
        blocks = rank_blocks(frame[frame["method"].isin(list(verdict.ranks))], counted_ones, families)
        if (found := reference_tests(blocks, reference, higher_is_better=False)) is not None:
            yield ALL_SCORES, found
    for metric, one in rankings.items():
        blocks = wide_scores(frame[frame["metric"] == metric])
        if (found := reference_tests(blocks, reference, one.better == "high", one.level)) is not None:
            yield metric, found


def reference_sentence(name: str, found: Mapping[str, ReferenceTests], equal: EqualMaps) -> str:
    """One sentence on the reference `name`: what it beats by which quantities, and what beats it."""
    if not found:
        return f"{name} cannot be compared with other methods: there are no blocks that they share."
    parts = [_part(quantity, one) for quantity, one in found.items()]
    first = next(iter(found.values()))
    alike = [other for other in equal.named([equal.arm(name)]) if other != name]
    same = f" Its maps are equal to those of {listed(alike)}, which is not compared with it." if alike else ""
    tests = f"Wilcoxon's test with Holm's correction over {counted(len(first.tests), 'pair')} for each"
    return f"{name} against every other method ({tests}): {'; '.join(parts)}.{same}"


def _part(quantity: str, one: ReferenceTests) -> str:
    if not one.able and not one.better and not one.worse:
        return f"by {quantity} too few blocks to tell"
    total = len(one.tests)
    told = []
    if one.better:
        told.append(f"better than {_some(one.better, total)}")
    if one.worse:
        told.append(f"worse than {_some(one.worse, total)}")
    if one.open:
        told.append(f"not told from {_some(one.open, total)}")
    return f"by {quantity} {', '.join(told)}"


def _some(names: Sequence[str], total: int) -> str:
    """The names, or how many where there are many."""
    if len(names) == total and total > 1:
        return f"all {total}"
    return listed(names) if len(names) <= 3 else f"{len(names)} of {total}"
