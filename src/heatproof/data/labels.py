"""A label file: a CSV with the columns `file`, and `class_index`, `name` or both, or one of 0 and 1 for each class.

`label` may stand for either: whole numbers are indices, all else names. Beside these, other columns are ignored.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TypeVar

from heatproof.data.csv_rows import Row, csv_rows, image_name
from heatproof.data.image_paths import printable
from heatproof.errors import InvalidInput

T = TypeVar("T")
#: Index and name of a class; the index is None where a file has names alone.
Label = tuple[int | None, str]

COLUMNS = ("file", "class_index")
#: A column that stands for `class_index` where it holds whole numbers alone, and for `name` otherwise.
EITHER = "label"
#: What a cell of a column for a class may hold → whether the image has that class.
BINARY = {"": False, "0": False, "0.0": False, "false": False, "-1": False, "-1.0": False,
          "1": True, "1.0": True, "true": True}  # fmt: skip
#: The largest index of a class that can have a name.
MOST = 1_000_000


@dataclass(frozen=True)
class LabelFile:
    """The labels of a file.

    Attributes:
        labels: image id (path relative to the images' folder, with `/`) → class index.
        names: the classes' names by index, empty where a class has none; None where the file has no names.
        labels_by: `index` where the file gives the indices; `name` where they are the positions of the names, in sorted
            order, or in that of the columns where each class has one.
        further: image id → the classes after the first, of images with several.
    """

    labels: dict[str, int]
    names: list[str] | None
    labels_by: str
    further: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_labels(path: str | os.PathLike, several: bool = False) -> LabelFile:
    """The labels of a CSV with the columns `file,class_index`, `file,name`, `file,label`, or `file,class_index,name`.

    An image may have several classes: in several rows, in one cell (`3;7`, `cat|dog`), or in a column of 0 and 1 for
    each class in place of both columns (empty cells and -1 are no label).

    Args:
        several: whether an image may have several classes.

    Raises:
        InvalidInput: naming the file and the line, for a file that cannot be read, a column that is missing, an index
            that is not a whole number from 0 up, an image with two different classes where it may have one, and a class
            with two names.
    """
    found: dict[str, dict[Label, None]] = {}
    wide = _class_columns(path)
    columns = ("file",) if wide else COLUMNS
    for row, line in _rows(path, columns):
        file = image_name(row, line)
        before = found.setdefault(file, {})
        before |= dict.fromkeys(_from_columns(row, wide) if wide else _labels(row, line))
        if len(before) > 1 and not several:
            first, second = (name if index is None else index for index, name in list(before)[:2])
            raise InvalidInput(
                f"`labels` must give each image one class here. {line}: {file} has {first} and {second}. "
                "`heatproof score --targets labels` takes several."
            )
    if not found:
        raise InvalidInput(f"`labels` must hold at least one label. {printable(path)} has a header only.")
    pairs = [pair for one in found.values() for pair in one]
    if wide or any(index is None for index, _ in pairs):
        names = list(wide) or sorted({name for _, name in pairs})
        positions = {name: index for index, name in enumerate(names)}
        return _label_file({file: [positions[name] for _, name in one] for file, one in found.items()}, names, "name")
    indices = {file: [index for index, _ in one if index is not None] for file, one in found.items()}
    return _label_file(indices, _names_by_index(pairs, path), "index")


def _rows(path: str | os.PathLike, columns: Sequence[str]) -> list[tuple[Row, str]]:
    """The rows, with `class_index` or `name` in place of `label` where they have neither."""
    rows = list(csv_rows(path, columns, "labels", {"class_index": ("name", EITHER)}))
    if rows and EITHER in rows[0][0] and not {"class_index", "name"} & set(rows[0][0]):
        whole = all(re.fullmatch(r"[\d\s;|]*", row[EITHER] or "") for row, _ in rows)
        rows = [({**row, "class_index" if whole else "name": row[EITHER]}, line) for row, line in rows]
    return rows


def _label_file(found: Mapping[str, Sequence[int]], names: list[str] | None, labels_by: str) -> LabelFile:
    further = {file: tuple(one[1:]) for file, one in found.items() if len(one) > 1}
    return LabelFile({file: one[0] for file, one in found.items() if one}, names, labels_by, further)


def _class_columns(path: str | os.PathLike) -> tuple[str, ...]:
    """The columns of a file with one of 0 and 1 for each class; empty for any other file."""
    names: dict[str, None] = {}
    for row, _ in csv_rows(path, (), "labels"):
        if not names:
            names = dict.fromkeys(name for name in row if name and name != "file")
            if "file" not in row or not names or {"class_index", "name", EITHER} & set(names):
                return ()
        if any((row.get(name) or "").strip().lower() not in BINARY for name in names):
            return ()
    return tuple(names)


def _from_columns(row: Row, names: Iterable[str]) -> Iterator[Label]:
    yield from ((None, name) for name in names if BINARY[(row.get(name) or "").strip().lower()])


def labels_by_ending(
    ids: Sequence[str], path: str | os.PathLike, several: bool = False
) -> tuple[list[int | None], LabelFile]:
    """The class of each image, matched by the end of its path: `cat.jpg` in the file matches `photos/cat.jpg`.

    The longest match counts; None where there is none. Raises InvalidInput where the file names none of the images.
    """
    file = read_labels(path, several)
    found = [by_ending(identity, file.labels) for identity in ids]
    if all(label is None for label in found):
        named = f"names {next(iter(file.labels))!r}, and no image" if file.labels else "gives no image a class"
        raise InvalidInput(
            f"`labels` must name the images. {printable(path)} {named}: the first is {ids[0] if ids else 'none'!r}."
        )
    return found, file


def by_ending(identity: str, known: Mapping[str, T]) -> T | None:
    """What a file says of an image, by the longest end of its path that the file names; None where it names none."""
    parts = PurePath(identity).parts
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[ending] for ending in endings if ending in known), None)


def _labels(row: Row, line: str) -> Iterator[Label]:
    """Index and name of each class in a row; the index is None where the file has none."""
    names = [name.strip() for name in re.split(r"[;|]", row.get("name") or "")]
    if "class_index" in row:
        indices = re.split(r"\s*[;|]\s*|\s+", (row["class_index"] or "").strip())
        if any(names) and len(names) != len(indices):
            raise InvalidInput(
                f"`class_index` and `name` must name the same classes. {line}: got {len(indices)} indices and "
                f"{len(names)} names."
            )
        names = names if any(names) else [""] * len(indices)
        yield from ((_index(index, line), name) for index, name in zip(indices, names, strict=True))
        return
    if not all(names):
        raise InvalidInput(f"`name` must be a class's name. {line}: got nothing.")
    yield from ((None, name) for name in names)


def _index(text: str | None, line: str) -> int:
    try:
        index = int(text or "")
    except ValueError:
        index = -1
    if index < 0:
        raise InvalidInput(f"`class_index` must be a whole number from 0 up. {line}: got {text or 'nothing'!r}.")
    return index


def _names_by_index(labels: Iterable[Label], path: str | os.PathLike) -> list[str] | None:
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
