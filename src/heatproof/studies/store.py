"""A results folder: the plan, one Parquet shard per finished job, an OS lock that dies with its process.

    DIR/study.json        the plan as resolved; a different plan is refused
    DIR/study.yaml        the same as a study file, to be run again (see `archive`)
    DIR/rows/KEY.parquet  the rows of one job: a job is done when its shard is there
    DIR/maps/KEY.npz      its maps (see `maps`)
    DIR/partial/KEY/      what is done of a job that is not (see `partial`)
    DIR/tables, figures, gallery, report.html     made from the rows at the end

Every file is written under a temporary name and renamed, so a file with its final name is complete.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from heatproof.errors import StoreError
from heatproof.files import friendly_os_errors, write_atomically
from heatproof.studies.conditions import CONDITION_COLUMNS as CONDITION_COLUMNS

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
    *("command", "compile", "workers", "executor", "metric_facts", "estimate", "samples", "machines"),
    *(*NAMES, *PRESENTED, *SIGNED),
)
#: SQL: whether a row explains the class that the reference explains; true where there is no reference.
SAME_TARGET = "target = coalesce((SELECT min(target) FROM rows WHERE reference), target)"


class Store:
    """One results folder. Reading needs no lock; `opened` locks it for writing."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.rows = self.folder / "rows"
        self.maps = self.folder / "maps"
        self.partial = self.folder / "partial"

    def plan(self) -> dict[str, Any] | None:
        """The contents of `study.json`, None if there is none. StoreError if it cannot be read."""
        path = self.folder / "study.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise StoreError(f"{path} must hold a study's plan. It cannot be read: {error}.") from error

    def done(self) -> set[str]:
        """Keys of the finished jobs."""
        return {path.stem for path in shards(self.folder)}

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
        """Writes a job's maps, then its rows: the file of rows marks the job as done."""
        if maps:
            arrays: dict[str, Any] = dict(maps)
            write_atomically(self.maps / f"{key}.npz", lambda file: np.savez(file, **arrays))
        write_atomically(self.rows / f"{key}.parquet", lambda file: pq.write_table(table, file, compression="zstd"))

    def differences(self, plan: Mapping[str, Any]) -> list[str]:
        """The differences between this folder's plan and `plan`, one phrase each; empty if the folder has none."""
        there = self.plan()
        if there is None:
            return []
        asked = json.loads(json.dumps(plan))
        before, now = (dict(_leaves({k: v for k, v in plan.items() if k not in FREE})) for plan in (there, asked))
        paths = [path for path in {**before, **now} if before.get(path) != now.get(path)]
        if "sampling" not in before:  # written before there was a choice: the images themselves decide
            paths = [path for path in paths if path != "sampling"]
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
        """Creates the folder, locks it for one writing process, and removes leftovers of a killed one.

        Raises StoreError if it cannot be written, is in use, or holds other files than a study's.
        """
        from filelock import FileLock, Timeout

        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"The results need a folder. {self.folder} is a file. Choose another --out.")
        if self.folder.is_dir() and any(self.folder.iterdir()) and not self._ours():
            raise StoreError(f"{self.folder} holds other files and no study. Choose an empty or new folder for --out.")
        with friendly_os_errors(self.folder):
            self.rows.mkdir(parents=True, exist_ok=True)
            self.maps.mkdir(exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StoreError(
                    f"{self.folder} is in use by another heatproof process. Wait for it, or choose another --out."
                ) from None
        try:
            for leftover in self.folder.glob("**/*.part"):
                leftover.unlink(missing_ok=True)
            for key in self.done():
                shutil.rmtree(self.partial / key, ignore_errors=True)
            yield self
        finally:
            with suppress(OSError):  # there is none, or a job is not finished
                self.partial.rmdir()
            lock.release()

    def _ours(self) -> bool:
        return (self.folder / "study.json").exists() or (self.folder / ".lock").exists()


def connect(folder: str | os.PathLike):
    """A DuckDB connection in which `rows` is all rows of the study in `folder`. StoreError without rows."""
    import duckdb

    files = [duckdb_path(str(path)) for path in shards(folder)]
    if not files:
        raise StoreError(f"{folder} holds no finished rows. Give the --out folder of `heatproof run`.")
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    rows = connection.read_parquet(files)
    if "reference" not in rows.columns:  # written before this column existed
        rows = _with_reference(folder, rows)
    rows.create_view("rows")
    return connection


def _with_reference(folder: str | os.PathLike, rows: Any) -> Any:
    """The rows with their column `reference`: the images as they are. StoreError if several classes are explained."""
    rows = rows.project("*, perturbation = '' AND transformation = '' AND state = '' AS reference")
    if rows.filter("reference").aggregate("count(DISTINCT target)").fetchall() > [(1,)]:
        raise StoreError(
            f"The rows of {folder} explain several classes of the images as they are, and do not say which is the "
            "reference: they were written by an older version. Run the study again in a new folder."
        )
    return rows


def shards(folder: str | os.PathLike) -> list[Path]:
    """The finished row files, in order; names with a leading dot are files still being written."""
    return sorted(path for path in (Path(folder) / "rows").glob("*.parquet") if not path.name.startswith("."))


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
