"""The stored cases as tiles: pictures and maps laid over them, small enough to be mailed inside the page.

DIR/gallery/index.json is a list of cases, each an object with `file`, `title`, `why`, `model`, `dataset`,
`image`, `perturbation`, `severities`, `label`, `label_name`, `methods`, `columns` (one per picture, clean
first: `severity`, `class`, `class_name`, `probability`, `changed`) and `rbo` (method → a number or null per
column). The arrays of `file`: `pictures` uint8 (1+S, H, W, 3), `maps` uint8 (M, 1+S, h, w), 255 for 1.
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

from heatproof.errors import StoreError
from heatproof.report.overlay import Look, overlay

#: Perceptually uniform and safe for colour-blind readers; the map weighs half, the picture half.
LOOK = Look("inferno", 0.5)
#: Tiles of (at most this many) → longest side in pixels, so that a page stays below ten megabytes.
SIDES = ((700, 144), (1600, 112), (4000, 80))


@dataclass(frozen=True)
class Tile:
    """One picture of the gallery, as a data address, with what a reader who cannot see it should hear."""

    source: str
    alt: str
    width: int
    height: int
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a case: the pictures themselves (`method` empty) or the maps of a method."""

    method: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Case:
    """One picture under one perturbation, over the severities, with the maps of every method."""

    facts: Mapping[str, Any]
    columns: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]


def cases(folder: Path) -> list[Case]:
    """The cases of a study folder, in the order stored; none without a gallery. StoreError if damaged."""
    index = folder / "gallery" / "index.json"
    if not index.is_file():
        return []
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        side = _side(sum((1 + len(e["methods"])) * len(e["columns"]) for e in entries))
        return [_case(folder / "gallery", entry, side) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"The gallery of {str(folder)!r} cannot be read ({type(error).__name__}: {error}). "
            "Delete its folder `gallery` and run the study again: only the gallery is made anew."
        ) from error


def _side(tiles: int) -> int:
    return next((side for count, side in SIDES if tiles <= count), 64)


def _case(folder: Path, entry: Mapping[str, Any], side: int) -> Case:
    with np.load(folder / Path(entry["file"]).name, allow_pickle=False) as arrays:
        pictures, maps = arrays["pictures"], arrays["maps"]
    columns = tuple({**column, "says": says(column)} for column in entry["columns"])
    small = [_resized(Image.fromarray(picture), side) for picture in pictures[: len(columns)]]
    plain = tuple(_tile(p, f"Picture, {_where(entry, c)}", "") for p, c in zip(small, columns, strict=True))
    rows = [Row("", plain)]
    for method, layers in zip(entry["methods"], maps, strict=True):
        scores = entry["rbo"][method] if "rbo" in entry else [None] * len(columns)
        tiles = [
            _tile(_overlay(p, layer), f"{method}, {_where(entry, c)}", _score(rbo))
            for p, layer, c, rbo in zip(small, layers, columns, scores, strict=True)
        ]
        rows.append(Row(method, tuple(tiles)))
    return Case(entry, columns, tuple(rows))


def says(column: Mapping[str, Any]) -> str:
    """What the model says about one picture: `hen, 42 %`."""
    name = column.get("class_name") or f"class {column.get('class')}"
    probability = column.get("probability")
    return name if probability is None else f"{name}, {100 * probability:.0f} %"


def _where(entry: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    strength = f"{entry['perturbation']} severity {column['severity']}" if column["severity"] else "clean"
    changed = "; the prediction changed" if column.get("changed") else ""
    return f"{strength}: predicted {column['says']}{changed}"


def _score(rbo: float | None) -> str:
    return "" if rbo is None else f"RBO {rbo:.2f}"


def _resized(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR if scale > 1 else Image.Resampling.LANCZOS)


def _overlay(picture: Image.Image, layer: np.ndarray) -> Image.Image:
    """The map (uint8, any size) in colour, half and half with the picture."""
    stretched = np.asarray(Image.fromarray(layer).resize(picture.size, Image.Resampling.BILINEAR))
    return Image.fromarray(overlay(np.asarray(picture), stretched / 255, LOOK, coloured=True))


def _tile(picture: Image.Image, alt: str, note: str) -> Tile:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=72, method=4)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Tile(f"data:image/webp;base64,{code}", alt, *picture.size, note)
