"""A table that is too long to hold: DuckDB writes it to a file, and it is read where somebody asks for it."""

import shutil
from collections.abc import Callable
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


class Tables(dict):
    """File name → data frame; a `StoredTable` is read when it is asked for."""

    def made(self, name: str) -> Any:
        """The table as it was made."""
        return super().__getitem__(name)

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        return found.frame() if isinstance(found, StoredTable) else found

    def get(self, name: str, default: Any = None) -> Any:
        """As a dictionary's."""
        return default if name not in self else self.__getitem__(name)

    def items(self) -> Any:
        """As a dictionary's."""
        return ((name, self[name]) for name in self)

    def values(self) -> Any:
        """As a dictionary's."""
        return (self[name] for name in self)
