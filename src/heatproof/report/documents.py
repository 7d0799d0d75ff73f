"""Further files of a study, as text or bytes: a section for a model card, and all tables in one workbook.

A study names them (`Study.documents`).
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from heatproof.errors import MissingExtra
from heatproof.paper_table import markdown
from heatproof.report.findings import Findings
from heatproof.report.sections.audit import LIMITS
from heatproof.report.sections.auditor import record, untested
from heatproof.statistics.audit_answers import AuditFindings
from heatproof.statistics.audit_images import HIDE, SHOW, WARN, ImageDecisions
from heatproof.statistics.wording import listed

#: The most rows of a sheet; a longer table is left out of the workbook.
MOST_ROWS = 1_048_575
#: The most letters of the name of a sheet.
NAME = 31


def model_card(findings: Findings) -> str:
    """A section in Markdown to paste into a model card, with the headings of Hugging Face's template."""
    parts: list[str] = ["## Evaluation of the heatmaps"]
    for one in findings.audits:
        several = len(findings.audits) > 1
        parts += [f"### {_text(f'{one.model} on {one.dataset}')}"] if several else []
        parts.append(f"**{_text(findings.labelled(one.sentence))}**")
        parts += [_text(findings.labelled(note)) for note in one.notes]
    parts += ["### Testing Data, Factors & Metrics", "#### Testing Data", _list(record(findings))]
    parts += ["#### Factors", _factors(findings), "#### Metrics", _list(_questions(findings)), "### Results"]
    for one, images in findings.audited:
        parts += [f"{_text(f'{one.model} on {one.dataset}')}:", _table(findings, one), _counts(findings, one, images)]
    parts += ["## Bias, Risks, and Limitations of the heatmaps", _bullets(LIMITS)]
    parts += ["Not tested:", _bullets(untested(findings))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(text: str) -> str:
    return markdown(str(text))


def _bullets(lines: Any) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _list(lines: Any) -> str:
    return "\n".join(f"- **{_text(name)}:** {_text(value)}" for name, value in lines)


def _factors(findings: Findings) -> str:
    plan = findings.plan
    kinds = listed([str(kind) for kind in plan.get("perturbations") or ()]) or "none"
    return _text(f"Noise and attacks: {kinds}. Controls: {listed(sorted(findings.controls)) or 'none'}.")


def _questions(findings: Findings) -> Iterator[tuple[str, str]]:
    asked = {name: one.question for audit in findings.audits for given in audit.findings.values()
             for name, one in given.items()}  # fmt: skip
    for name, question in asked.items():
        yield name, f"{question.asks} Pass: {question.rule}."


def _table(findings: Findings, one: AuditFindings) -> str:
    """Methods × questions, with the verdict."""
    names = list(dict.fromkeys(name for given in one.findings.values() for name in given))
    lines = [["method", *names, "beats controls", "verdict"], ["---"] * (len(names) + 3)]
    for method, given in one.findings.items():
        answers = [given[name].answer if name in given else "not asked" for name in names]
        beaten, of = one.beaten(method)
        cells = [findings.labels.get(method, method), *answers, f"{beaten} of {of}"]
        lines.append([_text(cell) for cell in [*cells, findings.labelled(one.verdict(method))]])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _counts(findings: Findings, one: AuditFindings, images: ImageDecisions) -> str:
    if one.recommended is None:
        return ""
    counts = images.of(one.recommended)["decision"].value_counts()
    told = ", ".join(f"{decision}: {int(counts.get(decision, 0))}" for decision in (SHOW, WARN, HIDE))
    return _text(f"Image by image, {findings.labels.get(one.recommended, one.recommended)}: {told}.")


def workbook(findings: Findings) -> bytes:
    """What was found and all CSV tables as an XLSX workbook; its bytes differ from run to run, as it holds a time.

    Raises:
        MissingExtra: openpyxl is not installed.
    """
    try:
        from openpyxl import Workbook
    except ImportError as error:
        raise MissingExtra("A workbook needs openpyxl. Install it: pip install 'heatproof[xlsx]'.") from error
    book = Workbook(write_only=True)
    tables = {name: findings.tables[name] for name in findings.tables if name.endswith(".csv")}
    kept = {name: table for name, table in tables.items() if len(table) <= MOST_ROWS}
    _fill(book.create_sheet("about"), _about(findings, [name for name in tables if name not in kept]))
    for name, table in kept.items():
        lines = [list(table.columns), *table.itertuples(index=False, name=None)]
        _fill(book.create_sheet(name.removesuffix(".csv")[:NAME]), lines)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _about(findings: Findings, left_out: Sequence[str]) -> Iterator[Sequence[Any]]:
    for one in findings.audits:
        yield [f"{one.model} on {one.dataset}", one.sentence]
        yield from (["", note] for note in one.notes)
    yield from record(findings)
    yield from (["not tested", line] for line in untested(findings))
    yield from (["too long for a sheet", f"tables/{name}"] for name in left_out)


def _fill(sheet: Any, lines: Any) -> None:
    """Writes lines; a text stays a text, though it begins like a formula."""
    from openpyxl.cell import WriteOnlyCell

    for line in lines:
        cells = []
        for value in line:
            cell = WriteOnlyCell(sheet, value=_plain(value))
            if isinstance(cell.value, str):
                cell.data_type = "s"
            cells.append(cell)
        sheet.append(cells)


def _plain(value: Any) -> Any:
    """A value as a cell holds it: a number, a truth value, a text without control characters, or nothing."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return ILLEGAL_CHARACTERS_RE.sub("", text)[:32_767]
