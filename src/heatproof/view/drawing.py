"""Images and maps as text that a browser shows: overlays at an opacity and a threshold, thumbnails."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from heatproof.panels.explained_image import Map, Method
from heatproof.panels.panel import brightened, over
from heatproof.report.overlay import Look
from heatproof.view.interface import Appearance, Shown

#: The longest side of a tile, and of a thumbnail, in pixels.
SIDE, SMALL = 384, 96
#: Images are sent as JPEG without subsampled colours: a tenth of the time that WebP takes.
QUALITY = 88


@dataclass(frozen=True)
class MapTile:
    """A map over its image.

    Attributes:
        source: a data URL. flag: why it says nothing. note: how it was brightened. decision, reason: an audit's.
    """

    source: str
    method: str
    where: str
    alt: str
    flag: str = ""
    note: str = ""
    decision: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ClassTiles:
    """The maps for one class. `absent`: chosen methods without a map of it."""

    title: str
    tiles: tuple[MapTile, ...]
    absent: tuple[str, ...] = ()


def tiles(shown: Shown, methods: Sequence[Method], wanted: Appearance) -> list[ClassTiles]:
    """The maps of the methods that `wanted` names, for each class it names (all where it names none)."""
    entry = shown.entry
    if entry.image is None:
        return []
    small = _sized(entry.image)
    chosen = [method for method in methods if method.key in wanted.methods]
    found = []
    for number in wanted.classes or range(len(entry.blocks)):
        if number >= len(entry.blocks):
            continue
        block = entry.blocks[number]
        drawn = tuple(
            _tile(small, method, block.maps[method.key], wanted, shown.decisions.get(method.key, ("", "")))
            for method in chosen
            if method.key in block.maps
        )
        absent = tuple(method.key for method in chosen if method.key not in block.maps)
        found.append(ClassTiles(block.answer.full, drawn, absent))
    return found


def _tile(small: Image.Image, method: Method, shown: Map, wanted: Appearance, decided: tuple[str, str]) -> MapTile:
    look = Look(alpha=wanted.opacity, threshold=wanted.threshold)
    picture = small if shown.flag else over(small, method, shown, look)
    name = " ".join(filter(None, (method.name, method.settings)))
    note = brightened(method, shown)
    return MapTile(url(picture), name, method.where, f"{name} over the image", shown.flag, note, *decided)


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
