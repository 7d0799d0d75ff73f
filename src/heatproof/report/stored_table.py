"""A table that is too long to hold: DuckDB writes it to a file, and it is read where somebody asks for it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pandas as pd


@dataclass(frozen=True)
class StoredTable:
    """A table that `write` puts into a Parquet file."""

    write: Callable[[Path], None]

    def copy(self, file: IO[bytes]) -> None:
        """Writes the Parquet file into an open one."""
        with TemporaryDirectory(prefix="heatproof-table-") as folder:
            path = Path(folder) / "table.parquet"
            self.write(path)
            with path.open("rb") as content:
                shutil.copyfileobj(content, file)

    def frame(self) -> Any:
        """The whole table as a data frame."""
        with TemporaryDirectory(prefix="heatproof-table-") as folder:
            path = Path(folder) / "table.parquet"
            self.write(path)
            return pd.read_parquet(path)

    def to_csv(self, *args: Any, **options: Any) -> Any:
        """As a data frame's."""
        return self.frame().to_csv(*args, **options)


class Tables(Mapping):
    """File name → data frame; a `StoredTable` is read each time that it is asked for."""

    def __init__(self, made: Mapping[str, Any]):
        self._made = dict(made)

    def made(self, name: str) -> Any:
        """The table as it was made."""
        return self._made[name]

    def __getitem__(self, name: str) -> Any:
        found = self._made[name]
        return found.frame() if isinstance(found, StoredTable) else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled with the frames themselves, as another process has no study open."""
        return Tables, (dict(self.items()),)
