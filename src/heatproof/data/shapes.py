"""Shapes: a circle, square or triangle, filled or outlined, on a busy background, with the ground truth as mask.

Paper R, section 3.4. Class, shape (size, position, rotation), colour and background come from four separate
random streams, and every split has streams and background images of its own: in R's code the colour revealed
the label, and all validation and test backgrounds were also used in training. An image is the same on every
machine (`data.shape_drawing`). Harder sets than paper R's: `data.clutter`.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from heatproof.data.clutter import KINDS, Painter, Scene
from heatproof.data.drawn_images import DrawnImages
from heatproof.data.image_opener import header_size, open_image
from heatproof.data.image_paths import image_files, printable
from heatproof.data.shape_drawing import CLASSES, dead_leaves, drawn, margin, standing_out
from heatproof.errors import InvalidInput, warn
from heatproof.memo import cached_property
from heatproof.registry import unknown

SPLITS = ("train", "val", "test")
#: Ranges of sizes in pixels: (smallest, largest), both included.
Sizes = tuple[tuple[int, int], ...]
#: The sizes of paper R, for 256 × 256 images: (smallest, largest) in pixels, both included.
PAPER_SIZES = ((80, 99), (40, 49), (20, 24))
#: The numbers of images of paper R.
PAPER_IMAGES = {"train": 4096, "val": 64, "test": 600}
#: What the bundled network was trained on: small images, so that the demo is quick.
DEMO: Mapping[str, Any] = {"size": 96, "shape_sizes": ((36, 45), (24, 29)), "seed": 0}
DEMO_IMAGES = {"train": 8192, "val": 256, "test": 600}


@dataclass(frozen=True)
class Shapes(DrawnImages):
    """`n` images of one split, each generated when it is opened; obeys `heatproof.data.Images` and can be pickled.

    `shape_sizes` are (smallest, largest) pixel ranges, one of them drawn for each image: the diameter of a
    circle, the side of a square, the height of an equilateral triangle; an outline is `size // 5` thick.
    `backgrounds` is a folder of images, shared out between the splits (`background_files`), or None for
    procedural dead leaves. `clutter` names what makes an image harder (`data.clutter.KINDS`). `title` replaces the name
    `shapes:SPLIT`. Raises InvalidInput for a split that does not exist or a shape that cannot fit, UnknownName for an
    unknown clutter.
    """

    kind_of_set: ClassVar[str] = "shapes"
    classes: ClassVar[tuple[str, ...]] = CLASSES

    split: str
    n: int
    size: int = 256
    shape_sizes: Sizes = PAPER_SIZES
    seed: int = 0
    backgrounds: str | Path | None = None
    title: str = ""
    clutter: tuple[str, ...] = ()

    def __post_init__(self):
        for name in self.clutter:
            if name not in KINDS:
                raise unknown("clutter of shapes", name, KINDS)
        if self.split not in SPLITS:
            raise InvalidInput(f"`split` must be one of {', '.join(SPLITS)}. Got {self.split!r}.")
        if self.n < 1:
            raise InvalidInput(f"`n` must be at least 1. Got {self.n}.")
        for low, high in self.shape_sizes or ((0, 0),):
            if not 5 <= low <= high or 2 * margin(high) > self.size:
                largest = int(self.size / math.sqrt(2)) - 2
                raise InvalidInput(
                    f"`shape_sizes` must be (smallest, largest) pairs between 5 and {largest} pixels for "
                    f"images of {self.size}. Got {self.shape_sizes!r}."
                )

    @property
    def fingerprint(self) -> str:
        """A hash of the settings, and of the background files where there are some."""
        files = [digest for digest, _ in self.photographs]
        settings = (self.split, self.n, self.size, tuple(map(tuple, self.shape_sizes)), self.seed, files)
        settings += (tuple(sorted(self.clutter)),) if self.clutter else ()
        return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()

    def open(self, i: int) -> Image.Image:
        """Image `i`, RGB, `size` × `size`."""
        return Image.fromarray(self.scene(i).pixels)

    def mask(self, i: int) -> np.ndarray:
        """The pixels that decide the class, bool `(size, size)`: those drawn whose centre lies in the shape.

        With clutter those that are visible, of all objects of the class; with `shortcut` those of the cross.
        """
        return self.scene(i).mask if self.clutter else self._drawn(i)

    def scene(self, i: int) -> Scene:
        """The pixels of image `i`, which of them decide its class, and the background behind."""
        background, mask = self.background(i), self._drawn(i)
        size, centre, _ = self._placed(i)
        pixels = np.where(mask[..., None], self._colour(i, background), background)
        found = Scene(pixels, mask, background, ((centre, margin(size)),))
        for name in KINDS:
            if name in self.clutter:
                found = KINDS[name](found, self._painter(i, name))
        return found

    def _drawn(self, i: int) -> np.ndarray:
        size, centre, angle = self._placed(i)
        return drawn(self.kind(i), self.size, size, centre, angle)

    def _painter(self, i: int, name: str) -> Painter:
        label = self.labels[i]
        assert label is not None
        return Painter(label, self.kind(i), self.shape_sizes, self._stream(name, self.ids[i]))

    def kind(self, i: int) -> str:
        """The shape that is drawn: that of the label; with `shortcut` any, independent of it."""
        label = self.labels[i]
        assert label is not None
        if "shortcut" in self.clutter:
            label = int(self._stream("decoy", self.ids[i]).random() * len(CLASSES))
        return CLASSES[label]

    def background(self, i: int) -> np.ndarray:
        """The image without its shape, uint8 `(size, size, 3)`."""
        stream = self._stream("background", self.ids[i])
        if self.backgrounds is None:
            return dead_leaves(self.size, stream)
        return _photograph([path for _, path in self.photographs], self.size, stream)

    def colour(self, i: int) -> np.ndarray:
        """The shape's colour, uint8 `(3,)`: of up to 100 draws the first that stands out from the background around it.

        Where none does, it is the one that stands out most. "Around" is the disc that holds the shape of any class, so
        the colour depends on the background, never on the class.
        """
        return self._colour(i, self.background(i))

    def _colour(self, i: int, background: np.ndarray) -> np.ndarray:
        size, centre, _ = self._placed(i)
        return standing_out(background, centre, size, self._stream("colour", self.ids[i]))

    def _placed(self, i: int) -> tuple[int, tuple[float, float], float]:
        """Size, centre (y, x) and rotation: the same for every class, and each class fits there."""
        u = self._stream("shape", self.ids[i]).random(5)
        low, high = self.shape_sizes[int(u[0] * len(self.shape_sizes))]
        size = low + int(u[1] * (high - low + 1))
        edge = margin(size)
        room = self.size - 2 * edge
        return size, (edge + u[2] * room, edge + u[3] * room), u[4] * 2 * math.pi

    @cached_property
    def photographs(self) -> list[tuple[str, Path]]:
        """Content hash and path of the images that backgrounds are cut from; none where they are procedural."""
        return [] if self.backgrounds is None else background_files(self.backgrounds, self.split, self.size)


def paper_shapes(
    split: str = "test", n: int | None = None, size: int = 256, shape_sizes: Sizes | None = None, **more: Any
) -> Shapes:
    """The set of paper R: its numbers of images and, for another size of images, its sizes of shapes in proportion.

    `shape_sizes`: other sizes of shapes, see `parsed_sizes`. `more`: further fields of `Shapes`.
    """
    scaled = tuple((max(5, round(low * size / 256)), max(5, round(high * size / 256))) for low, high in PAPER_SIZES)
    sizes = scaled if shape_sizes is None else shape_sizes
    return Shapes(split, PAPER_IMAGES.get(split, 1) if n is None else n, size, sizes, **more)


def parsed_sizes(text: str) -> Sizes | None:
    """`36-45,24-29` as sizes of shapes, ((36, 45), (24, 29)); None for an empty text.

    Raises:
        InvalidInput: another form.
    """
    if not text.strip():
        return None
    found = [re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", part) for part in text.split(",")]
    if not all(found):
        raise InvalidInput(f"Sizes of shapes must be ranges of pixels with commas, such as 36-45,24-29. Got {text!r}.")
    return tuple((int(one[1]), int(one[2])) for one in found if one)


def demo_shapes(split: str = "test", n: int | None = None, title: str = "") -> Shapes:
    """The images of the bundled demo: what `shapesnet` was trained (train, val) and is tested (test) on."""
    return Shapes(split, DEMO_IMAGES.get(split, 1) if n is None else n, **DEMO, title=title)


def background_files(folder: str | Path, split: str, size: int = 0) -> list[tuple[str, Path]]:
    """(content hash, path) of the images in `folder` for `split`: ⅕ test, ⅒ val, the rest train.

    Files are shared out in the order of their content's hash and a content counts once, so copies of a
    image under two names cannot land in two splits. Files that are no images are left out, with a warning. There is
    a warning too where the split has one image alone, and where images are smaller than `size`, the side to be filled.

    Raises:
        InvalidInput: fewer than three different images.
    """
    by_content: dict[str, Path] = {}
    strange: list[Path] = []
    small: set[Path] = set()
    if not Path(folder).is_dir():
        raise InvalidInput(f"`backgrounds` must be a folder of images. There is no folder {printable(folder)}.")
    for path in image_files(Path(folder)):
        found = header_size(path)
        if found is None:
            strange.append(path)
            continue
        if min(found) < size:
            small.add(path)
        by_content.setdefault(hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(), path)
    files = sorted(by_content.items())
    if strange:
        more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        warn(f"Backgrounds that cannot be opened are left out: {printable(strange[0])}{more}.")
    if len(files) < 3:
        raise InvalidInput(
            f"`backgrounds` must hold at least 3 different images, one for each split. "
            f"Got {len(files)} in {printable(folder)}."
        )
    test = max(1, len(files) // 5)
    val = max(1, len(files) // 10)
    mine = {"test": files[:test], "val": files[test : test + val], "train": files[test + val :]}[split]
    if enlarged := sum(path in small for _, path in mine):
        warn(
            f"{enlarged} of the {len(mine)} backgrounds for `{split}` are smaller than the images, {size} pixels, and "
            "are enlarged, which blurs them. Give larger ones, or smaller images."
        )
    if len(mine) == 1:
        warn(
            f"`{split}` has one background for all its images, as {printable(folder)} holds {len(files)}. With at "
            "least 20 every split has several."
        )
    return mine


def _photograph(files: list[Path], size: int, stream: np.random.Generator) -> np.ndarray:
    """A random square of a random image, mirrored at random, uint8 `(size, size, 3)`."""
    u = stream.random(5)
    image = open_image(files[int(u[0] * len(files))])
    side = max(1, int(min(image.size) * (0.5 + 0.5 * u[1])))
    left, top = int(u[2] * (image.width - side + 1)), int(u[3] * (image.height - side + 1))
    square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(square)
    return pixels[:, ::-1] if u[4] < 0.5 else pixels
