"""The names of methods in a figure: the key to its lines, in the figure or apart from it, and an axis."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from heatproof.report.drawing import figure, house
from heatproof.report.style import FAINT, Style

Styles = Mapping[str, Style]


@house()
def legend_figure(methods: Sequence[str], looks: Styles, columns: int = 2) -> Figure:
    """The key to the lines of `curves_figure`, apart, so that panels may be laid out freely."""
    rows = -(-len(methods) // columns)
    canvas = figure(1.65 * columns, 0.12 + 0.2 * rows)
    canvas.legend(handles=handles(methods, looks), loc="center", ncols=columns, borderpad=0, handlelength=3.2)
    return canvas


def handles(methods: Sequence[str], looks: Styles) -> list[Line2D]:
    """A line for each method, with its name."""
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
    """The method's name with dollar signs taken literally (matplotlib would read mathematics)."""
    return method.replace("$", r"\$") + (" (control)" if looks[method].control else "")


def method_axis(axis: Axes, methods: Sequence[str], looks: Styles) -> None:
    """Methods down the left side, the first on top; controls in grey italics."""
    axis.set_yticks(range(len(methods)), [named(m, looks) for m in methods])
    for label, method in zip(axis.get_yticklabels(), methods, strict=True):
        if looks[method].control:
            label.set(color=FAINT)
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
