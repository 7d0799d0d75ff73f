"""What a reader sees of a figure: its texts and where they stand; and what a PDF file holds."""

import io
import re
import zlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from heatproof.report.drawing import Paper, house

#: Points by which boxes of two texts may touch: they hold the room of accents and descenders.
TOUCH = 1.2


def words(figure: Figure) -> list[str]:
    """All texts that are drawn."""
    return [text.get_text().replace(r"\$", "$") for text in _texts(figure)]


def _texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    hidden = _out_of_view(figure)
    found = figure.findobj(lambda one: isinstance(one, Text) and one.get_visible() and bool(one.get_text().strip()))
    return [one for one in found if id(one) not in hidden]


def _out_of_view(figure: Figure) -> set[int]:
    """The labels of ticks outside the limits of their axis, which are not drawn."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = {id(tick) for tick in axis._update_ticks()}
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if id(tick) not in drawn or not axes.axison:
                    hidden |= {id(tick.label1), id(tick.label2)}
    return hidden


def faults(figure: Figure) -> list[str]:
    """What is cut off, overlaps or is too small to read."""
    with house(Paper(0)):
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [(text, text.get_window_extent(renderer)) for text in _texts(figure)]
    point = figure.dpi / 72
    width, height = figure.get_size_inches() * figure.dpi
    found = [f"{text.get_text()!r} has {text.get_fontsize()} points" for text, _ in boxes if text.get_fontsize() < 6]
    for number, (text, box) in enumerate(boxes):
        if box.x0 < -point / 2 or box.y0 < -point / 2 or box.x1 > width + point / 2 or box.y1 > height + point / 2:
            edges = [round(float(edge) / point, 1) for edge in box.extents]
            found.append(f"{text.get_text()!r} is cut off: {edges} of {width / point:.0f} × {height / point:.0f}")
        for other, its in boxes[number + 1 :]:
            wide = min(box.x1, its.x1) - max(box.x0, its.x0)
            high = min(box.y1, its.y1) - max(box.y0, its.y0)
            if wide > TOUCH * point and high > TOUCH * point:
                found.append(f"{text.get_text()!r} overlaps {other.get_text()!r} by {high / point:.1f} points")
    return found


def pdf_of(figure: Figure) -> bytes:
    """The PDF file as a user saves it, streams unpacked."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf")
    raw = buffer.getvalue()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", raw, re.DOTALL)
    return raw + b"".join(_unpacked(stream) for stream in streams)


def _unpacked(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""
