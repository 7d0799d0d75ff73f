"""The files of a report: `tables/`, `figures/` and `report.html` of a study's folder."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from heatproof.display_names import checked_labels, method_called
from heatproof.errors import MissingExtra
from heatproof.files import write_atomically
from heatproof.report import documents
from heatproof.report.findings import Findings
from heatproof.report.page import write_page
from heatproof.report.paper_tables import write_latex
from heatproof.report.source import Source, open_source
from heatproof.report.tables import file_tables

__all__ = ["write_latex", "write_page", "write_report", "write_tables"]


def write_tables(
    folder: str | os.PathLike, *, labels: Mapping[str, str] | None = None, reference: str | None = None
) -> Findings:
    """Writes `tables/` of a study folder and returns the findings, from which a page needs no second computation.

    labels, reference: in place of those of the study: method → display name, the method to compare with every other.

    Raises:
        StoreError: the folder is no study, has no rows yet, has no row that a table needs, or cannot be written.
        UnknownName: the study is not known in this process, or a method in `labels` or `reference` is not in its rows.
        InvalidInput: two methods with one display name.
    """
    findings = Findings(_presented(open_source(folder), labels, reference))
    file_tables(findings.source.folder / "tables", findings.tables)
    _write_documents(findings)
    return findings


def _write_documents(findings: Findings) -> None:
    """Writes the study's documents; one that needs an extra is left out without it."""
    for name, made in findings.study.documents.items():
        path = findings.source.folder / name
        try:
            content = (made if callable(made) else getattr(documents, made))(findings)
        except MissingExtra:
            path.unlink(missing_ok=True)
            continue
        content = content.encode("utf-8", "replace") if isinstance(content, str) else content
        write_atomically(path, lambda file, content=content: file.write(content))


def _presented(source: Source, labels: Mapping[str, str] | None, reference: str | None) -> Source:
    """The study with other display names or another reference."""
    if not labels and reference is None:
        return source
    methods = Findings(source).methods
    plan = dict(source.plan)
    if labels:
        plan["labels"] = checked_labels({**(plan.get("labels") or {}), **labels}, methods)
    if reference is not None:
        controls = Findings(source).controls
        real = [method for method in methods if method not in controls]
        plan["reference"] = method_called(reference, real, "method for `reference`", plan.get("labels"))
    return replace(source, plan=plan)


def write_report(folder: str | os.PathLike) -> Path:
    """Writes `tables/`, `figures/` and `report.html` of a study folder from what is stored; returns the page.

    The page is one file that can be mailed: it loads no other file and runs no script. Equal rows give equal bytes. The
    page of an unfinished study shows the finished part, with a banner.

    Raises:
        StoreError, UnknownName: as `write_tables`. StoreError: the gallery is damaged.
    """
    return write_page(write_tables(folder))
