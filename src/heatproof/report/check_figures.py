"""Figures of the noise study's own checks: stored numbers → a Figure; no statistic is computed here."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from heatproof.report.drawing import figure, house
from heatproof.report.frames import Frame
from heatproof.report.legend import Styles, below, handles
from heatproof.report.style import FAINT, INK
from heatproof.statistics.rare_flips import WIDE
from heatproof.statistics.robustness import COMPUTED

#: Shares in percent, on an axis with equal distances for equal ratios.
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@house()
def rare_flips_figure(drawn: Frame, methods: Sequence[str], looks: Styles) -> Figure:
    """Width of the interval of responsiveness over the flip rate, a line per method and a thick one for the mean.

    `drawn` holds the rows of one setting of tables/rare_flips.csv.
    """
    canvas = figure(4.6, 3.4 + 0.1 * len(methods))
    axis = canvas.subplots()
    for method in methods:
        rows, look = drawn[drawn["method"] == method].sort_values("changed"), looks[method]
        axis.plot(100 * rows["flip_rate"], rows["responsiveness_width"], color=look.color, marker=look.marker,
                  linestyle=look.line, linewidth=1, markersize=3.5)  # fmt: skip
    mean = drawn[drawn["method"] == ""].sort_values("changed")
    axis.plot(100 * mean["flip_rate"], mean["responsiveness_width"], color=INK, linewidth=2.4)
    axis.axhline(WIDE, color=FAINT, linewidth=1, linestyle=":")
    axis.axvline(100 * COMPUTED / float(mean["images"].mean()), color=FAINT, linewidth=1, linestyle="--")
    axis.set(xlabel="predictions changed, %", ylabel="width of the 95 % interval", xscale="log")
    axis.set_ylim(bottom=0)
    low, high = axis.get_xlim()
    axis.set_xticks([tick for tick in TICKS if low <= tick <= high])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    below(canvas, handles(methods, looks), 2)
    return canvas
