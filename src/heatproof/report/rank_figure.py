"""The critical-difference diagram: average ranks on a line, bars over methods that cannot be told apart."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from heatproof.report.drawing import figure, house
from heatproof.report.legend import Styles, method_axis
from heatproof.report.style import INK


@house()
def critical_difference_figure(
    ranks: Mapping[str, float],
    distance: float,
    groups: Sequence[Sequence[str]],
    looks: Styles,
    note: str = "",
) -> Figure:
    """Average rank of each method (1 = best); a bar joins the methods of each of `groups`.

    Each method has a line of its own, for narrow screens. `distance` is drawn as a scale unless NaN.
    """
    order = sorted(ranks, key=lambda m: (ranks[m], m))
    names = max(map(len, order), default=0)
    canvas = figure(max(4.0, 2.6 + 0.075 * names), 1.1 + 0.25 * len(order))
    axis = canvas.subplots()
    for position, method in enumerate(order):
        look = looks[method]
        axis.plot(ranks[method], position, look.marker, color=look.color, markersize=7)
        axis.text(ranks[method], position - 0.36, f"{ranks[method]:.2f}", ha="center", fontsize=7.5)
    top = max(len(order), 2)
    for column, group in enumerate(groups):
        positions = [order.index(method) for method in group]
        x = top + 0.45 + 0.28 * column
        axis.plot([x, x], [min(positions) - 0.25, max(positions) + 0.25], color=INK, linewidth=3.2)
    method_axis(axis, order, looks)
    right = top + 0.5 + 0.28 * len(groups)
    axis.set(xlim=(0.6, right), xticks=range(1, top + 1), ylim=(len(order) - 0.4, -1.75))
    axis.set_xlabel("average rank (1 = best)")
    if np.isfinite(distance):
        axis.plot([1, min(1 + distance, right)], [-1.05, -1.05], "|-", color=INK, linewidth=1.6, clip_on=False)
        axis.text(1, -1.25, f"critical distance {distance:.2f}", va="bottom", fontsize=8).set_in_layout(False)
    if note:
        canvas.suptitle(note, fontsize=8.5, color=INK)
    return canvas
