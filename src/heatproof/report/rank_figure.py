"""The rank diagram: average ranks on a line, bars over methods that cannot be told apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from heatproof.report.drawing import Paper, drawn, figure
from heatproof.report.legend import Styles, escaped, line_height, method_axis, names_beside, room_of, text_size
from heatproof.report.style import INK
from heatproof.report.text_measure import text_width, wrapped_to

#: Inches on the page and in a paper: the room for ranks, a bar, and the least distance of two rows.
PAGE = {"ranks": 2.0, "bar": 0.11, "row": 0.25}
PAPER = {"ranks": 0.0, "bar": 0.075, "row": 0.145}
#: The least room for the ranks in inches, whatever stands beside them.
LEAST = 0.6


@drawn
def rank_figure(
    ranks: Mapping[str, float],
    groups: Sequence[Sequence[str]],
    looks: Styles,
    by: str = "",
    note: str = "",
    distance: float | None = None,
    thick: str = "",
    paper: Paper | None = None,
) -> Figure:
    """Average rank of each method (1 = best); a bar with a dot at each of its methods joins each of `groups`.

    Each method has a line of its own, for narrow screens. `by`: the number by which the methods are ranked.
    distance: Nemenyi's critical difference, drawn as a line of its length on top. thick: a method whose name is bold.
    """
    order = sorted(ranks, key=lambda m: (ranks[m], m))
    inches = PAGE if paper is None else PAPER
    names = names_beside(order, looks, paper)
    beside, row = room_of(names)
    places = packed([[order.index(method) for method in group] for group in groups])
    bars = inches["bar"] * (max(places, default=-1) + 1)
    small = matplotlib.rcParams["font.size"] * 0.833
    value = text_width("20.00", small) + 0.12
    label = f"average rank{f' by {by}' if by else ''} (1 = best)"
    if paper is None:
        width = max(4.0, beside + 0.3 + inches["ranks"] + value + bars, text_width(note, 8.5) + 0.2)
    else:
        width = paper.width
        note = wrapped_to(note, width - 0.1, text_size())
        label = wrapped_to(label, max(width - beside - 0.2, 1.2), matplotlib.rcParams["axes.labelsize"])
    above = 0.0 if distance is None else 2 * line_height(small)
    row = max(row, inches["row"])
    lines = label.count("\n") + (note.count("\n") + 1 if note else 0)
    height = row * len(order) + above + (0.75 if paper is None else 0.42) + lines * line_height()
    canvas = figure(width, height, paper)
    axis = canvas.subplots()
    top = max(len(order), 2)
    unit = max(LEAST, width - beside - 0.3 - value - bars) / (top - 0.6)  # inches of a rank
    for position, method in enumerate(order):
        look = looks[method]
        axis.plot(ranks[method], position, look.marker, color=look.color, markersize=7 if paper is None else 4.5)
        axis.annotate(
            f"{ranks[method]:.2f}", (ranks[method], position), (6 if paper is None else 4.5, 0),
            textcoords="offset points", va="center_baseline", fontsize="small",
        )  # fmt: skip
    for place, group in zip(places, groups, strict=True):
        x = top + (value + inches["bar"] * (place + 0.5)) / unit
        _bar(axis, x, [order.index(method) for method in group], (3.6, 1.2) if paper is None else (2.2, 0.8))
    method_axis(axis, order, looks, names)
    if thick in order:
        axis.get_yticklabels()[order.index(thick)].set_fontweight("bold")
    axis.set(xlim=(0.6, top + (value + bars) / unit), ylim=(len(order) - 0.4, -0.6 - above / row))
    if distance is not None:
        _distance(axis, distance, top, -0.6 - 0.4 * above / row, small)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.set_xticks([tick for tick in axis.get_xticks() if 1 <= tick <= top])
    axis.set_xlabel(escaped(label))
    if note:
        canvas.suptitle(note, fontsize=text_size(), color=INK)
    return canvas


def packed(groups: Sequence[Sequence[int]]) -> list[int]:
    """A place for the bar of each group, the first that is free along all of its rows."""
    taken: list[set[int]] = []
    places = []
    for group in groups:
        rows = set(range(min(group), max(group) + 1))
        place = next((number for number, used in enumerate(taken) if not used & rows), len(taken))
        taken += [set()] if place == len(taken) else []
        taken[place] |= rows
        places.append(place)
    return places


def _bar(axis: Axes, x: float, positions: Sequence[int], widths: tuple[float, float]) -> None:
    """A thin line along a group, thick at its members."""
    style: dict[str, Any] = {"color": INK, "solid_capstyle": "butt"}
    axis.plot([x, x], [min(positions) - 0.25, max(positions) + 0.25], linewidth=widths[1], **style)
    for position in positions:
        axis.plot([x, x], [position - 0.25, position + 0.25], linewidth=widths[0], **style)


def _distance(axis: Axes, distance: float, top: int, y: float, size: float) -> None:
    """The critical difference as a line from rank 1; words alone where no two ranks can be so far apart."""
    if distance > top - 1:
        text = f"CD = {distance:.2f}: more than any two ranks differ by"
    else:
        text = f"CD = {distance:.2f}"
        axis.plot([1, 1 + distance], [y, y], color=INK, linewidth=1.4, marker="|", markersize=5)
    axis.annotate(text, (1, y), (0, 3), textcoords="offset points", va="bottom", fontsize=size)
