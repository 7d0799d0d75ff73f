"""What is slow to make is kept in out/site-cache, by a hash of all that it is made from."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from .places import ROOT

FOLDER = ROOT / "out" / "site-cache"


@cache
def _code() -> bytes:
    """A hash of heatproof's source."""
    digest = hashlib.blake2b()
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.digest()


def kept_at(name: str, contents: Iterable[bytes] = ()) -> Path:
    """The path, in an existing folder, of what is made from heatproof's source and these contents."""
    digest = hashlib.blake2b(_code(), digest_size=8)
    for content in contents:
        digest.update(content)
    FOLDER.mkdir(parents=True, exist_ok=True)
    stem, _, ending = name.partition(".")
    return FOLDER / f"{stem}-{digest.hexdigest()}{'.' if ending else ''}{ending}"
