"""Runs the numerical tests under the arithmetic of other processors: narrower vectors, other kernels, two threads.

    python scripts/portable.py                     every setting, one after the other
    python scripts/portable.py --setting NAME      one of them; `--list` prints the names
    python scripts/portable.py --today             one, drawn by the date: each comes up within as many days
    python scripts/portable.py --today --whole     all tests: the numerical ones under it, the others under the ordinary

Paths and options of pytest may follow; paths replace the numerical tests: `--setting NAME tests/metrics -x`.
Sums in another order are rounded differently, so whatever is ranked must be rounded first; a test that fails
here and passes elsewhere has found a place where it is not.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What depends on arithmetic alone; no study is run here.
TESTS = ("tests/contracts", "tests/metrics", "tests/parity", "tests/attributions", "tests/test_imputation.py",
         "tests/statistics")  # fmt: skip
#: What a processor can do, by the variables that torch and oneDNN read. `plain` is all that this one can.
PROCESSORS: dict[str, dict[str, str]] = {
    "plain": {},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}
THREADS = (1, 2)
#: Name → environment variables.
SETTINGS: dict[str, dict[str, str]] = {
    f"{processor}-{threads}": {**variables, "HEATPROOF_TEST_THREADS": str(threads)}
    for processor, variables in PROCESSORS.items()
    for threads in THREADS
}
#: The setting of the ordinary tests; the date never draws it.
ORDINARY = "plain-1"
#: Processes that share the tests; each has the threads of the setting.
WORKERS = 2
#: Two processes of two threads share two cores: threads that wait must not spin.
PATIENT = {"OMP_WAIT_POLICY": "passive"}
#: What pytest counts, in the order of its summary.
OUTCOMES = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning", "error")
#: The last line of pytest. Libraries may print more when the process ends.
SUMMARY = re.compile(rf"\d+ (?:{'|'.join(OUTCOMES)})s?\b.* in [\d.]+s|no tests ran")


@dataclass(frozen=True)
class Result:
    """How the tests went under one setting: pytest's exit status, its last line, seconds."""

    setting: str
    status: int
    summary: str
    seconds: float

    def __str__(self) -> str:
        outcome = "passed" if self.status == 0 else f"FAILED (exit status {self.status})"
        return f"portable: {self.setting}: {outcome} in {self.seconds:.0f} s: {self.summary}"


def drawn(day: datetime.date) -> str:
    """The setting of a day; days in a row go through all but the ordinary one."""
    names = [name for name in SETTINGS if name != ORDINARY]
    return names[day.toordinal() % len(names)]


def environment(setting: str, outside: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process under a setting; those of other settings are taken out."""
    governed = {name for variables in SETTINGS.values() for name in variables}
    return {name: value for name, value in outside.items() if name not in governed} | SETTINGS[setting]


def run(setting: str, arguments: Sequence[str]) -> Result:
    """Runs pytest with these arguments under a setting; its output is passed on line by line."""
    print(f"portable: {setting}: {' '.join(f'{k}={v}' for k, v in SETTINGS[setting].items())}", flush=True)
    started, last = time.monotonic(), "no summary"
    command = [sys.executable, "-m", "pytest", "-n", str(WORKERS), "--dist", "worksteal", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment(setting, os.environ) | PATIENT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() if SUMMARY.search(line) else last
    return Result(setting, process.returncode, last, time.monotonic() - started)


def total(results: Sequence[Result]) -> str:
    """The summaries added up, in pytest's form; a run that ended without a failed test in its summary is an error."""
    counts: Counter[str] = Counter()
    for result in results:
        found = {name: int(n) for n, name in re.findall(rf"(\d+) ({'|'.join(OUTCOMES)})", result.summary)}
        if result.status and not found.keys() & {"failed", "error"}:
            found["error"] = 1
        counts.update(found)
    parts = [f"{counts[name]} {name}{'s' * (name in OUTCOMES[-2:] and counts[name] > 1)}" for name in OUTCOMES]
    seconds = sum(result.seconds for result in results)
    return f"{', '.join(part for part in parts if part[:2] != '0 ')} in {seconds:.2f}s"


def main(words: Sequence[str] | None = None) -> int:
    """Runs the settings asked for; 1 if a test failed under any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--setting", choices=SETTINGS, help="one setting by its name")
    which.add_argument("--today", action="store_true", help="one setting, drawn by the date (UTC)")
    which.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--whole", action="store_true", help="then the other tests under the ordinary setting")
    asked, rest = parser.parse_known_args(words)
    if asked.list:
        print(*SETTINGS, sep="\n")
        return 0
    today = drawn(datetime.datetime.now(datetime.UTC).date())
    names = [asked.setting] if asked.setting else [today] if asked.today else list(SETTINGS)
    named = any((ROOT / word.split("::")[0]).exists() for word in rest if not word.startswith("-"))
    if named and asked.whole:
        parser.error("--whole is all tests: name no paths with it.")
    results = [run(name, (*rest, *(() if named else TESTS))) for name in names]
    if asked.whole:
        results.append(run(ORDINARY, (*rest, *(f"--ignore={name}" for name in TESTS))))
    print(*results, sep="\n", flush=True)
    if asked.whole:
        print(total(results), flush=True)
    return int(any(result.status for result in results))


if __name__ == "__main__":
    sys.exit(main())
