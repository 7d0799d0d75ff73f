"""Mosaics for the grid pointing game: images of different classes side by side, with the target's cell as mask.

Böhle et al. 2021 (CoDA-Nets), section 4.2. The other images of a mosaic depend on the seed and the image's name, not
on the batch. The paper's mosaics are 3 × 3 images with confident predictions, at the full size of each image: for
that, use a model whose input has the mosaic's size; any other model's geometry shrinks the mosaic.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from heatproof import seeds
from heatproof.data.images import Images
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.memo import cached_property
from heatproof.pixels import Pixels, plain


@dataclass(frozen=True)
class Mosaics:
    """One mosaic for each usable labelled image of `source`; obeys `Images`.

    Attributes:
        cells: along one side.
        pixels: the side of a cell; an image is resized and cropped to it about its centre.
    """

    source: Images
    cells: int = 2
    pixels: int = 224
    seed: int = 0
    title: str = ""
    flags: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.cells < 2 or self.pixels < 1:
            raise InvalidInput(f"`cells` must be at least 2, `pixels` at least 1. Got {self.cells} and {self.pixels}.")
        if len(self._by_class) < self.cells**2:
            raise InvalidInput(
                f"A mosaic of {self.cells} × {self.cells} must have images of {self.cells**2} classes. "
                f"{self.source.name} has labelled images of {len(self._by_class)}."
            )

    @property
    def name(self) -> str:
        """`title`, else the source's name with the number of cells."""
        return self.title or f"{self.source.name} {self.cells}×{self.cells}"

    @cached_property
    def _usable(self) -> list[int]:
        pairs = zip(self.source.ids, self.source.labels, strict=True)
        return [i for i, (id, label) in enumerate(pairs) if label is not None and id not in self.source.flags]

    @cached_property
    def _by_class(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for i in self._usable:
            label = self.source.labels[i]
            assert label is not None
            found.setdefault(label, []).append(i)
        return dict(sorted(found.items()))

    @property
    def ids(self) -> list[str]:
        """The ids of the images in the target's cells."""
        return [self.source.ids[i] for i in self._usable]

    @property
    def labels(self) -> list[int | None]:
        """Their classes: explain with `target="label"`."""
        return [self.source.labels[i] for i in self._usable]

    @property
    def class_names(self) -> list[str] | None:
        """Those of the source."""
        return self.source.class_names

    @property
    def fingerprint(self) -> str:
        """A hash of the source's fingerprint and of the settings."""
        said = repr((self.source.fingerprint, self.cells, self.pixels, self.seed))
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def layout(self, i: int) -> list[int]:
        """Which image of the source lies in each cell, row by row; all of different classes."""
        own = self._usable[i]
        rng = np.random.default_rng(seeds.derived_seed(self.seed, self.ids[i], "mosaic"))
        others = [label for label in self._by_class if label != self.source.labels[own]]
        chosen = rng.permutation(len(others))[: self.cells**2 - 1]
        beside = [int(rng.choice(self._by_class[others[k]])) for k in chosen]
        beside.insert(self._position(i), own)
        return beside

    def _position(self, i: int) -> int:
        """The number of the target's cell, row by row."""
        rng = np.random.default_rng(seeds.derived_seed(self.seed, self.ids[i], "mosaic cell"))
        return int(rng.integers(self.cells**2))

    def open(self, i: int) -> Image.Image | Pixels:
        """Mosaic `i`; raises InvalidImage where one of its images cannot be read, or they are of different types."""
        cells = [plain(self.source.open(image)) for image in self.layout(i)]
        if any(isinstance(cell, Pixels) for cell in cells):
            return _deep_mosaic(cells, self.cells, self.pixels)
        side = self.cells * self.pixels
        mosaic = Image.new("RGBA" if any(cell.mode == "RGBA" for cell in cells) else "RGB", (side, side))  # type: ignore
        for position, cell in enumerate(cells):
            row, column = divmod(position, self.cells)
            mosaic.paste(_square(cell, self.pixels), (column * self.pixels, row * self.pixels))  # type: ignore
        return mosaic

    def mask(self, i: int) -> np.ndarray:
        """The pixels of the target's cell."""
        row, column = divmod(self._position(i), self.cells)
        found = np.zeros((self.cells * self.pixels,) * 2, dtype=bool)
        found[row * self.pixels : (row + 1) * self.pixels, column * self.pixels : (column + 1) * self.pixels] = True
        return found


def of_mosaics(images: Any) -> bool:
    """Whether images are mosaics, or some of them that a limit took; or the name of a set of mosaics."""
    if isinstance(images, str):
        return images.startswith("mosaic:")
    while not isinstance(images, Mosaics) and hasattr(images, "source"):
        images = images.source
    return isinstance(images, Mosaics)


def _deep_mosaic(cells: Sequence[Image.Image | Pixels], across: int, side: int) -> Pixels:
    """Images with more than 8 bits side by side, in the units that they are stored in."""
    kinds = {
        (c.values.dtype, c.white, c.inverted, c.values.shape[2]) if isinstance(c, Pixels) else c.mode for c in cells
    }
    deep = [cell for cell in cells if isinstance(cell, Pixels) and cell.shown is None and cell.alpha is None]
    if len(kinds) != 1 or len(deep) != len(cells):
        raise InvalidImage("a mosaic needs images of one type, range and number of channels, and opaque ones")
    squares = [
        np.stack([np.asarray(_square(Image.fromarray(channel.astype(np.float32)), side))
                  for channel in cell.values.transpose(2, 0, 1)], 2)
        for cell in deep
    ]  # fmt: skip
    rows = [np.concatenate(squares[start : start + across], 1) for start in range(0, len(squares), across)]
    return Pixels(np.concatenate(rows), deep[0].white, None, deep[0].inverted)


def _square(image: Image.Image, side: int) -> Image.Image:
    """The largest square about the centre, resized."""
    least = min(image.size)
    left, top = (image.width - least) / 2, (image.height - least) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + least, top + least))
