"""Methods × metrics for each class explained, in the layout of paper F, and F's own numbers beside ours."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from heatproof.report.blocks import Details, Heading, Section, Sheet, Text, sheet
from heatproof.report.condition_findings import ConditionFindings, ConditionSetting
from heatproof.report.findings import Findings
from heatproof.report.numbers import NONE, number
from heatproof.report.places import places
from heatproof.report.published import FIDELITY, PublishedTable
from heatproof.spelling import head
from heatproof.statistics.score_grid import in_percent
from heatproof.statistics.score_tables import ARROWS

TEXT = (
    "The mean of each score over the images as they are, with the 95 % interval by image, for each class that is "
    "explained. Columns as in paper F, so that higher is better in all of them: AI is average-increase, AD "
    "average-drop, AG average-gain, I insertion, D deletion-mean, all in per cent; mono is monotonicity-correlation."
)


class PaperColumn(NamedTuple):
    """A column of F's tables: its name, our metric, and how our value is shown."""

    name: str
    metric: str
    shown: Callable[[float], float]
    digits: int = 1


COLUMNS = (
    PaperColumn("AI", "average-increase", lambda value: 100 * value),
    PaperColumn("100 − AD", "average-drop", lambda value: 100 - 100 * value),
    PaperColumn("AG", "average-gain", lambda value: 100 * value),
    PaperColumn("I", "insertion", lambda value: 100 * value),
    PaperColumn("100 − D", "deletion-mean", lambda value: 100 - 100 * value),
    PaperColumn("mono", "monotonicity-correlation", lambda value: value, 2),
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    found = findings.conditions
    for place, one in places(found.settings if found else ()):
        assert found is not None
        yield place.section(
            "targets",
            "The scores by class explained",
            "Classes",
            blocks=list(_blocks(found, one)),
            words=("Score (metric)", "Control", "95 % interval"),
        )


def _blocks(found: ConditionFindings, one: ConditionSetting) -> Iterator[Any]:
    yield Text(f"{one.setting.model} · {one.setting.dataset}", "kind")
    there = set(one.targets["metric"])
    columns = list(_columns(found.metrics, there))
    others = [metric for metric in found.metrics if metric in there - {column.metric for column in columns}]
    if columns:
        yield Text(TEXT)
    for target in dict.fromkeys(one.targets["target"]):
        cells = {(row.method, row.metric): row for row in one.targets[one.targets["target"] == target].itertuples()}
        count = max((int(row.n) for row in cells.values()), default=0)
        if columns:
            yield _paper_sheet(f"Class explained: {target} ({count} images)", found, cells, columns)
        if others:
            yield Details(f"The other scores for the class {target}", [_others(target, found, cells, others)])
    if columns and one.target == "label" and (beside := _beside(found, one, columns, FIDELITY)):
        yield from beside


def _columns(metrics: Sequence[str], there: Collection[str]) -> Iterator[PaperColumn]:
    """The columns of F whose metric there is, also with other options."""
    for column in COLUMNS:
        named = [metric for metric in metrics if metric in there and head(metric) == column.metric]
        if named:
            yield column._replace(metric=column.metric if column.metric in named else named[0])


def _paper_sheet(
    caption: str, found: ConditionFindings, cells: Mapping[Any, Any], columns: Sequence[PaperColumn]
) -> Sheet:
    lines = [
        (method, *(_cell(cells.get((method, column.metric)), column) for column in columns)) for method in found.methods
    ]
    return sheet(caption, ("method", *(column.name for column in columns)), lines, controls=found.controls)


def _cell(row: Any, column: PaperColumn) -> str:
    """The mean and its interval, in the order in which the column counts."""
    if row is None or row.mean != row.mean:
        return NONE
    low, high = sorted((column.shown(row.low), column.shown(row.high)))
    span = "" if low != low else f" ({number(low, column.digits)} to {number(high, column.digits)})"
    return f"{number(column.shown(row.mean), column.digits)}{span}"


def _others(target: str, found: ConditionFindings, cells: Mapping[Any, Any], metrics: Sequence[str]) -> Sheet:
    facts = {metric: found.facts.get(metric, {}) for metric in metrics}
    shown = {
        metric: PaperColumn(
            f"{metric} {ARROWS.get(str(fact.get('better')), '')}{' %' if in_percent(fact) else ''}",
            metric,
            (lambda value: 100 * value) if in_percent(fact) else (lambda value: value),
            1 if in_percent(fact) else 3,
        )
        for metric, fact in facts.items()
    }
    return _paper_sheet(f"Class explained: {target}", found, cells, list(shown.values()))


def _beside(
    found: ConditionFindings, one: ConditionSetting, columns: Sequence[PaperColumn], table: PublishedTable
) -> list[Any]:
    """The published numbers of the methods that both have, below ours; nothing where there is no such method."""
    ours = {(row.method, row.metric): row for row in one.targets[one.targets["target"] == "label"].itertuples()}
    methods = [method for method in found.methods if head(method) in table.rows]
    lines = []
    for method in methods:
        values = dict(zip(table.columns, table.rows[head(method)], strict=True))
        mine = [(ours.get((method, column.metric)), column) for column in columns]
        means = (NONE if row is None else number(column.shown(row.mean), column.digits) for row, column in mine)
        lines.append((method, "ours", *means))
        lines.append((method, "paper", *(number(values[column.name], column.digits) for column in columns)))
    if not lines:
        return []
    text = (
        f"{table.source}: {table.about}. Networks, images and their number differ from ours, and so may the options of "
        "methods and scores, so compare the order of the methods and the size of the numbers, no single number."
    )
    header = ("method", "of", *(column.name for column in columns))
    return [Heading("The paper's numbers beside ours"), Text(text), sheet("Ours and the paper's", header, lines, {1})]
