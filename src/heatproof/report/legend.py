"""Legends of methods, in a figure or as a figure of their own, and axes with methods as labels."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from heatproof.report.drawing import figure, house
from heatproof.report.style import FAINT, Style

Styles = Mapping[str, Style]


@house()
def legend_figure(methods: Sequence[str], looks: Styles, columns: int = 2) -> Figure:
    """The legend of `curves_figure` as a figure of its own, so that the page can lay out the panels freely."""
    rows = -(-len(methods) // columns)
    canvas = figure(1.65 * columns, 0.12 + 0.2 * rows)
    canvas.legend(handles=handles(methods, looks), loc="center", ncols=columns, borderpad=0, handlelength=3.2)
    return canvas


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
    """The method's name with dollar signs escaped (matplotlib reads them as mathematics); controls are marked."""
    return method.replace("$", r"\$") + (" (control)" if looks[method].control else "")


def method_axis(axis: Axes, methods: Sequence[str], looks: Styles) -> None:
    """Methods down the left side, the first on top; controls in grey."""
    axis.set_yticks(range(len(methods)), [named(m, looks) for m in methods])
    for label, method in zip(axis.get_yticklabels(), methods, strict=True):
        if looks[method].control:
            label.set(color=FAINT)
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
