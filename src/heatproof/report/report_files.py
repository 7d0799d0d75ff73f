"""The files of a report: `tables/`, `figures/` and `report.html` of a study's folder."""

import os
from pathlib import Path

from heatproof.report.findings import Findings
from heatproof.report.page import write_page
from heatproof.report.source import open_source
from heatproof.report.tables import file_tables

__all__ = ["write_page", "write_report", "write_tables"]


def write_tables(folder: str | os.PathLike) -> Findings:
    """Writes `tables/` of a study folder and returns the findings, from which a page needs no second computation.

    Raises:
        StoreError: the folder is no study, has no rows yet, has no row that a table needs, or cannot be written.
        UnknownName: the study is not known in this process.
    """
    findings = Findings(open_source(folder))
    file_tables(findings.source.folder / "tables", findings.tables)
    return findings


def write_report(folder: str | os.PathLike) -> Path:
    """Writes `tables/`, `figures/` and `report.html` of a study folder from what is stored; returns the page.

    The page is one file that can be mailed: it loads no other file and runs no script. Equal rows give equal bytes. The
    page of an unfinished study shows the finished part, with a banner.

    Raises:
        StoreError, UnknownName: as `write_tables`. StoreError: the gallery is damaged.
    """
    return write_page(write_tables(folder))
