"""The figures of a score study: stored numbers → a Figure; no statistic is computed here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from heatproof.report.drawing import figure, house, panel_grid
from heatproof.report.frames import Frame
from heatproof.report.legend import Styles, below, handles
from heatproof.report.style import FAINT, INK, Style

#: The most points of a curve that are drawn; the table holds all.
DRAWN = 57
#: A curve with more points has no markers.
MARKED = 12
#: With more metrics, the cells of the agreement figure hold no numbers.
WRITTEN = 26
#: A word in a metric's name → the x-axis of its curve. The first match counts; without one, it is pixels removed.
ALONG = {
    "mprt": "layers drawn anew",
    "sensitivity-n": "pixels in a subset",
    "sic": "information restored",
    "aic": "information restored",
    "insertion": "pixels restored",
    "monotonicity": "pixels restored",
    "preservation": "pixels restored",
}


@house()
def curves_figure(
    curves: Frame, metrics: Sequence[str], methods: Sequence[str], looks: Styles, columns: int = 3, key: bool = True
) -> Figure:
    """Mean of each method's curve with its 95 % band, one panel per metric; controls dashed and grey.

    `curves` holds rows of tables/curves.csv of one model and dataset.
    """
    columns = max(1, min(columns, len(metrics)))
    canvas, axes = panel_grid(len(metrics), columns, 3.6, 2.9)
    for metric, axis in zip(metrics, axes, strict=True):
        of = curves[curves["metric"] == metric]
        for method in methods:
            _curve(axis, of[of["method"] == method].sort_values("at"), looks[method])
        along = next((what for word, what in ALONG.items() if word in metric.lower()), "pixels removed")
        axis.set(title=metric.replace("$", r"\$"), xlabel=f"{along}, %")
        axis.set_xlim(-2, 102)
    if key:
        below(canvas, handles(methods, looks), 2 * columns)
    return canvas


def _curve(axis: Axes, line: Frame, look: Style) -> None:
    if not len(line):
        return
    kept = np.unique(np.linspace(0, len(line) - 1, DRAWN).round().astype(int)) if len(line) > DRAWN else slice(None)
    at, mean, low, high = (line[name].to_numpy(float)[kept] for name in ("at", "mean", "low", "high"))
    few: dict[str, Any] = {"marker": look.marker} if len(line) <= MARKED else {}
    behind = 1 if look.control else 2
    band: dict[str, Any] = {"color": look.color, "alpha": 0.08 if look.control else 0.14, "linewidth": 0}
    axis.fill_between(100 * at, low, high, zorder=behind, **band)
    axis.plot(100 * at, mean, color=look.color, linestyle=look.line, linewidth=1.4, zorder=behind + 2, **few)


@house()
def agreement_figure(agreement: Frame) -> Figure:
    """Rank correlation of every two metrics over the methods: 1 the same order (blue), −1 the reverse (orange).

    Drawn as paths, without a bitmap; with a number in every cell if there is room.
    """
    values = agreement.to_numpy(float)
    count = len(values)
    side = 1.9 + 0.27 * count
    canvas = figure(side, side)
    axis = canvas.subplots()
    axis.pcolormesh(values, cmap=_diverging_colours(), norm=Normalize(-1, 1), edgecolors="white", linewidth=0.4)
    for (row, column), value in np.ndenumerate(values):
        if count > WRITTEN:
            break
        if np.isfinite(value) and row != column:
            color = "white" if abs(value) > 0.6 else "black"
            text = f"{value:.1f}".replace("-0.0", "0.0").replace("0.", ".").replace("-", "−")
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6.5, color=color)
        elif not np.isfinite(value):
            axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=6.5, color=INK)
    names = [str(name).replace("$", r"\$") for name in agreement.columns]
    axis.set_xticks(np.arange(count) + 0.5, names, rotation=90)
    axis.set_yticks(np.arange(count) + 0.5, names)
    axis.invert_yaxis()
    axis.xaxis.tick_top()
    axis.tick_params(length=0, colors=FAINT, labelcolor=INK, labelsize=7.5)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return canvas


def _diverging_colours() -> Any:
    """Orange to white to blue, the hues of the page; grey where there is no number."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("agreement", ["#b34700", "#ffffff", "#00568a"]).with_extremes(
        bad="#e3e6e9"
    )
