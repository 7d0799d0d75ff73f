"""A small folder in the layout of FunnyBirds, drawn with rectangles."""

import io
import json
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from heatproof.data.funnybirds import COLOURS

PARTS = tuple(sorted(COLOURS))
CLASSES = ((0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (1, 1, 0, 0, 1), (1, 1, 1, 1, 0))
SIDE, OBJECTS = 32, 2


def rectangle(number: int) -> tuple[slice, slice]:
    y, x = 2 + 10 * (number // 3), 2 + 10 * (number % 3)
    return slice(y, y + 6), slice(x, x + 6)


@cache
def scene(label: int, gone: frozenset[str] = frozenset(), without_object: int = -1) -> Image.Image:
    pixels = np.full((SIDE, SIDE, 4), 255, np.uint8)
    pixels[..., :3] = 90
    for number, part in enumerate(PARTS):
        if part not in gone:
            pixels[rectangle(number)][..., :3] = (200, 40, 40) if CLASSES[label][number] else (40, 40, 200)
    for i in range(OBJECTS):
        if i != without_object:
            pixels[rectangle(5 + i)][..., :3] = (20, 160, 20)
    return Image.fromarray(pixels)


@cache
def part_map() -> Image.Image:
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    pixels[..., 3] = 255
    for number, part in enumerate(PARTS):
        rows, columns = rectangle(number)
        for share, colour in zip((columns, slice(columns.start, columns.start + 3)), COLOURS[part], strict=False):
            pixels[rows, share, :3] = colour
    for i in range(OBJECTS):
        pixels[rectangle(5 + i)][..., :3] = (204, 204, 204 + i)
    return Image.fromarray(pixels)


_ENCODED: dict[int, bytes] = {}  # images are kept by their cache, so an id stays that of one image


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if id(image) not in _ENCODED:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        _ENCODED[id(image)] = buffer.getvalue()
    path.write_bytes(_ENCODED[id(image)])


def funnybirds(folder: Path, count: int = 8) -> Path:
    """The folder with `count` test images."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = [{"class_idx": label, "parts": dict(zip(PARTS, row, strict=True))} for label, row in enumerate(CLASSES)]
    scenes = [{"class_idx": i % 4, "bg_objects": "3,1,", "camera_distance": 700} for i in range(count)]
    for name, content in (("classes", classes), ("parts", {key: [{}, {}] for key in PARTS}), ("dataset_test", scenes)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    for i in range(count):
        label, name = i % 4, f"{i:06d}"
        save(scene(label, frozenset(), -1), folder / "test" / str(label) / f"{name}.png")
        save(part_map(), folder / "test_part_map" / str(label) / f"{name}.png")
        where = folder / "test_interventions" / str(label) / name
        for size in range(len(PARTS) + 1):
            for kept in combinations(PARTS, size):
                save(scene(label, frozenset(PARTS) - set(kept)), where / f"body_{'_'.join(kept)}.png")
        for k in range(OBJECTS):
            save(scene(label, without_object=k), where / "background_interventions" / f"{k}.png")
    return folder
