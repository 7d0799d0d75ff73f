"""Methods × metrics as pages, the terminal and papers show them: rounded, with marks for the best and ties."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.spelling import head
from heatproof.statistics.equal_maps import EqualMaps
from heatproof.statistics.fooling import MetricRanking
from heatproof.statistics.numbers import NONE, number
from heatproof.statistics.score_tables import ARROWS


@dataclass(frozen=True)
class ScoreCell:
    """A method's mean by one metric; if there is none, `text` is a dash and `note` the reason.

    interval, std: the 95 % interval of the mean, and the standard deviation over the images; empty where there is none.
    """

    text: str
    interval: str = ""
    note: str = ""
    best: bool = False
    top: bool = False
    fools: bool = False
    dim: bool = False
    std: str = ""


@dataclass(frozen=True)
class Column:
    """One metric: its arrow, its unit, and the controls that fool it."""

    metric: str
    arrow: str
    unit: str
    decimals: int
    fooled: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The metric without its options."""
        return head(self.metric)

    @property
    def options(self) -> str:
        """The options in brackets, empty without any."""
        return self.metric[len(self.name) :]


@dataclass(frozen=True)
class GridRow:
    """One method across the metrics of a table."""

    method: str
    control: bool
    cells: tuple[ScoreCell, ...]


@dataclass(frozen=True)
class ScoreGrid:
    """Methods × some metrics of one family."""

    label: str
    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]


@dataclass(frozen=True)
class GridSource:
    """What grids of one model and dataset are made from.

    table: `score_tables.score_table`. rankings: metric → its ranking. facts: metric → better, range and so on.
    aside: images set aside for every method, whose flags are not counted.
    """

    table: Any
    rankings: Mapping[str, MetricRanking]
    facts: Mapping[str, Mapping[str, Any]]
    equal: EqualMaps
    controls: frozenset[str]
    aside: int = 0

    def grid(self, methods: Sequence[str], metrics: Sequence[str], label: str = "") -> ScoreGrid:
        """The grid of these methods and metrics."""
        means = {(row.method, row.metric): row for row in self.table.itertuples()}
        columns = [self._column(metric) for metric in metrics]
        rows = tuple(
            GridRow(
                method,
                method in self.controls,
                tuple(self._cell(means.get((method, column.metric)), column, method) for column in columns),
            )
            for method in methods
        )
        return ScoreGrid(label, tuple(columns), rows)

    def _column(self, metric: str) -> Column:
        fact, judged = self.facts.get(metric, {}), self.rankings.get(metric)
        arrow, unit = ARROWS.get(str(fact.get("better")), ""), "%" if in_percent(fact) else ""
        fooled = self.equal.named(judged.fooled) if judged else ()
        return Column(metric, arrow, unit, positions(self.table, fact, metric), fooled)

    def _cell(self, row: Any, column: Column, method: str) -> ScoreCell:
        judged, arm, aside = self.rankings.get(column.metric), self.equal.arm(method), self.aside
        if row is None:
            return ScoreCell(NONE, note="not measured")
        flags = f"{row.flagged - aside} of {row.n - aside} flagged" if row.flagged > aside else ""
        if pd.isna(row.mean):
            return ScoreCell(NONE, note=flags or "no number")
        values = (row.mean, row.low, row.high, row.std)
        mean, low, high, std = (number((100 if column.unit else 1) * value, column.decimals) for value in values)
        span = "" if pd.isna(row.low) else f"{low} to {high}" if "−" in low + high else f"{low}–{high}"
        fooled = bool(column.fooled)
        best = bool(judged and judged.best == arm and not fooled)
        top = bool(judged and arm in judged.top and not fooled and judged.ranked)
        std = "" if pd.isna(row.std) else std
        return ScoreCell(mean, span, flags, best, top or best, method in column.fooled, fooled, std)


def positions(table: Any, fact: Mapping[str, Any], metric: str) -> int:
    """The decimals of a metric's column."""
    rows = table[table["metric"] == metric]
    widths = rows["high"] - rows["low"]
    width = float(widths[widths > 0].median())
    if in_percent(fact):
        return max(1, _shown(100 * width))
    return decimals(float(rows["mean"].abs().max()), width)


def decimals(largest: float, width: float = math.nan) -> int:
    """The number of decimals, 0 to 6, with which the largest mean of a column has three significant digits.

    As many more as it takes for an interval of that width, the median of the column, to have ends that differ: values
    with an offset (59.21, 59.24) have more than three.
    """
    if not math.isfinite(largest) or largest <= 0:
        return max(3, _shown(width))
    return max(min(max(2 - math.floor(math.log10(largest)), 0), 6), _shown(width))


def _shown(width: float) -> int:
    """The number of decimals, 0 to 6, that shows the first digit of a width; 0 without one."""
    if not math.isfinite(width) or width <= 0:
        return 0
    return min(max(-math.floor(math.log10(width)), 0), 6)


def in_percent(fact: Mapping[str, Any]) -> bool:
    """Whether a page shows the metric in percent: if its range is 0 to 1."""
    return list(fact.get("range") or ()) == [0, 1]
