"""Display names on the page: canonical names of methods in ready texts → what the methods are called.

Rows, tables and the code go by canonical names. Sections are made with them and translated at the end.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from markupsafe import Markup

from heatproof.report.blocks import Heading, Text

#: Fields that are no text for readers, and kinds of blocks that translate themselves.
ANCHORS, OWN = ("id", "name", "kind", "anchors", "words", "definitions"), ("case", "examples")
#: Canonical names that are ordinary words: in paragraphs they are left as they are.
WORDS = frozenset({"cam", "centre", "deconvnet", "edges", "gradient", "half", "occlusion", "ones", "random"})


def labelled(value: Any, labels: Mapping[str, str]) -> Any:
    """A text, a section, a block, or several of them, with display names in place of canonical ones."""
    return _translated(value, labels) if labels else value


def _translated(value: Any, labels: Mapping[str, str]) -> Any:
    if isinstance(value, Markup | Heading) or getattr(value, "kind", "") in OWN:
        return value
    if isinstance(value, str):
        return _text(value, labels)
    if isinstance(value, Text):
        kept = {name: label for name, label in labels.items() if name not in WORDS}
        return value if isinstance(value.text, Markup) else replace(value, text=_text(value.text, kept))
    if is_dataclass(value) and not isinstance(value, type):
        changed = {one.name: _translated(getattr(value, one.name), labels)
                   for one in fields(value) if one.init and one.name not in ANCHORS}  # fmt: skip
        return replace(value, **changed)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_translated(one, labels) for one in value))
    if isinstance(value, list | tuple):
        return type(value)(_translated(one, labels) for one in value)
    if isinstance(value, dict):
        return {key: _translated(one, labels) for key, one in value.items()}
    return value


def _text(text: str, labels: Mapping[str, str]) -> str:
    """The text with each canonical name that stands alone replaced; one that is part of a longer name stays."""
    if not labels:
        return text
    names = "|".join(re.escape(name) for name in sorted(labels, key=len, reverse=True))
    alone = rf"(?<![\w:@+\-./])({names})(?![\w@+\[/]|[-:.=]\w)"
    return re.sub(alone, lambda match: labels[match[1]], text)
