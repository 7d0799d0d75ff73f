"""The published FunnyBirds folder (Hesse et al. 2023): test images, part maps, and rendered interventions.

    classes.json                       [{"class_idx": 0, "parts": {"beak": 3, "eye": 0, …}}, …]
    parts.json                         {"beak": [variant, …], "eye": […], …}
    dataset_test.json                  [{"class_idx": 0, "bg_objects": "3,1,", …}, …], one a test image
    test/CLASS/000007.png              image 7
    test_part_map/CLASS/000007.png     the same image, each part in a colour of its own
    test_interventions/CLASS/000007/body_beak_eye.png                 with the body and these parts alone
    test_interventions/CLASS/000007/background_interventions/2.png    without background object 2

Interventions are rendered images, so only those can be had that exist: any set of parts, or one background object. A
file that is not there makes the values that need it NaN, with its path as the reason.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.data.image_opener import open_image
from heatproof.data.image_paths import printable
from heatproof.data.images import without_caches
from heatproof.data.part_images import Parts, PartTable
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.memo import cached_property

#: The colours of a part map.
COLOURS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "beak": ((255, 255, 0),),
    "eye": ((255, 255, 253), (255, 255, 254)),
    "foot": ((255, 0, 1), (255, 0, 2)),
    "tail": ((0, 0, 255),),
    "wing": ((0, 255, 1), (0, 255, 2)),
}
#: Background object i has this colour, i added to the last channel; there are at most 50.
OBJECT, MOST_OBJECTS = (204, 204, 204), 50
#: Of the test images every fifth is for validation, where they are divided.
FIFTH = 5


@dataclass(frozen=True)
class FunnyBirds:
    """The test images of a FunnyBirds folder, or some of them; obeys `heatproof.data.Images`. Made by `of`.

    rows: positions in dataset_test.json. scenes: (class, background objects) of every image in it.
    """

    folder: Path
    rows: tuple[int, ...]
    part_table: PartTable
    scenes: tuple[tuple[int, int], ...]
    name: str

    @classmethod
    def of(cls, folder: str | Path, which: str = "", title: str = "") -> "FunnyBirds":
        """The images of a folder: all, `val` for every fifth, or `test` for the others.

        Raises:
            InvalidInput: a folder of another layout; the message says what is missing or wrong.
        """
        where = Path(folder)
        table = _table(where)
        scenes = tuple(
            _scene(one, i, len(table.classes)) for i, one in enumerate(_read(where, "dataset_test.json", list))
        )
        for name in ("test", "test_part_map", "test_interventions"):
            if not (where / name).is_dir():
                raise _other_layout(where, f"there is no folder {name}")
        fifth = {"": (0, 1, 2, 3, 4), "val": (0,), "test": (1, 2, 3, 4)}[which]
        rows = tuple(i for i in range(len(scenes)) if i % FIFTH in fifth)
        if not rows:
            raise _other_layout(where, "dataset_test.json names no image")
        return cls(where, rows, table, scenes, title or f"funnybirds{f'-{which}' if which else ''}")

    @property
    def ids(self) -> list[str]:
        """`CLASS/000007.png`, as below `test`."""
        return self._ids

    @property
    def labels(self) -> list[int | None]:
        return self._labels

    @cached_property
    def _ids(self) -> list[str]:
        return [f"{self.scenes[row][0]}/{row:06d}.png" for row in self.rows]

    @cached_property
    def _labels(self) -> list[int | None]:
        return [self.scenes[row][0] for row in self.rows]

    @property
    def class_names(self) -> list[str]:
        return [f"bird {label}" for label in range(len(self.part_table.classes))]

    @property
    def flags(self) -> dict[str, str]:
        return {}

    @property
    def fingerprint(self) -> str:
        """A hash of the scenes, the classes, and the sizes of the images' files."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        sizes = [path.stat().st_size if path.is_file() else -1 for path in map(self._file, range(len(self.rows)))]
        content = (self.rows, self.part_table, self.scenes, sizes)
        return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()

    def open(self, i: int) -> Image.Image:
        """Image `i`, RGB: the alpha channel is dropped, as in the published loader."""
        return _opened(self._file(i))

    def mask(self, i: int) -> np.ndarray:
        """The pixels of all parts, bool `(height, width)`; raises InvalidImage without a part map."""
        found = self.parts(i).masks()
        return np.logical_or.reduce([found[part] for part in self.part_table.parts])

    def parts(self, i: int) -> "FunnyBird":
        """Image `i` with its parts."""
        row = self.rows[i]
        label, objects = self.scenes[row]
        return FunnyBird(self.folder, row, label, objects, self.part_table)

    def _file(self, i: int) -> Path:
        return self.folder / "test" / self.ids[i]

    def __getstate__(self) -> dict[str, Any]:
        return without_caches(self, ("_ids", "_labels", "_fingerprint"))


