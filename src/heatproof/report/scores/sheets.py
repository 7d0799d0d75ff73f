"""The tables of a score page: methods × metrics by family, who leads, which scores are fooled, what was flagged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.report.frames import Frame
from heatproof.report.parts import slug
from heatproof.report.scores.findings import Findings, Told
from heatproof.report.scores.words import FAMILIES
from heatproof.report.sheets import NONE, Sheet, number, sheet
from heatproof.spelling import head
from heatproof.statistics.scores import ARROWS, Judged
from heatproof.statistics.standing import ASIDE, said

#: Columns that fit a page beside the methods' names; a family with more is cut into tables of equal width.
ABREAST = 9


@dataclass(frozen=True)
class Cell:
    """A method's mean by one metric; `text` is a dash where there is none, `note` then says why."""

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
        """The options in brackets, or nothing."""
        return self.metric[len(self.name) :]


@dataclass(frozen=True)
class Row:
    """One method across the metrics of a table."""

    method: str
    control: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """Methods × some metrics of one family."""

    label: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Family:
    """All that is shown of one family of scores."""

    id: str
    title: str
    text: str
    grids: tuple[Grid, ...]
    sentences: tuple[str, ...]
    fooled: int
    count: int
    empty: tuple[str, ...] = ()


def families(findings: Findings, told: Told, methods: Sequence[str], suffix: str) -> Iterator[Family]:
    """The metrics by family, in the order of the page; metrics of no family last."""
    there = list(dict.fromkeys(told.table["metric"]))
    found = {(row.method, row.metric): row for row in told.table.itertuples()}
    known = set(told.table.loc[told.table["mean"].notna(), "metric"])
    for family in dict.fromkeys(findings.family(metric) for metric in there):
        metrics = [metric for metric in there if findings.family(metric) == family]
        title, text = FAMILIES.get(family, (family or "Other scores", ""))
        name = slug(family or "other")
        shown = [metric for metric in metrics if metric in known]
        grids = tuple(_grid(findings, told, found, methods, part, f"{title} ({name})") for part in _parts(shown))
        judged = [told.judged[metric] for metric in shown if metric in told.judged]
        sentences = tuple(said(one) for one in judged)
        fooled = sum(bool(one.fooled) for one in judged)
        empty = tuple(_without(findings, [metric for metric in metrics if metric not in known]))
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
    findings: Findings, told: Told, found: Mapping, methods: Sequence[str], metrics: Sequence[str], label: str
) -> Grid:
    columns = tuple(
        _column(metric, findings.facts.get(metric, {}), told.judged.get(metric), _largest(told, metric))
        for metric in metrics
    )
    aside = int((findings.flagged["dataset"] == told.setting.dataset).sum())

    def cells(method: str) -> Iterator[Cell]:
        for column in columns:
            judged, row = told.judged.get(column.metric), found.get((method, column.metric))
            yield _cell(row, judged, column, method, aside)

    rows = tuple(Row(method, method in findings.controls, tuple(cells(method))) for method in methods)
    return Grid(label, columns, rows)


def _column(metric: str, fact: Mapping[str, Any], judged: Judged | None, largest: float) -> Column:
    fooled = judged.fooled if judged else ()
    arrow, percent = ARROWS.get(str(fact.get("better")), ""), in_percent(fact)
    return Column(metric, arrow, "%" if percent else "", 1 if percent else decimals(largest), fooled)


def _largest(told: Told, metric: str) -> float:
    return float(told.table.loc[told.table["metric"] == metric, "mean"].abs().max())


def decimals(largest: float) -> int:
    """So many that the largest mean of a column has three digits, and none has more than six decimals."""
    if not math.isfinite(largest) or largest <= 0:
        return 3
    return min(max(2 - math.floor(math.log10(largest)), 0), 6)


def in_percent(fact: Mapping[str, Any]) -> bool:
    """Whether a page shows the metric in percent: where it is a share of something."""
    return list(fact.get("range") or ()) == [0, 1]


def shown(told: Told, fact: Mapping[str, Any], metric: str, value: float) -> str:
    """One value as the page writes it outside of a table, with the decimals of its column."""
    if in_percent(fact):
        return f"{number(100 * value, 1)} %" if value == value else NONE
    return number(value, decimals(_largest(told, metric)))


