"""Shards of a study, each run on a machine of its own, put together in one results folder.

The files of a job keep their names and bytes, so the folder is that of a study that was run in one piece. On one disk
they are linked, not copied.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from heatproof.addresses import Place, is_address, place
from heatproof.errors import InvalidInput, StoreError
from heatproof.files import write_atomically
from heatproof.studies.archive import copy_archive
from heatproof.studies.checksums import damages
from heatproof.studies.shards import Shard, job_keys, shard_folders
from heatproof.studies.store import Store

#: Files that are copied at once.
AT_ONCE = 16
#: How many names an error lists.
LISTED = 12


def merged(folders: Sequence[str | os.PathLike | Place], out: str | os.PathLike | Place | None = None) -> Any:
    """Puts shards together into `out`, by default the one folder given, and returns it.

    folders: of shards, or those that hold them.

    Raises:
        StoreError: a shard is of another study, still running, damaged or missing; a job is there with other results.
        InvalidInput: no shards; several folders and no `out`.
    """
    if out is None and len(folders) != 1:
        raise InvalidInput(f"Shards of {len(folders)} folders need one for the whole. Give --out.")
    stores = [Store(shard) for shard in _shards_in(folders)]
    target = Store(folders[0] if out is None else out)
    with ExitStack() as held:
        for store in stores:
            try:
                held.enter_context(store.held())
            except StoreError as error:
                raise StoreError(f"{store.folder} is still running. Wait for it, then merge again.") from error
        plan = _common_plan(stores)
        owners = _owners(stores, plan, target.done())
        with target.opened():
            _fill(target, stores, owners, plan)
    return target.folder


def _shards_in(folders: Iterable[Any]) -> list[Any]:
    found = []
    for folder in map(place, folders):
        below = shard_folders(folder)
        found += below or [folder]
        if not below and Store(folder).plan() is None:
            raise InvalidInput(f"{folder} holds no shards. Give the --out folder of commands with --shard.")
        if not below and not (Store(folder).plan() or {}).get("shard"):
            raise InvalidInput(f"{folder} holds a study that is in one piece. There is nothing to merge.")
    return list(dict.fromkeys(found))


def _common_plan(stores: Sequence[Store]) -> dict[str, Any]:
    """The plan of the whole study. StoreError where shards are of different studies or counts."""
    plans = [store.plan() for store in stores]
    for store, plan in zip(stores, plans, strict=True):
        if plan is None:
            raise StoreError(f"{store.folder} has not begun: it holds no study.json. Run the command of this shard.")
        if differences := stores[0].differences(plan):
            raise StoreError(
                f"{store.folder} is of another study than {stores[0].folder}: {'; '.join(differences)}. Merge shards "
                "of one command."
            )
    counts = {Shard.read(plan["shard"]).count for plan in plans if plan}
    if len(counts) > 1:
        raise StoreError(
            f"These are shards of {' and of '.join(map(str, sorted(counts)))}, which overlap. Name the folders of "
            "those that belong together, and --out."
        )
    levels = {store.folder: _content(store.folder / "calibration.json") for store in stores}
    other = next((folder for folder, one in levels.items() if one != levels[stores[0].folder]), None)
    if other is not None:
        raise StoreError(
            f"{other} was calibrated to other strengths than {stores[0].folder}: the machines round differently. Copy "
            "calibration.json of one shard into the folders of the others before they run."
        )
    whole = {name: value for name, value in (plans[0] or {}).items() if name != "shard"}
    every = [machine for plan in plans if plan for machine in plan.get("machines") or ()]
    whole["machines"] = [one for place, one in enumerate(every) if one not in every[:place]]
    whole["command"] = re.sub(r"\s--shard[ =]\S+", "", str(whole.get("command") or ""))
    return whole


def _content(file: Place) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _owners(stores: Sequence[Store], plan: Mapping[str, Any], there: Collection[str]) -> dict[str, Store]:
    """Key of a job → the shard that did it; `there`: jobs that the whole has already.

    Raises:
        StoreError: a job is missing, damaged, or there with two results.
    """
    owners: dict[str, Store] = {}
    keys = job_keys(plan)
    for store in stores:
        shard = Shard.read((store.plan() or {})["shard"])
        again = f"Run the command of this shard (--shard {shard}) again, then merge."
        done = sorted(store.done())
        if foreign := sorted({*done} - {*keys}):
            raise StoreError(f"{store.rows / foreign[0]}.parquet is no job of this study. Remove it, then merge again.")
        if broken := damages(store.folder, done):
            more = f" So are {len(broken) - 1} more." if len(broken) > 1 else ""
            raise StoreError(f"{broken[0]}{more} {again}")
        for key in done:
            _refuse_other(owners.setdefault(key, store), store, key)
    if missing := [position for position, key in enumerate(keys) if key not in owners and key not in there]:
        count = Shard.read((stores[0].plan() or {})["shard"]).count
        numbers = sorted({position % count + 1 for position in missing})
        named = ", ".join(f"--shard {number}/{count}" for number in numbers[:LISTED])
        more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
        raise StoreError(
            f"{len(missing):,} of {len(keys):,} jobs are missing. Run the same command with {named}{more} to its end, "
            "then merge again."
        )
    return owners


def _files(store: Store, key: str) -> list[Any]:
    """The files of a job, in the order in which they are written."""
    files = (store.maps / f"{key}.npz", store.sums / f"{key}.json", store.rows / f"{key}.parquet")
    return [file for file in files if file.exists()]


def _refuse_other(one: Store, other: Store, key: str) -> None:
    """StoreError where a job of two folders has different results."""
    if one is other:
        return
    there, here = ({file.name: file.read_bytes() for file in _files(store, key)} for store in (one, other))
    if there != here:
        raise StoreError(
            f"{one.folder} and {other.folder} hold different results of the job {key}. Remove one of them, and run "
            "its command again if its jobs are missing then."
        )


def _fill(target: Store, stores: Sequence[Store], owners: Mapping[str, Store], plan: Mapping[str, Any]) -> None:
    if differences := target.differences(plan):
        raise StoreError(
            f"{target.folder} holds another study than the shards: {'; '.join(differences)}. Choose another --out."
        )
    done = target.done()
    for key in done & {*owners}:
        _refuse_other(target, owners[key], key)
    target.begin(plan)
    first = stores[0].folder
    copy_archive(first, target.folder)
    if (first / "calibration.json").exists():
        copied(first / "calibration.json", target.folder / "calibration.json")

    def take(key: str) -> None:
        for file in _files(owners[key], key):
            copied(file, target.folder / file.parent.name / file.name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(take, sorted({*owners} - done)))


def copied(source: Place, target: Place) -> None:
    """Gives a file a second name where both lie on one disk, else copies it."""
    if not is_address(source) and not is_address(target):
        try:
            os.link(source, target)
            return
        except FileExistsError:
            target.unlink()
            return copied(source, target)
        except OSError:  # another disk, or one without links
            pass
    content = source.read_bytes()
    write_atomically(target, lambda file: file.write(content))
