"""Which images a limit takes: some of every class, drawn by the seed, or the first in the dataset's order.

The choice depends on the seed and on the images' names and labels alone, so every study of that seed takes the same
images, and a smaller limit takes a part of those that a larger one takes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from heatproof.data.folder import ImageFolder
from heatproof.data.images import Images
from heatproof.data.part_images import PartImage, PartTable, part_image, part_table
from heatproof.errors import InvalidInput
from heatproof.memo import cached_property
from heatproof.pixels import Pixels
from heatproof.seeds import derived_seed

#: How a limit chooses: some of every class, drawn by the seed; or the first in the dataset's order.
SAMPLING = ("stratified", "first")


def sampled(
    ids: Sequence[str], labels: Sequence[int | None], limit: int | None, seed: int = 0, sampling: str = "stratified"
) -> list[int]:
    """The positions of the images that a limit takes, ascending; all of them without a limit.

    `stratified`: one image of every class comes first, then classes take turns so that their shares approach those of
    the whole set (the divisor method of Huntington and Hill). The order of the images of a class, and of the classes
    where they are level, is drawn by the seed. Images without a label count as one class.

    Raises:
        InvalidInput: a limit below 1, or an unknown `sampling`.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"`limit` must be at least 1. Got {limit}.")
    if sampling not in SAMPLING:
        raise InvalidInput(f"`sampling` must be {' or '.join(SAMPLING)}. Got {sampling!r}.")
    if limit is None or limit >= len(ids) or sampling == "first":
        return list(range(len(ids)))[:limit]
    counts, seen = Counter(labels), Counter[int | None]()
    ranked = []
    for position in sorted(range(len(ids)), key=lambda i: (derived_seed(seed, ids[i], "limit"), i)):
        label = labels[position]
        turn = seen[label] * (seen[label] + 1) / counts[label] ** 2
        ranked.append((turn, derived_seed(seed, str(label), "limit class"), position))
        seen[label] += 1
    return sorted(position for _, _, position in sorted(ranked)[:limit])


def limited(images: Images, limit: int | None, seed: int = 0, sampling: str = "stratified") -> Images:
    """The images that a limit takes (`sampled`), in the dataset's order; the set itself where that is all of them."""
    rows = sampled(images.ids, images.labels, limit, seed, sampling)
    if len(rows) == len(images.ids):
        return images
    if isinstance(images, ImageFolder):  # its fingerprint reads the files that are left, and no others
        ids, paths, labels = ([values[i] for i in rows] for values in (images.ids, images.paths, images.labels))
        kept = set(ids)
        flags, further = (
            {id: value for id, value in found.items() if id in kept} for found in (images.flags, images.further)
        )
        return replace(images, ids=ids, paths=paths, labels=labels, flags=flags, further=further)
    return ImageSubset(images, tuple(rows))


def sample_text(
    whole: Sequence[int | None], taken: Sequence[int | None], seed: int = 0, sampling: str = "stratified"
) -> str:
    """How images were chosen, for people, from the labels of all and of those taken; empty where all were taken."""
    if len(taken) == len(whole):
        return ""
    if sampling == "first":
        return f"the first {len(taken):,} of {len(whole):,} images"
    classes, there = ({label for label in labels if label is not None} for labels in (whole, taken))
    share = "all" if len(there) == len(classes) else f"{len(there):,} of"
    from_classes = f" from {share} {len(classes):,} classes" if len(classes) > 1 else ""
    return f"{len(taken):,} of {len(whole):,} images, drawn with seed {seed}{from_classes}"


@dataclass(frozen=True)
class ImageSubset:
    """Some images of another source, at these positions; obeys `Images`. Made by `limited`."""

    source: Images
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def ids(self) -> list[str]:
        return self._ids

    @property
    def labels(self) -> list[int | None]:
        return self._labels

    @cached_property
    def _ids(self) -> list[str]:
        return [self.source.ids[row] for row in self.rows]

    @cached_property
    def _labels(self) -> list[int | None]:
        return [self.source.labels[row] for row in self.rows]

    @property
    def class_names(self) -> list[str] | None:
        return self.source.class_names

    @property
    def flags(self) -> dict[str, str]:
        kept = set(self.ids)
        return {id: flag for id, flag in self.source.flags.items() if id in kept}

    @property
    def fingerprint(self) -> str:
        """A hash of the source's fingerprint and the positions."""
        return hashlib.blake2b(repr((self.source.fingerprint, self.rows)).encode(), digest_size=16).hexdigest()

    def open(self, i: int) -> Image.Image | Pixels:
        """Image `i` of the subset, as the source opens it; raises InvalidImage where it cannot be read."""
        return self.source.open(self.rows[i])

    def mask(self, i: int) -> np.ndarray | None:
        """Where the object is in image `i` of the subset."""
        return self.source.mask(self.rows[i])

    @property
    def part_table(self) -> PartTable | None:
        """The classes by their parts; None where the images are not made of parts."""
        return part_table(self.source)

    def parts(self, i: int) -> PartImage | None:
        """The parts of image `i` of the subset."""
        return part_image(self.source, self.rows[i])
