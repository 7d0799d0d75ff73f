"""What makes an image of Shapes harder than paper R's: more objects, something in front, a shortcut.

Every kind is a function of the scene so far and a `Painter`; it gives the next scene. None of what it adds depends on
the class, except the objects and the cross that decide the class and are in the mask. So whatever is outside the mask
says nothing about the label.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from heatproof.data.shape_drawing import CLASSES, centres, dead_leaves, drawn, margin, standing_out

Point = tuple[float, float]
#: Places that are tried for a further object; where all are taken, it is left out.
_TRIES = 60
#: The colours of a shortcut's cross, by class.
CROSS_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))


@dataclass(frozen=True)
class Scene:
    """An image and its ground truth.

    Attributes:
        pixels: uint8 `(size, size, 3)`.
        mask: bool `(size, size)`, the pixels that decide the class.
        background: the pixels behind the objects.
        discs: centre (y, x) and radius of a disc around each object, the main one first.
    """

    pixels: np.ndarray
    mask: np.ndarray
    background: np.ndarray
    discs: tuple[tuple[Point, float], ...]

    @property
    def hidden(self) -> np.ndarray:
        """The image without the pixels that decide its class: those of the background are in their place."""
        return np.where(self.mask[..., None], self.background, self.pixels)


@dataclass(frozen=True)
class Painter:
    """What a kind of clutter may know.

    Attributes:
        label: the class. kind: the shape of the main object; with a shortcut it does not depend on the label.
        shape_sizes: (smallest, largest) ranges. stream: random numbers of its own.
    """

    label: int
    kind: str
    shape_sizes: tuple[tuple[int, int], ...]
    stream: np.random.Generator

    def place(self, scene: Scene, radius: float) -> Point | None:
        """The first of some random places where a disc meets no other; None where there is none."""
        room = len(scene.mask) - 2 * radius
        for u, v in self.stream.random((_TRIES, 2)):
            centre = (radius + u * room, radius + v * room)
            if all(_distance(centre, other) >= radius + far for other, far in scene.discs):
                return centre
        return None

    def add(self, scene: Scene, kind: str, size: int, decides: bool) -> Scene:
        """The scene with one more object, where there is room for it."""
        angle = 2 * math.pi * self.stream.random()
        centre = self.place(scene, margin(size))
        if centre is None:
            return scene
        colour = standing_out(scene.pixels, centre, size, self.stream)
        there = drawn(kind, len(scene.mask), size, centre, angle)
        return replace(
            scene,
            pixels=np.where(there[..., None], colour, scene.pixels),
            mask=scene.mask | there if decides else scene.mask,
            discs=(*scene.discs, (centre, margin(size))),
        )

    def smaller(self, scene: Scene) -> int:
        """A size for an object that does not decide: at most .6 of the main one's, at least 5 pixels."""
        main = (scene.discs[0][1] - 1) * math.sqrt(2)
        return max(5, int(main * (0.4 + 0.2 * self.stream.random())))


def several(scene: Scene, painter: Painter) -> Scene:
    """One or two more objects of the class, of any size of the set; the mask holds all of them."""
    for _ in range(1 + int(painter.stream.random() * 2)):
        low, high = painter.shape_sizes[int(painter.stream.random() * len(painter.shape_sizes))]
        size = low + int(painter.stream.random() * (high - low + 1))
        scene = painter.add(scene, painter.kind, size, decides=True)
    return scene


def others(scene: Scene, painter: Painter) -> Scene:
    """One to three smaller objects of classes that do not depend on the label; the largest object decides."""
    for _ in range(1 + int(painter.stream.random() * 3)):
        kind = CLASSES[int(painter.stream.random() * len(CLASSES))]
        scene = painter.add(scene, kind, painter.smaller(scene), decides=False)
    return scene


def occlusion(scene: Scene, painter: Painter) -> Scene:
    """A piece of another background lies over 20–40 % of the main object's disc; the mask keeps what is visible."""
    (cy, cx), radius = scene.discs[0]
    depth, angle = 0.2 + 0.2 * painter.stream.random(), 2 * math.pi * painter.stream.random()
    y, x = centres(len(scene.mask))
    along = math.cos(angle) * (x - cx) + math.sin(angle) * (y - cy)
    across = math.cos(angle) * (y - cy) - math.sin(angle) * (x - cx)
    covered = (along >= radius * (1 - 2 * depth)) & (along <= radius + 2) & (np.abs(across) <= radius + 2)
    front = dead_leaves(len(scene.mask), painter.stream)
    return replace(scene, pixels=np.where(covered[..., None], front, scene.pixels), mask=scene.mask & ~covered)


def shortcut(scene: Scene, painter: Painter) -> Scene:
    """A small cross whose colour is the class; the objects do not depend on it. The mask is the cross."""
    size = len(scene.mask)
    arm = max(3, size // 20)
    centre = painter.place(scene, arm + 1) or _far_corner(scene, arm + 1)
    y, x = (np.floor(np.abs(line - at)) for line, at in zip(centres(size), centre, strict=True))
    thick = max(1, arm // 3)
    cross = ((y < thick) & (x < arm)) | ((x < thick) & (y < arm))
    colour = np.array(CROSS_COLOURS[painter.label], np.uint8)
    return replace(scene, pixels=np.where(cross[..., None], colour, scene.pixels), mask=cross)


#: The kinds of clutter, in the order in which they are added.
KINDS: Mapping[str, Callable[[Scene, Painter], Scene]] = {
    "several": several,
    "others": others,
    "occlusion": occlusion,
    "shortcut": shortcut,
}


def _distance(a: Point, b: Point) -> float:
    return math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)


def _far_corner(scene: Scene, radius: float) -> Point:
    """The corner farthest from the main object: always room for a small cross."""
    ends = (radius, len(scene.mask) - radius)
    return max(((y, x) for y in ends for x in ends), key=lambda corner: _distance(corner, scene.discs[0][0]))
