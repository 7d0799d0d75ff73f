"""How pages are made from templates: everything is escaped, and a name that is missing is an error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

#: The templates of the pages, and what other pages include of them.
TEMPLATES = Path(__file__).parent / "templates"


def environment(folders: Sequence[Path] = (TEMPLATES,)) -> Environment:
    """For templates in these folders, the first that has one."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_with_units_kept,
    )


def _with_units_kept(value: Any) -> Any:
    """A number and its per cent sign stay on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value
