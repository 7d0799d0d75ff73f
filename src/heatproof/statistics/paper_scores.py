"""The table of scores for a paper: methods × metrics, the best in bold, ties with the best marked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heatproof.paper_table import FOOLED, TIE, PaperCell, PaperRow, PaperTable, checked_spread
from heatproof.statistics.equal_maps import equal_maps
from heatproof.statistics.fooling import MetricRanking, fooled
from heatproof.statistics.score_grid import Column, GridSource, ScoreCell
from heatproof.statistics.wording import counted, listed

#: How methods are told apart, in the note of a table.
TEST = "Wilcoxon's signed-rank test, paired by image, with Holm's correction over all pairs of methods"


def score_paper_table(
    source: GridSource,
    methods: Sequence[str],
    metrics: Sequence[str],
    *,
    name: str,
    caption: str = "",
    spread: str = "none",
    labels: Mapping[str, str] | None = None,
) -> PaperTable:
    """The table of these methods and metrics; its numbers have the decimals of the page.

    Args:
        caption: its first sentence; what the marks mean follows it.
        spread: what stands beside a mean: `none`, `interval` (95 %, bootstrap by image), or `std` (over the images).
        labels: method → display name.
    """
    labels, spread = labels or {}, checked_spread(spread)
    grid = source.grid(methods, metrics)
    rows = [
        PaperRow(
            labels.get(row.method, row.method), [_paper_cell(cell, spread) for cell in row.cells], control=row.control
        )
        for row in sorted(grid.rows, key=lambda row: row.control)
    ]
    head = ["method", *map(_head, grid.columns)]
    judged = [source.rankings[metric] for metric in metrics if metric in source.rankings]
    text = " ".join([*([caption] if caption else []), *_marks(rows, grid.columns, judged, spread)])
    notes = [*_notes(rows, grid.columns, judged, labels), *_equal(source, labels)]
    return PaperTable(name, text, head, rows, notes)


def _paper_cell(cell: ScoreCell, spread: str) -> PaperCell:
    beside = {"interval": cell.interval, "std": cell.std}.get(spread, "")
    return PaperCell(cell.text, beside, spread == "std", cell.best, cell.top and not cell.best)


def _head(column: Column) -> str:
    unit = f"({column.unit})" if column.unit else ""
    mark = FOOLED if column.fooled else ""
    return " ".join(part for part in (column.metric, column.arrow, unit) if part) + mark


def _marks(
    rows: Sequence[PaperRow], columns: Sequence[Column], judged: Sequence[MetricRanking], spread: str
) -> Iterator[str]:
    """What the caption says of the marks that occur."""
    counts = sorted({one.n for one in judged if one.n})
    if counts:
        images = counted(counts[0], "image") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} images"
        yield f"Mean over {images}" + {
            "interval": ", with the 95 % interval of the mean (bootstrap by image).",
            "std": " ± the standard deviation over the images.",
        }.get(spread, ".")
    ways = {column.arrow for column in columns}
    if arrows := [text for arrow, text in (("↑", "↑ higher is better"), ("↓", "↓ lower is better")) if arrow in ways]:
        yield f"{', '.join(arrows)}."
    cells = [cell for row in rows for cell in row.cells]
    if any(cell.best for cell in cells):
        yield "Bold: the best mean" + (
            f"; {TIE}: not significantly different from it (p ≥ .05)." if any(cell.tie for cell in cells) else "."
        )


def _notes(
    rows: Sequence[PaperRow], columns: Sequence[Column], judged: Sequence[MetricRanking], labels: Mapping[str, str]
) -> Iterator[str]:
    """What stands below the table: the tests behind the marks, and what is not marked."""
    if any(one.comparison is not None and one.ranked for one in judged):
        yield f"Significance: {TEST}."
    if few := [one.metric for one in judged if one.comparison is not None and not one.ranked]:
        yield f"Too few images for the tests of {listed(few)}: ties are not marked there."
    if useless := [column for column in columns if column.fooled]:
        told = [f"{one.metric} (by {listed([labels.get(name, name) for name in one.fooled])})" for one in useless]
        yield (
            f"{FOOLED} Fooled: a control cannot be told from the best method by {listed(told)}, so no method is marked."
        )
    if any(row.control for row in rows):
        yield "Below the line: controls, maps that are uninformed on purpose."


def _equal(source: GridSource, labels: Mapping[str, str]) -> Iterator[str]:
    """The methods that are one method in the tests."""
    for group in source.equal.groups:
        if group[0] not in source.controls:
            yield f"{' = '.join(labels.get(name, name) for name in group)}: equal maps, one method in the tests."


def scores_of(scores: Any) -> GridSource:
    """The source of grids from what `heatproof.score` returns."""
    controls = frozenset(scores.controls)
    rows, maps = (
        frame.assign(control=frame["method"].isin(list(controls)))
        for frame in (scores.to_pandas(), scores.map_projections())
    )
    equal = equal_maps(maps, rows, scores.methods)
    rankings = {one.metric: one for one in fooled(rows, scores.facts, equal=equal)}
    return GridSource(scores.table, rankings, scores.facts, equal, controls)
