"""One run at a time at an address, where no system has a lock: a lease that its holder renews.

The lease is an object `.lease` with a random name and a counter. Its holder counts on every RENEWED seconds. A newcomer
that sees the counter move leaves; one that sees it stand still for SILENT seconds of its own takes the lease over. No
time is written and no two clocks are compared, so a wrong clock or one that jumps changes nothing.

A holder that stood still for longer, as a machine asleep, finds another name there. It warns and goes on: both runs
write the same bytes, and every object whole, so work is done twice and nothing is lost.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from heatproof.addresses import Place
from heatproof.errors import HeatproofError, StoreError, warn
from heatproof.files import friendly_os_errors

#: Seconds between two renewals; after which a lease that is not renewed is taken over; between two looks at it.
RENEWED, SILENT, LOOK = 10.0, 45.0, 2.0
NAME = ".lease"


@contextmanager
def leased(folder: Place) -> Iterator[None]:
    """Holds the lease of an address. StoreError where another run holds it."""
    file, name = folder / NAME, uuid.uuid4().hex
    with friendly_os_errors(folder):
        _take(file, name)
    ended = threading.Event()
    holder = threading.Thread(target=_renew, args=(file, name, ended), daemon=True)
    holder.start()
    try:
        yield
    finally:
        ended.set()
        holder.join()
        with suppress(Exception):  # a lease that cannot be removed is taken over by the next run
            if _read(file).get("name") == name:
                file.unlink()


def _take(file: Place, name: str) -> None:
    if _created(file, _content(name, 0)):
        return
    seen, since = _read(file), time.monotonic()
    while time.monotonic() - since < SILENT:
        time.sleep(min(LOOK, SILENT))
        now = _read(file)
        if not now and _created(file, _content(name, 0)):  # its holder has ended
            return
        if now != seen:
            raise StoreError(f"{file.parent} is in use by another heatproof run. Wait for it, or choose another --out.")
    file.fs.pipe_file(file.path, _content(name, 0))
    time.sleep(min(LOOK, SILENT))  # of several that take it over at once, the last to write has it
    if _read(file).get("name") != name:
        raise StoreError(f"{file.parent} is in use by another heatproof run. Wait for it, or choose another --out.")


def _renew(file: Place, name: str, ended: threading.Event) -> None:
    count = 0
    while not ended.wait(RENEWED):
        try:
            if _read(file).get("name") != name:
                warn(f"Another run has taken {file.parent} over. Both write the same results.")
                return
            count += 1
            file.fs.pipe_file(file.path, _content(name, count))
        except HeatproofError:
            raise
        except Exception:  # the network may be back at the next renewal
            continue


def _content(name: str, count: int) -> bytes:
    return json.dumps({"name": name, "count": count}).encode()


def _created(file: Place, content: bytes) -> bool:
    """Writes the lease where there is none, in one step where the file system can; whether it was written."""
    try:
        file.fs.pipe_file(file.path, content, mode="create")
    except FileExistsError:
        return False
    except (TypeError, NotImplementedError, ValueError):  # a file system that cannot
        if _read(file):
            return False
        file.fs.pipe_file(file.path, content)
    return True


def _read(file: Place) -> dict[str, Any]:
    """What the lease holds; nothing where there is none."""
    file.fs.invalidate_cache(file.parent.path)
    try:
        found = json.loads(file.fs.cat_file(file.path))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"name": "unreadable"}
    return found if isinstance(found, dict) else {"name": "unreadable"}