def _cell(row: Any, judged: Judged | None, column: Column, method: str, aside: int) -> Cell:
    """`aside`: pictures that were set aside for every method, and are told once elsewhere."""
    if row is None:
        return Cell(NONE, note="not measured")
    flags = f"{row.flagged - aside} of {row.n - aside} flagged" if row.flagged > aside else ""
    if pd.isna(row.mean):
        return Cell(NONE, note=flags or "no number")
    mean, low, high = (number((100 if column.unit else 1) * v, column.decimals) for v in (row.mean, row.low, row.high))
    span = "" if pd.isna(row.low) else f"{low} to {high}" if "−" in low + high else f"{low}–{high}"
    fooled = bool(column.fooled)
    best = bool(judged and judged.best == method and not fooled)
    top = bool(judged and method in judged.top and not fooled and judged.ranked)
    return Cell(mean, span, flags, best, top or best, method in column.fooled, fooled)


def legend(findings: Findings, told: Told) -> Iterator[tuple[str, str]]:
    """What the marks in the tables mean, those that occur."""
    columns = [findings.facts.get(metric, {}) for metric in told.judged]
    yield "↑ ↓", "higher, lower is better."
    if any(in_percent(fact) for fact in columns):
        yield "%", "in percent of the highest value there can be."
    yield "★", "best mean among the real methods; bold: it, and those that cannot be told from it (95 %)."
    if any(one.fooled for one in told.judged.values()):
        yield "⚑", "fooled: this control cannot be told from the best method. The column is grey and decides nothing."
    if findings.controls:
        yield "control", "a map that is useless on purpose; it should come last."


def overview(findings: Findings, told: Told) -> Sheet | None:
    """Who leads: average rank and at how many counted scores of each family a method shares the top."""
    verdict = told.standing
    if verdict is None or not verdict.ranks:
        return None
    groups = {}
    for metric in verdict.counted:
        groups.setdefault(findings.family(metric) or "other", []).append(metric)
    header = ("method", "average rank", "shares the top", *(f"of {name}" for name in groups))
    lines = []
    for method, rank in verdict.ranks.items():
        firsts = set(verdict.firsts[method])
        shares = (f"{len(firsts & set(metrics))} of {len(metrics)}" for metrics in groups.values())
        whole = f"{len(firsts)} of {len(verdict.counted)}"
        lines.append((method, number(rank), whole, *shares))
    count = len(verdict.counted)
    which = ["that no control fooled"] if findings.controls else []
    which += ["that ask whether a map is right"] if not set(groups) & set(ASIDE) else []
    caption = (
        f"Average rank over the {f'{count} scores' if count > 1 else 'one score'} {' and '.join(which)}".rstrip()
        + "; 1 is best. Beside it: by how many of them a method is best, or cannot be told from the best."
    )
    return sheet(caption, header, lines)


def reasons(findings: Findings) -> Sheet:
    """Why scores carry a flag, with what and how often."""
    lines = []
    for row in findings.reasons.itertuples():
        scores = _some(list(row.metrics), len(findings.metrics))
        methods = _some(list(row.methods), len(findings.methods))
        lines.append((row.flag, scores, methods, f"{row.pictures:,}", f"{row.rows:,}"))
    return sheet("Flagged scores", ("reason", "scores", "methods", "pictures", "rows"), lines, {1, 2})


def _some(names: Sequence[str], of: int) -> str:
    """All of them, or their names."""
    if len(names) == of and of > 1:
        return f"all {of}"
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def ordered(findings: Findings, told: Told) -> list[str]:
    """Real methods by average rank, then as in the plan; controls last."""
    ranks = told.standing.ranks if told.standing else {}
    there: Frame = set(told.table["method"])
    names = [method for method in findings.methods if method in there]
    places = {name: place for place, name in enumerate(names)}
    return sorted(names, key=lambda m: (m in findings.controls, ranks.get(m, float("inf")), places[m]))


def glossary(findings: Findings) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every metric shown, by family: its name with the arrow, and its first sentence."""
    for family in dict.fromkeys(findings.family(metric) for metric in findings.metrics):
        title = FAMILIES.get(family, (family or "Other scores", ""))[0]
        lines = []
        for metric in findings.metrics:
            fact = findings.facts.get(metric, {})
            if findings.family(metric) == family:
                lines.append((f"{metric} {ARROWS.get(str(fact.get('better')), '')}".strip(), _about(fact)))
        yield title, lines


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
