"""Workers on a Ray cluster, or on a local one that is started for the study.

A worker is an actor: it loads the networks once and does one job after the other, as a process does. Its shards go
to the results folder, which every machine must see: a shared folder, or an address such as s3://bucket/study.
"""

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from heatproof.errors import HeatproofError, InvalidInput
from heatproof.quiet import ignored_warnings
from heatproof.studies.executors import TIMEOUT, Failed, Finished, Lost, Map, Outcome, Prepare, Schedule
from heatproof.studies.processes import KeptWarnings, Reports, outcome

#: Seconds between two questions for progress.
ASK = 1.0
#: Seconds for an address to answer.
REACH = 10.0
#: Bytes of Ray's own object store where a local cluster is started: a job and its result are a few hundred bytes.
OBJECTS = 200_000_000


class Ray:
    """Runs jobs on the actors of a Ray cluster.

    Args:
        workers: the most actors; None for as many as the cluster has room for.
        address: of a cluster, as `ray.init` takes it; None for the one that RAY_ADDRESS names, else a local one.
        threads: CPU cores of a worker. gpus: GPUs of a worker.
        timeout: minutes without progress after which an actor is ended and its job begun again; None waits for ever.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        threads: int = 1,
        gpus: float = 0,
        timeout: float | None = TIMEOUT,
    ):
        self.workers, self.address, self.threads, self.gpus, self.timeout = workers, address, threads, gpus, timeout

    @contextmanager
    def running(self, prepare: Prepare, setup: Any) -> Iterator[Map]:
        """As `Serial.running`; results come in the order of completion.

        Raises:
            InvalidInput: Ray is not installed. HeatproofError: no cluster at the address, or it was lost.
        """
        ray = ray_module()
        here = not ray.is_initialized()
        if here:
            self._connect(ray)
        workers = None
        try:
            workers = Actors(ray, prepare, setup, self.threads, self.gpus)
            yield Schedule(workers, self.workers or self._room(ray), self.timeout).map
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise HeatproofError(
                f"The Ray cluster was lost: {first_line(error)}. Finished jobs are kept: run the same command again."
            ) from error
        finally:
            if workers is not None:
                workers.close()
            if here:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        """Connects to the cluster, or starts one on this machine that only it can reach.

        Raises:
            HeatproofError: there is none at the address.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray hides GPUs with a warning
        address = self.address or os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {}
        check_reachable(address)
        if address is None:
            own = {"include_dashboard": False, "object_store_memory": OBJECTS, "_node_ip_address": "127.0.0.1"}
            if self.workers:
                own["num_cpus"] = self.threads * self.workers
        try:
            with ignored_warnings():
                ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **own)
        except (ConnectionError, OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise HeatproofError(
                f"Expected a Ray cluster at {address or 'this machine'}. Got {type(error).__name__}: "
                f"{first_line(error)}. Start one there (`ray start --head`), or leave --address out for a local one."
            ) from error

    def _room(self, ray: Any) -> int:
        """The number of workers for which the cluster has CPUs and GPUs."""
        found = ray.cluster_resources()
        by_cpu = int(found.get("CPU", 1) // self.threads)
        return max(1, min(by_cpu, int(found.get("GPU", 0) // self.gpus)) if self.gpus else by_cpu)


def check_reachable(address: str | None) -> None:
    """HeatproofError where nothing answers at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), REACH).close()
    except OSError as error:
        raise HeatproofError(
            f"Expected a Ray cluster at {address}. Got no answer ({first_line(error)}). Start one there (`ray start "
            "--head`), or leave --address out for a local one."
        ) from None


def ray_module() -> Any:
    """Ray. InvalidInput where it is not installed."""
    try:
        import ray
    except ImportError:
        raise InvalidInput("The executor `ray` needs Ray. Try: pip install 'heatproof[ray]'.") from None
    return ray


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@dataclass
class Actors:
    """Starts and ends actors, and asks them for what they have done."""

    ray: Any
    prepare: Prepare
    setup: Any
    threads: int
    gpus: float
    _jobs: dict[Any, Any] = field(default_factory=dict, init=False)
    _alive: dict[Any, Any] = field(default_factory=dict, init=False)
    _begun: int = field(default=0, init=False)
    _asked: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._shared = self.ray.put((self.prepare, self.setup))
        self._board = self.ray.remote(num_cpus=0)(Board).remote()

    def start(self) -> int:
        """A new actor. It waits where the cluster has no room at the moment."""
        self._begun += 1
        made = self.ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_restarts=0)(Actor)
        self._alive[self._begun] = made.remote(self._begun, self._shared, self._board)
        return self._begun

    def give(self, worker: int, job: Any) -> None:
        """Sends a job."""
        self._jobs[self._alive[worker].work.remote(job)] = worker

    def outcomes(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Jobs that finished or failed, and actors that are gone."""
        if not self._jobs:
            return []
        done, _ = self.ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=seconds)
        found: list[tuple[int, Outcome]] = []
        for one in done:
            worker = self._jobs.pop(one)
            try:
                found.append((worker, self.ray.get(one)))
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.WorkerCrashedError,
                    self.ray.exceptions.OutOfMemoryError) as error:  # fmt: skip
                memory = isinstance(error, self.ray.exceptions.OutOfMemoryError)
                found.append((worker, Lost(f"the actor {worker} ended ({first_line(error)})", memory)))
        return found

    def advanced(self) -> list[tuple[int, float]]:
        """The progress since the last call; asked for once a second."""
        if time.monotonic() - self._asked < ASK:
            return []
        self._asked = time.monotonic()
        return list(self.ray.get(self._board.taken.remote()).items())

    def end(self, worker: int) -> None:
        """Kills an actor: no shard is left incomplete."""
        self._jobs = {one: of for one, of in self._jobs.items() if of != worker}
        self.ray.kill(self._alive.pop(worker))

    def close(self) -> None:
        """Ends all actors."""
        for worker in list(self._alive):
            with suppress(Exception):  # the cluster may be gone
                self.end(worker)
        with suppress(Exception):
            self.ray.kill(self._board)


class Board:
    """The progress of all actors, between two questions."""

    def __init__(self) -> None:
        self._shares: dict[int, float] = {}

    def add(self, worker: int, share: float) -> None:
        """A fraction of the worker's job is done."""
        self._shares[worker] = self._shares.get(worker, 0.0) + share

    def taken(self) -> dict[int, float]:
        """The progress since the last call."""
        found, self._shares = self._shares, {}
        return found


class Actor:
    """A worker: prepares itself with its first job, so that its errors are those of a job."""

    def __init__(self, worker: int, shared: tuple[Prepare, Any], board: Any):
        self._prepare, self._setup = shared
        self._run: Any = None
        self._kept = KeptWarnings()
        self._reports = Reports(lambda share: board.add.remote(worker, share))

    def work(self, job: Any) -> Finished | Failed:
        """Does one job."""
        warnings.showwarning = self._kept.keep
        if self._run is None:
            prepared = outcome(lambda setup, _: self._prepare(setup), self._setup, self._reports, self._kept)
            if isinstance(prepared, Failed):
                return prepared
            self._run = prepared.result
        return outcome(self._run, job, self._reports, self._kept)
