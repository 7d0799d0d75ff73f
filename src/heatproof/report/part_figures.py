"""The figures of the study of parts: stored numbers → a Figure."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from heatproof.report.drawing import figure, house
from heatproof.report.frames import Frame
from heatproof.report.legend import Styles, below, handles
from heatproof.report.score_figures import means_figure
from heatproof.statistics.part_scores import SUMS
from heatproof.statistics.special_rows import CHECKS


def part_scores_figure(table: Frame, looks: Styles) -> Figure:
    """Completeness, correctness, contrastivity and score of each method with 95 % intervals, a panel each.

    `table` holds rows of tables/parts.csv of one model and test set, in the order drawn.
    """
    parts = [
        pd.DataFrame({"method": table["method"], "metric": name, "mean": table[name], "low": table[f"{name}_low"],
                      "high": table[f"{name}_high"]})
        for name in SUMS
    ]  # fmt: skip
    return means_figure(pd.concat(parts), SUMS, list(table["method"]), looks, limits=(-0.03, 1.03))


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
