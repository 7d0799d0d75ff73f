"""Worker processes of this machine: spawned (safe with threads and CUDA), and gone when their parent is.

A worker that is killed, crashes or hangs takes nothing with it: see `executors.Schedule`.
"""

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from heatproof.errors import HeatproofError, HeatproofWarning
from heatproof.studies.executors import TIMEOUT, Failed, Finished, Lost, Map, Outcome, Prepare, Schedule, Told

#: Seconds between two reports of progress, and the time that a worker has to end.
EVERY, END = 0.2, 5.0


class Processes:
    """Runs jobs in `workers` processes.

    Args:
        visible: GPUs, as CUDA_VISIBLE_DEVICES names them; each process sees one of them.
        timeout: minutes without progress after which a process is ended and its job begun again; None waits for ever.
    """

    def __init__(self, workers: int, visible: Sequence[str] = (), timeout: float | None = TIMEOUT):
        self.workers, self.visible, self.timeout = workers, visible, timeout

    @contextmanager
    def running(self, prepare: Prepare, setup: Any) -> Iterator[Map]:
        """As `Serial.running`; results come in the order of completion. Processes start when there is work for them."""
        workers = ProcessWorkers(prepare, setup, list(self.visible))
        try:
            yield Schedule(workers, self.workers, self.timeout).map
        finally:
            workers.close()


@dataclass(eq=False)
class ProcessWorker:
    """A process, the end of its pipe, and the GPU it sees."""

    process: Any
    pipe: Any
    visible: str | None = None


@dataclass
class ProcessWorkers:
    """Starts and ends processes, and talks to them by pipes."""

    prepare: Prepare
    setup: Any
    visible: list[str]
    _alive: list[ProcessWorker] = field(default_factory=list, init=False)
    _advanced: list[tuple[ProcessWorker, float]] = field(default_factory=list, init=False)

    def start(self) -> ProcessWorker:
        """A new process; it prepares itself while its first job waits in the pipe."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        used = [one.visible for one in self._alive]
        device = min(self.visible, key=used.count) if self.visible else None
        arguments = (theirs, self.prepare, self.setup, os.getpid(), device)
        process = context.Process(target=serve, args=arguments)
        with without_interrupts():
            process.start()
        theirs.close()
        worker = ProcessWorker(process, ours, device)
        self._alive.append(worker)
        return worker

    def give(self, worker: ProcessWorker, job: Any) -> None:
        """Sends a job; a worker that is gone is noticed by `outcomes`."""
        with suppress(OSError):
            worker.pipe.send(job)

    def outcomes(self, seconds: float) -> list[tuple[ProcessWorker, Outcome]]:
        """Jobs that finished or failed, and workers that ended."""
        by_pipe = {one.pipe: one for one in self._alive}
        found: list[tuple[ProcessWorker, Outcome]] = []
        for pipe in multiprocessing.connection.wait(list(by_pipe), seconds):
            worker = by_pipe[pipe]
            try:
                while worker.pipe.poll():
                    message = worker.pipe.recv()
                    if isinstance(message, float):
                        self._advanced.append((worker, message))
                    else:
                        found.append((worker, message))
            except (EOFError, OSError):  # the other end is closed: the process ends, or has ended
                found.append((worker, self._lost(worker)))
        return found

    def _lost(self, worker: ProcessWorker) -> Lost:
        worker.process.join(END)
        code = worker.process.exitcode
        return Lost(f"the process {worker.process.pid} {how_it_ended(code)}", memory=code == -signal.SIGKILL)

    def advanced(self) -> list[tuple[ProcessWorker, float]]:
        """The progress since the last call."""
        found, self._advanced = self._advanced, []
        return found

    def end(self, worker: ProcessWorker) -> None:
        """Kills a process: no shard is left incomplete, as files are renamed when they are whole."""
        self._alive = [one for one in self._alive if one is not worker]
        worker.process.kill()
        worker.process.join(END)
        worker.pipe.close()

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._alive:
            worker.process.terminate()
        for worker in list(self._alive):
            worker.process.join(END)
            self.end(worker)


def how_it_ended(code: int | None) -> str:
    """The exit code of a process in words."""
    if code == -signal.SIGKILL:
        return "was killed, most likely for lack of memory: fewer --workers need less"
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return "closed its connection" if code is None else f"ended with exit code {code}"


@contextmanager
def without_interrupts() -> Iterator[None]:
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


# --- in the worker ---


class Reports:
    """The progress of a worker, sent on every `EVERY` seconds."""

    def __init__(self, send: Any):
        self._send, self._share, self._last = send, 0.0, time.monotonic()

    def advance(self, share: float) -> None:
        """A further fraction of the job is done."""
        self._share += share
        if time.monotonic() - self._last >= EVERY:
            self.flush()

    def flush(self) -> None:
        """Sends what has not been sent yet."""
        if self._share:
            self._send(self._share)
        self._share, self._last = 0.0, time.monotonic()


class KeptWarnings:
    """The warnings of a worker for the process that started it, each text once."""

    def __init__(self) -> None:
        self._pending: list[Told] = []
        self._said: set[str] = set()

    def keep(self, message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        """Takes the place of `warnings.showwarning`."""
        if str(message) not in self._said:
            self._said.add(str(message))
            known = category.__module__ in ("builtins", HeatproofWarning.__module__)
            self._pending.append((str(message), category if known else UserWarning, filename, lineno))

    def taken(self) -> list[Told]:
        """Those since the last call."""
        found, self._pending = self._pending, []
        return found


def serve(pipe: Any, prepare: Prepare, setup: Any, parent: int, visible: str | None) -> None:
    """The life of a worker process: prepares itself, does jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C; it ends its workers
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    if visible is not None:  # read when CUDA is first used
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    kept, reports = KeptWarnings(), Reports(pipe.send)
    warnings.showwarning = kept.keep
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            run = prepare(setup)
        except Exception as error:  # if the worker ended here, it would look out of memory
            pipe.recv()
            pipe.send(Failed(sendable(error)))
            return
        while True:
            pipe.send(outcome(run, pipe.recv(), reports, kept))


def outcome(run: Any, job: Any, reports: Reports, kept: KeptWarnings) -> Finished | Failed:
    """Does one job."""
    try:
        result = run(job, reports.advance)
    except Exception as error:
        return Failed(sendable(error))
    reports.flush()
    return Finished(result, kept.taken())


def sendable(error: Exception) -> Exception:
    """The error with its traceback as a note; one that cannot be pickled becomes a HeatproofError of its text."""
    note = "In a worker:\n" + "".join(traceback.format_exception(error))
    try:
        error.add_note(note)
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = HeatproofError(f"{type(error).__name__}: {error}")
        error.add_note(note)
    return error


def _die_with(parent: int) -> None:
    """Ends this worker when its parent is gone, as a killed parent cannot end its workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
