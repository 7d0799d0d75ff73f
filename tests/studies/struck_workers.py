"""Workers to which something happens once at each stage of a study, for the tests of faults.

It has a module of its own because worker processes import it.
"""

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heatproof.studies import worker

#: What happens to a worker process.
BLOWS = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashes": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exits": lambda: os._exit(0),
    "hangs": lambda: time.sleep(600),
}


class Struck:
    """An executor whose workers are struck once at each stage: `prepare`, `open`, or `maps`, `rows`, `gallery`,
    when the first file of that folder has just been written."""

    def __init__(self, executor: Any, marks: Path, blow: str, *stages: str):
        self.executor, self.marks, self.blow, self.stages = executor, marks, blow, stages
        marks.mkdir()

    @contextmanager
    def running(self, prepare: Any, setup: Any):
        with self.executor.running(Striking(prepare, self.marks, self.blow, self.stages), setup) as map_jobs:
            yield map_jobs

    @property
    def struck(self) -> set[str]:
        """The stages at which it has happened."""
        return {path.name for path in self.marks.iterdir()}


class Striking:
    """`prepare` in a worker that is struck."""

    def __init__(self, prepare: Any, marks: Path, blow: str, stages: tuple[str, ...]):
        self.prepare, self.marks, self.blow, self.stages = prepare, marks, blow, stages

    def __call__(self, setup: Any) -> Any:
        self._strike("prepare")
        opened, renamed = worker.open_block, Path.replace

        def open_block(*args: Any, **options: Any) -> Any:
            self._strike("open")
            return opened(*args, **options)

        def replace(path: Path, target: Path) -> Path:
            found = renamed(path, target)
            self._strike(Path(target).parent.name)
            return found

        worker.open_block, Path.replace = open_block, replace  # type: ignore[assignment]
        return self.prepare(setup)

    def _strike(self, stage: str) -> None:
        if stage in self.stages:
            try:
                (self.marks / stage).touch(exist_ok=False)
            except FileExistsError:
                return
            BLOWS[self.blow]()


class CrashingImages:
    """A set of images of which some end the process that opens them, or hang it."""

    def __init__(self, images: Any, blows: dict[str, str]):
        self.images, self.blows = images, blows

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "images":
            raise AttributeError(name)
        return getattr(self.images, name)

    def open(self, i: int) -> Any:
        blow = self.blows.get(self.images.ids[i])
        if blow:
            BLOWS[blow]()
        return self.images.open(i)
