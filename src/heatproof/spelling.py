"""The text form of methods, metrics, perturbations and segmenters: `name@layer+layer[option=value,…]`.

    gradcam                                a name alone
    gradcam@features[7][-1]                a layer; an index in brackets is part of its name
    refine:layercam@layer2+layer4          several layers
    road[ties=block,kept=20 50]            options

A value is read as a YAML scalar: a number, `true`, `null`, a list, else text. Text that would be read as something
else stands in double quotes, as in JSON. `parse` and `format` are inverse.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from heatproof.errors import InvalidInput

_PARTS = re.compile(
    r"(?P<name>[^@\[\]]+)"
    r"(?:@(?P<layers>[^\[\]]+(?:\[-?\d+\][^\[\]]*)*))?"
    r"(?:\[(?P<options>.*)\])?",
    re.DOTALL,
)
_EXPONENT = re.compile(r"[-+]?(\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+")
#: The longest text that is read as YAML, and its most brackets that open.
_LONGEST, _DEEPEST = 20_000, 100
_OPEN, _CLOSE, _QUOTE = "[{", "]}", '"'


@dataclass(frozen=True)
class Spelling:
    """A parsed spelling: the name as written, the layers, and the options with their values."""

    name: str
    layers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str) -> Spelling:
    """`name@layer+layer[option=value,…]` → its parts.

    Raises:
        InvalidInput: another form, an option without a value, or brackets that do not match.
    """
    match = _PARTS.fullmatch(text.strip())
    if not match or not match["name"].strip():
        raise InvalidInput(f"Expected `name`, `name@layer`, or either with `[option=value,…]`. Got {text!r}.")
    layers = tuple(part.strip() for part in (match["layers"] or "").split("+") if part.strip())
    options = {}
    for item in _items(match["options"] or "", text):
        key, equals, value = item.partition("=")
        if not equals:
            raise InvalidInput(f"Expected `option=value` in {text!r}. Got {item!r}.")
        options[key.strip()] = scalar(value)
    return Spelling(match["name"].strip(), layers, options)


def format(name: str, options: Mapping[str, Any] | None = None, layers: Iterable[str] = ()) -> str:
    """The spelling that `parse` takes apart into these; options are sorted by name, a tuple becomes a list.

    `name` may be a spelling without options already (`gradcam@layer3`).
    """
    where = "+".join(layers)
    inside = ",".join(f"{key}={value_text(value)}" for key, value in sorted((options or {}).items()))
    return f"{name}{f'@{where}' if where else ''}{f'[{inside}]' if inside else ''}"


def head(text: str) -> str:
    """A spelling without its options."""
    match = _PARTS.fullmatch(text.strip())
    return text if not match or match["options"] is None else text.strip()[: match.start("options") - 1].strip()


def listed(text: str) -> list[str]:
    """Spellings with commas between them; commas in brackets belong to a spelling."""
    return [part.strip() for part in _pieces(text, 0)[0] if part.strip()]


def scalar(text: str) -> Any:
    """The value that a text stands for: JSON where it is quoted or a list, else a YAML scalar, else the text itself.

    YAML's anchors and tags are no values: a text that needs them is text.
    """
    text = text.strip()
    if text[:1] in ("[", _QUOTE):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # YAML's lists need no quotes
    if _EXPONENT.fullmatch(text):
        return float(text)  # YAML 1.1 takes 1e-6 for text
    if len(text) > _LONGEST or text.count("[") + text.count("{") > _DEEPEST:
        return text
    try:
        loader = _plain_yaml()(text)
        try:
            found = loader.get_single_data()
            return found if repr(found) else text  # a whole number of 5000 digits, as 0x…, cannot be written
        finally:
            loader.dispose()
    except Exception:  # beside errors of YAML, of many types: a date such as 2020-13-45, `!!bool x`
        return text


@cache
def _plain_yaml() -> Any:
    """A loader of YAML without aliases: what they repeat grows beyond all bounds."""
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.YAMLError("no anchors here")
            return super().compose_node(parent, index)

    return Plain


def value_text(value: Any) -> str:
    """A value as `scalar` reads it: `true`, `0.5`, `null`, a list in brackets; text, quoted only where it must be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(float(value))]
    if isinstance(value, list | tuple):
        return json.dumps(value, default=str)
    text = str(value)
    return text if not isinstance(value, str) or _is_plain(text) else json.dumps(text)


def _is_plain(text: str) -> bool:
    """Whether a text is read as itself where it stands as an option's value."""
    try:
        return _items(text, text) == [text] and scalar(text) == text
    except InvalidInput:
        return False


def _items(text: str, spelling: str) -> list[str]:
    """What the commas inside the brackets of a spelling separate."""
    pieces, matched = _pieces(text, 1)
    if not matched:
        raise InvalidInput(f"Expected brackets and quotes in pairs. Got {spelling!r}.")
    return [piece for piece in pieces if piece]


def _pieces(text: str, depth: int) -> tuple[list[str], bool]:
    """What the commas outside brackets and quotes separate, and whether those come in pairs.

    A quote opens where a value begins, and only inside brackets: `depth` is 1 for text that was taken out of them.
    """
    outside, start, pieces, quoted, before = depth, 0, [], False, ""
    for i, sign in enumerate(text):
        if quoted:
            quoted = sign != _QUOTE or before == "\\"
            before = "" if before == "\\" else sign  # an escaped backslash escapes nothing
            continue
        if sign == _QUOTE and depth and before in ("", "=", ",", ":", *_OPEN):
            quoted = True
        depth += (sign in _OPEN) - (sign in _CLOSE)
        if depth < outside:
            return text.split(","), False
        if sign == "," and depth == outside:
            pieces.append(text[start:i].strip())
            start = i + 1
        before = before if sign.isspace() else sign
    return [*pieces, text[start:].strip()], depth == outside and not quoted
