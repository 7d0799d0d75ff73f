"""The time that work takes: of the processor on a CPU, where other programs do not count, and of the clock on a GPU."""

import time
from types import TracebackType

import torch


class Clock:
    """Seconds of this thread on a device, since it was made.

    On a CPU these are the seconds that the processor spent on this thread, or on all threads divided by `threads`
    where that is more. Waiting for files and for other programs does not count.
    """

    def __init__(self, device: str, threads: int = 1):
        self.device, self.threads, self._seconds = device, threads, 0.0
        self._last = self._now()

    def __call__(self) -> float:
        """The seconds so far."""
        now, before = self._now(), self._last
        self._seconds += max(after - there for after, there in zip(now, before, strict=True))
        self._last = now
        return self._seconds

    def _now(self) -> tuple[float, ...]:
        if self.device == "cpu":
            return time.thread_time(), *([time.process_time() / self.threads] if self.threads > 1 else [])
        if self.device.startswith("cuda") and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return (time.monotonic(),)


class Stopwatch:
    """Takes the time between its beginning and its end: `with Stopwatch("cpu") as watch: …; watch.seconds`."""

    def __init__(self, device: str, threads: int = 1):
        self.device, self.threads, self.seconds = device, threads, 0.0

    def __enter__(self) -> "Stopwatch":
        self._clock = Clock(self.device, self.threads)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.seconds = self._clock()
