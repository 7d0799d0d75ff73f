"""How long `import heatproof` and `heatproof --help` take, in fresh processes whose bytecode is cached."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.floor import Timing, interleaved
from benchmarks.result import Part, Result, quartiles
from benchmarks.settings import Settings

IMPORT, HELP = 0.2, 0.5
#: Prints how long the import took, the interpreter's own start left out; fails where torch came with it.
CODE = (
    "import sys, time; begin = time.perf_counter(); import heatproof; spent = time.perf_counter() - begin; "
    "assert 'torch' not in sys.modules; print(spent)"
)


def results(settings: Settings) -> Iterator[Result]:
    """Medians of ten; the floor of both is a bare interpreter."""
    with tempfile.TemporaryDirectory() as cache:
        yield from _measured(settings.repeats(10), environment(cache))


def environment(cache: str) -> dict[str, str]:
    """Bytecode is written to a folder of our own, so that the second start is like any user's second start."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": cache}


def _measured(repeats: int, env: dict[str, str]) -> Iterator[Result]:
    inside = Timing()

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    program = str(Path(sys.executable).with_name("heatproof"))
    times = interleaved(
        {
            "bare": lambda: run("-c", "pass"),
            "import": lambda: inside.seconds.append(float(run("-c", CODE))),
            "help": lambda: run(program, "--help"),
        },
        repeats,
    )
    bare = times["bare"]
    inside.seconds = inside.seconds[-repeats:]  # without the warm-ups
    yield _within("import", "import heatproof (without torch)", inside, bare, IMPORT)
    yield _within("help", "heatproof --help, whole process", times["help"], bare, HELP)


def _within(name: str, work: str, timing: Timing, bare: Timing, limit: float) -> Result:
    """A time beside its limit in seconds: here the floor is the limit, and the aim is to stay below it."""
    ratios = [seconds / limit for seconds in timing.seconds]
    return Result(
        f"startup-{name}", work, timing.median, limit, statistics.median(ratios), quartiles(ratios), 1.0,
        n=1, repeats=len(ratios), threads=1, batch=1,
        parts=[Part("the limit", limit)], details={"bare_interpreter": bare.median},
        notes=["the floor column holds the limit in seconds"],
    )  # fmt: skip
