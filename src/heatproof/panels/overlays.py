"""Overlays at full resolution: a map over the part of the original image that the network saw, pixel for pixel."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from heatproof.geometry import Geometry
from heatproof.panels.explained_image import ExplainedImage, Rows
from heatproof.panels.panel import over
from heatproof.report.overlay import Look


def overlays(
    entry: ExplainedImage,
    rows: Rows,
    look: Look,
    original: Image.Image | None,
    geometry: Geometry,
    mask: np.ndarray | None = None,
) -> Iterator[tuple[str, Image.Image]]:
    """(method and class, overlay) of every map without a flag.

    The image is the part of `original` that the network saw, at the resolution of the file; without an original it is
    the network's input. Maps are resized to it bilinearly. `mask`: that of the original, in its own pixels, whose
    outline is drawn.
    """
    if entry.image is None:
        return
    below, inside = Image.fromarray(entry.image), entry.mask
    if original is not None:
        box = left, top, right, bottom = seen(geometry, original.size)
        below, inside = original.crop(box), None if mask is None else mask[top:bottom, left:right]
    for block in entry.blocks:
        for row in rows:
            for method in row:
                shown = block.maps.get(method.key)
                if shown is not None and not shown.flag:
                    ending = f"-class-{block.answer.index}" if len(entry.blocks) > 1 else ""
                    yield f"{method.key}{ending}", over(below, method, shown, look, inside)


def seen(geometry: Geometry, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of an image of `size` (width, height) that the network sees, in pixels.

    The coordinates of the pixels are sent through the geometry like a map, so this holds for whatever it does.
    """
    width, height = size
    across = np.broadcast_to(np.arange(width, dtype=np.float32) + 0.5, (height, width))
    down = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None] + 0.5, (height, width))
    left, right = _ends(geometry.map(across)[0].numpy(), width)
    top, bottom = _ends(geometry.map(down)[:, 0].numpy(), height)
    return left, top, right, bottom


def _ends(coordinates: np.ndarray, most: int) -> tuple[int, int]:
    """The first pixel and the one after the last, from the coordinates of the centres of the network's pixels.

    The line through the middle half is continued to both ends: at a border a filter leans inwards.
    """
    count = len(coordinates)
    low, high = count // 4, max(3 * count // 4, 1)
    middle = coordinates[low:high].astype(float)
    step = (middle[-1] - middle[0]) / (len(middle) - 1) if len(middle) > 1 else float(most) / count
    start = middle[0] - step * (low + 0.5)
    first = min(max(round(start), 0), most - 1)
    return first, max(min(round(start + step * count), most), first + 1)
