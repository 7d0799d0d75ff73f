"""Checksums of a job's files, in `sums/KEY.json`: what was cut off, altered or lost on disk is found, and run again.

The sums are written after the maps and before the rows, whose file marks the job as done. Rows of older versions have
none: their Parquet file must be whole, and their maps must pass the checks that a zip file holds.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from heatproof.addresses import DAMAGED, Place, is_address

#: Files that are read at once: of this machine, and of an address, which answers late.
AT_ONCE, AT_ONCE_AFAR = 4, 32
#: Columns that rows of every version have.
COLUMNS = ("study", "model", "dataset", "image", "method", "metric", "value", "flag")


class Damage(NamedTuple):
    """A file of a finished job that is not what was written."""

    key: str
    file: Place
    why: str

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.why}."


def checksum(content: bytes) -> dict[str, Any]:
    """The size and the hash of a file."""
    return {"bytes": len(content), "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest()}


def sums_text(files: Mapping[str, bytes]) -> bytes:
    """The content of `sums/KEY.json`: kind of file (`rows`, `maps`) → its checksum."""
    return (json.dumps({kind: checksum(content) for kind, content in sorted(files.items())}) + "\n").encode()


def damages(folder: Place, keys: Iterable[str], kinds: Collection[str] = ("rows", "maps")) -> list[Damage]:
    """What is damaged among the files of finished jobs, in their order; all bytes of these kinds are read once."""
    keys = list(keys)
    with ThreadPoolExecutor(AT_ONCE_AFAR if is_address(folder) else AT_ONCE) as pool:
        found = pool.map(lambda key: damage(folder, key, kinds), keys)
        return [one for one in found if one is not None]


def damage(folder: Place, key: str, kinds: Collection[str] = ("rows", "maps")) -> Damage | None:
    """What is damaged of one finished job; None where nothing is."""
    files = {"rows": folder / "rows" / f"{key}.parquet", "maps": folder / "maps" / f"{key}.npz"}
    sums = folder / "sums" / f"{key}.json"
    try:
        known = json.loads(sums.read_bytes())
        wanted = {kind: known[kind] for kind in files if kind in known and kind in kinds}
        stated = {kind: (one["bytes"], one["blake2b"]) for kind, one in wanted.items()}
    except FileNotFoundError:
        return _older(key, files, kinds)
    except DAMAGED:
        return Damage(key, sums, "it cannot be read")
    for kind, there in stated.items():
        try:
            content = files[kind].read_bytes()
        except FileNotFoundError:
            return Damage(key, files[kind], "it is missing")
        except OSError as error:
            return Damage(key, files[kind], f"it cannot be read ({error.strerror or error})")
        if len(content) != there[0]:
            return Damage(key, files[kind], f"it has {len(content):,} bytes of {there[0]:,}")
        if checksum(content)["blake2b"] != there[1]:
            return Damage(key, files[kind], "its bytes are not those that were written")
    return None


def _older(key: str, files: Mapping[str, Place], kinds: Collection[str]) -> Damage | None:
    """What is damaged of a job without checksums."""
    checks: dict[str, Callable[[Any], str]] = {"rows": _check_rows, "maps": _check_maps}
    for kind, file in files.items():
        if kind not in kinds:
            continue
        try:
            with file.open("rb") as opened:
                why = checks[kind](opened)
        except FileNotFoundError:  # not every study stores maps
            continue
        except (*DAMAGED, pa.ArrowException) as error:
            why = f"it cannot be read ({type(error).__name__})"
        if why:
            return Damage(key, file, why)
    return None


def _check_rows(file: Any) -> str:
    table = pq.read_table(pa.PythonFile(file, "r"))
    missing = [name for name in COLUMNS if name not in table.column_names]
    return f"it has no column {missing[0]}" if missing else ""


def _check_maps(file: Any) -> str:
    with zipfile.ZipFile(file) as archive:
        broken = archive.testzip()
    return f"{broken} in it is not what was written" if broken else ""
