"""A label file: a CSV with the columns `file`, and `class_index`, `name` or both; any others are ignored."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

from heatproof.data.csv_rows import Row, csv_rows, image_name
from heatproof.data.image_paths import printable
from heatproof.errors import InvalidInput

T = TypeVar("T")

COLUMNS = ("file", "class_index")
#: The largest index of a class that can have a name.
MOST = 1_000_000


@dataclass(frozen=True)
class LabelFile:
    """The labels of a file.

    Attributes:
        labels: image id (path relative to the images' folder, with `/`) → class index.
        names: the classes' names by index, empty where a class has none; None where the file has no names.
        labels_by: `index` where the file gives the indices; `name` where they are the positions of the names in sorted
            order.
    """

    labels: dict[str, int]
    names: list[str] | None
    labels_by: str


def read_labels(path: str | os.PathLike) -> LabelFile:
    """The labels of a CSV with the columns `file,class_index`, `file,name`, or all three.

    Raises InvalidInput, naming the file and the line, for a file that cannot be read, a column that is missing, an
    index that is not a whole number from 0 up, an image with two different classes, and a class with two names.
    """
    found: dict[str, tuple[int | None, str]] = {}
    for row, line in csv_rows(path, COLUMNS, "labels", {"class_index": "name"}):
        file, label = image_name(row, line), _label(row, line)
        before = found.setdefault(file, label)
        if before != label:
            was = before[1] if before[0] is None else before[0]
            raise InvalidInput(f"`labels` must give each image one class. {line}: {file} has {was} too.")
    if not found:
        raise InvalidInput(f"`labels` must hold at least one label. {printable(path)} has a header only.")
    if any(index is None for index, _ in found.values()):
        names = sorted({name for _, name in found.values()})
        positions = {name: index for index, name in enumerate(names)}
        return LabelFile({file: positions[name] for file, (_, name) in found.items()}, names, labels_by="name")
    labels = {file: index for file, (index, _) in found.items() if index is not None}
    return LabelFile(labels, _names_by_index(found.values(), path), labels_by="index")


def labels_by_ending(ids: Sequence[str], path: str | os.PathLike) -> tuple[list[int | None], LabelFile]:
    """The class of each image, matched by the end of its path: `cat.jpg` in the file matches `photos/cat.jpg`.

    The longest match counts; None where there is none. Raises InvalidInput where the file names none of the images.
    """
    file = read_labels(path)
    found = [by_ending(identity, file.labels) for identity in ids]
    if all(label is None for label in found):
        raise InvalidInput(
            f"`labels` must name the images. {printable(path)} names {next(iter(file.labels))!r}, and no image: "
            f"the first is {ids[0]!r}."
        )
    return found, file


def by_ending(identity: str, known: Mapping[str, T]) -> T | None:
    """What a file says of an image, by the longest end of its path that the file names; None where it names none."""
    parts = PurePath(identity).parts
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[ending] for ending in endings if ending in known), None)


def _label(row: Row, line: str) -> tuple[int | None, str]:
    """Index and name; the index is None where the file has none."""
    name = (row.get("name") or "").strip()
    if "class_index" in row:
        return _index(row["class_index"], line), name
    if not name:
        raise InvalidInput(f"`name` must be a class's name. {line}: got nothing.")
    return None, name


def _index(text: str | None, line: str) -> int:
    try:
        index = int(text or "")
    except ValueError:
        index = -1
    if index < 0:
        raise InvalidInput(f"`class_index` must be a whole number from 0 up. {line}: got {text or 'nothing'!r}.")
    return index


def _names_by_index(labels: Iterable[tuple[int | None, str]], path: str | os.PathLike) -> list[str] | None:
    """The names of the classes that have one; InvalidInput for a class with two, or a name of two classes."""
    names: dict[int, str] = {}
    for index, name in labels:
        if index is not None and name and names.setdefault(index, name) != name:
            raise InvalidInput(
                f"`name` must give each class one name. {printable(path)}: class {index} is called {names[index]!r} "
                f"and {name!r}. Call the column otherwise if it holds something else."
            )
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        first, second, *_ = sorted(index for index, name in names.items() if name == twice)
        raise InvalidInput(
            f"`name` must be of one class. {printable(path)}: classes {first} and {second} are called {twice!r}."
        )
    return [names.get(index, "") for index in range(max(names) + 1)] if names and max(names) <= MOST else None
