"""What creatures are drawn of: a body, five kinds of parts in three variants each, and distractors.

A figure is a list of primitives in the creature's own coordinates: the body's half length is 1, `u` points forward and
`v` down. Only elementary arithmetic, square roots and cosines decide a pixel, so an image is the same on every machine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heatproof.data.shape_drawing import centres

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


def disc(u0: float, v0: float, ru: float, rv: float) -> Inside:
    """An ellipse with its axes along `u` and `v`."""
    return lambda u, v: ((u - u0) / ru) ** 2 + ((v - v0) / rv) ** 2 <= 1


def bar(u0: float, v0: float, u1: float, v1: float, width: float) -> Inside:
    """All points within `width` of a segment."""
    du, dv = u1 - u0, v1 - v0
    length = du * du + dv * dv

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        along = np.clip(((u - u0) * du + (v - v0) * dv) / length, 0, 1)
        return (u - u0 - along * du) ** 2 + (v - v0 - along * dv) ** 2 <= width * width

    return inside


def polygon(*corners: tuple[float, float]) -> Inside:
    """A convex polygon by its corners (u, v), clockwise as seen with `v` down."""

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        found = np.ones(np.broadcast(u, v).shape, bool)
        for (u0, v0), (u1, v1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            found &= (u1 - u0) * (v - v0) - (v1 - v0) * (u - u0) >= 0
        return found

    return inside


BODY: tuple[Inside, ...] = (disc(0, 0, 1, 0.75),)
#: Part → its variants; kinds in the order in which they are drawn over the body.
FIGURES: Mapping[str, tuple[tuple[Inside, ...], ...]] = {
    "horns": (
        (bar(0.5, -0.6, 0.75, -1.45, 0.13), bar(0.15, -0.7, 0.2, -1.45, 0.13)),
        (bar(0.35, -0.65, 0.5, -1.1, 0.1), disc(0.55, -1.32, 0.3, 0.3)),
        (polygon((0.0, -0.72), (-0.1, -1.3), (0.9, -1.3), (0.75, -0.55)),),
    ),
    "wings": (
        (polygon((-0.15, -0.15), (-0.75, -0.3), (-0.75, -1.55)),),
        (disc(-0.6, -0.85, 0.5, 0.62),),
        (bar(-0.25, -0.45, -0.25, -1.4, 0.13), bar(-0.6, -0.35, -0.6, -1.3, 0.13), bar(-0.95, -0.2, -0.95, -1.1, 0.13)),
    ),
    "tail": (
        (bar(-0.95, 0.1, -1.6, 0.0, 0.11), disc(-1.75, -0.05, 0.3, 0.3)),
        (polygon((-0.9, 0.1), (-1.85, 0.75), (-1.85, -0.5)),),
        (bar(-0.95, 0.1, -1.8, -0.5, 0.13), bar(-0.95, 0.15, -1.8, 0.7, 0.13)),
    ),
    "legs": (
        (bar(-0.4, 0.6, -0.4, 1.45, 0.11), bar(0.4, 0.6, 0.4, 1.45, 0.11)),
        (disc(-0.42, 0.98, 0.33, 0.33), disc(0.42, 0.98, 0.33, 0.33)),
        (polygon((-0.75, 1.05), (-0.55, 0.6), (0.55, 0.6), (0.75, 1.05)),),
    ),
    "eyes": (
        (disc(0.36, -0.12, 0.2, 0.2), disc(0.74, -0.08, 0.2, 0.2)),
        (bar(0.3, -0.3, 0.3, 0.18, 0.1), bar(0.7, -0.3, 0.7, 0.18, 0.1)),
        (polygon((0.15, -0.22), (0.92, -0.22), (0.86, 0.1), (0.2, 0.1)),),
    ),
}
#: The colours of the variants: none belongs to one kind of part alone.
PALETTE = ((214, 60, 48), (52, 96, 214), (240, 198, 40))
#: Part → which colour of the palette each variant has.
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "horns": (0, 1, 2),
    "wings": (1, 2, 0),
    "tail": (2, 0, 1),
    "legs": (1, 0, 2),
    "eyes": (2, 1, 0),
}
#: The figures of distractors; their half size is 1.
DISTRACTORS: tuple[tuple[Inside, ...], ...] = (
    (bar(-0.8, 0, 0.8, 0, 0.22), bar(0, -0.8, 0, 0.8, 0.22)),
    (polygon((-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)),),
    (disc(0, 0, 0.95, 0.55),),
    (polygon((0, -0.95), (0.85, 0.6), (-0.85, 0.6)),),
)
#: Around the body's centre, in half lengths of it: a disc that holds the creature whatever its parts.
REACH = 2.1


@dataclass(frozen=True)
class Pose:
    """Where a figure is: centre (y, x) and unit in pixels, its turn in radians, and whether it looks to the left."""

    y: float
    x: float
    unit: float
    angle: float = 0.0
    mirrored: bool = False


def drawn_figure(figure: Sequence[Inside], size: int, pose: Pose) -> np.ndarray:
    """The pixels whose centre lies in the figure, bool `(size, size)`."""
    y, x = centres(size)
    y, x = (y - pose.y) / pose.unit, (x - pose.x) / pose.unit
    x = -x if pose.mirrored else x
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    u, v = cos * x + sin * y, cos * y - sin * x
    found = np.zeros((size, size), bool)
    for primitive in figure:
        found |= primitive(u, v)
    return found
