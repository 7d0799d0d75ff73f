"""What a benchmark found: one line of the table and one record of the JSON file."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.floor import Timing, quartiles

#: Whose versions the numbers depend on.
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-image", "grad-cam")


@dataclass(frozen=True)
class Part:
    """One part of a floor, or of the time: `count` times something, `seconds` in all."""

    what: str
    seconds: float
    count: int = 1


@dataclass(frozen=True)
class Peer:
    """Another package at the same work: `times` is its time divided by ours."""

    name: str
    seconds: float
    times: float
    note: str = ""


@dataclass(frozen=True)
class Result:
    """One row: the work, its floor and its time in seconds, and what it was measured with.

    `ratio` is the median over the repetitions of time / floor of the same repetition, with its quartiles;
    `processor_ratio` the same in processor time, which other programs on the machine do not stretch.
    """

    name: str
    work: str
    seconds: float
    floor: float
    ratio: float
    quartiles: tuple[float, float]
    aim: float
    n: int
    repeats: int
    threads: int
    batch: int
    processor_ratio: float | None = None
    unit: str = "s"
    parts: Sequence[Part] = ()
    peers: Sequence[Peer] = ()
    details: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def met(self) -> bool:
        """Whether the aim is met by the median."""
        return self.ratio <= self.aim

    def record(self) -> dict[str, Any]:
        """Plain values for JSON, rounded to what was measured."""
        return _rounded({**asdict(self), "met": self.met})


def compared(name: str, work: str, time: Timing, floor: Sequence[Timing], aim: float, **about: Any) -> Result:
    """A result from interleaved timings; a floor of several parts is summed repetition by repetition."""
    floors = _sums([timing.seconds for timing in floor])
    ratios = [ours / least for ours, least in zip(time.seconds, floors, strict=True)]
    used = zip(time.processor, _sums([timing.processor for timing in floor]), strict=True)
    return Result(
        name, work, time.median, statistics.median(floors), statistics.median(ratios), quartiles(ratios), aim,
        repeats=len(ratios), processor_ratio=statistics.median(ours / least for ours, least in used), **about,
    )  # fmt: skip


def _sums(parts: Sequence[Sequence[float]]) -> list[float]:
    return [sum(repetition) for repetition in zip(*parts, strict=True)]


def machine() -> dict[str, Any]:
    """What it ran on, in words that name no host and no path."""
    load = [round(value, 1) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": load,
        **{name: _version(name) for name in PACKAGES},
    }


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
