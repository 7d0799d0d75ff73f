"""The index page of a folder of panels, and its form for a notebook: self-contained HTML without scripts."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.panels.explained_image import ExplainedClass, ExplainedImage, Method, Rows
from heatproof.panels.panel import brightened, over
from heatproof.report.overlay import Look, outlined
from heatproof.report.templating import TEMPLATES as REPORT_TEMPLATES
from heatproof.report.templating import environment

TEMPLATES = (Path(__file__).parent / "templates", REPORT_TEMPLATES)
#: Tiles on the page (at most so many) → longest side in pixels, so that it stays below some ten megabytes.
SIDES = ((200, 256), (600, 192), (1500, 144), (4000, 96))
SMALLEST = 64

Refused = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class PageTile:
    """An image as a data URL; a map also has its method, and a flag if it is degenerate."""

    source: str
    width: int
    height: int
    alt: str
    method: Method | None = None
    flag: str = ""
    note: str = ""


@dataclass(frozen=True)
class Part:
    """One class explained: rows of tiles."""

    title: str
    rows: tuple[tuple[PageTile, ...], ...]


@dataclass(frozen=True)
class ImageSection:
    """One image on the page."""

    anchor: str
    name: str
    flag: str
    predicted: str
    label: str
    image: PageTile | None
    parts: tuple[Part, ...]
    files: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str, str], ...]
    note: str = ""
    masked: bool = False


class PageSections:
    """Makes the sections of a page that will show `images` images."""

    def __init__(self, rows: Rows, look: Look, images: int):
        self._rows, self._look, self._count, self._images = rows, look, 0, images

    def section(self, entry: ExplainedImage, files: Sequence[tuple[str, str]] = ()) -> ImageSection:
        """The section of one image; `files` are links (name, address) to its files."""
        self._count += 1
        anchor = f"image-{self._count}"
        if entry.image is None or entry.predicted is None:
            return ImageSection(anchor, entry.name, entry.flag, "", "", None, (), tuple(files), ())
        methods = sum(map(len, self._rows)) * len(entry.blocks)
        small = _small(entry.image, _side(self._images * (1 + methods)))
        seen = Image.fromarray(outlined(np.asarray(small), entry.mask))
        plain = _tile(seen, f"Image {entry.name}")
        label = "" if entry.label is None else entry.label.text
        parts = tuple(self._part(entry, block, small, plain) for block in entry.blocks)
        remarks = tuple(
            (tile.method.key, part.title, tile.flag)
            for part in parts for row in part.rows for tile in row if tile.method and tile.flag
        )  # fmt: skip
        return ImageSection(
            anchor,
            entry.name,
            "",
            entry.predicted.full,
            label,
            plain,
            parts,
            tuple(files),
            remarks,
            entry.note,
            masked=entry.mask is not None and bool(entry.mask.any()),
        )

    def _part(self, entry: ExplainedImage, block: ExplainedClass, small: Image.Image, plain: PageTile) -> Part:
        rows = []
        for row in self._rows:
            found = [(method, block.maps[method.key]) for method in row if method.key in block.maps]
            tiles = []
            for method, shown in found:
                said = f"{method.title}{f' at {method.where}' if method.where else ''}, {block.answer.short}"
                if shown.flag:
                    alt = f"{said}: {shown.flag}, so the plain image is shown"
                    tiles.append(PageTile(plain.source, plain.width, plain.height, alt, method, shown.flag))
                else:
                    tiles.append(
                        _tile(
                            over(small, method, shown, self._look, entry.mask), said, method, brightened(method, shown)
                        )
                    )
            rows.append(tuple(tiles))
        return Part(block.answer.full, tuple(rows))


def rendered(
    sections: Sequence[ImageSection],
    *,
    images: int,
    rows: Rows,
    refused: Refused = (),
    look: Look,
    facts: Sequence[tuple[str, str]] = (),
    peaks: Sequence[str] = (),
    command: str = "",
) -> str:
    """The page as HTML."""
    methods = [method for row in rows for method in row]
    return environment(TEMPLATES).get_template("index.html").render(
        title=f"heatproof: {len(sections)} {'image' if len(sections) == 1 else 'images'}",
        sections=sections,
        missing=images - len(sections),
        unread=sum(bool(section.flag) for section in sections),
        methods=_table(methods, sections),
        anchors={method.key: _anchor(i) for i, method in enumerate(methods)},
        columns=max(map(len, rows)) if len(rows) > 1 else 0,
        refused=refused,
        gradient=_gradient(look),
        look=look,
        facts=facts,
        peaks=peaks,
        command=command,
    )  # fmt: skip


def fragment(sections: Sequence[ImageSection], refused: Refused, look: Look, peaks: Sequence[str] = ()) -> str:
    """The same images for a notebook: an element with its own style, in the notebook's text colour."""
    columns = max((len(row) for section in sections for part in section.parts for row in part.rows), default=0)
    several = any(len(part.rows) > 1 for section in sections for part in section.parts)
    return environment(TEMPLATES).get_template("fragment.html").render(
        sections=sections, refused=refused, gradient=_gradient(look), columns=columns if several else 0, peaks=peaks
    )  # fmt: skip


def _table(methods: Sequence[Method], sections: Sequence[ImageSection]) -> list[Mapping[str, Any]]:
    """The methods, each with the remarks on its maps: (anchor, image, class, remark)."""
    remarks: dict[str, list[tuple[str, str, str, str]]] = {method.key: [] for method in methods}
    for section in sections:
        for key, where, flag in section.remarks:
            remarks[key].append((section.anchor, section.name, where, flag))
    return [{"method": method, "anchor": _anchor(i), "remarks": remarks[method.key]}
            for i, method in enumerate(methods)]  # fmt: skip


def _anchor(number: int) -> str:
    return f"method-{number + 1}"


def _gradient(look: Look) -> str:
    """The colours, low → high, as a CSS gradient."""
    colours = look.palette[np.linspace(0, 255, 17).round().astype(int)]
    return ", ".join("#" + bytes(colour).hex() for colour in colours.tolist())


def _side(tiles: int) -> int:
    return next((side for count, side in SIDES if tiles <= count), SMALLEST)


def _small(pixels: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def _tile(image: Image.Image, alt: str, method: Method | None = None, note: str = "") -> PageTile:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=78, method=2)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return PageTile(f"data:image/webp;base64,{code}", *image.size, alt, method, note=note)
