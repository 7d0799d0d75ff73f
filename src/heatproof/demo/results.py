"""The demo's folder: who may write into it, and the page that leads to its two parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heatproof.demo.photographs import METHODS, PhotographPart
from heatproof.errors import StoreError
from heatproof.files import friendly_os_errors, write_atomically
from heatproof.panels.show_page import TEMPLATES as PANEL_TEMPLATES
from heatproof.report.templating import environment

TEMPLATES = (Path(__file__).parent / "templates", *PANEL_TEMPLATES)
#: The two parts, and all that the demo keeps in its folder.
PHOTOGRAPHS, SHAPES, INDEX, LOCK = "photographs", "shapes", "index.html", ".demo.lock"
OURS = {PHOTOGRAPHS, SHAPES, INDEX, LOCK}


@dataclass(frozen=True)
class AuditPart:
    """What the second part found: the verdict, its notes, and the page relative to the demo's folder."""

    sentence: str
    notes: Sequence[str]
    page: str


@contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """Creates the folder and locks it for one demo.

    Raises:
        StoreError: it is a file, holds files that are no demo's, is in use by another demo, or cannot be written.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise StoreError(f"The demo needs a folder. {folder} is a file. Choose another --out.")
    with friendly_os_errors(folder):
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        others = sorted(there - OURS) or sorted(there if there == {INDEX} else ())
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            raise StoreError(
                f"{folder} holds files that are no demo's ({', '.join(others[:3])}{more}). "
                "Choose an empty or new folder for --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"{folder} is in use by another demo. Wait for it, or choose another --out.") from None
    try:
        yield folder
    finally:
        lock.release()


def write_index(folder: Path, photographs: PhotographPart | None, missing: str, audit: AuditPart) -> Path:
    """Writes the page that leads to both parts; `missing` says why there are no photographs."""
    text = environment(TEMPLATES).get_template("demo.html").render(
        title="heatproof: demo",
        photographs=photographs,
        photographs_page=f"{PHOTOGRAPHS}/index.html",
        missing=missing,
        audit=audit,
        methods=METHODS,
    )  # fmt: skip
    target = folder / INDEX
    write_atomically(target, lambda file: file.write(text.encode("utf-8", "replace")))
    return target
