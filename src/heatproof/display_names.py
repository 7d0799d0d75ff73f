"""Display names of methods: what pages, figures and tables call a method whose rows carry its canonical name."""

from collections.abc import Iterable, Mapping
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.registry import fold, unknown


def checked_labels(labels: Mapping[Any, Any], methods: Iterable[str]) -> dict[str, str]:
    """Canonical name → display name; names may be spelled as everywhere, without regard to case and hyphens.

    Raises:
        UnknownName: a method that is not among `methods`, with near misses.
        InvalidInput: a display name that is empty or has several lines, or that two methods would have.
    """
    methods = list(methods)
    found: dict[str, str] = {}
    for name, label in labels.items():
        method = method_called(str(name), methods, "method in `labels`")
        text = str(label).strip()
        if not text or "\n" in text:
            raise InvalidInput(f"The label of {method!r} must be one line of text. Got {label!r}.")
        if method in found:
            raise InvalidInput(f"`labels` must name each method once. Got {method!r} twice.")
        found[method] = text
    shown: dict[str, str] = {}
    for method in methods:
        label = found.get(method, method)
        if label in shown:
            raise InvalidInput(
                f"`labels` must tell methods apart. {shown[label]!r} and {method!r} would both be called {label!r}."
            )
        shown[label] = method
    return found


def method_called(
    name: str,
    methods: Iterable[str],
    kind: str = "method of this study",
    labels: Mapping[str, str] | None = None,
) -> str:
    """The one of `methods` with this name, in any spelling, or with this display name among `labels`.

    UnknownName where there is none, with near misses.
    """
    methods = list(methods)
    if name in methods:
        return name
    shown = [method for method in methods if (labels or {}).get(method) == name]
    if shown:
        return shown[0]
    same = [method for method in methods if fold(method) == fold(name)]
    if not same:
        raise unknown(kind, name, methods)
    return same[0]
