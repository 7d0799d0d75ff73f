"""Rows of the CSV files that users write: labels and boxes."""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from heatproof.data.image_paths import printable
from heatproof.errors import InvalidInput
from heatproof.files import refuse_unusual

#: The most bytes of a CSV file: of ten million images.
MOST_BYTES = 500_000_000

Row = dict[str, str | None]


def csv_rows(
    path: str | os.PathLike, columns: Sequence[str], setting: str, instead: Mapping[str, Sequence[str]] | None = None
) -> Iterator[tuple[Row, str]]:
    """Every row as column → text, with its position for messages: `labels.csv, line 3`. Other columns may be there.

    `instead`: a column → others that may stand in its place.

    Bytes that are not UTF-8 are written as in the ids of images, so that such names match.

    Raises:
        InvalidInput: a file that cannot be read, is no CSV file, or has not these columns; it names `setting`.
    """
    where = printable(path)
    try:
        refuse_unusual(Path(path), MOST_BYTES)
        text = Path(path).read_bytes().decode("utf-8-sig", "backslashreplace")
    except OSError as error:
        raise InvalidInput(f"`{setting}` must be a readable file. {where}: {error.strerror}.") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        found = [(name or "").strip() for name in rows.fieldnames or []]
        rows.fieldnames = found
        missing = [name for name in columns if not {name, *(instead or {}).get(name, ())} & set(found)]
        if missing:
            raise InvalidInput(
                f"`{setting}` must have the columns {', '.join(columns)}, separated by commas. {where} has no "
                f"{' and no '.join(f'`{name}`' for name in missing)}; it has {', '.join(found) or 'none'}."
            )
        for row in rows:
            yield row, f"{where}, line {rows.line_num}"
    except csv.Error as error:
        raise InvalidInput(f"`{setting}` must be a CSV file. {where}, line {rows.line_num}: {error}.") from error


def image_name(row: Row, line: str) -> str:
    """The column `file` as the ids of images are written, with `/`. InvalidInput where it is empty."""
    if not row["file"]:
        raise InvalidInput(f"`file` must name an image. {line}: got nothing.")
    return str(PurePosixPath(re.sub(r"\\(?!x[0-9a-f]{2})", "/", row["file"])))  # `\\xff` stands for a byte
