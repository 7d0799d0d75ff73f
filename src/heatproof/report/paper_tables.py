"""The tables of a page that a paper prints, for LaTeX and Markdown: scores, robustness, audit, and plain tables."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatproof.files import write_atomically
from heatproof.paper_table import FOOLED, TIE, PaperCell, PaperRow, PaperTable, checked_spread
from heatproof.report.blocks import Details, Section, Sheet
from heatproof.report.findings import Findings
from heatproof.report.frames import slug
from heatproof.report.numbers import NONE
from heatproof.report.score_findings import SettingScores
from heatproof.report.score_grids import ABREAST, grid_source, ordered
from heatproof.statistics.paper_scores import score_paper_table

#: The answers of an audit.
MARKS = "✓✗?"
#: A table of more rows does not fit a page.
LONG = 40


def paper_tables(findings: Findings, spread: str = "none") -> list[PaperTable]:
    """The tables in the order of the page, each with a name of its own; numbers are rounded as on the page.

    Args:
        spread: what stands beside a mean of a score or a robustness: `none`, its 95 % `interval`, or `std`, the
            standard deviation over the images (scores only). Plain tables are as on the page.
    """
    spread, found = checked_spread(spread), []
    for section in findings.sections:
        found += _of_blocks(findings, section, section.blocks, spread)
    return list(_named(found))


def write_latex(findings: Findings, folder: str | Path, spread: str = "none") -> list[Path]:
    r"""Writes one `.tex` file for each table into `folder`, for `\input`; returns the files.

    They need `\usepackage{booktabs}` and no other package.

    Raises:
        InvalidInput: another spread. StoreError: the folder cannot be written.
    """
    written = []
    for table in paper_tables(findings, spread):
        path = Path(folder) / f"{table.name}.tex"
        content = table.to_latex().encode("utf-8", "replace")
        write_atomically(path, lambda file, content=content: file.write(content))
        written.append(path)
    return written


def _of_blocks(findings: Findings, section: Section, blocks: Iterable[Any], spread: str) -> Iterator[PaperTable]:
    for block in blocks:
        kind = getattr(block, "kind", "")
        if kind == "families":
            yield from _scores(findings, section, spread)
        elif kind == "matrix":
            yield _matrix(block, section, spread)
        elif kind == "audit":
            yield _audit(block, section)
        elif isinstance(block, Sheet) and block.rows:
            yield from _by_quantity(_sheet(block, section))
        elif isinstance(block, Details) and not block.long:
            yield from _of_blocks(findings, section, block.blocks, spread)


def _scores(findings: Findings, section: Section, spread: str) -> Iterator[PaperTable]:
    """The scores of the section's model and images: one table where they fit, else one for each family."""
    found = findings.scores
    assert found is not None
    one = _setting(findings, section)
    metrics = [metric for metric in dict.fromkeys(one.table["metric"]) if one.table.loc[
        one.table["metric"] == metric, "mean"].notna().any()]  # fmt: skip
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        groups.setdefault(found.family(metric) if len(metrics) > ABREAST else "", []).append(metric)
    where = f"{one.setting.model} on {one.setting.dataset}"
    for family, names in groups.items():
        caption = f"{f'Scores of the family {family}' if family else 'Scores of heatmaps'}, {where}."
        yield score_paper_table(
            grid_source(findings, one), ordered(found, one), names,
            name=f"{section.id}-scores{f'-{slug(family)}' if family else ''}", caption=caption, spread=spread,
            labels=findings.labels,
        )  # fmt: skip


def _setting(findings: Findings, section: Section) -> SettingScores:
    """The model and images that a section of scores is about, by the order of the sections."""
    assert findings.scores is not None
    of_scores = [one for one in findings.sections if any(getattr(b, "kind", "") == "families" for b in one.blocks)]
    return findings.scores.settings[of_scores.index(section)]


