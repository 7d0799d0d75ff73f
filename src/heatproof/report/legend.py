"""Legends of methods, in a figure or as a figure of their own, and axes with methods as labels."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from heatproof.report.drawing import Paper, figure, house
from heatproof.report.style import FAINT, Style
from heatproof.report.text_measure import text_width, wrapped_to

Styles = Mapping[str, Style]

#: Of a legend on the page: the size of its text in points, and the length of a line in units of it.
SIZE, HANDLE = 8.5, 3.2
#: An entry of a legend besides its label (line, gaps between line, label and column) and the height of its line, in
#: units of the text; how many lines a figure has room for; the margin at both sides of a figure in inches.
ENTRY, ROW, LINES, SIDE = HANDLE + 0.8 + 2.0, 1.6, 3, 0.1
#: The largest share of the width of a figure for a paper that names beside an axis take; longer ones are broken.
NAMES = 0.38


def text_size() -> float:
    """The size of names in points under the present settings."""
    return float(matplotlib.rcParams["legend.fontsize"])


def line_height(size: float | None = None) -> float:
    """The height of a line of text in inches, at the size of names or another."""
    return 1.25 * (size or text_size()) / 72


@house()
def legend_figure(methods: Sequence[str], looks: Styles, abreast: int = 2) -> Figure:
    """The legend of `curves_figure` as a figure of its own, so that the page can lay out the panels freely."""
    labels = handles(methods, looks)
    rows = -(-len(methods) // abreast)
    canvas = figure(max(1.65, max(map(_entry, labels), default=_entry())) * abreast, 0.12 + 0.2 * rows)
    canvas.legend(handles=labels, loc="center", ncols=abreast, borderpad=0, handlelength=HANDLE)
    return canvas


def _entry(label: Line2D | None = None) -> float:
    """The width in inches of a legend's entry, in the largest line of its label."""
    text = "" if label is None else str(label.get_label()).replace(r"\$", "$")
    return text_width(text, text_size()) + ENTRY * text_size() / 72


def below(canvas: Figure, labels: Sequence[Line2D], most: int, lines: int = LINES) -> None:
    """A legend below the axes, of at most `most` columns, and of fewer where the labels would not fit the width.

    A label that is wider than the figure is broken. The figure grows by the lines of the legend that are more than
    `lines`, so that the axes keep their size.
    """
    width, height = canvas.get_size_inches()
    room = width - 2 * SIDE
    for label in labels:
        if _entry(label) > room:
            text = str(label.get_label()).replace(r"\$", "$")
            label.set_label(escaped(wrapped_to(text, room - _entry(), text_size())))
    abreast = columns(labels, room, most)
    per_column = max(1, -(-len(labels) // abreast))
    rows = max(
        (sum(str(label.get_label()).count("\n") + 1 for label in labels[start : start + per_column])
         for start in range(0, len(labels), per_column)),
        default=0,
    )  # fmt: skip
    canvas.set_size_inches(width, height + ROW * text_size() / 72 * max(0, rows - lines))
    canvas.legend(handles=list(labels), loc="outside lower center", ncols=abreast, handlelength=HANDLE)


def columns(labels: Sequence[Line2D], room: float, most: int) -> int:
    """The most columns of a legend, at most `most`, with a total width of at most `room` inches; at least one.

    A legend is filled column by column, and a column is as wide as its longest label.
    """
    wide = [_entry(label) for label in labels]
    for count in range(max(1, min(most, len(wide))), 1, -1):
        whole, more = divmod(len(wide), count)
        sizes = [whole + (column < more) for column in range(count)]
        starts = [sum(sizes[:column]) for column in range(count)]
        parts = (wide[start : start + size] for start, size in zip(starts, sizes, strict=True))
        if sum(max(part) for part in parts) <= room:
            return count
    return 1


def handles(methods: Sequence[str], looks: Styles) -> list[Line2D]:
    """A legend entry for each method."""
    return [
        Line2D(
            [],
            [],
            color=looks[m].color,
            marker=looks[m].marker,
            linestyle=looks[m].line,
            label=named(m, looks),
        )
        for m in methods
    ]


def escaped(text: str) -> str:
    """A text whose dollar signs matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def full_name(method: str, looks: Styles) -> str:
    """What the method is called; controls are marked."""
    return (looks[method].label or method) + (" (control)" if looks[method].control else "")


def named(method: str, looks: Styles) -> str:
    """`full_name`, dollar signs escaped."""
    return escaped(full_name(method, looks))


def width_beside(methods: Sequence[str], looks: Styles, plot: float) -> float:
    """The width in inches of a figure or panel with the methods beside a plot of `plot` inches."""
    names = (full_name(method, looks) for method in methods)
    return plot + 0.3 + max((text_width(name, text_size()) for name in names), default=0.0)


def names_beside(methods: Sequence[str], looks: Styles, paper: Paper | None) -> list[str]:
    """The names for an axis; in a figure for a paper broken where they are longer than `NAMES` of its width."""
    names = [full_name(method, looks) for method in methods]
    return names if paper is None else [wrapped_to(name, NAMES * paper.width, text_size()) for name in names]


def room_of(names: Sequence[str]) -> tuple[float, float]:
    """The width in inches of the widest of some names, and the distance of two rows that their lines need."""
    wide = max((text_width(name, text_size()) for name in names), default=0.0)
    lines = [name.count("\n") + 1 for name in names] or [1]
    closest = max((first + second for first, second in pairwise([lines[0], *lines])), default=2) / 2
    return wide, closest * line_height() + 0.02


def abreast(count: int, room: float, least: float, most: int) -> int:
    """The number of panels in a row of a figure for a paper: as many as have `least` inches, rows of equal length."""
    fit = max(1, min(most, count, int(room / least)))
    return -(-count // -(-count // fit)) if count else 1


def method_axis(
    axis: Axes, methods: Sequence[str], looks: Styles, names: Sequence[str] | None = None, cells: bool = False
) -> None:
    """Methods down the left side, the first on top; controls in grey.

    names: what stands there, line by line. cells: a row lies between two whole numbers, not around one.
    """
    names = [full_name(method, looks) for method in methods] if names is None else names
    shift, low, high = (0.5, len(methods), 0.0) if cells else (0.0, len(methods) - 0.4, -0.6)
    axis.set_yticks([row + shift for row in range(len(methods))], list(map(escaped, names)))
    for label, method in zip(axis.get_yticklabels(), methods, strict=True):
        if looks[method].control:
            label.set(color=FAINT)
    axis.set_ylim(low, high)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
