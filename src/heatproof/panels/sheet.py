"""A drawing of images and lines of text on a white sheet, as pixels at any resolution, as SVG or as PDF."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from heatproof.report.style import INK
from heatproof.report.text_measure import font

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from heatproof.report.drawing import Paper

#: The resolution at which a unit of a sheet is a pixel.
DPI = 96
LEADING = 1.28
ANCHORS = {"l": "left", "m": "center", "r": "right"}


class Line(NamedTuple):
    """One line of text that fits its width; sizes are in units, 96 of which are an inch."""

    text: str
    size: float = 14
    ink: str = INK
    bold: bool = False

    @property
    def height(self) -> int:
        """With the space to the next line."""
        return math.ceil(LEADING * self.size)

    @property
    def width(self) -> float:
        """The width of the text."""
        return font(self.size, self.bold).getlength(self.text)


class Words(NamedTuple):
    """A line at the place where its first line of ascenders begins; `anchor`: l, m or r, what `x` is of it."""

    x: int
    y: int
    line: Line
    anchor: str = "l"


class Tile(NamedTuple):
    """An image in a box: `draw` makes it with (width, height) pixels, `native` is the size without loss or gain."""

    x: int
    y: int
    width: int
    height: int
    native: tuple[int, int]
    draw: Callable[[tuple[int, int]], Image.Image]
    outline: str = ""


@dataclass
class Sheet:
    """A sheet with what is drawn on it, in order. Sizes are in units: pixels at 96 dpi."""

    width: int
    height: int
    tiles: list[Tile] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)

    def write(self, lines: Sequence[Line], x: int, y: int) -> int:
        """Adds lines from the top; returns where the next would begin."""
        for line in lines:
            self.words.append(Words(x, y, line))
            y += line.height
        return y

    def image(self, dpi: float = DPI) -> Image.Image:
        """RGB pixels; at 96 dpi a unit is a pixel."""
        scale = dpi / DPI
        across = lambda value: round(value * scale)  # noqa: E731
        image = Image.new("RGB", (across(self.width), across(self.height)), "white")
        draw = ImageDraw.Draw(image)
        for tile in self.tiles:
            x, y, right, low = map(across, (tile.x, tile.y, tile.x + tile.width, tile.y + tile.height))
            image.paste(tile.draw((max(1, right - x), max(1, low - y))), (x, y))
            if tile.outline:
                draw.rectangle((x, y, right - 1, low - 1), outline=tile.outline)
        for x, y, line, anchor in self.words:
            at = (x * scale, y * scale) if scale != 1 else (x, y)
            draw.text(at, line.text, line.ink, font(line.size * scale, line.bold), anchor=f"{anchor}a")
        return image

    def png(self, dpi: float = DPI) -> bytes:
        """The bytes of a PNG file that states its resolution."""
        return png(self.image(dpi), dpi)

    def svg(self) -> bytes:
        """An SVG file: text as text, every image with all its pixels."""
        from heatproof.report import drawing

        return drawing.svg(self.figure()).encode("utf-8")

    def pdf(self) -> bytes:
        """A PDF file: text as text, every image with all its pixels."""
        from heatproof.report import drawing

        return drawing.pdf(self.figure())

    def figure(self, paper: "Paper | None" = None) -> "Figure":
        """The sheet as a figure without layout, in the settings of all figures, or of those for a paper."""
        from matplotlib.figure import Figure

        from heatproof.report.drawing import SHOWN, PaperFigure, house

        size = self.width / DPI, self.height / DPI
        with house(paper):
            return self._drawn_on(Figure(figsize=size) if paper is None else PaperFigure(figsize=size, dpi=SHOWN))

    def _drawn_on(self, canvas: "Figure") -> "Figure":
        for tile in self.tiles:
            box = (tile.x / self.width, 1 - (tile.y + tile.height) / self.height,
                   tile.width / self.width, tile.height / self.height)  # fmt: skip
            axis = canvas.add_axes(box)
            axis.imshow(np.asarray(tile.draw(tile.native)), aspect="auto", interpolation="none")
            axis.set_axis_off()
        for x, y, line, anchor in self.words:
            ascent = font(line.size, line.bold).getmetrics()[0]
            at = (x / self.width, 1 - (y + ascent) / self.height)
            look = {"fontsize": line.size * 72 / DPI, "fontweight": "bold" if line.bold else "normal"}
            canvas.text(*at, line.text, **look, color=line.ink, ha=ANCHORS[anchor], va="baseline", parse_math=False)
        return canvas


def png(image: Image.Image, dpi: float = DPI) -> bytes:
    """The image as the bytes of a PNG file that states its resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4, dpi=(dpi, dpi))
    return buffer.getvalue()
