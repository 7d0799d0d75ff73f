"""The figures of the study of parts: stored numbers → a Figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from heatproof.report.drawing import figure, house
from heatproof.report.frames import Frame
from heatproof.report.legend import Styles, below, handles, method_axis, width_beside
from heatproof.statistics.part_scores import SUMS
from heatproof.statistics.special_rows import CHECKS


@house()
def part_scores_figure(table: Frame, looks: Styles) -> Figure:
    """Completeness, correctness, contrastivity and score of each method with 95 % intervals, a panel each.

    `table` holds rows of tables/parts.csv of one model and test set, in the order drawn.
    """
    methods = list(table["method"])
    canvas = figure(width_beside(methods, looks, 7.2), 0.9 + 0.27 * len(methods))
    for number, (axis, name) in enumerate(zip(canvas.subplots(1, len(SUMS), sharey=True), SUMS, strict=True)):
        for position, row in enumerate(table.to_dict("records")):
            look = looks[row["method"]]
            axis.plot([row[f"{name}_low"], row[f"{name}_high"]], [position] * 2, color=look.color, linewidth=1.6)
            axis.plot(row[name], position, look.marker, color=look.color)
        axis.set(title=name, xlim=(-0.03, 1.03), xticks=[0, 0.5, 1])
        if number == 0:
            method_axis(axis, methods, looks)
    canvas.axes[0].set_ylim(len(methods) - 0.5, -0.5)
    return canvas


@house()
def threshold_figure(means: Frame, methods: Sequence[str], looks: Styles) -> Figure:
    """The mean of each check over the validation images at every threshold, a panel for each check."""
    canvas = figure(9.0, 3.0)
    for axis, check in zip(canvas.subplots(1, len(CHECKS), sharey=True), CHECKS, strict=True):
        for method in methods:
            line = means[(means["metric"] == check) & (means["method"] == method)].sort_values("strength")
            look = looks[method]
            axis.plot(line["strength"], line["mean"], color=look.color, linestyle=look.line, linewidth=1.3)
        axis.set(title=check.removeprefix("part-"), xlabel="threshold", xlim=(0, 0.51), ylim=(-0.03, 1.03))
    below(canvas, handles(methods, looks), 4)
    return canvas
