"""Figures for papers and notebooks: each function returns a matplotlib figure of the width of one or two columns.

They are drawn without pyplot and without a display, change no setting of matplotlib, and are saved with embedded fonts.
docs/plots.md shows each.
"""

from typing import Any

from heatproof.errors import HeatproofError
from heatproof.plot.audit_plots import answer, verdicts
from heatproof.plot.image_plots import before_after, panel
from heatproof.plot.map_widget import widget
from heatproof.plot.noise_plots import robustness
from heatproof.plot.score_plots import critical_difference, curves, metric_correlation, scores

__all__ = [
    "answer",
    "before_after",
    "critical_difference",
    "curves",
    "metric_correlation",
    "panel",
    "robustness",
    "scores",
    "verdicts",
    "widget",
]


def notebook_picture(maps: Any) -> bytes | None:
    """What a notebook shows of maps, a PNG file: their panel; None where they cannot be drawn, as of signals."""
    try:
        return panel(maps)._repr_png_()  # type: ignore[attr-defined]
    except HeatproofError:
        return None
