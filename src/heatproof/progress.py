"""Progress with the time left: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """One line on a terminal for the stage that is under way."""

    def __init__(self, progress: Any):
        self._progress = progress
        self._task: Any = None

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """Begins a stage of `total` units (0: unknown), of which `done` are finished already."""
        if self._task is not None:
            self._progress.update(self._task, visible=False)
        self._task = self._progress.add_task(name, total=total - done if total else None)

    def advance(self, units: float) -> None:
        """Moves the stage on."""
        self._progress.advance(self._task, units)


class Log:
    """A line for each stage, and one for every tenth of it with the time left."""

    def __init__(self) -> None:
        self._name, self._total, self._done, self._said, self._began = "", 0.0, 0.0, 0, 0.0

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """Begins a stage of `total` units (0: unknown), of which `done` are finished already."""
        self._name, self._total, self._done, self._said, self._began = name, total - done, 0.0, 0, time.monotonic()
        self._name = name.partition(" (")[0]  # what stands in brackets is said once
        sys.stderr.write(f"{name} …\n")

    def advance(self, units: float) -> None:
        """Moves the stage on."""
        self._done += units
        tenth = min(10, int(10 * self._done / self._total + 1e-9)) if self._total else 0
        if tenth > self._said:
            self._said = tenth
            left = (time.monotonic() - self._began) * max(0.0, self._total / self._done - 1)
            sys.stderr.write(f"{self._name}: {10 * tenth} %, about {left:.0f} s left\n")


class Silent:
    """No progress."""

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """Does nothing."""

    def advance(self, units: float) -> None:
        """Does nothing."""


@contextmanager
def progress_bar() -> Iterator[Bar | Log]:
    """Progress on stderr: a bar on a terminal, else log lines."""
    if not sys.stderr.isatty():
        yield Log()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    ]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bar(progress)
