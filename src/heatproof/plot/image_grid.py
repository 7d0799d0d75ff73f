"""Rows of images with a title above and a line below each, at the width of a paper, as one sheet."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from heatproof.panels.sheet import DPI, Line, Sheet, Tile, Words
from heatproof.report.drawing import Paper
from heatproof.report.overlay import Look
from heatproof.report.style import CHANGED, FAINT, INK, LINE
from heatproof.report.text_measure import broken, text_width

#: Sizes of text in units of a sheet, 96 to an inch: 6.75 and 6.1 points.
TEXT, SMALL = 9.0, 8.15
#: Gaps between tiles, from text to its tile and between rows; the height of the colour bar; the margin.
GAP, SPACE, ROWS, BAR, MARGIN = 4, 2, 8, 6, 2
#: The least width of a tile in units: 0.72 inches.
LEAST = 69


class GridTile(NamedTuple):
    """A tile: what draws it at (width, height), its own size in pixels, and the texts above and below it."""

    draw: Callable[[tuple[int, int]], Image.Image]
    native: tuple[int, int]
    title: str = ""
    below: tuple[str, ...] = ()
    flag: str = ""
    bold: bool = False


def image_grid(rows: Sequence[Sequence[GridTile]], paper: Paper, look: Look | None) -> Figure:
    """The rows below one another; a row with more tiles than fit is continued below, tiles in lines of equal length.

    Titles stand above the first line, and above every line where they differ. `look`: of the colour bar; None for none.
    """
    width = round(paper.width * DPI)
    longest = max(map(len, rows))
    most = most_across(paper)
    across = math.ceil(longest / math.ceil(longest / most))
    side = (width - 2 * MARGIN + GAP) // max(across, 2) - GAP
    sheet = Sheet(width, 0)
    y, before = MARGIN, ()
    for row in rows:
        for start in range(0, len(row), across):
            line = row[start : start + across]
            titles = tuple(tile.title for tile in line)
            y = _line(sheet, line, y, side, titled=titles != before)
            before = titles
        y += ROWS - GAP
    if look is not None:
        y = _bar(sheet, y, min(side * 2 + GAP, width // 3), look)
    sheet.height = y + MARGIN
    return sheet.figure(paper)


def most_across(paper: Paper) -> int:
    """How many tiles fit side by side."""
    return max(1, (round(paper.width * DPI) - 2 * MARGIN + GAP) // (LEAST + GAP))


def _line(sheet: Sheet, line: Sequence[GridTile], y: int, side: int, titled: bool) -> int:
    """Draws a line of tiles from the top `y`; returns where the next begins."""
    titles = [_text(tile.title, side, TEXT, INK, tile.bold) if titled else [] for tile in line]
    above = max(sum(one.height for one in title) for title in titles)
    y += above + (SPACE if above else 0)
    heights, under = [], 0
    for column, (tile, title) in enumerate(zip(line, titles, strict=True)):
        x = MARGIN + column * (side + GAP)
        high = max(1, round(side * tile.native[1] / tile.native[0]))
        heights.append(high)
        sheet.write(title, x, y - SPACE - sum(one.height for one in title))
        sheet.tiles.append(Tile(x, y, side, high, tile.native, tile.draw))
    for column, (tile, high) in enumerate(zip(line, heights, strict=True)):
        lines = [part for text in tile.below for part in _text(text, side, SMALL, FAINT)]
        lines += _text(tile.flag, side, SMALL, CHANGED)
        sheet.write(lines, MARGIN + column * (side + GAP), y + high + SPACE)
        under = max(under, high + (SPACE if lines else 0) + sum(one.height for one in lines))
    return y + under + GAP


def _text(text: str, room: float, size: float, ink: str, bold: bool = False) -> list[Line]:
    points, wider = size * 72 / DPI, 1.13 if bold else 1.02
    return [Line(line, size, ink, bold)
            for line in broken(text, lambda part: wider * text_width(part, points) * DPI <= room)]  # fmt: skip


def _bar(sheet: Sheet, y: int, wide: int, look: Look) -> int:
    """The colour bar with its ends, on the right; returns where it ends."""
    right, middle = sheet.width - MARGIN - 12, y + BAR // 2
    palette = Image.fromarray(look.palette[None])
    draw = partial(palette.resize, resample=Image.Resampling.BILINEAR)
    text = Line("", SMALL)
    sheet.tiles.append(Tile(right - wide, y + 3, wide, BAR, (256, 1), draw, LINE))
    for label, x, anchor in (("importance  0", right - wide - 4, "r"), ("1", right + 4, "l")):
        sheet.words.append(Words(x, middle - text.height // 2 + 2, Line(label, SMALL, FAINT), anchor))
    return y + max(BAR + 6, text.height + 2)
