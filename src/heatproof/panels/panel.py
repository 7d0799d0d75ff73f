"""One image's panel: the image, its maps over it, complete titles, one colour bar."""

import io
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from heatproof.panels.explained_image import ClassProbability, ExplainedClass, ExplainedImage, Map, Method, Rows
from heatproof.report.overlay import Look, overlay
from heatproof.report.style import CHANGED, FAINT, INK, LINE

#: The longest side of a tile in pixels: small images are enlarged, large ones kept below the second number.
SIDES = (224, 384)
#: The most tiles in a line; two more where a row has over `MANY` maps.
ACROSS, MANY = 6, 24
MARGIN, GAP = 20, 12
#: Sizes of text in pixels.
TEXT, SMALL, LARGE = 14, 12, 16
LEADING = 1.28


class Line(NamedTuple):
    """One line of text that fits its width."""

    text: str
    size: int = TEXT
    ink: str = INK
    bold: bool = False

    @property
    def height(self) -> int:
        """In pixels, with the space to the next line."""
        return math.ceil(LEADING * self.size)


class PanelTile(NamedTuple):
    """An image with its title, which stands above it."""

    image: Image.Image
    title: list[Line]


def panel(entry: ExplainedImage, rows: Rows, look: Look) -> Image.Image:
    """RGB: on the left the image, the prediction and the colour bar, on the right a block for each class explained.

    A degenerate map is drawn as the plain image, with the reason in its title.
    """
    if entry.image is None:
        return _card(entry)
    size = tile_size(entry.image)
    small = Image.fromarray(entry.image).resize(size, _filter(entry.image, size))
    grid = [line for row in rows for line in _lines(row, _across(rows))]
    blocks = [[_tiles(small, block, line, look) for line in grid] for block in entry.blocks]
    return _draw(_left_tile(entry, small, look), [block.answer for block in entry.blocks], blocks, size)


