"""Where the objects are: masks from a folder, or boxes from a CSV, by the names of the images.

Masks are in the pixels of the image as it is opened (upright). The engine brings them through the model's own
geometry, the way the image goes.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from heatproof.data.csv_rows import Row, csv_rows, image_name
from heatproof.data.image_opener import MAX_PIXELS, open_array, open_mask
from heatproof.data.image_paths import EXTENSIONS, image_files, names_for, printable
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.files import exists

COLUMNS = ("file", "x0", "y0", "x1", "y1")

Box = tuple[float, float, float, float]


class Masks(Protocol):
    """Masks by the names of images; can be pickled for worker processes."""

    def mask(self, identity: str, size: tuple[int, int]) -> np.ndarray | None:
        """Where the object is, bool `(height, width)`; None where there is none for the image.

        Args:
            identity: the image's id.
            size: its own (height, width).

        Raises:
            InvalidImage: a mask that cannot be read, or does not fit the image.
        """
        ...


def load_masks(path: str | os.PathLike) -> Masks:
    """Masks of a folder of images and `.npy` files, or the boxes of a CSV.

    A mask has its image's name with any extension (`cats/a.png` or `cats/a.jpg.png` for `cats/a.jpg`); leading folders
    may be left out. It has its image's size. The object is what is neither black nor transparent; in an array, what is
    not 0. A CSV has the columns `file,x0,y0,x1,y1`: edges in the image's pixels, from the upper left corner, so that a
    box is x1 − x0 wide. Several rows of one image are one object.

    Raises:
        InvalidInput: no such file or folder, a folder without masks, two masks of one name, a CSV that cannot be used.
    """
    where = Path(path)
    if exists(where) and where.is_dir():
        return MaskFolder.of(where)
    if exists(where) and where.is_file() and where.suffix.lower() in (".csv", ".txt"):
        return Boxes.of(where)
    there = "It is another file" if exists(where) else "It does not exist"
    raise InvalidInput(f"`masks` must be a folder of masks or a CSV of boxes. Got {printable(where)}. {there}.")


@dataclass(frozen=True)
class MaskFolder:
    """Files by their path in the folder, without extension."""

    files: dict[str, Path]

    @classmethod
    def of(cls, folder: Path) -> "MaskFolder":
        """All masks below the folder; they are opened when they are needed."""
        found: dict[str, Path] = {}
        for path in sorted(image_files(folder)):
            name = printable(path.relative_to(folder).with_suffix("").as_posix())
            if name in found:
                raise InvalidInput(
                    f"`masks` must hold one mask for each image. Got {printable(found[name].name)} and "
                    f"{printable(path.name)}. Remove one."
                )
            found[name] = path
        if not found:
            raise InvalidInput(
                f"`masks` must hold at least one mask. None is in {printable(folder)}. Known endings: "
                f"{' '.join(sorted(EXTENSIONS))}."
            )
        return cls(found)

    def mask(self, identity: str, size: tuple[int, int]) -> np.ndarray | None:
        """The mask of that name; see `Masks`."""
        path = next((self.files[name] for name in names_for(identity) if name in self.files), None)
        if path is None:
            return None
        found = _array(path) if path.suffix.lower() == ".npy" else open_mask(path)
        if found.shape != tuple(size):
            raise InvalidImage(
                f"{printable(path.name)}: is {found.shape[1]} × {found.shape[0]} pixels, and its image {identity} is "
                f"{size[1]} × {size[0]}"
            )
        return found


@dataclass(frozen=True)
class Boxes:
    """Boxes by the images' names in the CSV, with or without extensions."""

    boxes: dict[str, list[Box]]

    @classmethod
    def of(cls, path: Path) -> "Boxes":
        """The boxes of a CSV."""
        found: dict[str, list[Box]] = {}
        for name, box in (_row(row, line) for row, line in csv_rows(path, COLUMNS, "masks")):
            found.setdefault(name, []).append(box)
        if not found:
            raise InvalidInput(f"`masks` must hold at least one box. {printable(path)} has a header only.")
        return cls(found)

    def mask(self, identity: str, size: tuple[int, int]) -> np.ndarray | None:
        """The pixels whose centre lies in one of the boxes; see `Masks`."""
        boxes = next((self.boxes[name] for name in names_for(identity) if name in self.boxes), None)
        if boxes is None:
            return None
        down, across = (np.arange(side) + 0.5 for side in size)
        found = np.zeros(size, dtype=bool)
        for x0, y0, x1, y1 in boxes:
            found |= ((down >= y0) & (down < y1))[:, None] & ((across >= x0) & (across < x1))
        if not found.any():
            raise InvalidImage(f"{identity}: its boxes hold no pixel of it, which is {size[1]} × {size[0]}")
        return found


def _array(path: Path) -> np.ndarray:
    """The mask in an `.npy` file: the values that are not 0."""
    found = open_array(path, MAX_PIXELS)
    plain = found.reshape([side for side in found.shape if side != 1] if found.ndim == 3 else found.shape)
    if plain.ndim != 2 or found.dtype.kind not in "biuf":
        raise InvalidImage(
            f"{printable(path.name)}: must be numbers (height, width). Got {found.dtype} {tuple(found.shape)}"
        )
    return np.nan_to_num(np.asarray(plain)) != 0


def _row(row: Row, line: str) -> tuple[str, Box]:
    """Name and box, checked."""
    name = image_name(row, line)
    try:
        x0, y0, x1, y1 = (float(row[side] or "") for side in COLUMNS[1:])
    except ValueError:
        found = ", ".join(f"{side}={row[side]!r}" for side in COLUMNS[1:])
        raise InvalidInput(f"A box must be four numbers. {line}: got {found}.") from None
    if not (all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1):
        raise InvalidInput(f"A box must have x0 < x1 and y0 < y1. {line}: got {x0:g}, {y0:g}, {x1:g}, {y1:g}.")
    return name, (x0, y0, x1, y1)
