"""A label file: a CSV with the columns `file` and `class_index`, any others ignored."""

import os
from collections.abc import Sequence
from pathlib import PurePath

from heatproof.data.csv_rows import csv_rows, image_name
from heatproof.data.image_paths import printable
from heatproof.errors import InvalidInput

COLUMNS = ("file", "class_index")


def read_labels(path: str | os.PathLike) -> dict[str, int]:
    """Image id (path relative to the images' folder, with `/`) → class index.

    Raises InvalidInput, naming the file and the line, for a file that cannot be read, a column that is
    missing, an index that is not a whole number from 0 up, and an image with two different indices.
    """
    labels: dict[str, int] = {}
    for row, line in csv_rows(path, COLUMNS, "labels"):
        file, index = image_name(row, line), _index(row["class_index"], line)
        if labels.setdefault(file, index) != index:
            raise InvalidInput(f"`labels` must give each image one class. {line}: {file} has {labels[file]} too.")
    if not labels:
        raise InvalidInput(f"`labels` must hold at least one label. {printable(path)} has a header only.")
    return labels


def labels_by_ending(ids: Sequence[str], path: str | os.PathLike) -> list[int | None]:
    """The class of each image, matched by the end of its path: `cat.jpg` in the file matches `photos/cat.jpg`.

    The longest match counts; None where there is none. Raises InvalidInput where the file names none of the images.
    """
    known = read_labels(path)
    found = [_by_ending(identity, known) for identity in ids]
    if all(label is None for label in found):
        raise InvalidInput(
            f"`labels` must name the images. {printable(path)} names {next(iter(known))!r}, and no image: "
            f"the first is {ids[0]!r}."
        )
    return found


def _by_ending(identity: str, known: dict[str, int]) -> int | None:
    parts = PurePath(identity).parts
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[ending] for ending in endings if ending in known), None)


def _index(text: str | None, line: str) -> int:
    try:
        index = int(text or "")
    except ValueError:
        index = -1
    if index < 0:
        raise InvalidInput(f"`class_index` must be a whole number from 0 up. {line}: got {text or 'nothing'!r}.")
    return index
