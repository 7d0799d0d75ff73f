"""Atomic file writes, and system errors turned into StoreErrors."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from heatproof.errors import StoreError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes beside `path` and renames; a reader sees the whole file or none. StoreError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with friendly_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file or folder of that name; False for a text that no file system takes as a name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # longer than a name may be, or not to be looked at
        return False


@contextmanager
def friendly_os_errors(path: Path) -> Iterator[None]:
    """Turns a system error into a StoreError whose one sentence says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full. Free some space and run the same command again: finished jobs are kept."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "It is not writable. Choose another --out, or change its permissions."
        else:
            advice = f"{error.strerror or error}. Choose another --out."
        raise StoreError(f"Cannot write {path}. {advice}") from error


def file_fingerprint(path: Path) -> str:
    """A hash of a file, or of the names and contents of a folder's files; hidden files are left out."""
    digest = hashlib.blake2b(digest_size=16)
    below = path.rglob("*") if path.is_dir() else [path]
    for file in sorted(one for one in below if one.is_file() and (one == path or not one.name.startswith("."))):
        digest.update(repr((file.relative_to(path).as_posix(), file.stat().st_size)).encode("utf-8", "surrogatepass"))
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
