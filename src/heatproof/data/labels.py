"""A label file: a CSV with the columns `file` and `class_index`, any others ignored."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath

from heatproof.data.image_files import printable
from heatproof.errors import InvalidInput

COLUMNS = ("file", "class_index")


def read_labels(path: str | os.PathLike) -> dict[str, int]:
    """Image id (path relative to the images' folder, with `/`) → class index.

    Raises InvalidInput, naming the file and the line, for a file that cannot be read, a column that is
    missing, an index that is not a whole number from 0 up, and an image with two different indices.
    """
    where, rows = printable(path), csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    labels: dict[str, int] = {}
    try:
        columns = [(name or "").strip() for name in rows.fieldnames or []]
        rows.fieldnames = columns
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise InvalidInput(
                f"`labels` must have the columns `file` and `class_index`, separated by commas. {where} has "
                f"no {' and no '.join(f'`{m}`' for m in missing)}; it has {', '.join(columns) or 'none'}."
            )
        for row in rows:
            line = f"{where}, line {rows.line_num}"
            file, index = _file(row["file"], line), _index(row["class_index"], line)
            if labels.setdefault(file, index) != index:
                raise InvalidInput(f"`labels` must give each image one class. {line}: {file} has {labels[file]} too.")
    except csv.Error as error:
        raise InvalidInput(f"`labels` must be a CSV file. {where}, line {rows.line_num}: {error}.") from error
    if not labels:
        raise InvalidInput(f"`labels` must hold at least one label. {where} has a header only.")
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


def _text(path: str | os.PathLike) -> str:
    """Bytes that are not UTF-8 are written as in the ids of images, so that such names match."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig", "backslashreplace")
    except OSError as error:
        raise InvalidInput(f"`labels` must be a readable file. {printable(path)}: {error.strerror}.") from error


def _file(text: str | None, line: str) -> str:
    name = str(PurePosixPath(text)) if text else ""
    if not name:
        raise InvalidInput(f"`file` must name an image. {line}: got nothing.")
    return name


def _index(text: str | None, line: str) -> int:
    try:
        index = int(text or "")
    except ValueError:
        index = -1
    if index < 0:
        raise InvalidInput(f"`class_index` must be a whole number from 0 up. {line}: got {text or 'nothing'!r}.")
    return index
