"""Creatures: a body with horns, wings, tail, legs and eyes, whose variants are the class, and objects beside it.

After FunnyBirds (Hesse et al. 2023), without a download. Twelve classes have three variants of five parts. Two classes
share at most two parts, and every variant belongs to four classes, so the evidence for a class is two or three parts.
Class, pose and colours, background and distractors come from four separate random streams, and every split has streams
of its own. Any parts and distractors can be left out; every other pixel stays the same.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from heatproof.data.creature_drawing import (
    BODY,
    COLOURS,
    DISTRACTORS,
    FIGURES,
    PALETTE,
    REACH,
    Pose,
    drawn_figure,
)
from heatproof.data.drawn_images import DrawnImages
from heatproof.data.part_images import Parts, PartTable
from heatproof.data.shape_drawing import dead_leaves
from heatproof.errors import InvalidInput

KINDS = ("horns", "wings", "tail", "legs", "eyes")
#: Class → the variant of each kind: a code in which two classes share at most two parts.
CODE = (
    (0, 0, 2, 1, 0), (0, 1, 1, 1, 2), (0, 2, 0, 0, 0), (0, 2, 1, 2, 1), (1, 0, 1, 2, 2), (1, 1, 2, 2, 0),
    (1, 2, 0, 1, 2), (1, 2, 2, 0, 1), (2, 0, 0, 0, 2), (2, 0, 2, 2, 1), (2, 1, 0, 1, 0), (2, 1, 1, 0, 1),
)  # fmt: skip
NAMES = ("arn", "bex", "cob", "dru", "elf", "fip", "gor", "hux", "irk", "jol", "kip", "lum")
TABLE = PartTable(KINDS, CODE)
#: The numbers of images of each split.
IMAGES = {"train": 4000, "val": 250, "test": 500}
#: How many distractors an image has at least and at most, where there is room for them.
DISTRACTOR_COUNT = (2, 4)
#: Places that are tried for a distractor.
_TRIES = 60


class Layer(NamedTuple):
    """One thing of an image: its name, the pixels it covers and its colour, uint8 `(3,)`."""

    name: str
    covers: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Creatures(DrawnImages):
    """`n` images of one split, each drawn when it is opened; obeys `heatproof.data.Images` and can be pickled.

    `title` replaces the name `creatures:SPLIT`. Raises InvalidInput for a split that does not exist or a size below 48.
    """

    kind_of_set: ClassVar[str] = "creatures"
    classes: ClassVar[tuple[str, ...]] = NAMES

    split: str
    n: int
    size: int = 96
    seed: int = 0
    title: str = ""

    def __post_init__(self) -> None:
        if self.split not in IMAGES:
            raise InvalidInput(f"`split` must be one of {', '.join(IMAGES)}. Got {self.split!r}.")
        if self.n < 1:
            raise InvalidInput(f"`n` must be at least 1. Got {self.n}.")
        if self.size < 48:
            raise InvalidInput(f"`size` must be at least 48 pixels, as parts are a tenth of it. Got {self.size}.")

    @property
    def fingerprint(self) -> str:
        """A hash of the settings."""
        settings = ("creatures", self.split, self.n, self.size, self.seed)
        return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()

    def open(self, i: int) -> Image.Image:
        """Image `i`, RGB, `size` × `size`."""
        return self.parts(i).without(frozenset())

    def mask(self, i: int) -> np.ndarray:
        """The pixels that decide the class, bool `(size, size)`: those of all parts, without the body."""
        masks = self.parts(i).masks()
        return np.logical_or.reduce([masks[kind] for kind in KINDS])

    @property
    def part_table(self) -> PartTable:
        """The variants of every class."""
        return TABLE

    def parts(self, i: int) -> "Creature":
        """Image `i` with its parts."""
        label = self.labels[i]
        assert label is not None
        distractors = tuple(self._distractors(i))
        return Creature(label, self._background(i), (*distractors, *self._figure(i, label)))

    def _background(self, i: int) -> np.ndarray:
        """Dead leaves at half their contrast, uint8 `(size, size, 3)`."""
        return 64 + dead_leaves(self.size, self._stream("background", self.ids[i])) // 2

    def _pose(self, i: int) -> tuple[Pose, np.random.Generator]:
        """The pose, and the stream from which colours follow; the same whatever the class."""
        stream = self._stream("creature", self.ids[i])
        u = stream.random(5)
        unit = self.size * (0.145 + 0.035 * u[0])
        y, x = (self.size * (0.44 + 0.12 * share) for share in u[1:3])
        return Pose(y, x, unit, 0.7 * u[3] - 0.35, bool(u[4] < 0.5)), stream

    def _figure(self, i: int, label: int) -> list[Layer]:
        """The body, then the parts over it; each colour is drawn whatever the variant."""
        pose, stream = self._pose(i)
        body = np.floor(96 + 64 * stream.random(3))
        found = [Layer("body", drawn_figure(BODY, self.size, pose), body.astype(np.uint8))]
        for kind, variant in zip(KINDS, CODE[label], strict=True):
            colour = _near(PALETTE[COLOURS[kind][variant]], stream)
            found.append(Layer(kind, drawn_figure(FIGURES[kind][variant], self.size, pose), colour))
        return found

    def _distractors(self, i: int) -> list[Layer]:
        """Two to four objects beside the disc that holds any creature in this pose, in the colours of parts."""
        pose, _ = self._pose(i)
        stream = self._stream("distractors", self.ids[i])
        low, high = DISTRACTOR_COUNT
        taken, found = [(pose.y, pose.x, REACH * pose.unit)], []
        for number in range(low + int(stream.random() * (high - low + 1))):
            u, radius = stream.random(3), self.size * (0.05 + 0.03 * stream.random())
            figure = DISTRACTORS[int(u[0] * len(DISTRACTORS))]
            colour = _near(PALETTE[int(u[1] * len(PALETTE))], stream)
            place = _free(taken, radius, self.size, stream)
            if place is not None:
                taken.append((*place, radius))
                covers = drawn_figure(figure, self.size, Pose(*place, radius, 2 * math.pi * u[2]))
                found.append(Layer(f"distractor-{number}", covers, colour))
        return found


@dataclass(frozen=True)
class Creature:
    """One image and its parts; obeys `data.part_images.PartImage`. `layers` are drawn one over the other."""

    label: int
    background: np.ndarray
    layers: tuple[Layer, ...]

    @property
    def table(self) -> PartTable:
        return TABLE

    @property
    def distractors(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers if layer.name not in (*KINDS, "body"))

    def masks(self) -> Mapping[str, np.ndarray]:
        """Name → its visible pixels."""
        found: dict[str, np.ndarray] = {}
        for layer in self.layers:
            found = {name: mask & ~layer.covers for name, mask in found.items()}
            found[layer.name] = layer.covers
        return {name: found[name] for name in (*KINDS, *self.distractors)}

    def without(self, names: Parts) -> Image.Image:
        """The image without these parts or distractors.

        Raises:
            InvalidInput: a name that is neither.
        """
        if unknown := sorted(names - {*KINDS, *self.distractors}):
            raise InvalidInput(f"Expected parts among {', '.join((*KINDS, *self.distractors))}. Got {unknown[0]!r}.")
        pixels: Any = self.background
        for layer in self.layers:
            if layer.name not in names:
                pixels = np.where(layer.covers[..., None], layer.colour, pixels)
        return Image.fromarray(pixels)


def demo_creatures(split: str = "test", n: int | None = None, title: str = "") -> Creatures:
    """The images on which the bundled network `creatures` was trained (train, val) and is tested (test)."""
    return Creatures(split, IMAGES.get(split, 1) if n is None else n, title=title)


def _near(colour: tuple[int, int, int], stream: np.random.Generator) -> np.ndarray:
    """A colour near another: each channel is moved by up to 24."""
    moved = np.array(colour) + np.floor(49 * stream.random(3)) - 24
    return np.clip(moved, 0, 255).astype(np.uint8)


def _free(
    taken: list[tuple[float, float, float]], radius: float, size: int, stream: np.random.Generator
) -> tuple[float, float] | None:
    """The first of some random places (y, x) whose disc meets none of those taken; None where there is none."""
    for u, v in stream.random((_TRIES, 2)):
        y, x = radius + u * (size - 2 * radius), radius + v * (size - 2 * radius)
        if all((y - cy) ** 2 + (x - cx) ** 2 >= (radius + far) ** 2 for cy, cx, far in taken):
            return float(y), float(x)
    return None
