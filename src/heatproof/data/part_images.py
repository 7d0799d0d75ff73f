"""Images made of parts that can be removed: which class has which variant of a part, and what an image must offer.

FunnyBirds (Hesse et al. 2023): the class of an image follows from its parts alone, so the parts are the ground truth of
an explanation. `data.creatures` draws such images, `data.funnybirds` reads the published ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np

from heatproof.errors import InvalidInput
from heatproof.memo import cached_property

Parts = frozenset[str]


class Contrast(NamedTuple):
    """Two other classes, and the parts that each of them shares with the class of an image."""

    first: int
    second: int
    first_parts: Parts
    second_parts: Parts


@dataclass(frozen=True)
class PartTable:
    """Which variant of every part each class has.

    parts: the kinds of parts. classes: for each class the number of the variant of each part, in the order of `parts`.

    Raises:
        InvalidInput: no parts, fewer than two classes, rows of another length, or two classes made of the same parts.
    """

    parts: tuple[str, ...]
    classes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.parts or len(self.classes) < 2:
            raise InvalidInput(
                f"A table of parts must have parts and at least two classes. Got {len(self.parts)} and "
                f"{len(self.classes)}."
            )
        if wrong := [row for row in self.classes if len(row) != len(self.parts)]:
            raise InvalidInput(
                f"Every class must have {len(self.parts)} parts, {', '.join(self.parts)}. Got {wrong[0]}."
            )
        if len(set(self.classes)) < len(self.classes):
            raise InvalidInput("Every class must have a combination of parts of its own. Got one twice.")

    @property
    def whole(self) -> Parts:
        """All parts."""
        return frozenset(self.parts)

    def shared(self, one: int, other: int) -> Parts:
        """The parts of which two classes have the same variant."""
        pairs = zip(self.parts, self.classes[one], self.classes[other], strict=True)
        return frozenset(part for part, a, b in pairs if a == b)

    def compatible(self, label: int, kept: Parts) -> list[int]:
        """The classes that have the same variants of the `kept` parts as class `label`, itself included."""
        return [other for other in range(len(self.classes)) if kept <= self.shared(label, other)]

    def minimal_sets(self, label: int) -> tuple[Parts, ...]:
        """The smallest sets of parts that no other class has: none of them holds another such set."""
        return self._minimal[label]

    @cached_property
    def _minimal(self) -> tuple[tuple[Parts, ...], ...]:
        return tuple(map(self._minimal_of, range(len(self.classes))))

    def _minimal_of(self, label: int) -> tuple[Parts, ...]:
        found: list[Parts] = []
        for size in range(1, len(self.parts) + 1):  # small ones first, so that a set is compared with those inside it
            for chosen in map(frozenset, combinations(self.parts, size)):
                if not any(known <= chosen for known in found) and self.compatible(label, chosen) == [label]:
                    found.append(chosen)
        return tuple(found)

    def contrast(self, label: int) -> Contrast | None:
        """The first two classes that each share exactly two parts with `label`, and no part of both; None without any.

        Hesse et al. 2023, section 3.2 (contrastivity): the classes are taken in their order.
        """
        near = [(other, self.shared(label, other)) for other in range(len(self.classes)) if other != label]
        pairs = combinations([(other, parts) for other, parts in near if len(parts) == 2], 2)
        return next((Contrast(a, b, one, two) for (a, one), (b, two) in pairs if not one & two), None)


class PartImage(Protocol):
    """One image with its parts; masks and images are in the image's own pixels.

    label: the class that the parts make. distractors: the names of the objects beside them.
    """

    @property
    def table(self) -> PartTable: ...
    @property
    def label(self) -> int: ...
    @property
    def distractors(self) -> tuple[str, ...]: ...

    def masks(self) -> Mapping[str, np.ndarray]:
        """Name → where the part or distractor is seen, bool `(height, width)`.

        Raises:
            InvalidImage: the masks cannot be read.
        """
        ...

    def without(self, names: Parts) -> Any:
        """The image without these parts or distractors, as `Images.open` gives images; all else is the same.

        Raises:
            InvalidImage: there is no such image.
        """
        ...


def part_image(images: Any, i: int) -> PartImage | None:
    """The parts of image `i` of a set; None where the set is not made of parts."""
    return images.parts(i) if made_of_parts(images) else None


def made_of_parts(images: Any) -> bool:
    """Whether the images of a set have parts that can be removed."""
    return part_table(images) is not None


def part_table(images: Any) -> PartTable | None:
    """The classes of a set of images by their parts; None where it is not made of parts."""
    return getattr(images, "part_table", None)
