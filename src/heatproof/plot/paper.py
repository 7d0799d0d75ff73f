"""What all figures for papers share: their width, and which methods they show under which names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from heatproof.display_names import checked_labels, method_called
from heatproof.errors import InvalidInput
from heatproof.report.drawing import Paper
from heatproof.report.style import Style, styles

#: The widths of one and of two columns in inches, as in IEEE, ACM, CVPR and many journals.
WIDTHS = {"column": 3.25, "page": 6.75}
#: The range of a width in inches.
RANGE = (2.0, 20.0)

Width = str | float


def paper_of(width: Width) -> Paper:
    """The figure for a width: `column`, `page`, or inches.

    Raises:
        InvalidInput: another name, or a number out of range.
    """
    if isinstance(width, str) and width in WIDTHS:
        return Paper(WIDTHS[width])
    if isinstance(width, int | float) and not isinstance(width, bool) and RANGE[0] <= width <= RANGE[1]:
        return Paper(float(width))
    raise InvalidInput(
        f'`width` must be "column" (3.25 inches), "page" (6.75 inches), or a number of inches from {RANGE[0]:g} to '
        f"{RANGE[1]:g}. Got {width!r}."
    )


def chosen_methods(
    methods: str | Iterable[str] | None,
    there: Sequence[str],
    controls: Iterable[str] = (),
    shown: bool = True,
    labels: Mapping[str, str] | None = None,
) -> list[str]:
    """The methods to draw, in the order given; by default all that are there, controls last or not `shown`.

    A method may be called by its display name in `labels`.

    Raises:
        UnknownName: a method that is not there. InvalidInput: none is left.
    """
    useless = set(controls)
    if methods is None:
        found = [method for method in there if method not in useless]
        found += [method for method in there if method in useless and shown]
    else:
        given = [methods] if isinstance(methods, str) else list(methods)
        kind = "method of these results"
        found = list(dict.fromkeys(method_called(str(name), there, kind, labels) for name in given))
    if not found:
        raise InvalidInput("Expected at least one method to draw. Got none.")
    return found


def looks_of(
    methods: Sequence[str],
    there: Sequence[str],
    controls: Iterable[str],
    labels: Mapping[str, str] | None,
    known: Mapping[str, str] | None = None,
) -> dict[str, Style]:
    """The style of each method, that of the page where all methods `there` are drawn, with its display name.

    labels: the user's, over `known`, those of the results.

    Raises:
        UnknownName: a method that is not there. InvalidInput: one name for two methods.
    """
    named = {**(known or {}), **checked_labels(labels or {}, there)}
    found = styles(list(there), set(controls), named)
    shown = checked_labels({method: named[method] for method in methods if method in named}, methods)
    return {method: replace(found[method], label=shown.get(method, "")) for method in methods}


def chosen_columns(names: str | Iterable[str] | None, there: Sequence[str], kind: str) -> list[str]:
    """Metrics or perturbations in the order given, by default all that are there; UnknownName for another."""
    if names is None:
        return list(there)
    given = [names] if isinstance(names, str) else list(names)
    return list(dict.fromkeys(method_called(str(name), there, kind) for name in given))


def refused(function: str, given: Any, wanted: str) -> InvalidInput:
    """The error for an object that a plot cannot draw."""
    return InvalidInput(f"`heatproof.plot.{function}` draws {wanted}. Got {type(given).__name__}.")
