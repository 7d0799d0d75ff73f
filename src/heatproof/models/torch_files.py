"""What `torch.load` is spared: archives that unpack to far more than they hold, and names without end.

To refuse a name that is not allowed, torch searches its own message for advice, which takes the square of the name's
length: four seconds for 20,000 characters.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from heatproof.errors import ModelError

#: torch packs nothing; whoever packs a checkpoint again makes it a little smaller.
MOST_TIMES = 20
#: The most characters of a class or function that a pickle names, with its module.
MOST_NAME = 500
#: The pickles of a file from before torch 1.6: magic number, protocol, system, content, keys.
_PICKLES = 5
_NAMING = ("GLOBAL", "INST")


def check_torch_file(file: Path) -> None:
    """ModelError for a torch file that would take torch memory or time without bounds; other faults torch says itself.

    OSError where it cannot be read.
    """
    with file.open("rb") as opened:
        for name in _names(opened, file):
            if len(name) > MOST_NAME:
                raise ModelError(
                    f"Expected a file of tensors. {file.name} is damaged: it names a class of {len(name):,} "
                    f"characters, {name[:40]!r}…. Copy or download it again."
                )


def _names(opened: BinaryIO, file: Path) -> Iterator[str]:
    """The classes and functions that the pickles of a file name, up to the first damage."""
    if not zipfile.is_zipfile(opened):
        opened.seek(0)
        for _ in range(_PICKLES):
            yield from _named(opened)
        return
    opened.seek(0)
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(opened) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > MOST_TIMES * size:
                raise ModelError(
                    f"Expected a file of tensors. {file.name} has {size:,} bytes and would unpack to {unpacked:,} (a "
                    "decompression bomb?). Save it with `torch.save`."
                )
            for info in archive.infolist():
                if info.filename.endswith(".pkl"):
                    with archive.open(info) as member:
                        yield from _named(member)  # type: ignore[arg-type]
    except ModelError:
        raise
    except Exception:  # a damaged archive meets zipfile with errors of many types
        return


def _named(stream: BinaryIO) -> Iterator[str]:
    try:
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name in _NAMING:
                yield str(argument)
    except Exception:  # damage meets pickletools with errors of many types; torch says what it is
        return