@dataclass(frozen=True)
class FunnyBird:
    """One image and its parts; obeys `data.part_images.PartImage`. `objects`: how many background objects it has."""

    folder: Path
    row: int
    label: int
    objects: int
    table: PartTable

    @property
    def distractors(self) -> tuple[str, ...]:
        return tuple(f"background-{i:02d}" for i in range(self.objects))

    def masks(self) -> dict[str, np.ndarray]:
        """Where parts and background objects are seen; raises InvalidImage without a part map, naming its path."""
        path = self.folder / "test_part_map" / str(self.label) / f"{self.row:06d}.png"
        pixels = np.asarray(_opened(path)).astype(np.int32)
        codes = (pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2]
        found = {part: np.isin(codes, list(map(_code, COLOURS[part]))) for part in self.table.parts}
        red, green, blue = OBJECT
        return found | {name: codes == _code((red, green, blue + i)) for i, name in enumerate(self.distractors)}

    def without(self, names: Parts) -> Image.Image:
        """The rendered image without these parts, or without one background object.

        Raises:
            InvalidImage: the image was not rendered, with its path; objects together with others never are.
        """
        return _opened(self._path(names))

    def _path(self, names: Parts) -> Path:
        if not names:
            return self.folder / "test" / str(self.label) / f"{self.row:06d}.png"
        where = self.folder / "test_interventions" / str(self.label) / f"{self.row:06d}"
        objects = sorted(names & set(self.distractors))
        if objects and len(names) > 1:
            raise InvalidImage(f"{printable(where)} holds no image without {' and '.join(sorted(names))} together")
        if objects:
            return where / "background_interventions" / f"{self.distractors.index(objects[0])}.png"
        return where / f"body_{'_'.join(sorted(self.table.whole - names))}.png"


def _code(colour: tuple[int, int, int]) -> int:
    return (colour[0] << 16) + (colour[1] << 8) + colour[2]


def _opened(path: Path) -> Image.Image:
    """An image without its alpha channel; InvalidImage with the path where it is missing or broken."""
    if not path.is_file():
        raise InvalidImage(f"there is no {printable(path)}")
    found = open_image(path)
    if not isinstance(found, Image.Image):
        raise InvalidImage(f"{printable(path)} has more than 8 bits a channel")
    return found.convert("RGB")


def _other_layout(folder: Path, what: str) -> InvalidInput:
    return InvalidInput(
        f"Expected the layout of FunnyBirds in {printable(folder)}: classes.json, parts.json, dataset_test.json, test, "
        f"test_part_map and test_interventions. Got another: {what}."
    )


def _read(folder: Path, name: str, kind: type) -> Any:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _other_layout(folder, f"there is no {name}") from None
    except (OSError, ValueError) as error:
        raise _other_layout(folder, f"{name} cannot be read ({error})") from error
    if not isinstance(found, kind):
        raise _other_layout(folder, f"{name} holds no {kind.__name__}")
    return found


def _table(folder: Path) -> PartTable:
    names = tuple(sorted(_read(folder, "parts.json", dict)))
    if unknown := sorted(set(names) - set(COLOURS)):
        raise _other_layout(folder, f"parts.json has the part {unknown[0]!r}, whose colour in part maps is not known")
    classes = _read(folder, "classes.json", list)
    rows: dict[int, tuple[int, ...]] = {}
    for one in classes:
        try:
            rows[int(one["class_idx"])] = tuple(int(one["parts"][name]) for name in names)
        except (KeyError, TypeError, ValueError) as error:
            raise _other_layout(folder, f"a class in classes.json is {one!r:.80}") from error
    if sorted(rows) != list(range(len(classes))):
        raise _other_layout(folder, "classes.json does not number its classes from 0 on")
    return PartTable(names, tuple(rows[label] for label in range(len(rows))))


def _scene(one: Any, row: int, classes: int) -> tuple[int, int]:
    """The class and the number of background objects of one image."""
    try:
        label, objects = int(one["class_idx"]), str(one.get("bg_objects", ""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"Image {row} of dataset_test.json must have a class_idx. Got {one!r:.80}.") from error
    if not 0 <= label < classes:
        raise InvalidInput(f"Image {row} of dataset_test.json must be of one of {classes} classes. Got {label}.")
    return label, min(MOST_OBJECTS, len(re.findall(r"\d+", objects)))
