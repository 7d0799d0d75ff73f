"""The rank diagram: average ranks on a line, bars over methods that cannot be told apart."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from heatproof.report.drawing import figure, house
from heatproof.report.legend import Styles, method_axis, text_width, width_beside
from heatproof.report.style import INK

#: The distance between two bars, in ranks, and the width of a bar in inches.
STEP, BAR = 0.28, 0.11


@house()
def rank_figure(
    ranks: Mapping[str, float], groups: Sequence[Sequence[str]], looks: Styles, by: str = "", note: str = ""
) -> Figure:
    """Average rank of each method (1 = best); a bar with a dot at each of its methods joins each of `groups`.

    Each method has a line of its own, for narrow screens. `by`: the number by which the methods are ranked.
    """
    order = sorted(ranks, key=lambda m: (ranks[m], m))
    width = max(width_beside(order, looks, 2.0 + BAR * len(groups)), text_width(note, 8.5) + 0.2)
    canvas = figure(max(4.0, width), 1.0 + 0.25 * len(order))
    axis = canvas.subplots()
    for position, method in enumerate(order):
        look = looks[method]
        axis.plot(ranks[method], position, look.marker, color=look.color, markersize=7)
        axis.text(ranks[method], position - 0.36, f"{ranks[method]:.2f}", ha="center", fontsize=7.5)
    top = max(len(order), 2)
    step = max(STEP, BAR * top / 2.2)  # bars stay apart where the axis holds many ranks
    for column, group in enumerate(groups):
        positions = [order.index(method) for method in group]
        x = top + 0.45 + step * column
        axis.plot([x, x], [min(positions) - 0.25, max(positions) + 0.25], color=INK, linewidth=1.2)
        for position in positions:
            axis.plot([x, x], [position - 0.25, position + 0.25], color=INK, linewidth=3.6)
    method_axis(axis, order, looks)
    axis.set(xlim=(0.6, top + 0.5 + step * len(groups)), ylim=(len(order) - 0.4, -0.9))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.set_xticks([tick for tick in axis.get_xticks() if 1 <= tick <= top])
    axis.set_xlabel(f"average rank{f' by {by}' if by else ''} (1 = best)")
    if note:
        canvas.suptitle(note, fontsize=8.5, color=INK)
    return canvas
