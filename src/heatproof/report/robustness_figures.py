"""The figures of a noise study: stored numbers → a Figure; no statistic is computed here.

Widths are chosen so that the letters of a figure have ten pixels or more on a phone's screen.
"""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from heatproof.report.cell_grid import cell_grid
from heatproof.report.drawing import Paper, drawn, figure, house, panel_grid
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
    width_beside,
)
from heatproof.report.style import CHANGED, FAINT, INK, UNCHANGED, Style, styles
from heatproof.report.text_measure import wrapped_to

RMS = (("rm", True), ("rm0", False))
RM_NAMES = (("rm", "RM"), ("rm0", "RM₀"))
CURVES = (("consistency", "consistency"), ("responsiveness", "responsiveness"))


#: The least width of a panel in a figure for a paper, in inches: of intervals, and of curves.
PANEL, CURVE = 0.85, 1.5


@drawn
def robustness_figure(
    table: Frame, methods: Sequence[str], looks: Styles, columns: int = 4, key: bool = True, paper: Paper | None = None
) -> Figure:
    """RM (filled) and RM₀ (hollow) of each method with 95 % intervals, one panel per perturbation.

    `table` holds rows of tables/robustness.csv of one model, dataset and segmenter; severity `all` is drawn. In a
    figure for a paper the names stand at the first panel of a row alone.
    """
    pooled = table[table["severity"].astype(str) == "all"]
    kinds = list(dict.fromkeys(pooled["perturbation"]))
    names = names_beside(methods, looks, paper)
    beside, row = room_of(names)
    if paper is None:
        width = max(3.3, width_beside(methods, looks, 1.7))
        canvas, panels = panel_grid(len(kinds), columns, width, height=0.75 + 0.23 * len(methods))
    else:
        room = paper.width - beside - 0.2
        columns = abreast(len(kinds), room, PANEL, columns)
        width = room / columns
        titles = [wrapped_to(kind, width - 0.1, 7.5) for kind in kinds]
        high = (
            0.3 + max(row, 0.15) * len(methods) + max((t.count("\n") + 1 for t in titles), default=1) * line_height(7.5)
        )
        canvas, panels = panel_grid(len(kinds), columns, paper.width / columns, high, paper)
    for number, (kind, axis) in enumerate(zip(kinds, panels, strict=True)):
        rows = pooled[pooled["perturbation"] == kind].set_index("method")
        for position, method in enumerate(methods):
            if method in rows.index:
                _robustness_row(axis, position, rows.loc[method], looks[method])
        first = paper is None or number % columns == 0
        method_axis(axis, methods, looks, names if first else [""] * len(names))
        title = kind if paper is None else wrapped_to(kind, width - 0.1, 7.5)
        axis.set(title=escaped(title), xlim=(-0.05, 1.03))
        ticks = [0, 0.25, 0.5, 0.75, 1] if paper is None or width > 1.9 else [0, 0.5, 1]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks] if paper else None)
    if key:
        dot: dict[str, Any] = {"linestyle": "", "marker": "o", "color": INK}
        faces = [Line2D([], [], markerfacecolor=face, **dot) for face in (INK, "none")]
        if paper is not None:
            canvas.set_size_inches(paper.width, canvas.get_size_inches()[1] + 0.2)
        canvas.legend(faces, ["RM", "RM₀"], loc="outside lower center", ncols=2)
    return canvas


def _robustness_row(axis: Axes, position: int, row: Any, look: Style) -> None:
    if not np.isfinite(row["rm"]):
        axis.text(0, position, "too few flips", va="center", color=FAINT, fontsize="small")
        return
    for (name, filled), shift in zip(RMS, (-0.13, 0.13), strict=True):
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        if np.isfinite(low) and np.isfinite(high):
            line = look.line if look.control else "-"
            width = 0.9 * matplotlib.rcParams["lines.linewidth"]
            axis.plot([low, high], [position + shift] * 2, color=look.color, linewidth=width, linestyle=line)
        face = look.color if filled else "none"
        dot = {"color": look.color, "markerfacecolor": face, "clip_on": False}
        axis.plot(row[name], position + shift, look.marker, **dot)


