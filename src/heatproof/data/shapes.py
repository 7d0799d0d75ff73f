"""Shapes: a circle, square or triangle, filled or outlined, on a busy background, with the ground truth as mask.

Paper R, section 3.4. Class, shape (size, position, rotation), colour and background come from four separate
random streams, and every split has streams and background images of its own: in R's code the colour revealed
the label, and all validation and test backgrounds were also used in training. Only
`Generator.random`, elementary arithmetic, square roots and cosines decide a pixel, so an image is the same
on every machine.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.data.image_opener import open_image
from heatproof.data.image_paths import image_files, printable
from heatproof.errors import InvalidInput
from heatproof.memo import cached_property
from heatproof.seeds import derived_seed

CLASSES = (
    "circle-filled",
    "square-filled",
    "triangle-filled",
    "circle-outline",
    "square-outline",
    "triangle-outline",
)
SPLITS = ("train", "val", "test")
#: The sizes of paper R, for 256 × 256 images: (smallest, largest) in pixels, both included.
PAPER_SIZES = ((80, 99), (40, 49), (20, 24))
#: What the bundled network was trained on: small images, so that the demo is quick.
DEMO: Mapping[str, Any] = {"size": 96, "shape_sizes": ((36, 45), (24, 29)), "seed": 0}
DEMO_IMAGES = {"train": 8192, "val": 256, "test": 600}

#: Contrast rule: at most this share of the background around the shape may lie nearer than `NEAR` to its
#: colour (Euclidean distance in RGB, 0 … 255).
NEAR_SHARE, NEAR = 0.05, 80.0
_COLOUR_TRIES = 100
_LEAVES = 260


@dataclass(frozen=True)
class Shapes:
    """`n` images of one split, each generated when it is opened; obeys `heatproof.data.Images` and can be pickled.

    `shape_sizes` are (smallest, largest) pixel ranges, one of them drawn for each image: the diameter of a
    circle, the side of a square, the height of an equilateral triangle; an outline is `size // 5` thick.
    `backgrounds` is a folder of images, shared out between the splits (`background_files`), or None for
    procedural dead leaves. `title` replaces the name `shapes:SPLIT`. Raises InvalidInput for a split that
    does not exist or a shape that cannot fit.
    """

    split: str
    n: int
    size: int = 256
    shape_sizes: tuple[tuple[int, int], ...] = PAPER_SIZES
    seed: int = 0
    backgrounds: str | Path | None = None
    title: str = ""

    def __post_init__(self):
        if self.split not in SPLITS:
            raise InvalidInput(f"`split` must be one of {', '.join(SPLITS)}. Got {self.split!r}.")
        if self.n < 1:
            raise InvalidInput(f"`n` must be at least 1. Got {self.n}.")
        for low, high in self.shape_sizes or ((0, 0),):
            if not 5 <= low <= high or 2 * _margin(high) > self.size:
                largest = int(self.size / math.sqrt(2)) - 2
                raise InvalidInput(
                    f"`shape_sizes` must be (smallest, largest) pairs between 5 and {largest} pixels for "
                    f"images of {self.size}. Got {self.shape_sizes!r}."
                )

    @property
    def name(self) -> str:
        return self.title or f"shapes:{self.split}"

    @property
    def ids(self) -> list[str]:
        return self._ids

    @property
    def labels(self) -> list[int | None]:
        """Every six images in a row hold each class once, in an order drawn from the class stream."""
        return self._labels

    @cached_property
    def _ids(self) -> list[str]:
        return [f"{self.split}/{i:05d}" for i in range(self.n)]

    @cached_property
    def _labels(self) -> list[int | None]:
        blocks = (self._stream("class", f"{self.split}/{b}") for b in range(math.ceil(self.n / len(CLASSES))))
        orders = (np.argsort(stream.random(len(CLASSES)), kind="stable") for stream in blocks)
        labels: list[int | None] = [int(label) for order in orders for label in order]
        return labels[: self.n]

    @property
    def class_names(self) -> list[str]:
        return list(CLASSES)

    @property
    def flags(self) -> dict[str, str]:
        return {}

    @property
    def fingerprint(self) -> str:
        """A hash of the settings, and of the background files where there are some."""
        files = [digest for digest, _ in self._files]
        settings = (self.split, self.n, self.size, tuple(map(tuple, self.shape_sizes)), self.seed, files)
        return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()

    def pixel_hash(self) -> str:
        """A hash of every pixel: it changes when the generator no longer makes the training images."""
        digest = hashlib.blake2b(digest_size=16)
        for i in range(self.n):
            digest.update(self.open(i).tobytes())
        return digest.hexdigest()

    def open(self, i: int) -> Image.Image:
        """Image `i`, RGB, `size` × `size`."""
        background = self.background(i)
        return Image.fromarray(np.where(self.mask(i)[..., None], self._colour(i, background), background))

    def mask(self, i: int) -> np.ndarray:
        """The drawn pixels, bool `(size, size)`; a pixel is drawn when its centre lies in the shape."""
        label = self.labels[i]
        assert label is not None
        size, centre, angle = self._placed(i)
        return drawn(CLASSES[label], self.size, size, centre, angle)

    def background(self, i: int) -> np.ndarray:
        """The image without its shape, uint8 `(size, size, 3)`."""
        stream = self._stream("background", self.ids[i])
        if self.backgrounds is None:
            return dead_leaves(self.size, stream)
        return _photograph([path for _, path in self._files], self.size, stream)

    def colour(self, i: int) -> np.ndarray:
        """The shape's colour, uint8 `(3,)`: of up to 100 draws the first that stands out from the background around it.

        Where none does, it is the one that stands out most. "Around" is the disc that holds the shape of any class, so
        the colour depends on the background, never on the class.
        """
        return self._colour(i, self.background(i))

    def _colour(self, i: int, background: np.ndarray) -> np.ndarray:
        size, (cy, cx), _ = self._placed(i)
        y, x = _centres(self.size)
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= _margin(size) ** 2
        around = background[disc].astype(np.float64)
        candidates = np.floor(self._stream("colour", self.ids[i]).random((_COLOUR_TRIES, 3)) * 256)
        best, share = candidates[0], 2.0
        for candidate in candidates:
            near = float((((around - candidate) ** 2).sum(1) < NEAR**2).mean())
            if near < share:
                best, share = candidate, near
            if share <= NEAR_SHARE:
                break
        return best.astype(np.uint8)

    def _placed(self, i: int) -> tuple[int, tuple[float, float], float]:
        """Size, centre (y, x) and rotation: the same for every class, and each class fits there."""
        u = self._stream("shape", self.ids[i]).random(5)
        low, high = self.shape_sizes[int(u[0] * len(self.shape_sizes))]
        size = low + int(u[1] * (high - low + 1))
        margin = _margin(size)
        room = self.size - 2 * margin
        return size, (margin + u[2] * room, margin + u[3] * room), u[4] * 2 * math.pi

    def _stream(self, thing: str, item: str) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(derived_seed(self.seed, item, f"shapes {thing}")))

    @cached_property
    def _files(self) -> list[tuple[str, Path]]:
        return [] if self.backgrounds is None else background_files(self.backgrounds, self.split)


def demo_shapes(split: str = "test", n: int | None = None, title: str = "") -> Shapes:
    """The images of the bundled demo: what `shapesnet` was trained (train, val) and is tested (test) on."""
    return Shapes(split, DEMO_IMAGES.get(split, 1) if n is None else n, **DEMO, title=title)


def drawn(kind: str, image: int, size: int, centre: tuple[float, float], angle: float) -> np.ndarray:
    """The pixels of one shape, bool `(image, image)`; `kind` from `CLASSES`, `centre` (y, x)."""
    shape, _, style = kind.partition("-")
    y, x = _centres(image)
    y, x = y - centre[0], x - centre[1]
    cos, sin = math.cos(angle), math.sin(angle)
    depth = _DEPTHS[shape](cos * x + sin * y, cos * y - sin * x, size)
    inside = depth >= 0
    return inside & (depth < size // 5) if style == "outline" else inside


def _circle(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    return size / 2 - np.sqrt(u * u + v * v)


def _square(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    return size / 2 - np.maximum(np.abs(u), np.abs(v))


def _triangle(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    """Equilateral, of height `size`, centred on its centroid, which lies size / 3 from each side."""
    slanted = np.abs(u) * (math.sqrt(3) / 2) - v / 2
    return size / 3 - np.maximum(slanted, v)


#: How deep inside the shape a point lies, in pixels; negative outside.
_DEPTHS = {"circle": _circle, "square": _square, "triangle": _triangle}


def _margin(size: int) -> float:
    """Half the box that holds every shape of this size however turned (half a square's diagonal)."""
    return size / math.sqrt(2) + 1


def _centres(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(size) + 0.5
    return line[:, None], line[None, :]


def dead_leaves(size: int, stream: np.random.Generator) -> np.ndarray:
    """Opaque bent leaves over one another, uint8 `(size, size, 3)`; edges and scales as in natural images.

    Radii follow the density r⁻³ between size/24 and size/2 (Lee, Mumford & Huang 2001: scale invariance). A
    leaf is {u² + ((v + b(u² − ½)) / a)² ≤ 1} with a ≤ .6, so none is a circle, a square or a triangle. Half
    of each leaf's colour is the image's own tint.
    """
    tint = stream.random(3)
    u = stream.random((_LEAVES, 10))
    low, high = size / 24, size / 2
    radius = 1 / np.sqrt(low**-2 - u[:, 0] * (low**-2 - high**-2))
    cy, cx = ((u[:, k] * 1.4 - 0.2) * size for k in (1, 2))
    colours = np.floor((u[:, 3:6] + tint) * 127.99).astype(np.uint8)
    aspect, bend = 0.3 + 0.3 * u[:, 6], 1.6 * u[:, 7] - 0.8
    turn = 2 * math.pi * u[:, 8]
    cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = np.floor((tint + 0.5) * 127.99).astype(np.uint8)
    line = np.arange(size) + 0.5
    for k in range(_LEAVES):
        reach = 1.45 * radius[k]
        top, bottom = max(0, int(cy[k] - reach)), min(size, int(cy[k] + reach) + 1)
        left, right = max(0, int(cx[k] - reach)), min(size, int(cx[k] + reach) + 1)
        if top >= bottom or left >= right:
            continue
        y, x = (line[top:bottom] - cy[k])[:, None], line[left:right] - cx[k]
        along, across = cos[k] * x + sin[k] * y, cos[k] * y - sin[k] * x
        squared = along * along
        bent = (across + bend[k] * (squared - 0.5)) / aspect[k]
        canvas[top:bottom, left:right][squared + bent * bent <= 1] = colours[k]
    return canvas


def background_files(folder: str | Path, split: str) -> list[tuple[str, Path]]:
    """(content hash, path) of the images in `folder` for `split`: ⅕ test, ⅒ val, the rest train.

    Files are shared out in the order of their content's hash and a content counts once, so copies of a
    image under two names cannot land in two splits. Raises InvalidInput for fewer than three different
    images.
    """
    by_content: dict[str, Path] = {}
    for path in image_files(Path(folder)):
        by_content.setdefault(hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(), path)
    files = sorted(by_content.items())
    if len(files) < 3:
        raise InvalidInput(
            f"`backgrounds` must hold at least 3 different images, one for each split. "
            f"Got {len(files)} in {printable(folder)}."
        )
    test = max(1, len(files) // 5)
    val = max(1, len(files) // 10)
    parts = {"test": files[:test], "val": files[test : test + val], "train": files[test + val :]}
    return parts[split]


def _photograph(files: list[Path], size: int, stream: np.random.Generator) -> np.ndarray:
    """A random square of a random image, mirrored at random, uint8 `(size, size, 3)`."""
    u = stream.random(5)
    image = open_image(files[int(u[0] * len(files))])
    side = max(1, int(min(image.size) * (0.5 + 0.5 * u[1])))
    left, top = int(u[2] * (image.width - side + 1)), int(u[3] * (image.height - side + 1))
    square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(square)
    return pixels[:, ::-1] if u[4] < 0.5 else pixels
