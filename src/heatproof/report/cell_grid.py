"""Methods × columns as coloured cells: numbers where there is room for them, else a colour bar."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from heatproof.errors import InvalidInput
from heatproof.report.drawing import Paper, figure
from heatproof.report.legend import Styles, escaped, line_height, method_axis, names_beside, room_of
from heatproof.report.style import INK
from heatproof.report.text_measure import text_width, wrapped_to

#: The least width and height of a cell in a figure for a paper, in inches.
LEAST, ROW = 0.085, 0.15


def cell_grid(
    values: np.ndarray,
    methods: Sequence[str],
    columns: Sequence[str],
    looks: Styles,
    name: str,
    marks: np.ndarray,
    paper: Paper | None,
) -> Figure:
    """`values` `(methods, columns)` in [0, 1], perceptually uniform colours; `marks` stand beside the numbers.

    Raises:
        InvalidInput: more columns than a figure for a paper has room for.
    """
    names = names_beside(methods, looks, paper)
    beside, row = room_of(names)
    under = max(map(len, columns), default=0)
    if paper is None:
        canvas = figure(beside + 0.7 + 0.62 * len(columns), 0.7 + 0.06 * under + 0.26 * len(methods))
        heads, numbers, flat = list(columns), True, False
    else:
        wide = (paper.width - beside - 0.15) / max(1, len(columns))
        refuse_many(len(columns), paper.width - beside - 0.15, "perturbations", "perturbations")
        numbers = wide >= text_width(".00†", 6.1) + 0.02
        heads = [wrapped_to(column, 1.1, 6.5) for column in columns]
        if any(head.count("\n") and wide < (head.count("\n") + 1) * line_height(6.5) for head in heads):
            heads = list(columns)
        flat = all(text_width(head, 6.5) < wide - 0.04 for head in heads)
        lines = max((head.count("\n") + 1 for head in heads), default=1)
        deep = lines * line_height(6.5) if flat else max((text_width(head, 6.5) for head in heads), default=0)
        high = max(row, ROW) * len(methods) + deep + 0.15 + 0.2 + (0.0 if numbers else 0.4)
        canvas = figure(paper.width, high, paper)
    axis = canvas.subplots()
    drawn = axis.pcolormesh(values, cmap="cividis", norm=Normalize(0, 1), edgecolors="white", linewidth=0.4)
    axis.grid(visible=False)
    _write(axis, values, marks, numbers, paper is not None)
    method_axis(axis, methods, looks, names, cells=True)
    at, written = np.arange(len(columns)) + 0.5, list(map(escaped, heads))
    if paper is None:
        axis.set_xticks(at, written, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axis.set_xticks(at, written, rotation=0 if flat else 90)
        axis.set_title(name)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0)
    if not numbers:
        bar = canvas.colorbar(drawn, ax=axis, orientation="horizontal", aspect=30, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(labelsize=6.5, length=2)
    return canvas


def _write(axis: Axes, values: np.ndarray, marks: np.ndarray, numbers: bool, short: bool) -> None:
    """The number of each cell with its mark; without room the mark alone, and a dash where there is no number."""
    for (row, column), value in np.ndenumerate(values):
        known = bool(np.isfinite(value))
        written = f"{value:.2f}" if numbers and known else "" if known else "–"
        if short and known:
            written = written.replace("0.", ".", 1) if abs(value) < 0.995 else written[:-1]
        text = f"{written}{marks[row, column] if known else ''}"
        if text:
            color = INK if not known else "white" if value < 0.5 else "black"
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize="small", color=color)


def refuse_many(count: int, room: float, kind: str, setting: str, least: float = LEAST) -> None:
    """InvalidInput where so many columns would be narrower than the text beside them is high."""
    most = int(room / least)
    if count > most:
        raise InvalidInput(
            f"{count} {kind} do not fit {room:.1f} inches with text of 6 points. Choose at most {most} with "
            f"`{setting}`, or a larger `width`."
        )
