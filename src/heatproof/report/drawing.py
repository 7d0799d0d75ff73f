"""Figure → SVG or PDF. Equal figures give equal bytes, text stays text, and an inline SVG takes the page's colours."""

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from heatproof.report.style import FAINT, INK, LINE

#: The settings of every figure. One font in one weight, as each font that a PDF embeds takes a third of a second.
#: `svg.hashsalt` makes the ids of an SVG the same in every run.
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "heatproof",
    "pdf.fonttype": 42,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

_TICKS = {"size": 2.5, "width": 0.5, "pad": 2.5}
#: What is different in a figure for a paper, whose text has 6 (`small`) to 7.5 points. The font is named itself, as
#: that of a family is looked up again when the figure is saved, in the user's settings.
PAPER_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7.25,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.titlepad": 4.0,
    "axes.labelpad": 2.5,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.6,
    "patch.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "text.hinting": "none",  # hinted text is up to 5 % wider at one resolution than at another
    "figure.constrained_layout.w_pad": 0.06,
    **{
        f"{axis}tick.major.{name}": value
        for axis in "xy"
        for name, value in (("size", 2.5), ("width", 0.5), ("pad", 2.5))
    },
}

#: SVG and PDF count in points, 72 to an inch.
POINTS = 72
#: The resolution of a figure for a paper in a notebook, and in a file of pixels.
SHOWN, SAVED = 144, 300
#: The margin in inches around what reaches beyond a figure's edge.
EDGE = 0.05

#: Stand-in colour → the page's colour that replaces it.
PAGE_INKS = {INK: "var(--ink)", FAINT: "var(--faint)", LINE: "var(--line)"}


_DRAWING = threading.RLock()
#: Figures that have been laid out → the box that holds them. They are not changed after that.
_SETTLED: "WeakKeyDictionary[Figure, Bbox]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Paper:
    """A figure for a paper: its width in inches. Without it a drawing is as wide as its content, for the page."""

    width: float


class PaperFigure(Figure):
    """A figure that is saved under the settings it was drawn with; a notebook shows it, with pyplot and without."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """As matplotlib's; text stays text, fonts are embedded, files hold no dates, pixels are 300 to the inch."""
        form = str(options.get("format") or str(fname).rpartition(".")[2]).lower()
        dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form, {})
        options = {"dpi": SAVED, **options, "metadata": {**dates, **(options.get("metadata") or {})}}
        with house(Paper(0)):
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SHOWN)
        return buffer.getvalue()


@contextmanager
def house(paper: Paper | None = None) -> Iterator[None]:
    """Our settings over matplotlib's defaults, without the user's matplotlibrc; restored afterwards.

    The settings are those of the process, so one thread draws at a time.
    """
    with _DRAWING, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        if paper is not None:
            matplotlib.rcParams.update(PAPER_SETTINGS)
        yield


def drawn(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A function that draws a figure, under our settings; with `paper=` for a paper: laid out once, at its width."""

    @wraps(draw)
    def inside(*args: Any, paper: Paper | None = None, **more: Any) -> Figure:
        with house(paper):
            canvas = draw(*args, paper=paper, **more)
            if paper is not None:
                lay_out(canvas)
            return canvas

    return inside


def lay_out(canvas: Figure) -> None:
    """Computes the layout and keeps it, so that it is the same in every file and at every resolution."""
    engine = canvas.get_layout_engine()
    if engine is None:
        return
    if canvas.axes:  # a figure with a legend only has nothing to lay out
        FigureCanvasAgg(canvas)
        engine.execute(canvas)
    canvas.set_layout_engine("none")


def figure(width: float, height: float, paper: Paper | None = None) -> Figure:
    """An empty figure, size in inches, not registered in pyplot, laid out so that nothing is cut off.

    It has the resolution of both formats from the start: the layout would reserve room for a legend of another one.
    """
    if paper is not None:
        return PaperFigure(figsize=(width, height), dpi=SHOWN, layout="constrained")
    return Figure(figsize=(width, height), dpi=POINTS, layout="constrained")


def panel_grid(
    count: int, columns: int, width: float, height: float, paper: Paper | None = None
) -> tuple[Figure, list[Axes]]:
    """`count` equal panels, at most `columns` abreast; no panel is left empty."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns) if count else 1
    canvas = figure(width * columns, height * rows, paper)
    axes = list(canvas.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes[count:]:
        axis.remove()
    return canvas, axes[:count]


def svg(canvas: Figure) -> str:
    """The figure as an SVG file: no date, stable ids, text as text."""
    return _printed(canvas, FigureCanvasSVG, "svg", {"Date": None, "Creator": "heatproof"}).decode("utf-8")


def pdf(canvas: Figure) -> bytes:
    """The figure as a PDF file without dates."""
    return _printed(canvas, FigureCanvasPdf, "pdf", {"CreationDate": None, "Creator": "heatproof", "Producer": None})


def _printed(canvas: Figure, backend: Any, kind: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with house():
        box = _settle(canvas)
        backend(canvas).print_figure(buffer, format=kind, dpi=POINTS, metadata=metadata, bbox_inches=box, pad_inches=0)
    return buffer.getvalue()


def _settle(canvas: Figure) -> Bbox:
    """Lays the figure out once, at the 72 dpi of both formats, as layout takes as long as drawing.

    Returns the box in inches that holds the figure and whatever reaches beyond it, so that nothing is cut off.
    """
    if canvas in _SETTLED:
        return _SETTLED[canvas]
    engine = canvas.get_layout_engine()
    if engine is not None:
        canvas.set_dpi(POINTS)
        if canvas.axes:  # a figure with a legend only has nothing to lay out
            engine.execute(canvas)
        canvas.set_layout_engine("none")
    whole = Bbox.from_bounds(0, 0, *canvas.get_size_inches())
    drawn = canvas.get_tightbbox(FigureCanvasAgg(canvas).get_renderer())
    _SETTLED[canvas] = whole if _holds(whole, drawn) else Bbox.union([whole, drawn.padded(EDGE)])
    return _SETTLED[canvas]


def _holds(whole: Bbox, part: Bbox) -> bool:
    low, high = (np.subtract(a, b) for a, b in ((part.min, whole.min), (whole.max, part.max)))
    return bool((low >= -1e-6).all() and (high >= -1e-6).all())


def inline(drawing: str, label: str, prefix: str) -> str:
    """An SVG file as an element of the page: scales with its box up to 1.4 pixels a point, in the page's colours.

    `label` is its text for screen readers; `prefix` makes ids differ between drawings.
    """
    body = drawing[drawing.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for stand_in, ink in PAGE_INKS.items():
        body = body.replace(stand_in, ink)
    body = re.sub(r'<g>\s*<path d="[^"]*" style="fill: #ffffff"/>\s*</g>', "", body, count=1)
    head, _, rest = body.partition(">")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', head)[1])  # type: ignore[index]
    head = re.sub(r'\s(?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", head)
    head += f' role="img" aria-label="{escape(label)}" style="max-width:{1.4 * width:.0f}px"'
    return f"{head}>{rest.strip()}".replace("xlink:href", "href")
