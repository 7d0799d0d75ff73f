"""Reads a study folder: the plan, the rows as a DuckDB connection, and how many jobs are missing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from heatproof.addresses import Place
from heatproof.errors import StoreError
from heatproof.studies.store import Store, connect


@dataclass(frozen=True)
class Source:
    """What a report is made from: stored files only."""

    folder: Place
    plan: Mapping[str, Any]
    connection: duckdb.DuckDBPyConnection
    done: int

    @property
    def jobs(self) -> int:
        """How many jobs the plan has, at least the number done."""
        jobs = self.plan.get("jobs") or 0
        return max(int(jobs) if isinstance(jobs, int | float) else len(jobs), self.done)

    @property
    def missing(self) -> int:
        """How many jobs are still to run."""
        return self.jobs - self.done


def open_source(folder: str | os.PathLike | Place) -> Source:
    """The study in `folder`, with its rows as view `rows`. StoreError without a study, without or with damaged rows."""
    store = Store(folder)
    plan, done = store.plan(), len(store.done())
    if not isinstance(plan, dict):
        raise StoreError(
            f"Expected a study folder, with `study.json` and `rows/`. Got {str(folder)!r}. "
            "Name the folder that `heatproof run … --out` wrote."
        )
    if not done:
        raise StoreError(
            f"Expected rows in {str(store.rows)!r}. Got none: the study has not finished its first job. "
            "Run the same `heatproof run` command again, then report."
        )
    connection = connect(store.folder, join=True)
    return Source(store.folder, plan, connection, done)
