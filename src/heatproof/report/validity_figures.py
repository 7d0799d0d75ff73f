"""The figures of a study of metrics: stored numbers → a Figure; no statistic is computed here."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from heatproof.report.drawing import figure, house
from heatproof.report.frames import Frame
from heatproof.report.legend import SIZE, text_width
from heatproof.report.style import FAINT, INK
from heatproof.statistics.validity import PEARSON, SPEARMAN, WAYS

#: Way → the heading of its panel.
HEADINGS = {"pooled": "all images × methods", "within": "methods of each image", "means": "means of the methods"}
#: Coefficient → marker, colour and offset from the metric's line.
MARKS = {SPEARMAN: ("o", "#00568a", -0.12), PEARSON: ("D", "#b34700", 0.14)}


@house()
def validity_figure(table: Frame, metrics: Sequence[str], faint: Sequence[str] = ()) -> Figure:
    """Correlation of each metric with the ground truth in three ways, with 95 % intervals; right is better.

    `table`: rows of `Validity.table`. Metrics in `faint` are greyed: they are fooled, or read the ground truth.
    """
    wide = max((text_width(metric, SIZE) for metric in metrics), default=0.0)
    canvas = figure(wide + 0.5 + 3 * 1.9, 1.2 + 0.25 * len(metrics))
    axes = canvas.subplots(1, len(WAYS), sharey=True)
    for axis, way in zip(axes, WAYS, strict=True):
        here = table[table["way"] == way]
        axis.axvline(0, color=FAINT, linewidth=0.9)
        for coefficient, (marker, color, offset) in MARKS.items():
            rows = here[here["coefficient"] == coefficient].set_index("metric").reindex(list(metrics))
            at = np.arange(len(metrics)) + offset
            value, low, high = (rows[name].to_numpy(float) for name in ("value", "low", "high"))
            axis.hlines(at, low, high, color=color, linewidth=1.1)
            axis.plot(value, at, marker, color=color, markersize=4.2, label=coefficient.capitalize())
        axis.set(title=HEADINGS[way], xlim=(-1.05, 1.05), ylim=(len(metrics) - 0.4, -0.6))
        axis.set_xticks([-1, -0.5, 0, 0.5, 1])
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(metrics)), [metric.replace("$", r"\$") for metric in metrics])
    for label, metric in zip(axes[0].get_yticklabels(), metrics, strict=True):
        label.set_color(FAINT if metric in faint else INK)
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=2)
    return canvas
