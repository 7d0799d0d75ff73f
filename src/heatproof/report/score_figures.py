"""The figures of a score study: stored numbers → a Figure; no statistic is computed here."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from heatproof.report.cell_grid import refuse_many
from heatproof.report.drawing import Paper, drawn, figure, panel_grid
from heatproof.report.frames import Frame
from heatproof.report.legend import (
    Styles,
    abreast,
    below,
    escaped,
    handles,
    line_height,
    method_axis,
    names_beside,
    room_of,
)
from heatproof.report.style import FAINT, INK, Style
from heatproof.report.text_measure import text_width, wrapped_to

#: The most points of a curve that are drawn; the table holds all.
DRAWN = 57
#: A curve with more points has no markers.
MARKED = 12
#: With more metrics, the cells of the agreement figure hold no numbers.
WRITTEN = 26
#: With more methods, curves have no bands of their intervals in a figure for a paper: they would cover one another.
BANDS = 8
#: The most height of a cell in a figure for a paper, in inches.
CELL = 0.36
#: The least width of a panel in a figure for a paper, in inches: of curves, and of means beside names.
CURVE, MEANS = 1.55, 0.85
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


@drawn
def curves_figure(
    curves: Frame,
    metrics: Sequence[str],
    methods: Sequence[str],
    looks: Styles,
    columns: int = 3,
    key: bool = True,
    thick: str = "",
    paper: Paper | None = None,
) -> Figure:
    """Mean of each method's curve with its 95 % band, one panel per metric; controls dashed and grey.

    `curves` holds rows of tables/curves.csv of one model and dataset. thick: a method whose line is drawn thick.
    """
    columns = max(1, min(columns, len(metrics)))
    titles, bands = list(metrics), True
    if paper is None:
        canvas, axes = panel_grid(len(metrics), columns, 3.6, 2.9)
    else:
        columns = abreast(len(metrics), paper.width, CURVE, 4)
        wide, bands = paper.width / columns, len(methods) <= BANDS
        titles = [wrapped_to(metric, wide - 0.45, 7.5) for metric in metrics]
        deep = max(title.count("\n") + 1 for title in titles) * line_height(7.5)
        canvas, axes = panel_grid(len(metrics), columns, wide, min(0.72 * wide, 2.3) + 0.25 + deep, paper)
    for metric, title, axis in zip(metrics, titles, axes, strict=True):
        of = curves[curves["metric"] == metric]
        for number, method in enumerate(methods):
            _curve(axis, of[of["method"] == method].sort_values("at"), looks[method], bands, number, method == thick)
        along = next((what for word, what in ALONG.items() if word in metric.lower()), "pixels removed")
        axis.set(title=escaped(title), xlabel=f"{along}, %")
        axis.set_xlim(-2, 102)
        if not axis.lines:
            axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", color=FAINT, fontsize="small")
    if key:
        below(canvas, handles(methods, looks), 2 * columns, 3 if paper is None else 0)
    return canvas


def _curve(axis: Axes, line: Frame, look: Style, bands: bool, number: int, thick: bool) -> None:
    if not len(line):
        return
    kept = np.unique(np.linspace(0, len(line) - 1, DRAWN).round().astype(int)) if len(line) > DRAWN else slice(None)
    at, mean, low, high = (line[name].to_numpy(float)[kept] for name in ("at", "mean", "low", "high"))
    few: dict[str, Any] = {"marker": look.marker} if len(line) <= MARKED else {}
    if not bands and not few:  # many lines without bands: a marker now and then, at another place for each
        few = {"marker": look.marker, "markevery": (number % 7 / 56, 0.2), "markersize": 2.8}
    behind = 1 if look.control else 2
    band: dict[str, Any] = {"color": look.color, "alpha": 0.08 if look.control else 0.14, "linewidth": 0}
    if bands:
        axis.fill_between(100 * at, low, high, zorder=behind, **band)
    width = 0.875 * matplotlib.rcParams["lines.linewidth"] * (2 if thick else 1)
    axis.plot(100 * at, mean, color=look.color, linestyle=look.line, linewidth=width, zorder=behind + 2 + thick, **few)


@drawn
def means_figure(
    table: Frame,
    metrics: Sequence[str],
    methods: Sequence[str],
    looks: Styles,
    titles: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    columns: int = 4,
    thick: str = "",
    paper: Paper | None = None,
) -> Figure:
    """Mean of each method with its 95 % interval, one panel per metric.

    table: a row for each method and metric with `mean`, `low`, `high`. limits: of all axes, which then are from 0 to 1.
    """
    titles, names = list(metrics if titles is None else titles), names_beside(methods, looks, paper)
    beside, row = room_of(names)
    if paper is None:
        columns = len(metrics)
        canvas, axes = panel_grid(columns, columns, (beside + 0.3 + 7.2) / columns, 0.9 + 0.27 * len(methods))
    else:
        room = paper.width - beside - 0.15
        columns = abreast(len(metrics), room, MEANS, columns)
        titles = [wrapped_to(title, room / columns - 0.1, 7.5) for title in titles]
        deep = max(title.count("\n") + 1 for title in titles) * line_height(7.5)
        high = max(row, 0.145) * len(methods) + 0.3 + deep
        canvas, axes = panel_grid(len(metrics), columns, paper.width / columns, high, paper)
    for number, (axis, metric, title) in enumerate(zip(axes, metrics, titles, strict=True)):
        here = table[table["metric"] == metric].set_index("method")
        for position, method in enumerate(methods):
            value, low, high = (float(here[name].get(method, np.nan)) for name in ("mean", "low", "high"))
            look = looks[method]
            axis.plot([low, high], [position] * 2, color=look.color, linewidth=matplotlib.rcParams["lines.linewidth"])
            axis.plot(value, position, look.marker, color=look.color)
            if not np.isfinite(value):
                x = axis.get_yaxis_transform()
                axis.text(
                    0.5, position, "no value", transform=x, ha="center", va="center", color=FAINT, fontsize="small"
                )
        first = number % columns == 0
        method_axis(axis, methods, looks, names if first else [""] * len(names))
        if first and thick in methods:
            axis.get_yticklabels()[list(methods).index(thick)].set_fontweight("bold")
        axis.set_title(escaped(title))
        if limits:
            axis.set(xlim=limits, xticks=[0, 0.5, 1])
        else:
            axis.margins(x=0.08)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))
    return canvas


@drawn
def agreement_figure(agreement: Frame, paper: Paper | None = None) -> Figure:
    """Rank correlation of every two metrics over the methods: 1 the same order (blue), −1 the reverse (orange).

    Drawn as paths, without a bitmap; with a number in every cell if there is room.
    """
    values, names = agreement.to_numpy(float), [str(name) for name in agreement.columns]
    count, size = len(values), 7.5 if paper is None else 6.5
    written = count <= WRITTEN
    side = high = 1.9 + 0.27 * count
    if paper is not None:
        names = [wrapped_to(name, 0.3 * paper.width, size) for name in names]
        room = paper.width - max(text_width(name, size) for name in names) - 0.15
        lines = max(name.count("\n") + 1 for name in names)
        if lines * line_height(6) > room / count:  # no second lines in rows of this height
            names = [str(name) for name in agreement.columns]
            room = paper.width - max(text_width(name, size) for name in names) - 0.15
        refuse_many(count, room, "metrics", "metrics")
        written, side = room / count >= text_width("−.8", 6.1) + 0.02, paper.width
        size = 6.5 if room / count > line_height(6.5) else 6.05
        high = paper.width - room + min(room, CELL * count) + (0 if written else 0.4)
    canvas = figure(side, high, paper)
    axis = canvas.subplots()
    drawn = axis.pcolormesh(values, cmap=_diverging_colours(), norm=Normalize(-1, 1), edgecolors="white", linewidth=0.4)
    for (row, column), value in np.ndenumerate(values):
        color, text = INK, "" if np.isfinite(value) else "–"
        if written and np.isfinite(value) and row != column:
            color = "white" if abs(value) > 0.6 else "black"
            text = f"{value:.1f}".replace("-0.0", "0.0").replace("0.", ".").replace("-", "−")
        if text and (written or paper is not None):
            small = 6.5 if paper is None else 6.05
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=small, color=color)
    axis.set_xticks(np.arange(count) + 0.5, list(map(escaped, names)), rotation=90)
    axis.set_yticks(np.arange(count) + 0.5, list(map(escaped, names)))
    axis.invert_yaxis()
    axis.xaxis.tick_top()
    axis.tick_params(length=0, colors=FAINT, labelcolor=INK, labelsize=size)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if paper is not None and not written:
        bar = canvas.colorbar(drawn, ax=axis, orientation="horizontal", aspect=30, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return canvas


def _diverging_colours() -> Any:
    """Orange to white to blue, the hues of the page; grey where there is no number."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("agreement", ["#b34700", "#ffffff", "#00568a"]).with_extremes(
        bad="#e3e6e9"
    )
