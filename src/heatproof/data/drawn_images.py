"""What sets of images that are drawn on demand share: names, balanced labels, random streams, a hash of all pixels."""

import hashlib
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from PIL import Image

from heatproof.memo import cached_property
from heatproof.seeds import derived_seed


class DrawnImages(ABC):
    """The part of `heatproof.data.Images` that does not depend on what is drawn; see `Shapes` and `Creatures`.

    kind_of_set: its name, in names and random streams. classes: the names of the classes.
    """

    kind_of_set: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    split: str
    n: int
    seed: int
    title: str

    @abstractmethod
    def open(self, i: int) -> Image.Image:
        """Image `i`, RGB."""

    @property
    def name(self) -> str:
        return self.title or f"{self.kind_of_set}:{self.split}"

    @property
    def ids(self) -> list[str]:
        return self._ids

    @property
    def labels(self) -> list[int | None]:
        """As many images in a row as there are classes hold each class once, in an order from the class stream."""
        return self._labels

    @cached_property
    def _ids(self) -> list[str]:
        return [f"{self.split}/{i:05d}" for i in range(self.n)]

    @cached_property
    def _labels(self) -> list[int | None]:
        count = len(self.classes)
        blocks = (self._stream("class", f"{self.split}/{b}") for b in range(math.ceil(self.n / count)))
        orders = (np.argsort(stream.random(count), kind="stable") for stream in blocks)
        labels: list[int | None] = [int(label) for order in orders for label in order]
        return labels[: self.n]

    @property
    def class_names(self) -> list[str]:
        return list(self.classes)

    @property
    def flags(self) -> dict[str, str]:
        return {}

    def pixel_hash(self) -> str:
        """A hash of every pixel: it changes when the generator no longer makes the training images."""
        digest = hashlib.blake2b(digest_size=16)
        for i in range(self.n):
            digest.update(self.open(i).tobytes())
        return digest.hexdigest()

    def _stream(self, thing: str, item: str) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(derived_seed(self.seed, item, f"{self.kind_of_set} {thing}")))
