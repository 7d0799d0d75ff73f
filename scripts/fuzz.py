"""Damaged files and spellings by the million: every reader gives a value, or raises a HeatproofError.

    python scripts/fuzz.py                                  a million cases, shared by all readers, in about 20 minutes
    python scripts/fuzz.py --cases 10000 --only images      some of them
    python scripts/fuzz.py --only images --case 4711        one case again, with its traceback
    PYTHONPATH=FOLDER python scripts/fuzz.py --atheris --only spellings    guided by coverage, where atheris is there

A case is a sound input (`fuzzed_inputs.py`) with some edits; its number decides them. Any other exception, a second of
computing, or memory beyond the bound is a fault: it is counted by its place, and its first case is printed. The exit
status is 1 if there is one.
"""

import argparse
import contextlib
import importlib
import json
import logging
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "src")]

from fuzzed_inputs import READERS, Reader, case_of  # noqa: E402

from heatproof.errors import HeatproofError  # noqa: E402

#: Seconds of computing that a case may take, and after which it is stopped.
SLOW, STOPPED = 1.0, 10
#: By how much the memory of the process may grow in one case, in MiB.
MEMORY = 1024
#: The shares of the cases, in per cent; what takes long gets fewer.
SHARES = {"images": 12, "masks": 10, "maps": 12, "checkpoints": 6, "studies": 16, "labels": 10, "boxes": 12,
          "classes": 10, "spellings": 12}  # fmt: skip


class Slow(BaseException):
    """A case was stopped."""


def fault_of(reader: Reader, content: bytes, folder: Path) -> tuple[str, str] | None:
    """What is wrong with the answer to one input, and where; None for a value or a HeatproofError."""
    start, before = time.process_time(), _peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(content, folder)
    except HeatproofError as error:
        if len(str(error)) < 8:
            return "no message", _place(error)
    except Exception as error:
        return type(error).__name__, _place(error)
    except Slow as error:
        return "hang", _place(error)
    if time.process_time() - start > SLOW:
        return "slow", reader.name
    if _peak() - before > MEMORY:
        return "memory", reader.name
    return None


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _place(error: BaseException) -> str:
    """The last line of heatproof in a traceback, and the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "heatproof" in frame.filename and "fuzz" not in frame.filename]
    last = frames[-1]
    where = ours[-1] if ours else last
    there = f"{Path(where.filename).name}:{where.lineno} {where.name}"
    return there if where is last else f"{there} ← {Path(last.filename).name}:{last.lineno} {last.name}"


@contextlib.contextmanager
def stopped_when_slow() -> Iterator[None]:
    """Raises `Slow` in a case that computes for too long."""

    def stop(*_: Any) -> None:
        raise Slow

    before = [(kind, signal.signal(kind, stop)) for kind in (signal.SIGALRM, signal.SIGPROF)]
    try:
        yield
    finally:
        _limit(0, 0)
        for kind, handler in before:
            signal.signal(kind, handler)


def _limit(computing: float, waiting: float) -> None:
    """Stops the case after so many seconds of computing, or so many in all, as the machine may be busy."""
    signal.setitimer(signal.ITIMER_PROF, computing)
    signal.setitimer(signal.ITIMER_REAL, waiting)


def run(reader: Reader, cases: int, seed: int, folder: Path, until: float) -> tuple[int, Counter, dict[Any, int]]:
    """How many cases ran, how often each fault came, and its first case."""
    found: Counter = Counter()
    first: dict[Any, int] = {}
    for content in reader.inputs():  # what is loaded at the first one takes time
        fault_of(reader, content, folder)
    with stopped_when_slow():
        for number in range(seed, seed + cases):
            if time.monotonic() > until:
                return number - seed, found, first
            content = case_of(reader, number)
            _limit(STOPPED, 12 * STOPPED)
            fault = fault_of(reader, content, folder)
            _limit(0, 0)
            if fault:
                found[fault] += 1
                first.setdefault(fault, number)
    return cases, found, first


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("fuzz.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all readers together")
    parser.add_argument("--only", nargs="+", choices=list(READERS), default=list(READERS), metavar="READER")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first case")
    parser.add_argument("--minutes", type=float, default=60, help="when to stop")
    parser.add_argument("--case", type=int, help="run this one, and show what it raises")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    parser.add_argument("--atheris", action="store_true", help="let atheris choose the cases")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases, and prints a line for each reader and each fault."""
    asked = parsed(arguments)
    logging.disable(logging.CRITICAL)  # tifffile logs what it finds
    with tempfile.TemporaryDirectory(prefix="heatproof-fuzz-", dir=_scratch()) as name:
        folder = Path(name)
        if asked.case is not None:
            for only in asked.only:
                print(READERS[only].read(case_of(READERS[only], asked.case), folder))
            return 0
        if asked.atheris:
            return _with_atheris(READERS[asked.only[0]], folder, asked.cases)
        return _all(asked, folder)


def _scratch() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _all(asked: argparse.Namespace, folder: Path) -> int:
    whole, until = sum(SHARES[name] for name in asked.only), time.monotonic() + 60 * asked.minutes
    counts: dict[str, Any] = {}
    for name in asked.only:
        began = time.monotonic()
        ran, found, first = run(READERS[name], asked.cases * SHARES[name] // whole, asked.seed, folder, until)
        took = time.monotonic() - began
        print(f"{name:12} {ran:9,} cases, {1000 * took / max(ran, 1):6.2f} ms each, {len(found)} faults", flush=True)
        for fault, times in found.most_common():
            print(f"    {times:7,} × {fault[0]} at {fault[1]}, first case {first[fault]}", flush=True)
        counts[name] = {"cases": ran, "faults": [[*fault, times] for fault, times in found.items()]}
    print(f"{sum(one['cases'] for one in counts.values()):,} cases; peak memory {_peak():,.0f} MiB")
    if asked.out:
        asked.out.write_text(json.dumps(counts, indent=1) + "\n", "utf-8")
    return int(any(one["faults"] for one in counts.values()))


def _with_atheris(reader: Reader, folder: Path, cases: int) -> int:
    atheris: Any = importlib.import_module("atheris")
    known: set[tuple[str, str]] = set()

    def one(content: bytes) -> None:
        fault = fault_of(reader, content, folder)
        if fault and fault not in known:
            known.add(fault)
            print(f"{fault[0]} at {fault[1]}: {content[:200]!r}", flush=True)

    corpus = folder / "corpus"
    corpus.mkdir()
    with atheris.instrument_imports(include=["heatproof", "yaml", "json", "csv"]):  # what reads, not all of torch
        for number, content in enumerate(reader.inputs()):
            (corpus / str(number)).write_bytes(content)
            fault_of(reader, content, folder)
    atheris.Setup([sys.argv[0], str(corpus), f"-runs={cases}", "-max_len=4096"], one)
    atheris.Fuzz()
    return int(bool(known))


if __name__ == "__main__":
    sys.exit(main())
