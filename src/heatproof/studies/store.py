"""A results folder: the plan, one Parquet shard per finished job, an OS lock that dies with its process.

It may also lie at an address such as `s3://bucket/study` (see `addresses`), with a lease in place of the lock.

    DIR/study.json        the plan as resolved; a different plan is refused
    DIR/study.yaml        the same as a study file, to be run again (see `archive`)
    DIR/rows/KEY.parquet  the rows of one job: a job is done when its shard is there
    DIR/maps/KEY.npz      its maps (see `maps`)
    DIR/sums/KEY.json     checksums of both (see `checksums`)
    DIR/partial/KEY/      what is done of a job that is not (see `partial`)
    DIR/tables, figures, gallery, report.html     made from the rows at the end

Every file is written under a temporary name and renamed, so a file with its final name is complete.
"""

import io
import json
import os
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from heatproof.addresses import Place, is_address, names_in, place, remove_folder
from heatproof.errors import StoreError, warn
from heatproof.files import friendly_os_errors, write_atomically
from heatproof.studies.checksums import AT_ONCE_AFAR, damages, sums_text
from heatproof.studies.conditions import CONDITION_COLUMNS as CONDITION_COLUMNS
from heatproof.studies.lease import NAME as LEASE
from heatproof.studies.lease import leased
from heatproof.studies.shards import shard_folders

#: What a run says about names of classes. Names given later replace those of an earlier run.
NAMES = ("class_names", "labels_matched", "labelled_class")
#: What pages and tests are made with beside the rows. Those given later replace those of an earlier run.
PRESENTED = ("labels", "reference")
#: Who audited what, and when: kept where a later run does not say it.
SIGNED = ("author", "date", "commit")
#: The same, and what a run adds on another machine.
RENEWED = (*NAMES, *PRESENTED, *SIGNED, "machines")
#: Settings that may differ between two runs of one study: the numbers do not depend on them.
FREE = (
    *("command", "compile", "workers", "executor", "metric_facts", "estimate", "samples", "machines", "shard"),
    *("conditions_in_a_pass", "lower_precision"),  # a study goes on with those that it began with
    *(*NAMES, *PRESENTED, *SIGNED),
)
#: Settings that came later → those that change nothing where `study.json` was written before.
LATER = {"sampling": ("stratified", "first"), "conditions_at_once": ("auto", 1), "autocast": ("never",)}
#: Columns by which whole shards can be passed over; statistics of the others would cost small jobs more than they have.
STATISTICS = ["model", "dataset", "image"]
#: Shards of which each query opens every file; more are joined for a report.
JOINED = 1000
#: SQL: whether a row explains the class that the reference explains; true where there is no reference.
SAME_TARGET = "target = coalesce((SELECT min(target) FROM rows WHERE reference), target)"


