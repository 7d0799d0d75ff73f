"""Atomic file writes, here or at an address, and system errors turned into StoreErrors."""

import contextlib
import errno
import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from heatproof.addresses import Place, is_address, put
from heatproof.errors import HeatproofError, StoreError

#: What a formula of a spreadsheet begins with.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def write_atomically(path: Path | Place, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes beside `path` and renames; a reader sees the whole file or none. StoreError where it cannot be written.

    At an address the content is made first and put there in one call, so an object is whole or not there.
    """
    if is_address(path):
        buffer = io.BytesIO()
        write(buffer)
        with friendly_os_errors(path):
            put(path, buffer.getvalue())
        return
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


def refuse_unusual(path: Path, most_bytes: int | None = None) -> None:
    """OSError for what is no regular file (a pipe, a device: reading it may never end), or has too many bytes."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if most_bytes is not None and about.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"it has {about.st_size:,} bytes, over the limit of {most_bytes:,}", str(path))


@contextmanager
def friendly_os_errors(path: Path | Place) -> Iterator[None]:
    """Turns a system error into a StoreError whose one sentence says what to do; of an address any error."""
    try:
        yield
    except HeatproofError:
        raise
    except Exception as error:
        if is_address(path):
            raise StoreError(
                f"Cannot write {path} ({type(error).__name__}: {error}). Check that the bucket exists and that the "
                "credentials are in the environment; run the same command again: finished jobs are kept."
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full. Free some space and run the same command again: finished jobs are kept."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "It is not writable. Choose another --out, or change its permissions."
        else:
            advice = f"{error.strerror or error}. Choose another --out."
        raise StoreError(f"Cannot write {path}. {advice}") from error


def without_formulas(frame: Any) -> Any:
    """A data frame for a CSV file that people open in a spreadsheet: its texts are no formulas there.

    Names of files and classes come from anywhere, and a spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a
    tab or a return. Such a text gets an apostrophe before it; numbers stay as they are.
    """
    frame = frame.rename(columns=_no_formula)
    for name in frame.columns:
        if frame[name].dtype.kind not in "biufcmM":
            frame[name] = [_no_formula(value) for value in frame[name]]
    return frame


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in _FORMULAS or not value:
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def with_formula(text: str) -> str:
    """A text of such a file as it was before `without_formulas`."""
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULAS and text[1:] else text


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


def cache_folder(name: str) -> Path:
    """`$HEATPROOF_CACHE/NAME`, else `heatproof/NAME` in the platform's cache folder."""
    given, shared = os.environ.get("HEATPROOF_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given).expanduser() / name
    if shared:
        base = Path(shared).expanduser()
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ".cache"
    return base / "heatproof" / name
