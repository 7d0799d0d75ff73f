"""How the jobs of a study are run: by what, by how many workers, on which device. No number depends on it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from heatproof.errors import InvalidStudy
from heatproof.registry import unknown
from heatproof.studies.executors import TIMEOUT, Executor, Serial
from heatproof.studies.processes import Processes
from heatproof.studies.ray_cluster import Ray

#: The executors by name.
EXECUTORS = ("serial", "processes", "ray")


@dataclass(frozen=True)
class Execution:
    """What was asked for.

    Attributes:
        workers: at most so many; by default the cores divided by the plan's `threads` on a CPU, and the number of GPUs
            on these; of Ray as many as the cluster has room for.
        executor: one of `EXECUTORS`, or an executor; by default processes where there are several workers and jobs.
        address: of a Ray cluster.
        timeout: minutes without progress after which a worker is ended and its job begun again; 0 waits for ever. By
            default `executors.TIMEOUT`; one worker that has a timeout is a process of its own.
    """

    workers: int | None = None
    executor: str | Executor | None = None
    address: str | None = None
    timeout: float | None = None

    def check(self) -> None:
        """InvalidStudy, UnknownName: what cannot be; before any work."""
        if self.workers is not None and not isinstance(self.workers, int):
            raise InvalidStudy(f"`workers` must be a whole number. Got {self.workers!r}.")
        if self.workers is not None and self.workers < 1:
            raise InvalidStudy(f"`workers` must be at least 1. Got {self.workers}.")
        timeout = 0 if self.timeout is None else self.timeout
        if not isinstance(timeout, int | float) or not 0 <= timeout < float("inf"):
            raise InvalidStudy(f"`timeout` must be minutes, or 0 to wait for ever. Got {self.timeout}.")
        if not (self.executor is None or isinstance(self.executor, str) or hasattr(self.executor, "running")):
            raise InvalidStudy(f"`executor` must be one of {', '.join(EXECUTORS)}. Got {self.executor!r}.")
        if isinstance(self.executor, str) and self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        if self.executor == "serial" and (self.workers or 1) > 1:
            raise InvalidStudy(f"The executor `serial` is one worker. Got {self.workers} workers.")
        if self.executor == "serial" and self.timeout:
            raise InvalidStudy(
                "A timeout ends a worker process that makes no progress, and the executor `serial` has none. Got "
                f"{self.timeout:g} min. Leave --timeout out, or take --executor processes."
            )
        if self.address is not None and self.executor != "ray":
            raise InvalidStudy("An address is that of a Ray cluster: it goes with --executor ray.")

    def chosen(self, threads: int, device: str, jobs: int) -> Executor:
        """The executor for so many jobs, whose workers have `threads` threads each."""
        if self.executor is not None and not isinstance(self.executor, str):
            return self.executor
        timeout = (TIMEOUT if self.timeout is None else self.timeout) or None
        if self.executor == "ray":
            return Ray(self.workers, self.address, threads, float(on_gpu(device)), timeout)
        count = min(worker_count(self.workers, threads, device), max(1, jobs))
        if self.executor == "serial" or (self.executor is None and count == 1 and not self.timeout):
            return Serial()
        return Processes(count, visible_gpus(device), timeout)


def worker_count(workers: int | None, threads: int, device: str) -> int:
    """The number of processes: `workers`, else the cores divided by `threads` on a CPU, else the number of GPUs."""
    if workers:
        return workers
    return max(1, available_cores() // threads) if not on_gpu(device) else max(1, len(visible_gpus(device)))


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_gpu(device: str) -> bool:
    """Whether the device is one that a worker has to itself."""
    return device != "cpu"


def visible_gpus(device: str) -> Sequence[str]:
    """The GPUs among which processes are spread, as CUDA_VISIBLE_DEVICES names them; none for any other device.

    `cuda:1` is that one alone, which a process sees by its number: it needs no list.
    """
    if device != "cuda":
        return ()
    named = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return named or [str(one) for one in range(torch.cuda.device_count())]


def resolved_device(device: str) -> str:
    """`auto` → a GPU where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def facts(execution: Execution, executor: Any) -> dict[str, Any]:
    """For `study.json`: how the study was run last."""
    return {"executor": type(executor).__name__.lower(), "workers": execution.workers}
