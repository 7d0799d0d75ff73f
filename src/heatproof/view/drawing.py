"""Images and maps as text that a browser shows: overlays at an opacity and a threshold, thumbnails."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from heatproof.panels.explained_image import ExplainedImage, Map, Method
from heatproof.panels.panel import brightened, over
from heatproof.report.overlay import Look
from heatproof.view.interface import Appearance

#: The longest side of a tile, and of a thumbnail, in pixels.
SIDE, SMALL = 384, 96
#: Images are sent as JPEG without subsampled colours: a tenth of the time that WebP takes.
QUALITY = 88


@dataclass(frozen=True)
class MapTile:
    """A map over its image; `source` is a data URL, `flag` why it says nothing."""

    source: str
    method: str
    where: str
    alt: str
    flag: str = ""
    note: str = ""


@dataclass(frozen=True)
class ClassTiles:
    """The maps for one class."""

    title: str
    tiles: tuple[MapTile, ...]


def tiles(entry: ExplainedImage, methods: Sequence[Method], wanted: Appearance) -> list[ClassTiles]:
    """The maps of the methods that `wanted` names, for each class it names (all where it names none)."""
    if entry.image is None:
        return []
    small, drawn = _sized(entry.image), Look(alpha=wanted.opacity)
    chosen = [method for method in methods if method.key in wanted.methods]
    classes = wanted.classes or range(len(entry.blocks))
    found = []
    for number in classes:
        if number >= len(entry.blocks):
            continue
        block = entry.blocks[number]
        there = [(method, block.maps[method.key]) for method in chosen if method.key in block.maps]
        found.append(
            ClassTiles(
                block.answer.full,
                tuple(_tile(small, method, shown, drawn, wanted.threshold) for method, shown in there),
            )
        )
    return found


def _tile(small: Image.Image, method: Method, shown: Map, drawn: Look, threshold: float) -> MapTile:
    picture = small if shown.flag else over(small, method, shown, drawn, threshold=threshold)
    name = " ".join(filter(None, (method.name, method.settings)))
    return MapTile(url(picture), name, method.where, f"{name} over the image", shown.flag, brightened(method, shown))


def image_url(image: np.ndarray) -> str:
    """An image as a tile of its own."""
    return url(_sized(image))


def _sized(image: np.ndarray) -> Image.Image:
    """An image no larger than a tile."""
    found = Image.fromarray(image)
    scale = SIDE / max(found.size)
    if scale >= 1:
        return found
    size = (max(1, round(found.width * scale)), max(1, round(found.height * scale)))
    return found.resize(size, Image.Resampling.LANCZOS)


def url(image: Image.Image) -> str:
    """An image as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(image)).decode('ascii')}"


def jpeg(image: Image.Image) -> bytes:
    """An image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def thumbnail(image: np.ndarray | None) -> bytes:
    """A small JPEG; a grey square where there is no image."""
    if image is None:
        return _blank()
    found = Image.fromarray(image)
    found.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    return jpeg(found)


@lru_cache(maxsize=1)
def _blank() -> bytes:
    return jpeg(Image.new("RGB", (8, 8), (150, 150, 150)))
