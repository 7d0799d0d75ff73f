"""The figure of a refine study: stored numbers → a Figure; no statistic is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from heatproof.report.drawing import house, panel_grid
from heatproof.report.frames import Frame
from heatproof.report.legend import below, named
from heatproof.report.style import FAINT, styles
from heatproof.statistics.refinement import arm_of
from heatproof.statistics.special_rows import PRODUCT


@house()
def stages_figure(
    table: Frame,
    metrics: Sequence[str],
    ways: Mapping[str, str],
    columns: int = 3,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Mean of each metric from the shallowest to the deepest stage: solid lines refined, dashed ones plain.

    table: rows of `score_table`. ways: metric → `high` or `low`, whichever is better. labels: base → display name.
    """
    lines: dict[tuple[str, bool, str], list[tuple[int, float]]] = {}
    for row in table.itertuples():
        arm = arm_of(str(row.method))
        if arm is not None and arm.operator in ("", PRODUCT):
            lines.setdefault((arm.base, bool(arm.operator), str(row.metric)), []).append((arm.stage, row.mean))
    bases = list(dict.fromkeys(base for base, _, _ in lines))
    looks = styles(bases, (), labels)
    stages = sorted({stage for points in lines.values() for stage, _ in points})
    canvas, axes = panel_grid(len(metrics), columns, 2.9, 2.5)
    for metric, axis in zip(metrics, axes, strict=True):
        for (base, refined, name), points in lines.items():
            if name != metric:
                continue
            x, y = zip(*sorted(points), strict=True)
            look, line = looks[base], ("-" if refined else "--")
            axis.plot(x, y, color=look.color, marker=look.marker, linestyle=line, linewidth=1.4, markersize=4)
        axis.set(title=f"{metric} {'↑' if ways.get(metric) == 'high' else '↓'}", xlabel="stage, shallow to deep")
        axis.set_xticks(stages)
    keys = [
        Line2D([], [], color=looks[base].color, marker=looks[base].marker, label=named(base, looks)) for base in bases
    ]
    kinds: dict[str, Any] = {"refined": "-", "plain": "--"}
    keys += [Line2D([], [], color=FAINT, linestyle=line, label=kind) for kind, line in kinds.items()]
    below(canvas, keys, 2 * columns)
    return canvas