def png(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def tile_size(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of the tiles of an image."""
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = min(max(longest, SIDES[0]), SIDES[1]) / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _filter(image: np.ndarray, size: tuple[int, int]) -> Image.Resampling:
    return Image.Resampling.LANCZOS if size[0] < image.shape[1] else Image.Resampling.BICUBIC


def over(small: Image.Image, method: Method, shown: Map, look: Look) -> Image.Image:
    """A map of any size as an overlay on `small`, at the size of that."""
    times = brightness(method, shown)
    field = Image.fromarray(np.asarray(times * shown.display, np.float32).clip(0, 1))
    if field.size != small.size:
        field = field.resize(small.size, Image.Resampling.BILINEAR)
    return Image.fromarray(overlay(np.asarray(small), np.asarray(field), look))


def brightness(method: Method, shown: Map) -> float:
    """The factor by which a map is drawn brighter; 1 for RefineCAM's maps, which are sparse on purpose."""
    return 1.0 if method.name.startswith("refine:") else shown.brightness_gain


def brightened(method: Method, shown: Map) -> str:
    """`brightened 3.4 ×`; empty where the map is drawn as it is."""
    times = brightness(method, shown)
    return f"brightened {times:.2g} ×" if times > 1 else ""


# --- layout ---


def _across(rows: Rows) -> int:
    """The number of tiles in a line: short rows stay whole, a long one is divided into lines of equal length."""
    longest = max(len(row) for row in rows)
    most = ACROSS if longest <= MANY else ACROSS + 2
    return longest if longest <= most else math.ceil(longest / math.ceil(longest / most))


def _lines(row: Sequence[Method], across: int) -> list[Sequence[Method]]:
    return [row[start : start + across] for start in range(0, len(row), across)]


def _tiles(small: Image.Image, block: ExplainedClass, line: Sequence[Method], look: Look) -> list[PanelTile]:
    found = []
    for method in line:
        if method.key not in block.maps:
            continue
        shown = block.maps[method.key]
        title = wrapped(method.name, small.width, bold=True)
        for words in (method.settings, method.where, block.answer.short, brightened(method, shown)):
            title += wrapped(words, small.width, SMALL, FAINT)
        title += wrapped(shown.flag, small.width, SMALL, CHANGED)
        found.append(PanelTile(small if shown.flag else over(small, method, shown, look), title))
    return found


def _left_tile(entry: ExplainedImage, small: Image.Image, look: Look) -> PanelTile:
    """The image and below it, in the same tile, prediction, label and colour bar."""
    assert entry.predicted is not None
    width = max(small.width, SIDES[0])
    text = wrapped(f"Predicted: {entry.predicted.full}", width)
    if entry.label is not None:
        text += wrapped(f"Label: {_class_text(entry.label)}", width, SMALL, FAINT)
    height = small.height + GAP + sum(line.height for line in text) + GAP + 12 + 6 + Line("").height
    image = Image.new("RGB", (width, height), "white")
    image.paste(small, (0, 0))
    draw = ImageDraw.Draw(image)
    y = _write_text(draw, text, 0, small.height + GAP) + GAP
    bar = Image.fromarray(look.palette[None]).resize((width, 12), Image.Resampling.BILINEAR)
    image.paste(bar, (0, y))
    draw.rectangle((0, y, width - 1, y + 11), outline=LINE)
    for text_at, anchor, where in (("0", "la", 0), ("importance", "ma", width // 2), ("1", "ra", width - 1)):
        draw.text((where, y + 16), text_at, FAINT, _font(SMALL), anchor=anchor)
    return PanelTile(image, wrapped(entry.name, width, bold=True))


def _class_text(answer: ClassProbability) -> str:
    return f"{answer.name} ({answer.index})" if answer.name else f"class {answer.index}"


def _draw(
    left: PanelTile,
    answers: Sequence[ClassProbability],
    blocks: Sequence[Sequence[Sequence[PanelTile]]],
    size: tuple[int, int],
) -> Image.Image:
    blocks = [[line for line in block if line] for block in blocks]
    across = max((len(line) for block in blocks for line in block), default=0)
    room = across * (size[0] + GAP) - GAP
    x = MARGIN + left.image.width + 2 * GAP
    headings = [wrapped(f"Explained: {answer.full}", room, LARGE) for answer in answers]
    heights = [[_height(line, size) for line in block] for block in blocks]
    tops = [sum(part.height for part in heading) + GAP for heading in headings]
    right = sum(map(sum, heights)) + sum(tops) + GAP * (len(blocks) - 1)
    name = sum(line.height for line in left.title)
    lead = max(0, tops[0] + _text(blocks[0][0]) - name) if blocks and blocks[0] else 0
    first = lead + name + left.image.height
    image = Image.new("RGB", (x + room + MARGIN, max(first, right) + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(image)
    y = _write_text(draw, left.title, MARGIN, MARGIN + lead)  # level with the first line of maps
    image.paste(left.image, (MARGIN, y))
    y = MARGIN
    for heading, top, block, lines in zip(headings, tops, blocks, heights, strict=True):
        _write_text(draw, heading, x, y)
        y += top
        for line, height in zip(block, lines, strict=True):
            _put_line(image, draw, line, x, y, size)
            y += height
        y += GAP
    return image


def _text(line: Sequence[PanelTile]) -> int:
    return max(sum(part.height for part in tile.title) for tile in line)


def _height(line: Sequence[PanelTile], size: tuple[int, int]) -> int:
    return _text(line) + 4 + size[1] + GAP


def _put_line(
    image: Image.Image, draw: ImageDraw.ImageDraw, line: Sequence[PanelTile], x: int, y: int, size: tuple[int, int]
) -> None:
    """Titles end just above their tiles."""
    room = _text(line)
    for number, tile in enumerate(line):
        at = x + number * (size[0] + GAP)
        _write_text(draw, tile.title, at, y + room - sum(part.height for part in tile.title))
        image.paste(tile.image, (at, y + room + 4))


def _card(entry: ExplainedImage) -> Image.Image:
    """An image that could not be explained: its name and the reason."""
    width = 3 * SIDES[0]
    text = [*wrapped(entry.name, width, bold=True), *wrapped(entry.flag, width, ink=CHANGED)]
    image = Image.new("RGB", (width + 2 * MARGIN, sum(line.height for line in text) + 2 * MARGIN), "white")
    _write_text(ImageDraw.Draw(image), text, MARGIN, MARGIN)
    return image


# --- text ---


@lru_cache(maxsize=16)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it is on every machine and covers most alphabets."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def wrapped(text: str, width: int, size: int = TEXT, ink: str = INK, bold: bool = False) -> list[Line]:
    """Lines no wider than `width` pixels: broken at spaces, else after punctuation, else anywhere; nothing is cut."""
    font = _font(size, bold)
    lines, rest = [], " ".join(text.split())
    while rest:
        fits = _characters_that_fit(rest, font, width)
        lines.append(Line(rest[:fits].rstrip(), size, ink, bold))
        rest = rest[fits:].lstrip()
    return lines


def _characters_that_fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many characters fit on the line."""
    if font.getlength(text) <= width:
        return len(text)
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle].rstrip()) <= width else (low, middle - 1)
    breaks = [match.end() for match in re.finditer(r"\s+|[-_/+@,:.](?=\S)|(?=[\[(])", text[: low + 1])]
    spaces = [end for end in breaks if text[end - 1 : end].isspace() and 0 < end <= low + 1]
    others = [end for end in breaks if low / 2 <= end <= low and end > 0]
    return (spaces or others or [low])[-1]


def _write_text(draw: ImageDraw.ImageDraw, lines: Sequence[Line], x: int, y: int) -> int:
    """Draws lines from the top; returns where the next would begin."""
    for line in lines:
        draw.text((x, y), line.text, line.ink, _font(line.size, line.bold))
        y += line.height
    return y
