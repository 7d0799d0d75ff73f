"""The `source` of a method or a metric → BibTeX entries, by the one table in `bibliography.bib`."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

#: What a source begins with that needs no entry.
OURS = ("ours", "control")
_ENTRY = re.compile(r"^% (?P<cited>[^\n]+)\n(?P<text>@\w+\{(?P<key>[^,\s]+),\n.*?^\}\n)", re.MULTILINE | re.DOTALL)


class Publication(NamedTuple):
    """An entry: its key, its text, and the forms in which a source cites it, such as `Selvaraju et al. 2017`."""

    key: str
    text: str
    cited: tuple[str, ...]


@cache
def publications() -> Mapping[str, Publication]:
    """All entries by key."""
    text = (Path(__file__).parent / "bibliography.bib").read_text("utf-8")
    found = [
        Publication(match["key"], match["text"], tuple(form.strip() for form in match["cited"].split("|")))
        for match in _ENTRY.finditer(text)
    ]
    return {one.key: one for one in found}


def keys_of(source: str) -> list[str]:
    """The keys of all entries that a source cites, in its order; of two forms that fit, the longer one counts."""
    forms = {form: one.key for one in publications().values() for form in one.cited}
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return list(dict.fromkeys(forms[match] for match in re.findall(rf"(?<![\w&])(?:{pattern})(?!\w)", source)))


def is_ours(source: str) -> bool:
    """Whether a source names no publication on purpose."""
    return source.startswith(OURS)


def bibtex(keys: Iterable[str]) -> str:
    """The entries of these keys, each once, sorted by key."""
    return "\n".join(publications()[key].text for key in sorted(set(keys)))
