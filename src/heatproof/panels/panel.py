"""One image's panel: the image, its maps over it, complete titles, one colour bar."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from heatproof.panels.explained_image import ExplainedClass, ExplainedImage, Map, Method, Rows
from heatproof.panels.sheet import DPI, Line, Sheet, Tile, Words
from heatproof.report.overlay import Look, outlined, overlay
from heatproof.report.style import CHANGED, FAINT, INK, LINE
from heatproof.report.text_measure import broken, font

#: The longest side of a tile in units (pixels at 96 dpi): small images are enlarged, large ones kept below the second.
SIDES = (224, 384)
#: The most tiles in a line; two more where a row has over `MANY` maps.
ACROSS, MANY = 6, 24
#: SPACE is between a title and its tile, BAR the height of the colour bar.
MARGIN, GAP, SPACE, BAR = 20, 12, 4, 12
#: Sizes of text.
TEXT, SMALL, LARGE = 14, 12, 16


class PanelTile(NamedTuple):
    """A map over the image with its title, which stands above it; without a map, the plain image."""

    method: Method
    shown: Map
    title: list[Line]


def panel(entry: ExplainedImage, rows: Rows, look: Look, dpi: float = DPI) -> Image.Image:
    """The panel as RGB pixels; see `panel_sheet`."""
    return panel_sheet(entry, rows, look).image(dpi)


def panel_sheet(entry: ExplainedImage, rows: Rows, look: Look) -> Sheet:
    """The name above; on the left the image, the prediction and the colour bar, on the right a block for each class.

    The image is level with the first line of maps. The name stays on one line. A degenerate map is drawn as the plain
    image, with the reason in its title.
    """
    name = Line(" ".join(entry.name.split()), TEXT, INK, True)
    if entry.image is None:
        return _card(entry, name)
    image, size = entry.image, tile_size(entry.image)
    grid = [line for row in rows for line in _lines(row, _across(rows))]
    blocks = [[_tiles(block, line, size[0]) for line in grid] for block in entry.blocks]
    blocks = [[line for line in block if line] for block in blocks]
    across = max((len(line) for block in blocks for line in block), default=0)
    room = across * (size[0] + GAP) - GAP
    below = _below(entry, max(size[0], SIDES[0]))
    x = MARGIN + max(size[0], SIDES[0]) + 2 * GAP
    headings = [wrapped(f"Explained: {block.answer.full}", room, LARGE) for block in entry.blocks]
    tops = [sum(line.height for line in heading) + GAP for heading in headings]
    start = MARGIN + name.height + GAP
    first = start + (tops[0] + _text(blocks[0][0]) + SPACE if blocks and blocks[0] else 0)
    right = sum(tops) + sum(_height(line, size) for block in blocks for line in block) + GAP * (len(blocks) - 1)
    low = first + size[1] + GAP + sum(line.height for line in below) + GAP + BAR + 6 + Line("").height
    width = max(x + room + MARGIN, 2 * MARGIN + math.ceil(name.width))
    sheet = Sheet(width, max(low, start + right) + MARGIN)
    sheet.write([name], MARGIN, MARGIN)
    plain = Tile(MARGIN, first, *size, image.shape[1::-1], partial(resized, image, entry.mask))
    sheet.tiles.append(plain)
    _bar(sheet, sheet.write(below, MARGIN, first + size[1] + GAP) + GAP, max(size[0], SIDES[0]), look)
    y = start
    for heading, top, block in zip(headings, tops, blocks, strict=True):
        sheet.write(heading, x, y)
        y += top
        for line in block:
            _put_line(sheet, line, plain, entry, look, x, y)
            y += _height(line, size)
        y += GAP
    return sheet


def tile_size(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of the tiles of an image."""
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = min(max(longest, SIDES[0]), SIDES[1]) / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _filter(image: np.ndarray, size: tuple[int, int]) -> Image.Resampling:
    return Image.Resampling.LANCZOS if size[0] < image.shape[1] else Image.Resampling.BICUBIC


def over(small: Image.Image, method: Method, shown: Map, look: Look, mask: np.ndarray | None = None) -> Image.Image:
    """A map of any size as an overlay on `small`, at the size of that, with the outline of a mask of any size."""
    times = brightness(method, shown)
    field = Image.fromarray(np.asarray(times * shown.display, np.float32).clip(0, 1))
    if field.size != small.size:
        field = field.resize(small.size, Image.Resampling.BILINEAR)
    return Image.fromarray(outlined(overlay(np.asarray(small), np.asarray(field), look), mask))


def brightness(method: Method, shown: Map) -> float:
    """The factor by which a map is drawn brighter; 1 for RefineCAM's maps, which are sparse on purpose."""
    return 1.0 if method.name.startswith("refine:") else shown.brightness_gain


