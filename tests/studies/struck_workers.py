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
from heatproof.studies.executors import Finished, Lost, Schedule

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


class Losing:
    """An executor of two workers in this process; `losses`: how many workers each of the first jobs loses.

    memory: they are lost as those that lack of memory ends.
    """

    def __init__(self, *losses: int, memory: bool = False):
        self.losses, self.memory = losses, memory

    @contextmanager
    def running(self, prepare: Any, setup: Any):
        def map_jobs(jobs: Any, advance: Any) -> Any:
            losses = dict(zip(jobs, self.losses, strict=False))
            return Schedule(LosingWorkers(prepare(setup), losses, self.memory), 2, None).map(jobs, advance)

        yield map_jobs


class LosingWorkers:
    """The workers of `Losing`: each job reports half of it, and then its worker is lost or does it."""

    def __init__(self, work: Any, losses: dict[Any, int], memory: bool):
        self.work, self.losses, self.memory = work, losses, memory
        self.jobs: dict[int, Any] = {}
        self.started = 0

    def start(self) -> int:
        self.started += 1
        return self.started

    def give(self, worker: int, job: Any) -> None:
        self.jobs[worker] = job

    def outcomes(self, seconds: float) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for one, job in self.jobs.items():
            if self.losses.get(job, 0):
                self.losses[job] -= 1
                found.append((one, Lost("it ended", self.memory)))
            else:
                found.append((one, Finished(self.work(job, lambda share: None))))
        self.jobs = {}
        return found

    def advanced(self) -> list[tuple[int, float]]:
        return [(worker, 0.5) for worker in self.jobs]

    def end(self, worker: int) -> None:
        self.jobs.pop(worker, None)


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
