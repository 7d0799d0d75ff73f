"""Archives of arrays (`.npz`) from anywhere: the size of an array is checked before it is unpacked."""

import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from heatproof.errors import InvalidImage

#: The most bytes of one array.
MOST_BYTES = 800_000_000


class Archive(Mapping[str, np.ndarray]):
    """The arrays of an `.npz` file by name, each read from the file when it is asked for; closed by `with` or `close`.

    content: what is in the file, where that has been read already.

    Raises:
        OSError: the file cannot be opened. InvalidImage: it is no archive; on reading an array, what is none, holds
            objects (code), is damaged, or is larger than `most_bytes` or than the archive says.
    """

    def __init__(self, path: str | os.PathLike, most_bytes: int = MOST_BYTES, content: BinaryIO | None = None):
        self._name, self._most = Path(path).name, most_bytes
        try:
            self._zip = zipfile.ZipFile(path if content is None else content)
        except OSError:
            raise
        except Exception as error:  # a damaged list of members meets zipfile with errors of many types
            raise InvalidImage(f"{self._name}: is no archive of arrays ({_first_line(error)})") from error
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        try:
            return self._array(member)
        except InvalidImage as error:
            raise InvalidImage(f"{self._name}: `{name}` {error}") from None
        except MemoryError:
            raise
        except Exception as error:  # a damaged member meets zipfile and numpy with errors of many types
            raise InvalidImage(f"{self._name}: `{name}` cannot be read ({_first_line(error)})") from error

    def _array(self, member: zipfile.ZipInfo) -> np.ndarray:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidImage("is packed in a way that numpy does not use; save it with `numpy.savez`")
        with self._zip.open(member) as opened:
            shape, dtype = _header(opened)  # type: ignore[arg-type]
        if dtype.hasobject:
            raise InvalidImage("holds Python objects, which may run code when they are read; save numbers")
        bytes_ = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or not math.prod(shape) <= self._most or bytes_ > self._most:
            raise InvalidImage(f"has {bytes_:,} bytes, over the limit of {self._most:,}")
        if bytes_ > member.file_size:
            raise InvalidImage(f"says that it has {bytes_:,} bytes, and holds {member.file_size:,}")
        with self._zip.open(member) as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file begins as an archive does."""
    with Path(path).open("rb") as file:
        return file.read(2) == b"PK"


def _header(opened: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(opened)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise InvalidImage(f"is an array of version {version[0]}.{version[1]}, which is not read")
    shape, _, dtype = readers[version](opened)
    return shape, dtype


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
