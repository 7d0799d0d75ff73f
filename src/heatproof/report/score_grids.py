"""Methods × metrics by family, as the page and the terminal show them, with the leaders and the fooled metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from heatproof.report.blocks import Sheet, sheet
from heatproof.report.findings import Findings
from heatproof.report.frames import slug
from heatproof.report.glossary import FAMILIES
from heatproof.report.numbers import NONE, number
from heatproof.report.score_findings import ScoreFindings, SettingScores
from heatproof.spelling import head
from heatproof.statistics.fooling import MetricRanking
from heatproof.statistics.score_tables import ARROWS
from heatproof.statistics.score_verdict import ASIDE, ranking_sentence
from heatproof.statistics.wording import counted

#: The columns that fit on a page; a family with more is split into tables of equal width.
ABREAST = 9


@dataclass(frozen=True)
class ScoreCell:
    """A method's mean by one metric; if there is none, `text` is a dash and `note` the reason."""

    text: str
    interval: str = ""
    note: str = ""
    best: bool = False
    top: bool = False
    fools: bool = False
    dim: bool = False


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
class Family:
    """All that is shown of one family of scores."""

    id: str
    title: str
    text: str
    grids: tuple[ScoreGrid, ...]
    sentences: tuple[str, ...]
    fooled: int
    count: int
    empty: tuple[str, ...] = ()


@dataclass(frozen=True)
class Families:
    """The families of one setting, a block of the page."""

    kind: ClassVar[str] = "families"
    families: Sequence[Family]


def families(findings: Findings, one: SettingScores, methods: Sequence[str], suffix: str = "") -> Iterator[Family]:
    """The metrics by family, in the order of the page; metrics of no family last."""
    scores: Any = findings.scores
    there = list(dict.fromkeys(one.table["metric"]))
    known = set(one.table.loc[one.table["mean"].notna(), "metric"])
    for family in dict.fromkeys(scores.family(metric) for metric in there):
        metrics = [metric for metric in there if scores.family(metric) == family]
        title, text = FAMILIES.get(family, (family or "Other scores", ""))
        name = slug(family or "other")
        shown = [metric for metric in metrics if metric in known]
        grids = tuple(_grid(findings, one, methods, part, f"{title} ({name})") for part in _parts(shown))
        judged = [one.rankings[metric] for metric in shown if metric in one.rankings]
        empty = tuple(_without(findings, [metric for metric in metrics if metric not in known]))
        fooled = sum(bool(each.fooled) for each in judged)
        sentences = tuple(ranking_sentence(each) for each in judged)
        yield Family(f"family-{name}{suffix}", title, text, grids, sentences, fooled, len(shown), empty)


def _without(findings: Findings, metrics: Sequence[str]) -> Iterator[str]:
    """Metrics that no method has a number for, by reason."""
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        reasons = [row.flag for row in findings.reasons.itertuples() if metric in list(row.metrics)]
        groups.setdefault("; ".join(reasons[:3]), []).append(metric)
    for reason, names in groups.items():
        yield f"{', '.join(names)} ({reason})" if reason else ", ".join(names)


