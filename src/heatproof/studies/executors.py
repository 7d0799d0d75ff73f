"""Executors run the jobs of a study: here, in processes, on a cluster. The numbers are the same.

`executor.running(prepare, setup)` gives a function `map(jobs, advance)`, which yields what each job gives, in the order
in which they finish. Jobs and `setup` can be pickled; `prepare(setup)` runs once in each worker and gives the function
that does one job.

An executor with workers of its own is a `Workers` and a `Schedule`: the first starts and ends workers and carries jobs
to them, the second decides which worker does what, and what happens to the job of a worker that is lost.
"""

import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from heatproof.errors import HeatproofError, warn

Advance = Callable[[float], None]
Run = Callable[[Any, Advance], Any]
Prepare = Callable[[Any], Run]
Map = Callable[[Sequence[Any], Advance], Iterator[Any]]

#: How often a job is begun whose worker is lost every time.
ATTEMPTS = 3
#: Minutes without progress after which a worker is ended, unless another time is given.
TIMEOUT = 60.0


class Executor(Protocol):
    """The interface of an executor."""

    def running(self, prepare: Prepare, setup: Any) -> AbstractContextManager[Map]: ...


class Serial:
    """Runs jobs one after the other in this process."""

    @contextmanager
    def running(self, prepare: Prepare, setup: Any) -> Iterator[Map]:
        """Gives `map`; `advance` is called with fractions of a job, which add up to 1 for each job."""

        def serial(jobs: Sequence[Any], advance: Advance) -> Iterator[Any]:
            run = prepare(setup) if jobs else None
            for job in jobs:
                assert run is not None
                yield run(job, advance)

        yield serial


#: The arguments of `warnings.showwarning`, as a worker sends them.
Told = tuple[str, type[Warning], str, int]


@dataclass(frozen=True)
class Finished:
    """What a job gave, and the warnings of its worker since the last one."""

    result: Any
    told: Sequence[Told] = ()


@dataclass(frozen=True)
class Failed:
    """A job, or the start of a worker, raised an error: the study ends with it."""

    error: BaseException


@dataclass(frozen=True)
class Lost:
    """A worker ended before its job did. memory: whether lack of memory is the likely reason."""

    why: str
    memory: bool = False


Outcome = Finished | Failed | Lost


class Workers(Protocol):
    """Workers that do one job at a time, each known by something hashable."""

    def start(self) -> Hashable: ...
    def give(self, worker: Any, job: Any) -> None: ...
    def outcomes(self, seconds: float) -> Sequence[tuple[Any, Outcome]]:
        """What happened since the last call; waits for at most `seconds`."""
        ...

    def advanced(self) -> Sequence[tuple[Any, float]]:
        """Worker and fraction of its job done since the last call."""
        ...

    def end(self, worker: Any) -> None:
        """Ends a worker at once, in the middle of a job too."""
        ...


@dataclass
class Assignment:
    """A job that a worker does: how much of it has been reported, and when something was reported last."""

    job: Any
    share: float = 0.0
    last: float = field(default_factory=time.monotonic)


@dataclass
class Schedule:
    """Which worker does which job. A job whose worker is lost is begun again by another one, `ATTEMPTS` times in all.

    A worker has one job at a time, so that no job waits behind a slow one, and what has been computed is on the disk.

    Attributes:
        count: the most workers at once. A worker lost for lack of memory is not replaced, unless it is the last one.
        timeout: minutes without progress after which a worker is ended, as one that is lost; None waits for ever.
    """

    workers: Workers
    count: int
    timeout: float | None = TIMEOUT
    _idle: list[Any] = field(default_factory=list, init=False)
    _busy: dict[Any, Assignment] = field(default_factory=dict, init=False)
    _said: set[str] = field(default_factory=set, init=False)
    _losses: int = field(default=0, init=False)

    def map(self, jobs: Sequence[Any], advance: Advance) -> Iterator[Any]:
        """Yields what each job gives; `advance` is called with fractions of a job, also negative ones of a lost one.

        Raises:
            HeatproofError: jobs were lost too often; all others are finished before.
        """
        waiting, attempts, given_up = deque(jobs), Counter[Any](), dict[Any, str]()
        while waiting or self._busy:
            self._fill(waiting)
            outcomes = self.workers.outcomes(0.2)
            self._note_progress(advance)
            for worker, outcome in [*outcomes, *self._hung()]:
                assigned = self._busy.pop(worker, None)
                if isinstance(outcome, Failed):
                    raise outcome.error
                if isinstance(outcome, Finished):
                    self._idle.append(worker)
                    self._losses = 0
                    self._show(outcome.told)
                    yield outcome.result
                    continue
                self._forget(worker, outcome)
                if assigned is None:
                    continue
                advance(-assigned.share)
                attempts[assigned.job] += 1
                if attempts[assigned.job] < ATTEMPTS:
                    waiting.appendleft(assigned.job)
                else:
                    given_up[assigned.job] = outcome.why
                self._losses += 1
                if self._losses >= ATTEMPTS * max(2, self.count):
                    raise lost_jobs({assigned.job: outcome.why})
        if given_up:
            raise lost_jobs(given_up)

    def _fill(self, waiting: deque[Any]) -> None:
        """Gives waiting jobs to idle workers, and starts further ones."""
        while waiting and len(self._busy) < self.count:
            worker = self._idle.pop() if self._idle else self.workers.start()
            self._busy[worker] = Assignment(waiting.popleft())
            self.workers.give(worker, self._busy[worker].job)

    def _note_progress(self, advance: Advance) -> None:
        for worker, share in self.workers.advanced():
            if worker in self._busy:
                self._busy[worker].share += share
                self._busy[worker].last = time.monotonic()
                advance(share)

    def _hung(self) -> list[tuple[Any, Outcome]]:
        """The workers that have reported nothing for too long."""
        if not self.timeout:
            return []
        limit = time.monotonic() - 60 * self.timeout
        why = f"it made no progress for {self.timeout:g} min (--timeout)"
        return [(worker, Lost(why)) for worker, one in self._busy.items() if one.last < limit]

    def _forget(self, worker: Any, outcome: Lost) -> None:
        """Ends what is left of a lost worker, and says what happened."""
        self.workers.end(worker)
        self._idle = [one for one in self._idle if one != worker]
        fewer = outcome.memory and self.count > 1
        self.count -= fewer
        left = "one worker" if self.count == 1 else f"{self.count} workers"
        after = f"The study goes on with {left}" if fewer else "Another one takes its job"
        warn(f"A worker was lost: {outcome.why}. {after}; no result is lost, and no number changes.")

    def _show(self, told: Sequence[Told]) -> None:
        """Shows warnings of workers, each text once."""
        for one in told:
            if one[0] not in self._said:
                self._said.add(one[0])
                warnings.showwarning(*one)


def lost_jobs(given_up: dict[Any, str]) -> HeatproofError:
    """The error for jobs whose workers were lost every time."""
    names = ", ".join(str(getattr(job, "about", job)) for job in list(given_up)[:3])
    more = f" and {len(given_up) - 3} more" if len(given_up) > 3 else ""
    why = "; ".join(dict.fromkeys(given_up.values()))
    count = f"{len(given_up)} {'job' if len(given_up) == 1 else 'jobs'}"
    return HeatproofError(
        f"{count} could not be finished ({names}{more}): every worker that began one was lost. "
        f"{why[:1].upper()}{why[1:]}. Finished jobs are kept: run the same command again; where memory is short, with "
        "fewer --workers, or with a smaller --batch-size into another --out."
    )
