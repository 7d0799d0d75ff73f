"""The stored cases as tiles: images and maps laid over them, small enough to be mailed inside the page.

DIR/gallery/index.json is a list of cases, each an object with `file`, `title`, `why`, `model`, `dataset`, `image`,
`label`, `label_name`, `methods` and `columns` (one for each condition, the reference first: `condition`, `severity`,
`class`, `class_name`, `probability`, `changed`). The arrays of `file`: `images` uint8 (C, H, W, 3), `maps` uint8
(M, C, h, w), 255 for 1; `masks` bool (C, H, W), where there are any, whose outlines are drawn.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.archives import Archive
from heatproof.class_names import named
from heatproof.errors import StoreError
from heatproof.report.labelling import labelled
from heatproof.report.overlay import Look, outlined, overlay

#: Perceptually uniform and safe for colour-blind readers; the map weighs half, the image half.
LOOK = Look("inferno", 0.5)
#: (number of tiles, their longest side in pixels up to that number), so that a page stays below ten megabytes.
SIDES = ((700, 144), (1600, 112), (4000, 80))


@dataclass(frozen=True)
class ImageTile:
    """One image of the gallery: a data URL, the text for screen readers, and the size in pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class GalleryRow:
    """One line of a case: the images themselves (`method` empty) or the maps of a method."""

    method: str
    tiles: tuple[ImageTile, ...]


@dataclass(frozen=True)
class DrawnCase:
    """One image under one or several conditions, with the maps of every method; `masked`: outlines are drawn."""

    facts: Mapping[str, Any]
    columns: tuple[Mapping[str, Any], ...]
    rows: tuple[GalleryRow, ...]
    masked: bool = False


def cases(folder: Path, labels: Mapping[str, str] | None = None) -> list[DrawnCase]:
    """The cases of a study folder, in the order stored; none without a gallery. StoreError if damaged.

    labels: method → display name, for texts; the methods of cases and rows keep their names.
    """
    index = folder / "gallery" / "index.json"
    if not index.is_file():
        return []
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        side = _side(sum((1 + len(e["methods"])) * len(e["columns"]) for e in entries))
        return [_case(folder / "gallery", entry, side, labels or {}) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"The gallery of {str(folder)!r} cannot be read ({type(error).__name__}: {error}). "
            "Delete its folder `gallery` and run the study again: only the gallery is made anew."
        ) from error


def _side(tiles: int) -> int:
    return next((side for count, side in SIDES if tiles <= count), 64)


def _case(folder: Path, entry: Mapping[str, Any], side: int, labels: Mapping[str, str]) -> DrawnCase:
    entry = {**entry, **{name: labelled(entry[name], labels) for name in ("title", "why") if name in entry}}
    with Archive(folder / Path(entry["file"]).name) as arrays:
        images, maps = arrays["images"], arrays["maps"]
        masks = list(arrays["masks"]) if "masks" in arrays else [None] * len(images)
    columns = tuple({**column, "says": says(column), "name": _name(column)} for column in entry["columns"])
    small = [_resize(Image.fromarray(image), side) for image in images[: len(columns)]]
    masks = masks[: len(columns)]
    whole = [Image.fromarray(outlined(np.asarray(one), mask)) for one, mask in zip(small, masks, strict=True)]
    rows = [GalleryRow("", tuple(_tile(one, f"Image, {_where(c)}") for one, c in zip(whole, columns, strict=True)))]
    for method, layers in zip(entry["methods"], maps, strict=True):
        tiles = [
            _tile(_overlay(one, layer, mask), f"{labels.get(method, method)}, {_where(column)}")
            for one, layer, mask, column in zip(small, layers, masks, columns, strict=True)
        ]
        rows.append(GalleryRow(method, tuple(tiles)))
    return DrawnCase(entry, columns, tuple(rows), masked=any(mask is not None and mask.any() for mask in masks))


def says(column: Mapping[str, Any]) -> str:
    """The prediction for one image as text: `hen (8), 42 %`, or `value 58.3`."""
    if column.get("value") is not None:
        return f"value {column['value']:.4g}"
    name = named(column.get("class_name"), column.get("class"))
    probability = column.get("probability")
    return name if probability is None else f"{name}, {100 * probability:.0f} %"


def _name(column: Mapping[str, Any]) -> str:
    """The condition as a heading; only the severity of a condition that is a perturbation alone, as `why` names it."""
    alone = column["condition"] == f"{column.get('perturbation')}:{column['severity']}"
    return f"severity {column['severity']}" if alone else column["condition"] or "reference"


def _where(column: Mapping[str, Any]) -> str:
    changed = "; the prediction changed" if column.get("changed") else ""
    return f"{column['condition'] or 'reference'}: predicted {column['says']}{changed}"


def _resize(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR if scale > 1 else Image.Resampling.LANCZOS)


def _overlay(image: Image.Image, layer: np.ndarray, mask: np.ndarray | None = None) -> Image.Image:
    """The map (uint8, any size) in colour, half and half with the image, with the outline of the mask."""
    stretched = np.asarray(Image.fromarray(layer).resize(image.size, Image.Resampling.BILINEAR))
    drawn = overlay(np.asarray(image), stretched / 255, LOOK, coloured=True)
    return Image.fromarray(outlined(drawn, mask))


def _tile(image: Image.Image, alt: str) -> ImageTile:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=72, method=4)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return ImageTile(f"data:image/webp;base64,{code}", alt, *image.size)