def _parts(metrics: Sequence[str]) -> list[Sequence[str]]:
    """Equal parts, none with more than ABREAST."""
    if not metrics:
        return []
    size = -(-len(metrics) // -(-len(metrics) // ABREAST))
    return [metrics[start : start + size] for start in range(0, len(metrics), size)]


def _grid(
    findings: Findings, one: SettingScores, methods: Sequence[str], metrics: Sequence[str], label: str
) -> ScoreGrid:
    scores: Any = findings.scores
    means = {(row.method, row.metric): row for row in one.table.itertuples()}
    columns = [_column(metric, scores, one) for metric in metrics]
    aside = int((findings.flagged["dataset"] == one.setting.dataset).sum())
    rows = tuple(
        GridRow(
            method,
            method in scores.controls,
            tuple(
                _cell(
                    means.get((method, column.metric)),
                    one.rankings.get(column.metric),
                    column,
                    method,
                    one.equal.arm(method),
                    aside,
                )
                for column in columns
            ),
        )
        for method in methods
    )
    return ScoreGrid(label, tuple(columns), rows)


def _column(metric: str, scores: ScoreFindings, one: SettingScores) -> Column:
    fact, judged = scores.facts.get(metric, {}), one.rankings.get(metric)
    arrow, percent = ARROWS.get(str(fact.get("better")), ""), in_percent(fact)
    positions = _positions(one, fact, metric)
    return Column(metric, arrow, "%" if percent else "", positions, one.equal.named(judged.fooled) if judged else ())


def _positions(one: SettingScores, fact: Mapping[str, Any], metric: str) -> int:
    """The decimals of a metric's column."""
    rows = one.table[one.table["metric"] == metric]
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


def value_text(one: SettingScores, fact: Mapping[str, Any], metric: str, value: float) -> str:
    """One value as the page writes it outside a table, with the decimals of its column."""
    if in_percent(fact):
        return f"{number(100 * value, _positions(one, fact, metric))} %" if value == value else NONE
    return number(value, _positions(one, fact, metric))


def _cell(row: Any, judged: MetricRanking | None, column: Column, method: str, arm: str, aside: int) -> ScoreCell:
    """`arm`: the method that stands for it in the tests. `aside`: images set aside for every method."""
    if row is None:
        return ScoreCell(NONE, note="not measured")
    flags = f"{row.flagged - aside} of {row.n - aside} flagged" if row.flagged > aside else ""
    if pd.isna(row.mean):
        return ScoreCell(NONE, note=flags or "no number")
    mean, low, high = (number((100 if column.unit else 1) * v, column.decimals) for v in (row.mean, row.low, row.high))
    span = "" if pd.isna(row.low) else f"{low} to {high}" if "−" in low + high else f"{low}–{high}"
    fooled = bool(column.fooled)
    best = bool(judged and judged.best == arm and not fooled)
    top = bool(judged and arm in judged.top and not fooled and judged.ranked)
    return ScoreCell(mean, span, flags, best, top or best, method in column.fooled, fooled)


def legend(scores: ScoreFindings, one: SettingScores) -> Iterator[tuple[str, str]]:
    """The meaning of the marks that occur in the tables."""
    yield "↑ ↓", "higher, lower is better."
    if any(in_percent(scores.facts.get(metric, {})) for metric in one.rankings):
        yield "%", "in percent of the highest value there can be."
    yield "★", "best mean among the real methods; bold: it, and those that cannot be told from it (p ≥ .05)."
    if any(each.fooled for each in one.rankings.values()):
        yield "⚑", "fooled: this control cannot be told from the best method. The column is grey and not counted."
    if scores.controls:
        yield "control", "a map that is useless on purpose; it should come last."
    if scores.aside:
        yield scores.aside, "the first method's map rescaled, to see what scores read; it is no method, and not ranked."


def overview(scores: ScoreFindings, one: SettingScores) -> Sheet | None:
    """The mean rank of each method, and by how many counted scores of each family it shares the top."""
    verdict = one.verdict
    if verdict is None or not verdict.ranks:
        return None
    groups: dict[str, list[str]] = {}
    for metric in verdict.counted:
        groups.setdefault(scores.family(metric) or "other", []).append(metric)
    header = ("method", "mean rank over the scores", "shares the top", *(f"of {name}" for name in groups))
    lines = []
    for method, rank in verdict.ranks.items():
        firsts = set(verdict.firsts[method])
        shares = (f"{len(firsts & set(metrics))} of {len(metrics)}" for metrics in groups.values())
        lines.append(
            (" = ".join(one.equal.named([method])), number(rank), f"{len(firsts)} of {len(verdict.counted)}", *shares)
        )
    count = len(verdict.counted)
    which = ["that no control fooled"] if scores.controls else []
    which += [f"that ask{'s' if count == 1 else ''} whether a map is right"] if not set(groups) & set(ASIDE) else []
    over = f"{counted(count, 'score') if count > 1 else 'one score'} {' and '.join(which)}".rstrip()
    beside = "Beside it: by how many of them a method is best, or cannot be told from the best."
    return sheet(f"Mean rank over the {over}; 1 is best. {beside}", header, lines)


def ordered(scores: ScoreFindings, one: SettingScores) -> list[str]:
    """Real methods by mean rank over the scores, then as in the plan; then an arm that is not ranked; controls last."""
    ranks = one.equal.spread(one.verdict.ranks) if one.verdict else {}
    there = set(one.table["method"])
    names = [method for method in scores.methods if method in there]
    return sorted(
        names, key=lambda m: (m in scores.controls, m == scores.aside, ranks.get(m, math.inf), names.index(m))
    )


def captions(scores: ScoreFindings, one: SettingScores, most: int = 3) -> list[str]:
    """The metrics whose values stand under a map of the gallery: the first counted one of each family."""
    counted_ones = one.verdict.counted if one.verdict else ()
    firsts = {scores.family(metric): metric for metric in reversed(counted_ones)}
    return [metric for metric in counted_ones if metric in firsts.values()][:most]


def definitions(scores: ScoreFindings) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every metric shown, by family: its name with the arrow, and what it is."""
    for family in dict.fromkeys(scores.family(metric) for metric in scores.metrics):
        lines = []
        for metric in scores.metrics:
            fact = scores.facts.get(metric, {})
            if scores.family(metric) == family:
                lines.append((f"{metric} {ARROWS.get(str(fact.get('better')), '')}".strip(), _about(fact)))
        yield FAMILIES.get(family, (family or "Other scores", ""))[0], lines


def _about(fact: Mapping[str, Any]) -> str:
    """Summary, range and source of a metric."""
    low, high = (*(fact.get("range") or ()), None, None)[:2]
    bounds = {
        (True, True): f"Between {low} and {high}.",
        (True, False): f"From {low} upwards.",
        (False, True): f"Up to {high}.",
    }.get((low is not None, high is not None), "")
    source = f"Source: {fact['source']}." if fact.get("source") else ""
    parts = [str(fact.get("summary") or "").replace("`", ""), bounds, source]
    return " ".join(part for part in parts if part) or "No description was stored."
