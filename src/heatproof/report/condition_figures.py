"""The figures of scores under several conditions: stored numbers → a Figure; no statistic is computed here."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from heatproof.report.drawing import house, panel_grid
from heatproof.report.frames import Frame
from heatproof.report.legend import Styles, below, handles
from heatproof.report.style import FAINT, Style
from heatproof.statistics.condition_scores import POOLED

#: The name of the reference on the axis.
CLEAN = "as is"
#: The room between two transformations, in places of a variant.
APART = 1.0


@house()
def transformations_figure(
    table: Frame, clean: Frame, metrics: Sequence[str], methods: Sequence[str], looks: Styles, columns: int = 2,
    key: bool = True,
) -> Figure:  # fmt: skip
    """Mean of each method on the images as they are, then under every variant, one panel per metric.

    `table` holds rows of tables/transformations.csv of one model and dataset, `clean` those of tables/targets.csv for
    the class of the reference.
    """
    canvas, panels = panel_grid(len(metrics), columns, 4.4, 2.7)
    single = table[table["variant"] != POOLED]
    places = _places(single)
    for metric, axis in zip(metrics, panels, strict=True):
        here, before = single[single["metric"] == metric], clean[clean["metric"] == metric].set_index("method")["mean"]
        for method in methods:
            at, means = [0.0], [float(before.get(method, np.nan))]
            for _, of in here[here["method"] == method].groupby("transformation", sort=False):
                at += [np.nan, *(places[one] for one in of["variant"])]  # a gap between two kinds
                means += [np.nan, *of["mean"]]
            _line(axis, at, np.array(means, float), looks[method])
        _kinds(axis, single, places)
        axis.set_title(metric.replace("$", r"\$"))
    if key:
        below(canvas, handles(methods, looks), 2 * columns)
    return canvas


@house()
def confidence_figure(
    bins: Frame, metrics: Sequence[str], methods: Sequence[str], looks: Styles, columns: int = 3, key: bool = True
) -> Figure:
    """Each method's mean score over images of like confidence, one panel per metric."""
    canvas, panels = panel_grid(len(metrics), columns, 3.1, 2.6)
    for metric, axis in zip(metrics, panels, strict=True):
        here = bins[bins["metric"] == metric]
        for method in methods:
            rows = here[here["method"] == method].sort_values("bin")
            _line(axis, 100 * rows["confidence"].to_numpy(float), rows["value"].to_numpy(float), looks[method])
        axis.set(title=metric.replace("$", r"\$"), xlabel="probability of the class, %")
        axis.set_xlim(-3, 103)
    if key:
        below(canvas, handles(methods, looks), 2 * columns)
    return canvas


def _places(single: Frame) -> dict[str, float]:
    """Variant → its place on the axis; the reference is at 0, and kinds stand apart."""
    places, at = {}, 0.0
    for kind in dict.fromkeys(single["transformation"]):
        at += APART
        for variant in dict.fromkeys(single.loc[single["transformation"] == kind, "variant"]):
            places[variant] = at = at + 1
    return places


def _kinds(axis: Axes, single: Frame, places: dict[str, float]) -> None:
    """The names of the transformations, each below the middle of its variants."""
    middles = {CLEAN: 0.0}
    for kind in dict.fromkeys(single["transformation"]):
        variants = dict.fromkeys(single.loc[single["transformation"] == kind, "variant"])
        middles[kind] = float(np.mean([places[one] for one in variants]))
    axis.set_xticks(list(middles.values()), list(middles))
    axis.set_xlim(-1, max(places.values(), default=0.0) + 1)
    axis.axvline(APART, color=FAINT, linewidth=0.6, linestyle=":")
    axis.grid(axis="x", visible=False)
    axis.tick_params(axis="x", length=0)


def _line(axis: Axes, at: Sequence[float] | np.ndarray, values: np.ndarray, look: Style) -> None:
    behind = 1 if look.control else 3
    axis.plot(at, values, color=look.color, linestyle=look.line, marker=look.marker, markersize=3, linewidth=1.2,
              zorder=behind)  # fmt: skip
