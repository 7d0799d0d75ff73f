"""The scores of a study on the terminal: methods × metrics by family, as wide as the terminal and no wider than 100."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

#: The width in characters where the output is piped; elsewhere the largest width.
WIDTH = 100
#: Spaces between two columns.
GAP = 2
#: How many reasons for flags are printed.
REASONS = 5
#: A metric's name is broken at hyphens where it is longer.
BROKEN = 14


def print_tables(findings: Any) -> None:
    """Prints the table of an audit, or else of the scores; nothing for other studies."""
    if "audit.csv" in findings.tables:
        print_audit(findings)
    elif "scores.csv" in findings.tables:
        print_scores(findings)


def print_audit(findings: Any) -> None:
    """Prints methods × questions: pass, fail, or cannot be told."""
    from rich.console import Console
    from rich.table import Table

    from heatproof.statistics.audit_answers import FAIL, PASS

    marks = {PASS: "[green]✓[/]", FAIL: "[red]✗[/]"}
    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
    for one in findings.audits:
        questions = list(dict.fromkeys(name for given in one.findings.values() for name in given))
        table = Table("", *questions, box=None, pad_edge=False, header_style="bold")
        table.columns[0].no_wrap = True
        called = {method: findings.labels.get(method, method) for method in one.findings}
        table.columns[0].min_width = max(map(len, called.values()), default=0)
        for column in table.columns[1:]:
            column.justify = "center"
        for method, given in one.findings.items():
            cells = [marks.get(given[name].answer, "?") if name in given else "–" for name in questions]
            style = "bold" if method == one.recommended else ""
            table.add_row(_plain(called[method]), *cells, style=style)
        if len(findings.audits) > 1:
            console.print(f"\n[bold]{_plain(one.model)} on {_plain(one.dataset)}[/]")
        console.print(table)
    console.print("\n✓ pass  ✗ fail  ? cannot be told  – not asked")


def print_scores(findings: Any) -> None:
    """Prints methods × metrics."""
    from rich.console import Console

    from heatproof.report import score_grids

    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
    scores = findings.scores
    for one in scores.settings:
        if len(scores.settings) > 1:
            console.print(f"\n[bold]{_plain(one.setting.model)} on {_plain(one.setting.dataset)}[/]")
        families = findings.labelled(list(score_grids.families(findings, one, score_grids.ordered(scores, one))))
        _print(console, families)
        console.print()
        for mark, meaning in score_grids.legend(scores, one):
            console.print(f"{_plain(mark)}  {_plain(meaning)}", soft_wrap=True)
    for line in _aside(findings):
        console.print(_plain(line), soft_wrap=True)


def _aside(findings: Any) -> Iterator[str]:
    """Images that could not be used, and why scores carry flags: the most frequent ones."""
    reasons = Counter(str(row.reason) for row in findings.flagged.itertuples())
    for reason, count in reasons.most_common(REASONS):
        yield f"Set aside, {count} {'image' if count == 1 else 'images'}: {reason}"
    rows = list(findings.reasons.itertuples())
    for row in rows[:REASONS]:
        images = f"{row.images} {'image' if row.images == 1 else 'images'}"
        yield f"Flagged, {images}: {_some(row.metrics)} of {_some(row.methods)}: {row.flag}"
    if len(rows) > REASONS:
        yield f"Flagged for {len(rows) - REASONS} other reasons: see the page."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _print(console: Any, families: Sequence[Any]) -> None:
    """Prints families side by side where they fit; one that is too wide is divided into several tables."""
    shown = [family for family in families if family.grids]
    for group in packed(shown, console.width):
        title = group[0].title if len(group) == 1 else ", ".join(_short(family) for family in group).capitalize()
        console.print(f"\n[bold]{_plain(title)}[/]" if len(shown) > len(group) or len(group) == 1 else "")
        whole = joined([grid for family in group for grid in family.grids])
        for position, columns in enumerate(fitting(whole, console.width)):
            console.print(*([""] if position else []), _table(whole, columns), sep="\n")
    for line in [line for family in families for line in family.empty]:
        console.print(f"\nNo numbers: {_plain(line)}.", soft_wrap=True)


def packed(families: Sequence[Any], width: int) -> list[list[Any]]:
    """Groups of neighbouring families whose metrics fit side by side."""
    groups: list[list[Any]] = []
    for family in families:
        longer = [*(groups[-1] if groups else []), family]
        whole = joined([grid for one in longer for grid in one.grids])
        if groups and len(list(fitting(whole, width))) == 1:
            groups[-1] = longer
        else:
            groups.append([family])
    return groups


def _short(family: Any) -> str:
    return re.sub(r"^family-(\w+).*$", r"\1", family.id)


class Whole(NamedTuple):
    """Methods × metrics, in the form of the page's grids."""

    columns: tuple[Any, ...]
    rows: tuple[Any, ...]


class TableLine(NamedTuple):
    """One method across the metrics."""

    method: str
    control: bool
    cells: tuple[Any, ...]


def joined(grids: Sequence[Any]) -> Whole:
    """Grids of the same methods beside each other."""
    columns = tuple(column for grid in grids for column in grid.columns)
    rows = tuple(
        TableLine(rows[0].method, rows[0].control, tuple(cell for row in rows for cell in row.cells))
        for rows in zip(*(grid.rows for grid in grids), strict=True)
    )
    return Whole(columns, rows)


def fitting(grid: Any, width: int) -> Iterator[list[int]]:
    """The positions of columns, in parts that fit beside the methods' names; at least one column in each."""
    names = max((len(_method(row)) for row in grid.rows), default=0)
    part: list[int] = []
    used = names
    for position, column in enumerate(grid.columns):
        cells = [line for row in grid.rows for line in _cell(row.cells[position]).split("\n")]
        own = GAP + max(map(len, [*_head(column).split("\n"), *cells]))
        if part and used + own > width:
            yield part
            part, used = [], names
        part.append(position)
        used += own
    if part:
        yield part


def _table(grid: Any, positions: Sequence[int]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", collapse_padding=True)
    table.add_column("", no_wrap=True)
    for position in positions:
        table.add_column(_plain(_head(grid.columns[position])), justify="right", no_wrap=True, vertical="bottom")
    for row in grid.rows:
        style = "dim" if row.control else ""
        table.add_row(_plain(_method(row)), *(_styled_cell(row.cells[position]) for position in positions), style=style)
    return table


def _method(row: Any) -> str:
    return f"{row.method} (control)" if row.control else row.method


def _head(column: Any) -> str:
    """The name, broken at hyphens; the options; the arrow, the unit, and a flag where a control fools the metric."""
    lines = [""]
    for word in re.findall(r"[^-]+-?", column.name):
        if lines[-1] and len(lines[-1]) + len(word) > BROKEN:
            lines.append("")
        lines[-1] += word
    marks = " ".join(mark for mark in (column.arrow, column.unit, "⚑" if column.fooled else "") if mark)
    return "\n".join([*lines, *([column.options] if column.options else []), *([marks] if marks else [])])


def _cell(cell: Any) -> str:
    mark = "★" if cell.best else "⚑" if cell.fools else ""
    return "\n".join(line for line in (f"{mark}{cell.text}", cell.interval) if line)


def _styled_cell(cell: Any) -> str:
    first, _, rest = _cell(cell).partition("\n")
    style = "bold" if cell.top or cell.best else "dim" if cell.dim else ""
    first = f"[{style}]{_plain(first)}[/]" if style else _plain(first)
    return f"{first}\n[dim]{_plain(rest)}[/]" if rest else f"{first}\n "  # cells end at the bottom, as heads do


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
