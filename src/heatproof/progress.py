"""Progress with the time left: a bar on a terminal or in a notebook, a line now and then in a log.

`heatproof.explain(…, progress=…)` and the like take what `reported` takes; the command line has `progress_bar`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from heatproof.errors import InvalidInput

#: The seconds before a bar of Python appears: what is done by then needs none.
DELAY = 2.0


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


class NotebookBar:
    """A bar of tqdm for the stage that is under way, on a terminal or in a notebook, once it has taken two seconds."""

    def __init__(self) -> None:
        self._bar: Any = None

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """Begins a stage of `total` units (0: unknown), of which `done` are finished already."""
        from tqdm.auto import tqdm

        self.close()
        whole = total - done if total else None
        self._bar = tqdm(total=whole, desc=name, delay=DELAY, leave=False, bar_format=_FORM if whole else None)

    def advance(self, units: float) -> None:
        """Moves the stage on."""
        if self._bar is not None:
            self._bar.update(units)

    def close(self) -> None:
        """Ends the stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


#: tqdm's bar without the number of units, which may be fractions.
_FORM = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"


class Calls:
    """Tells a function of the user's each step: `(stage, done, total)`; total 0 where it is not known."""

    def __init__(self, function: Callable[[str, float, float], Any]):
        self._function, self._name, self._total, self._done = function, "", 0.0, 0.0

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """Begins a stage of `total` units (0: unknown), of which `done` are finished already."""
        self._name, self._total, self._done = name, total, done
        self._function(name, done, total)

    def advance(self, units: float) -> None:
        """Moves the stage on, at most to its end."""
        self._done += units
        self._function(self._name, min(self._done, self._total) if self._total else self._done, self._total)


@contextmanager
def reported(progress: Any) -> Iterator[Any]:
    """The progress that an argument `progress` asks for, an object with `stage` and `advance`.

    False or None: none. True: a bar of tqdm in a notebook or on a terminal after two seconds, lines in a log. A
    function is called with `(stage, done, total)`. An object with the two methods is used as it is.

    Raises:
        InvalidInput: anything else.
    """
    if progress is None or progress is False:
        yield Silent()
    elif progress is True:
        if not (sys.stderr.isatty() or _in_notebook()):
            yield Log()
            return
        bar = NotebookBar()
        try:
            yield bar
        finally:
            bar.close()
    elif hasattr(progress, "stage") and hasattr(progress, "advance"):
        yield progress
    elif callable(progress):
        yield Calls(progress)
    else:
        raise InvalidInput(
            "`progress` must be True, False, a function (stage, done, total), or an object with `stage` and `advance`. "
            f"Got {type(progress).__name__}."
        )


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


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
