"""Tables, figures and the page of a finished (or unfinished) study, made from its folder alone.

Nothing here needs a network or imports torch: the rows, the plan and the gallery are enough.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heatproof.report.frames import pairs
    from heatproof.report.printing import write_pdf
    from heatproof.report.report_files import write_latex, write_page, write_report, write_tables

_HOMES = dict.fromkeys(("write_latex", "write_page", "write_report", "write_tables"), "report_files") | {
    "pairs": "frames",
    "write_pdf": "printing",
}

__all__ = ["pairs", "write_latex", "write_page", "write_pdf", "write_report", "write_tables"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
