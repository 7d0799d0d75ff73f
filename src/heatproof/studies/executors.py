"""Executors run a study's jobs one after the other or in several processes. The numbers are the same.

`executor.running(prepare, setup)` gives a function `map(jobs, advance)`, which yields the key of each job when its
files are written. Jobs and `setup` can be pickled; `prepare(setup)` runs once in each process and gives the function
that does one job.
"""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from heatproof.errors import HeatproofError, HeatproofWarning

Prepare = Callable[[Any], Callable[[Any, Callable[[float], None]], str]]
Advance = Callable[[float], None]


Map = Callable[[Sequence[Any], Advance], Iterator[Any]]


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


class Processes:
    """Runs jobs in `workers` spawned processes (safe with threads and CUDA), which end when this process ends."""

    def __init__(self, workers: int):
        self.workers = workers

    @contextmanager
    def running(self, prepare: Prepare, setup: Any) -> Iterator[Map]:
        """As `Serial.running`; keys come in the order of completion. Processes start when there is work for them."""
        context = multiprocessing.get_context("spawn")
        counter = context.Value("d", 0.0)
        pool = ProcessPoolExecutor(self.workers, context, _start, (prepare, setup, counter, os.getpid()))
        try:
            yield lambda jobs, advance: _map_in_pool(pool, counter, jobs, advance)
        except BrokenProcessPool as error:
            raise HeatproofError(
                "A worker process ended unexpectedly, most likely for lack of memory. Finished jobs are kept: run the "
                "same command again with fewer --workers."
            ) from error
        finally:
            _end(pool)


def _map_in_pool(pool: ProcessPoolExecutor, counter: Any, jobs: Sequence[Any], advance: Advance) -> Iterator[Any]:
    seen, said = counter.value, set[str]()
    with _without_interrupts():
        pending = {pool.submit(_work, job) for job in jobs}
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
        with counter.get_lock():
            total = counter.value
        advance(total - seen)
        seen = total
        for future in done:
            result, told = future.result()
            for warning in told:
                if warning[0] not in said:  # each worker has sent its own
                    said.add(warning[0])
                    warnings.showwarning(*warning)
            yield result


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which a terminal sends to all: not even while they import modules.

    One that comes meanwhile reaches this process at the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(pool: ProcessPoolExecutor) -> None:
    """Stops the workers at once, even in the middle of a job: no shard is left incomplete."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=5)


_run: Callable[[Any, Advance], Any] | None = None
_advance: Advance | None = None
_failed: Exception | None = None
#: The warnings of this worker since its last job, each as the arguments of `warnings.showwarning`; and all so far.
_told: list[tuple[str, type[Warning], str, int]] = []
_said: set[str] = set()


def _start(prepare: Prepare, setup: Any, counter: Any, parent: int) -> None:
    """Runs once in each worker."""
    global _run, _advance, _failed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C; it ends its workers
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    warnings.showwarning = _keep
    try:
        _run = prepare(setup)
    except Exception as error:  # raised by the first job; if the worker ended here, it would look out of memory
        _failed = error

    def advance(share: float) -> None:
        with counter.get_lock():
            counter.value += share

    _advance = advance


def _keep(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """Keeps a warning for the process that started this one, once for each text."""
    if str(message) not in _said:
        _said.add(str(message))
        known = category.__module__ in ("builtins", HeatproofWarning.__module__)
        _told.append((str(message), category if known else UserWarning, filename, lineno))


def _work(job: Any) -> Any:
    """What the job gives, and the warnings since the last one."""
    if _failed is not None:
        raise _failed
    assert _run is not None and _advance is not None
    result = _run(job, _advance)
    told, _told[:] = list(_told), []
    return result, told


def _die_with(parent: int) -> None:
    """Ends this worker when its parent is gone, as a killed parent cannot end its workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