class Store:
    """One results folder, or one address. Reading needs no lock; `opened` locks it for writing."""

    def __init__(self, folder: str | os.PathLike | Place):
        self.folder = place(folder)
        self.rows = self.folder / "rows"
        self.maps = self.folder / "maps"
        self.sums = self.folder / "sums"
        self.partial = self.folder / "partial"

    def plan(self) -> dict[str, Any] | None:
        """The contents of `study.json`, None if there is none. StoreError if it cannot be read."""
        path = self.folder / "study.json"
        if not path.exists():
            return None
        try:
            plan = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            plan, why = None, str(error)
        else:
            why = f"it holds {type(plan).__name__}"
        if not isinstance(plan, dict):
            raise StoreError(
                f"{path} must hold a study's plan. It cannot be read: {why}. Delete it and run the same command again, "
                "with the settings of study.yaml beside it: finished jobs are kept."
            )
        return plan

    def done(self) -> set[str]:
        """Keys of the finished jobs."""
        return {name.removesuffix(".parquet") for name in names_in(self.rows, ".parquet")}

    def discard(self, key: str) -> None:
        """Removes the files of a finished job, its rows first: it is to be run again."""
        for file in (self.rows / f"{key}.parquet", self.sums / f"{key}.json", self.maps / f"{key}.npz"):
            file.unlink(missing_ok=True)

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Writes `study.json`."""
        text = json.dumps(plan, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        write_atomically(self.folder / "study.json", lambda file: file.write(text.encode("utf-8", "surrogateescape")))

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Writes `study.json` if there is none; of one that is there only `RENEWED` changes."""
        there = self.plan()
        names = {name: plan[name] for name in RENEWED if name in plan and not (name in SIGNED and plan[name] is None)}
        if there is None:
            self.write_plan(plan)
        elif any(there.get(name) != value for name, value in json.loads(json.dumps(names)).items()):
            self.write_plan({**there, **names})

    def write_shard(self, key: str, table: pa.Table, maps: Mapping[str, np.ndarray] | None = None) -> None:
        """Writes a job's maps, the checksums, then its rows: the file of rows marks the job as done."""
        files = {"rows": rows_content(table)}
        if maps:
            files["maps"] = maps_content(maps)
            write_atomically(self.maps / f"{key}.npz", lambda file: file.write(files["maps"]))
        write_atomically(self.sums / f"{key}.json", lambda file: file.write(sums_text(files)))
        write_atomically(self.rows / f"{key}.parquet", lambda file: file.write(files["rows"]))

    def differences(self, plan: Mapping[str, Any]) -> list[str]:
        """The differences between this folder's plan and `plan`, one phrase each; empty if the folder has none."""
        there = self.plan()
        if there is None:
            return []
        asked = json.loads(json.dumps(plan))
        before, now = (dict(_leaves({k: v for k, v in plan.items() if k not in FREE})) for plan in (there, asked))
        paths = [path for path in {**before, **now} if before.get(path) != now.get(path)]
        same = {path for path, values in LATER.items() if path not in before and now.get(path) in values}
        paths = [path for path in paths if path not in same]
        others = [path for path in paths if not path.startswith("code")]
        if len(others) > 1:  # they follow from other settings, which are named
            paths = [path for path in paths if path != "conditions"]
            paths = [path for path in paths if ".preprocessing." not in path] or paths
        if others:  # what a study's own code changed is named
            paths = [path for path in paths if not str(now.get(f"{path.rpartition('.')[0]}.name")).startswith("study ")]
        if "methods" in paths:  # their options are part of their names
            paths = [path for path in paths if not path.startswith("options.")]
        if set(paths) & {"study", "methods", "controls", "metrics", "perturbations", "segmenters"}:
            paths = [path for path in paths if not path.startswith("code")]
        if {"limit", "sampling"} & set(paths):  # these follow from them
            paths = [path for path in paths if path != "jobs" and not path.startswith("datasets")]
        return list(dict.fromkeys(_difference(path, before, now) for path in sorted(paths)))

    @contextmanager
    def opened(self) -> Iterator["Store"]:
        """Creates the folder, locks it for one writing process, and removes what a killed one has left.

        Finished jobs whose files are damaged are removed too, with a warning: they are run again.

        Raises StoreError if it cannot be written, is in use, or holds other files than a study's.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"The results need a folder. {self.folder} is a file. Choose another --out.")
        if self.folder.is_dir() and any(self.folder.iterdir()) and not self._ours():
            raise StoreError(f"{self.folder} holds other files and no study. Choose an empty or new folder for --out.")
        with self.held():
            for folder in () if is_address(self.folder) else (self.folder, *self._folders()):
                for leftover in folder.glob("*.part"):
                    leftover.unlink(missing_ok=True)
            done = self.done()
            for key in self._begun() & done:
                remove_folder(self.partial / key)
            for one in damages(self.folder, sorted(done)):
                warn(f"{one} This job is run again.")
                self.discard(one.key)
            try:
                yield self
            finally:
                if not is_address(self.folder):
                    with suppress(OSError):  # there is none, or a job is not finished
                        self.partial.rmdir()

    def held(self) -> AbstractContextManager[None]:
        """Keeps other writing processes out. StoreError where one is at work."""
        return leased(self.folder) if is_address(self.folder) else self._locked()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock of the folder, which the system lets go when this process ends."""
        from filelock import FileLock, Timeout

        with friendly_os_errors(self.folder):
            for folder in (self.rows, self.maps, self.sums):
                folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StoreError(
                    f"{self.folder} is in use by another heatproof process. Wait for it, or choose another --out."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def _folders(self) -> list[Path]:
        """The folders in which an unfinished file may lie; not those of shards, which may be running."""
        below = [one for one in self.folder.iterdir() if one.is_dir() and not (one / ".lock").exists()]
        return [*below, *(one for one in self.partial.glob("*") if one.is_dir())]

    def _begun(self) -> set[str]:
        """Keys of the jobs of which a part is there."""
        if not is_address(self.folder):
            return {one.name for one in self.partial.glob("*")}
        return {file.split("/partial/")[-1].split("/")[0] for file in self.folder.fs.find(self.partial.path)}

    def _ours(self) -> bool:
        if any((self.folder / name).exists() for name in ("study.json", LEASE if is_address(self.folder) else ".lock")):
            return True
        shards = {one.name for one in shard_folders(self.folder)}
        return all(one.name in shards for one in self.folder.iterdir())


def rows_content(table: pa.Table) -> bytes:
    """A job's rows as a Parquet file."""
    buffer = io.BytesIO()
    others = [name for name in table.column_names if name != "value"]  # values repeat too little for a dictionary
    options: dict[str, Any] = {"use_dictionary": others, "write_statistics": STATISTICS}
    pq.write_table(table, buffer, compression="zstd", **options)
    return buffer.getvalue()


def maps_content(maps: Mapping[str, np.ndarray]) -> bytes:
    """A job's maps as an `.npz` file."""
    buffer, arrays = io.BytesIO(), dict[str, Any](maps)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def connect(folder: str | os.PathLike | Place, *, check: bool = True, join: bool = False):
    """A DuckDB connection in which `rows` is all rows of the study in `folder`.

    The rows of an address are copied to a temporary folder first, each object once.

    check: whether the checksums of the rows are compared first. join: whether many shards are put into one temporary
    table, which pays from about five queries on.

    Raises:
        StoreError: there are no rows, or the file of some is damaged.
    """
    import duckdb

    there: Place = place(folder)
    keys = sorted(Store(there).done())
    if not keys:
        raise StoreError(f"{folder} holds no finished rows. Give the --out folder of `heatproof run`.")
    many = join and len(keys) > JOINED
    beside = TemporaryDirectory(prefix="heatproof-rows-") if many or is_address(there) else None
    near = there
    if is_address(there) and beside is not None:
        near = Path(beside.name)
        _copy_near(there, near, keys)
    if check:
        refuse_damaged(there, near, keys)
    files = [duckdb_path(str(near / "rows" / f"{key}.parquet")) for key in keys]
    connection = duckdb.connect(str(Path(beside.name) / "rows.duckdb") if many and beside is not None else ":memory:")
    if beside is not None:
        weakref.finalize(connection, beside.cleanup)
    connection.execute("SET enable_progress_bar = false")
    size = JOINED if many else len(files)
    for start in range(0, len(files), size):  # the memory of one query grows with its files
        rows = connection.read_parquet(files[start : start + size])
        if "reference" not in rows.columns:  # written before this column existed
            rows = _with_reference(folder, rows)
        if not many:
            rows.create_view("rows")
        elif start:
            rows.insert_into("rows")
        else:
            rows.create("rows")
    return connection


def _copy_near(folder: Place, near: Path, keys: Iterable[str]) -> None:
    """Copies the rows and the checksums of some jobs from an address."""
    for name in ("rows", "sums"):
        (near / name).mkdir()

    def copy(key: str) -> None:
        for name in (f"rows/{key}.parquet", f"sums/{key}.json"):
            with suppress(FileNotFoundError):  # an older version wrote no sums
                (near / name).write_bytes((folder / name).read_bytes())

    with friendly_os_errors(near), ThreadPoolExecutor(AT_ONCE_AFAR) as pool:
        list(pool.map(copy, keys))


def _with_reference(folder: str | os.PathLike, rows: Any) -> Any:
    """The rows with their column `reference`: the images as they are. StoreError if several classes are explained."""
    rows = rows.project("*, perturbation = '' AND transformation = '' AND state = '' AS reference")
    if rows.filter("reference").aggregate("count(DISTINCT target)").fetchall() > [(1,)]:
        raise StoreError(
            f"The rows of {folder} explain several classes of the images as they are, and do not say which is the "
            "reference: they were written by an older version. Run the study again in a new folder."
        )
    return rows


def refuse_damaged(folder: Place, near: Place, keys: Sequence[str]) -> None:
    """StoreError that names the files of rows that are damaged; `near`: where they are read, a copy or the folder."""
    found = damages(near, keys, ("rows",))
    if found:
        first = found[0]._replace(file=folder / found[0].file.parent.name / found[0].file.name)
        more = f" So are {len(found) - 1} more." if len(found) > 1 else ""
        raise StoreError(
            f"{first}{more} Run the command of the study again: damaged jobs are run again, the others are kept."
        )


def shards(folder: str | os.PathLike | Place) -> list[Any]:
    """The finished row files, in order; names with a leading dot are files still being written."""
    rows = place(folder) / "rows"
    return [rows / name for name in names_in(rows, ".parquet")]


def duckdb_path(path: str) -> str:
    """The path with DuckDB's wildcards escaped."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`("models[0].mean", .5)` for every setting; a list of plain values counts as one setting."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _difference(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    there, here = before.get(path), now.get(path)
    owner, _, field = path.rpartition(".")
    name = now.get(f"{owner}.name") or before.get(f"{owner}.name")
    if path == "compiled":
        return f"the compiled networks (--compile) are {_short(there or [])} there and {_short(here or [])} here"
    if owner.startswith("code["):
        return f"the code of the {name} is not the same" if there else f"the code of the {name} was not recorded there"
    if field == "fingerprint" and there and here:
        kinds = {"models": "the weights", "maps": "the maps"}
        what = next((said for kind, said in kinds.items() if owner.startswith(kind)), "the images or labels")
        return f"{what} of {name} are not the same"
    return f"{path} is {_short(there)} there and {_short(here)} here"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
