"""The right tables and the right page for a study, whichever it is: `study.json` says what it was."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heatproof.report.source import open_source

#: The study that `heatproof score` writes; every other is told as a study of noise.
SCORE = "score"


def write_tables(folder: str | os.PathLike) -> Any:
    """Writes `tables/` of a study folder and returns what was found, to be drawn without working it out again.

    Raises:
        StoreError: the folder is no study, has no rows yet, or cannot be written.
    """
    source = open_source(folder)
    if source.plan.get("study") == SCORE:
        from heatproof.report.scores import tables as scores

        return scores.write_tables(source)
    from heatproof.report import tables

    return tables.write_all(source)


def write_page(findings: Any) -> Path:
    """Writes `figures/` and `report.html` from what `write_tables` found; returns the page."""
    from heatproof.report import page

    return page.file_page(findings.source, *_room(findings).rendered(findings))


def answers(findings: Any) -> Iterator[dict[str, Any]]:
    """The verdicts: `where`, `sentence`, `details`."""
    return _room(findings).answers(findings)


def write_report(folder: str | os.PathLike) -> Path:
    """Writes `tables/`, `figures/` and `report.html` of a study folder from what is stored; returns the page.

    The page is one file that can be mailed: it asks for nothing outside itself and runs no script. Equal rows give
    equal bytes. An unfinished study is reported as far as it is, with a banner.

    Raises:
        StoreError: the folder is no study, has no rows yet, has a damaged gallery, or cannot be written.
    """
    return write_page(write_tables(folder))


def _room(findings: Any) -> Any:
    if findings.source.plan.get("study") == SCORE:
        from heatproof.report.scores import page as scores

        return scores
    from heatproof.report import page

    return page