def _matrix(matrix: Any, section: Section, spread: str) -> PaperTable:
    """Robustness: methods × perturbations; methods that share the top are bold."""
    ties = any(row.top and not row.best for row in matrix.rows)
    rows = [
        PaperRow(
            f"{row.method} {TIE}" if row.top and not row.best else row.method,
            [PaperCell(cell.text or NONE, cell.interval if spread == "interval" else "",
                       best=row.best and bool(cell.text)) for cell in row.cells],
            row.control,
        )
        for row in matrix.rows
    ]  # fmt: skip
    shown = matrix.caption.partition(" and its")[0].removeprefix("Large: ")
    fooled = "⚑" in shown
    caption = f"Robustness under noise: {shown.replace(' ⚑', '')}{FOOLED if fooled else ''}, all severities together; "
    caption += "higher is better, 1 is best."
    caption += " With 95 % intervals (bootstrap by image)." if spread == "interval" else ""
    if tested := any(row.best for row in matrix.rows):
        caption += " Bold: the best method"
        caption += f"; {TIE}: methods that are not significantly different from it." if ties else "."
    notes = [f"Methods by {matrix.ranked}, the best first."] if matrix.ranked else []
    if tested:
        notes.append(
            "Significance: Wilcoxon's signed-rank test over the conditions with Holm's correction over all pairs, and "
            "the bootstrap by image with simultaneous bounds."
        )
    if fooled:
        notes.append(f"{FOOLED} Fooled: a control cannot be told from the best method by this quantity.")
    if any(not cell.text for row in matrix.rows for cell in row.cells):
        notes.append("–: too few changed or unchanged predictions.")
    if any(row.control for row in rows):
        notes.append("Below the line: controls, maps that are uninformed on purpose.")
    return PaperTable(
        f"{section.id}-robustness", caption, ["method", *(kind for kind, _ in matrix.columns)], rows, notes
    )


def _audit(table: Any, section: Section) -> PaperTable:
    """The audit: methods × questions."""
    rows = [
        PaperRow(method, [PaperCell(cell.mark[:1] if cell.mark[:1] in MARKS else NONE) for cell in cells])
        for method, _, cells in table.rows
    ]
    recommended = [method for method, chosen, _ in table.rows if chosen]
    caption = f"{table.label}. ✓ pass, ✗ fail, ? cannot be told."
    notes = [f"{name}: {asks}" for name, asks in table.columns]
    notes += [f"Recommended: {recommended[0]}."] if recommended else []
    head = ["method", *(name for name, _ in table.columns)]
    return PaperTable(f"{section.id}-answers", caption, head, rows, notes)


def _sheet(table: Sheet, section: Section) -> PaperTable:
    """A plain table as it is on the page."""
    rows = [PaperRow(row.cells[0], [PaperCell(text) for text in row.cells[1:]], row.control) for row in table.rows]
    caption = table.caption if table.caption.endswith((".", "?")) else f"{table.caption}."
    rows.sort(key=lambda row: row.control)
    return PaperTable(f"{section.id}-{_words(table.caption)}", caption, table.header, rows, (), tuple(table.texts))


def _by_quantity(table: PaperTable) -> Iterator[PaperTable]:
    """The table; one for each name of its first column, without that column, where it is longer than a page."""
    groups: dict[str, list[PaperRow]] = {}
    for row in table.rows:
        groups.setdefault(row.name, []).append(row)
    if len(table.rows) <= LONG or len(groups) == len(table.rows) or min(map(len, groups.values())) < 2:
        yield table
        return
    for name, rows in groups.items():
        shorter = [PaperRow(row.cells[0].text, row.cells[1:], row.control) for row in rows]
        words = [column - 1 for column in table.words if column]
        caption = f"{table.caption.rstrip('.')}; {table.head[0]} {name}."
        yield PaperTable(f"{table.name}-{slug(name)}", caption, table.head[1:], shorter, table.notes, words)


def _words(caption: str) -> str:
    """The first words of a caption as part of a file's name."""
    return slug(" ".join(re.findall(r"\w+", caption)[:5]))


def _named(tables: Iterable[PaperTable]) -> Iterator[PaperTable]:
    """The tables, with a number at the end of a name that is there already."""
    seen: dict[str, int] = {}
    for table in tables:
        seen[table.name] = seen.get(table.name, 0) + 1
        yield table if seen[table.name] == 1 else replace(table, name=f"{table.name}-{seen[table.name]}")