def brightened(method: Method, shown: Map) -> str:
    """`brightened 3.4 ×`; empty where the map is drawn as it is."""
    times = brightness(method, shown)
    return f"brightened {times:.2g} ×" if times > 1 else ""


def resized(pixels: np.ndarray, mask: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """`(H, W, 3)` uint8 at a size (width, height), with the outline of a mask."""
    image = Image.fromarray(pixels)
    found = image if image.size == size else image.resize(size, _filter(pixels, size))
    return found if mask is None else Image.fromarray(outlined(np.asarray(found), mask))


def overlaid(entry: ExplainedImage, method: Method, shown: Map, look: Look, size: tuple[int, int]) -> Image.Image:
    """A map over its image, at a size (width, height), with the outline of the mask."""
    assert entry.image is not None
    return over(resized(entry.image, None, size), method, shown, look, entry.mask)


# --- layout ---


def _across(rows: Rows) -> int:
    """The number of tiles in a line: short rows stay whole, a long one is divided into lines of equal length."""
    longest = max(len(row) for row in rows)
    most = ACROSS if longest <= MANY else ACROSS + 2
    return longest if longest <= most else math.ceil(longest / math.ceil(longest / most))


def _lines(row: Sequence[Method], across: int) -> list[Sequence[Method]]:
    return [row[start : start + across] for start in range(0, len(row), across)]


def _tiles(block: ExplainedClass, line: Sequence[Method], width: int) -> list[PanelTile]:
    found = []
    for method in line:
        if method.key not in block.maps:
            continue
        shown = block.maps[method.key]
        title = wrapped(method.name, width, bold=True)
        for words in (method.settings, method.where, block.answer.short, brightened(method, shown)):
            title += wrapped(words, width, SMALL, FAINT)
        title += wrapped(shown.flag, width, SMALL, CHANGED)
        found.append(PanelTile(method, shown, title))
    return found


def _below(entry: ExplainedImage, width: int) -> list[Line]:
    """What stands below the image: the prediction and the label."""
    assert entry.predicted is not None
    lines = wrapped(f"Predicted: {entry.predicted.full}", width)
    if entry.label is not None:
        lines += wrapped(f"Label: {entry.label.text}", width, SMALL, FAINT)
    if entry.mask is not None and entry.mask.any():
        lines += wrapped("Outline: ground truth", width, SMALL, FAINT)
    return lines


def _bar(sheet: Sheet, y: int, width: int, look: Look) -> None:
    """The colour bar with its ends."""
    palette = Image.fromarray(look.palette[None])
    draw = partial(palette.resize, resample=Image.Resampling.BILINEAR)
    sheet.tiles.append(Tile(MARGIN, y, width, BAR, (256, 1), draw, LINE))
    for text, anchor, where in (("0", "l", 0), ("importance", "m", width // 2), ("1", "r", width - 1)):
        sheet.words.append(Words(MARGIN + where, y + 16, Line(text, SMALL, FAINT), anchor))


def _text(line: Sequence[PanelTile]) -> int:
    return max(sum(part.height for part in tile.title) for tile in line)


def _height(line: Sequence[PanelTile], size: tuple[int, int]) -> int:
    return _text(line) + SPACE + size[1] + GAP


def _put_line(
    sheet: Sheet, line: Sequence[PanelTile], plain: Tile, entry: ExplainedImage, look: Look, x: int, y: int
) -> None:
    """Titles end just above their tiles."""
    room = _text(line)
    for number, tile in enumerate(line):
        at = x + number * (plain.width + GAP)
        sheet.write(tile.title, at, y + room - sum(part.height for part in tile.title))
        flat = bool(tile.shown.flag)
        draw = plain.draw if flat else partial(overlaid, entry, tile.method, tile.shown, look)
        sheet.tiles.append(plain._replace(x=at, y=y + room + SPACE, draw=draw))


def _card(entry: ExplainedImage, name: Line) -> Sheet:
    """An image that could not be explained: its name and the reason."""
    width = max(3 * SIDES[0], math.ceil(name.width))
    text = [name, *wrapped(entry.flag, width, ink=CHANGED)]
    sheet = Sheet(width + 2 * MARGIN, sum(line.height for line in text) + 2 * MARGIN)
    sheet.write(text, MARGIN, MARGIN)
    return sheet


# --- text ---


def wrapped(text: str, width: float, size: float = TEXT, ink: str = INK, bold: bool = False) -> list[Line]:
    """Lines no wider than `width` pixels: broken at spaces, else after punctuation, else anywhere; nothing is cut."""
    face = font(size, bold)
    return [Line(line, size, ink, bold) for line in broken(text, lambda part: face.getlength(part) <= width)]
