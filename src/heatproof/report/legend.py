"""Legends of methods, in a figure or as a figure of their own, and axes with methods as labels."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from heatproof.report.drawing import figure, house
from heatproof.report.style import FAINT, Style

Styles = Mapping[str, Style]

#: Of a legend: the size of its text in points, the length of a line in units of it, the inches of an entry besides the
#: label (line, gaps between line, label and column), and the margin at both sides of a figure in inches.
SIZE, HANDLE = 8.5, 3.2
#: The height of a line of a legend in inches, and how many lines a figure has room for.
ROW, LINES = 0.19, 3
ENTRY, SIDE = (HANDLE + 0.8 + 2.0) * SIZE / 72, 0.1


@house()
def legend_figure(methods: Sequence[str], looks: Styles, abreast: int = 2) -> Figure:
    """The legend of `curves_figure` as a figure of its own, so that the page can lay out the panels freely."""
    labels = handles(methods, looks)
    wide = max((text_width(str(label.get_label()).replace(r"\$", "$"), SIZE) for label in labels), default=0.0) + ENTRY
    rows = -(-len(methods) // abreast)
    canvas = figure(max(1.65, wide) * abreast, 0.12 + 0.2 * rows)
    canvas.legend(handles=labels, loc="center", ncols=abreast, borderpad=0, handlelength=HANDLE)
    return canvas


def below(canvas: Figure, labels: Sequence[Line2D], most: int) -> None:
    """A legend below the axes, of at most `most` columns, and of fewer where the labels would not fit the width.

    The figure grows by the lines of the legend that are more than `LINES`, so that the axes keep their size.
    """
    width, height = canvas.get_size_inches()
    abreast = columns(labels, width - 2 * SIDE, most)
    canvas.set_size_inches(width, height + ROW * max(0, -(-len(labels) // abreast) - LINES))
    canvas.legend(handles=list(labels), loc="outside lower center", ncols=abreast, handlelength=HANDLE)


def columns(labels: Sequence[Line2D], room: float, most: int) -> int:
    """The most columns of a legend, at most `most`, with a total width of at most `room` inches; at least one.

    A legend is filled column by column, and a column is as wide as its longest label.
    """
    wide = [text_width(str(label.get_label()).replace(r"\$", "$"), SIZE) + ENTRY for label in labels]
    for count in range(max(1, min(most, len(wide))), 1, -1):
        whole, more = divmod(len(wide), count)
        sizes = [whole + (column < more) for column in range(count)]
        starts = [sum(sizes[:column]) for column in range(count)]
        parts = (wide[start : start + size] for start, size in zip(starts, sizes, strict=True))
        if sum(max(part) for part in parts) <= room:
            return count
    return 1


def text_width(text: str, size: float) -> float:
    """The width of a line in inches, in the font of the figures at `size` points."""
    return size * _width_of_a_point(text) / 72


@lru_cache(maxsize=4096)
def _width_of_a_point(text: str) -> float:
    """The width in points at one point; asked of a name by every figure, and slow, as it follows every curve."""
    if not text.strip():
        return 0.0
    path = TextPath((0, 0), text.replace("$", r"\$"), size=1, prop=FontProperties(family="DejaVu Sans"))
    return float(path.get_extents().width)


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


def named(method: str, looks: Styles) -> str:
    """What the method is called, dollar signs escaped (matplotlib reads them as mathematics); controls are marked."""
    return (looks[method].label or method).replace("$", r"\$") + (" (control)" if looks[method].control else "")


def width_beside(methods: Sequence[str], looks: Styles, plot: float) -> float:
    """The width in inches of a figure or panel with the methods beside a plot of `plot` inches."""
    names = (named(method, looks).replace(r"\$", "$") for method in methods)
    return plot + 0.3 + max((text_width(name, SIZE) for name in names), default=0.0)


def method_axis(axis: Axes, methods: Sequence[str], looks: Styles) -> None:
    """Methods down the left side, the first on top; controls in grey."""
    axis.set_yticks(range(len(methods)), [named(m, looks) for m in methods])
    for label, method in zip(axis.get_yticklabels(), methods, strict=True):
        if looks[method].control:
            label.set(color=FAINT)
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
