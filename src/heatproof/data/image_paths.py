"""Which files in a folder are images, and how their names are written."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from heatproof.errors import InvalidInput, warn
from heatproof.files import exists

#: The extension alone decides: a text file named .jpg counts, and is flagged when it is opened.
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".npy", ".dcm", ".dicom"}
)


def printable(name: str | os.PathLike) -> str:
    r"""A file name as text that can be printed and stored: bytes that are not UTF-8 are written as `\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def names_for(identity: str) -> Iterator[str]:
    """The names that the map or mask of an image may have: its whole name, then without its first folders.

    Each is given as it is and without its ending: `a/b.png`, `a/b`, `b.png`, `b`.
    """
    parts = [part for part in PurePosixPath(identity.replace("\\", "/")).parts if part not in ("/", "..")]
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        yield name
        yield name.removesuffix(PurePosixPath(name).suffix)


def image_files(folder: Path) -> list[Path]:
    """The images below `folder` at any depth, sorted by path; hidden files and folders are skipped.

    Links are followed, each folder is visited once; a warning says where some lead out of the folder.
    Raises InvalidInput where there is no such folder, or one of its folders cannot be read.
    """
    if not exists(folder):
        raise InvalidInput(f"`images` must be a folder of images. There is no {printable(folder)}.")
    if not folder.is_dir():
        raise InvalidInput(f"`images` must be a folder of images. {printable(folder)} is a file.")
    try:
        outside: list[Path] = []
        found = sorted(_walk(folder, set(), outside), key=lambda path: os.fsencode(path.relative_to(folder)))
    except OSError as error:
        where = printable(error.filename or folder)
        raise InvalidInput(f"`images` must be readable. {where}: {error.strerror}.") from error
    if outside:
        several = f" and {len(outside) - 1:,} more" if len(outside) > 1 else ""
        warn(
            f"In {printable(folder)} some links lead out of the folder: {printable(outside[0].relative_to(folder))}"
            f"{several}. They are followed."
        )
    return found


def matching_files(pattern: str | os.PathLike) -> list[str]:
    """The files that a pattern such as `photos/*.jpg` matches, sorted; none where it is no pattern.

    As in a folder, those whose extension is an image's; all, where none has one. Raises InvalidInput for a pattern
    that matches no file, unless a file has that name.
    """
    if not glob.has_magic(str(pattern)) or Path(pattern).exists():
        return []
    found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 - may be absolute
    files = [name for name in sorted(found) if Path(name).is_file()]
    if not files:
        folders = f" It matches {len(found)} folders: add /*." if found else ""
        raise InvalidInput(f"No file matches the pattern {printable(str(pattern))!r}.{folders}")
    return [name for name in files if Path(name).suffix.lower() in EXTENSIONS] or files


def subfolders(folder: Path) -> list[str]:
    """The names of the visible folders in `folder`, sorted."""
    found = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not hidden(entry.name)]
    return sorted(found, key=os.fsencode)


def _walk(folder: Path, seen: set[str], outside: list[Path], root: str = "") -> Iterator[Path]:
    """The images below a folder; `outside` gets the links that lead out of the first one."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    root = root or real
    with os.scandir(folder) as entries:
        # Sorted, so that which of two links to one folder is visited does not depend on the disk.
        ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in ordered:
        if hidden(entry.name):
            continue
        if entry.is_dir():
            outside += [folder / entry.name] if _leads_out(entry, root) else []
            yield from _walk(folder / entry.name, seen, outside, root)
        elif _is_image(entry):
            outside += [folder / entry.name] if _leads_out(entry, root) else []
            yield folder / entry.name


def _leads_out(entry: os.DirEntry, root: str) -> bool:
    return entry.is_symlink() and os.path.commonpath([os.path.realpath(entry.path), root]) != root


def _is_image(entry: os.DirEntry) -> bool:
    """Whether an entry is an image; a dangling link counts, and is flagged when it is opened."""
    known = os.path.splitext(entry.name)[1].lower() in EXTENSIONS  # noqa: PTH122
    return known and (entry.is_file() or entry.is_symlink())


def hidden(name: str) -> bool:
    """Whether a file or folder of that name is passed over."""
    return name.startswith(".") or name == "__MACOSX"
