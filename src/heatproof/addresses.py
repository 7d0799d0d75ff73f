"""Where files lie: paths of this machine, and addresses such as `s3://bucket/study`, which fsspec reads and writes.

A path is a `pathlib.Path`; an address is a `UPath` of universal_pathlib, which has the same methods. Credentials and
endpoints of an address come from where its file system looks for them, as the environment variables of AWS.
"""

import io
import os
import re
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from heatproof.errors import InvalidImage, InvalidInput, MissingExtra

#: A path or an address; the latter is a `UPath`, which may not be installed.
Place = Any
#: What reading a damaged `.npz` or JSON file raises.
DAMAGED = (InvalidImage, OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def place(where: str | os.PathLike | Place) -> Place:
    """A path of this machine as `Path`, an address as `UPath`.

    Raises:
        MissingExtra: an address without the extra `remote`, or without the package of its file system.
        InvalidInput: a file system that is not known.
    """
    if isinstance(where, Path) or is_address(where):
        return where
    text = os.fspath(where)
    text = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(text)
    try:
        from upath import UPath
    except ImportError:
        raise MissingExtra(f"{text} is an address, which needs: pip install 'heatproof[remote]'.") from None
    try:
        found = UPath(text)
        found.fs  # noqa: B018 - the package of the file system is imported here
    except ImportError as error:
        raise MissingExtra(f"{text} needs a package that is not installed: {error}.") from error
    except ValueError as error:
        raise InvalidInput(
            f"{text} must begin with a file system that fsspec knows, as s3://, gs:// or memory://. {error}."
        ) from error
    return Path(found.path) if scheme[1].lower() in ("file", "local") else found


def lasting_place(where: str | os.PathLike | Place) -> Place:
    """`place` of what a command writes or reads. InvalidInput for memory://, which ends with the process."""
    found = place(where)
    if is_address(found) and found.protocol == "memory":
        raise InvalidInput(
            f"{where} is memory of one process: a command finds nothing there, and what it writes is gone when it "
            "ends. Name a folder, or an address such as s3://bucket/x; memory:// is for calls in Python."
        )
    return found


def folder_here(where: str) -> Path:
    """The folder of an option that takes no address. InvalidInput for one, which would name a folder `s3:`."""
    if isinstance(where, str) and _SCHEME.match(where):
        raise InvalidInput(f"This command writes to a folder of this machine. Got the address {where}. Name a folder.")
    return Path(where)


def is_address(where: Any) -> bool:
    """Whether it is an address as `place` gives them, not a path of this machine."""
    return hasattr(where, "fs") and hasattr(where, "path")


def refuse_address(where: Any, what: str) -> None:
    """InvalidInput where something needs a folder of this machine."""
    if is_address(where) or (isinstance(where, str) and _SCHEME.match(where)):
        raise InvalidInput(f"{what} needs a folder of this machine. Got {where}. Copy the results here first.")


def put(where: Place, content: bytes) -> None:
    """Writes an object whole in one call; folders need not be there."""
    try:
        where.fs.pipe_file(where.path, content)
    except FileNotFoundError:  # a file system with folders
        where.fs.makedirs(where.parent.path, exist_ok=True)
        where.fs.pipe_file(where.path, content)


def names_in(folder: Place, suffix: str) -> list[str]:
    """The names of the files with a suffix in a folder, in order, without hidden ones; none where there is no folder.

    One listing, whatever the number of files.
    """
    if not is_address(folder):
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
    else:
        folder.fs.invalidate_cache(folder.path)  # what another machine wrote since
        try:
            names = [one.rstrip("/").rpartition("/")[2] for one in folder.fs.ls(folder.path, detail=False)]
        except FileNotFoundError:
            return []
    return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))


def load_arrays(file: Place) -> Any:
    """The arrays of an `.npz` by name (an `Archive`), to be closed. Those of an address are read at once."""
    from heatproof.archives import Archive  # imports numpy

    return Archive(file.name, content=io.BytesIO(file.read_bytes())) if is_address(file) else Archive(file)


def remove_folder(folder: Place) -> None:
    """Removes a folder and all that is in it, where it is there."""
    if not is_address(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        folder.fs.rm(folder.path, recursive=True)
    folder.fs.invalidate_cache(folder.parent.path)