@drawn
def curves_figure(
    table: Frame,
    methods: Sequence[str],
    looks: Styles,
    columns: int = 4,
    key: bool = True,
    quantities: Sequence[tuple[str, str]] = CURVES,
    paper: Paper | None = None,
) -> Figure:
    """Quantities over severity, one panel of each per perturbation: consistency above, responsiveness below."""
    single = table[table["severity"].astype(str) != "all"]
    kinds = list(dict.fromkeys(single["perturbation"]))
    columns = max(1, min(columns, len(kinds))) if paper is None else abreast(len(kinds), paper.width, CURVE, columns)
    deep = len(quantities)
    bands = -(-len(kinds) // columns) if kinds else 1
    canvas = (
        figure(2.9 * columns + 0.3, 1.75 * deep * bands)
        if paper is None
        else figure(paper.width, (1.15 * deep + 0.25) * bands + 0.55, paper)
    )
    axes = canvas.subplots(deep * bands, columns, sharex=False, sharey=True, squeeze=False)
    for position in range(bands * columns):
        band, column = divmod(position, columns)
        stack = axes[deep * band : deep * (band + 1), column]
        if position >= len(kinds):
            for axis in stack:
                axis.remove()
            continue
        rows = single[single["perturbation"] == kinds[position]]
        for axis, (name, label) in zip(stack, quantities, strict=True):
            _curves(axis, rows, name, methods, looks)
            axis.set(ylim=(-0.03, 1.05), ylabel=label if column == 0 else "")
            if name == "responsiveness":
                axis.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
        title = kinds[position] if paper is None else wrapped_to(kinds[position], paper.width / columns - 0.45, 7.5)
        stack[0].set_title(escaped(title))
        stack[-1].set_xlabel("severity")
    if key:
        below(canvas, handles(methods, looks), 2 * columns)
    return canvas


def _curves(axis: Axes, rows: Frame, name: str, methods: Sequence[str], looks: Styles) -> None:
    for method in methods:
        line = rows[rows["method"] == method]
        severity = line["severity"].astype(int).to_numpy()
        order = np.argsort(severity)
        look, value = looks[method], line[name].to_numpy(float)
        axis.plot(
            severity[order],
            value[order],
            color=look.color,
            marker=look.marker,
            linestyle=look.line,
            zorder=2 if look.control else 3,
        )
    severities = sorted({int(s) for s in rows["severity"]})
    if severities:
        axis.set(xticks=severities, xlim=(severities[0] - 0.3, severities[-1] + 0.3))
    if not np.isfinite(rows[name].to_numpy(float)).any():
        axis.text(0.5, 0.5, "too few flips", transform=axis.transAxes, ha="center", color=FAINT)


@house()
def overlap_figure(overlaps: Callable[[str, bool], np.ndarray], methods: Sequence[str], looks: Styles) -> Figure:
    """RBO where the prediction held (upper box) and where it changed (lower box), per method.

    overlaps: method and whether the prediction changed → the RBOs. Box: quartiles and median; whiskers: 5th and 95th
    percentile. All perturbations and severities together.
    """
    canvas = figure(max(4.0, width_beside(methods, looks, 2.2)), 0.9 + 0.4 * len(methods))
    axis = canvas.subplots()
    for position, method in enumerate(methods):
        for changed, shift, color in ((False, -0.19, UNCHANGED), (True, 0.19, CHANGED)):
            _box(axis, overlaps(method, changed), position + shift, color, hatch="////" if changed else None)
    method_axis(axis, methods, looks)
    axis.set(xlim=(-0.02, 1.02), xlabel="RBO, clean against perturbed map")
    boxes = [
        axis.fill([], [], facecolor="none", edgecolor=color, hatch=hatch, label=label)[0]
        for color, hatch, label in (
            (UNCHANGED, None, "prediction held"),
            (CHANGED, "////", "prediction changed"),
        )
    ]
    canvas.legend(handles=boxes, loc="outside upper center", ncols=2, borderpad=0.2)
    return canvas


def _box(axis: Axes, values: np.ndarray, position: float, color: str, hatch: str | None) -> None:
    if not len(values):
        axis.text(0, position, "no such pair", va="center", color=FAINT, fontsize=7.5)
        return
    # Axes.boxplot would import pyplot, and with it start a user's window system
    five = boxplot_stats(values, whis=(5, 95))[0]
    box = Rectangle((five["q1"], position - 0.15), five["q3"] - five["q1"], 0.3)
    box.set(facecolor="none", edgecolor=color, hatch=hatch, linewidth=1.2)
    axis.add_patch(box)
    for end, near in ((five["whislo"], five["q1"]), (five["whishi"], five["q3"])):
        axis.plot([end, near], [position, position], color=color, linewidth=1)
        axis.plot([end, end], [position - 0.07, position + 0.07], color=color, linewidth=1)
    axis.plot([five["med"]] * 2, [position - 0.15, position + 0.15], color=INK, linewidth=2)


@house()
def flips_figure(flips: Frame) -> Figure:
    """Share of changed predictions (`frames.flips`) over severity, one line per perturbation."""
    conditions = flips[flips["severity"] != "all"]
    kinds = list(dict.fromkeys(conditions["perturbation"]))
    looks = styles(kinds, ())
    canvas = figure(4.0, 2.9 + 0.1 * len(kinds))
    axis = canvas.subplots()
    for kind in kinds:
        rows = conditions[conditions["perturbation"] == kind]
        rows = rows.assign(severity=rows["severity"].astype(int)).sort_values("severity")
        look, rate = looks[kind], 100 * rows["flip_rate"].to_numpy(float)
        axis.plot(rows["severity"], rate, color=look.color, marker=look.marker, linestyle=look.line)
    axis.set(xlabel="severity", ylabel="predictions changed, %", ylim=(-3, 103))
    axis.set_xticks(sorted({int(s) for s in conditions["severity"]}))
    below(canvas, handles(kinds, looks), 2)
    return canvas


@house()
def segmenters_figure(ranks: Frame, looks: Styles, note: str = "") -> Figure:
    """Average rank of each method (rows of `ranks`) under each segmenter (columns)."""
    canvas = figure(4.0, 0.9 + 0.36 * len(ranks))
    axis = canvas.subplots()
    positions = np.arange(ranks.shape[1])
    for method, row in ranks.iterrows():
        look = looks[str(method)]
        axis.plot(positions, row.to_numpy(float), color=look.color, marker=look.marker, linestyle=look.line)
    axis.set(ylabel="average rank (1 = best)", xlim=(-0.25, len(positions) - 0.75))
    axis.set_xticks(positions, list(ranks.columns))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
    axis.invert_yaxis()
    methods = list(ranks.sort_values(ranks.columns[-1]).index)
    below(canvas, handles(methods, looks), 2)
    if note:
        canvas.suptitle(note, fontsize=8.5)
    return canvas


@house()
def mask_cosine_figure(masks: Frame, methods: Sequence[str], looks: Styles) -> Figure:
    """Cosine similarity of each clean map with the object's mask (1 = the same), a box per method."""
    canvas = figure(max(4.0, width_beside(methods, looks, 2.2)), 0.75 + 0.27 * len(methods))
    axis = canvas.subplots()
    for position, method in enumerate(methods):
        values = masks.loc[(masks["method"] == method) & masks["cosine"].notna(), "cosine"].to_numpy(float)
        _box(axis, values, position, looks[method].color, hatch=None)
    method_axis(axis, methods, looks)
    axis.set(xlim=(-0.02, 1.02), xlabel="cosine similarity with the mask")
    return canvas


@drawn
def heatmap_figure(
    table: Frame, methods: Sequence[str], looks: Styles, quantity: str = "rm", paper: Paper | None = None
) -> Figure:
    """`quantity` of every method × perturbation, severities pooled; a dagger marks unreliable cells."""
    pooled = table[table["severity"].astype(str) == "all"]
    kinds = list(dict.fromkeys(pooled["perturbation"]))
    grid = pooled.pivot(index="method", columns="perturbation", values=quantity)
    sure = pooled.pivot(index="method", columns="perturbation", values="reliable")
    values = grid.reindex(index=list(methods), columns=kinds).to_numpy(float)
    marks = np.array([["" if bool(sure.loc[m, kind]) else "†" for kind in kinds] for m in methods]).reshape(
        values.shape
    )
    return cell_grid(values, methods, kinds, looks, dict(RM_NAMES).get(quantity, quantity), marks, paper)
