"""Maps, metrics and a study on a GPU beside the CPU's, then the time of both kinds of work on the GPU.

    python scripts/gpu.py                                all of it, in at most six minutes
    python scripts/gpu.py --only correct --model shapes  some of it
    python scripts/gpu.py --device cpu --minutes 2       the CPU beside itself, which must agree bit for bit

Numbers go to benchmarks/gpu.json (`--out FILE` for another). The exit status is 1 if anything failed, and a table of
failures is printed last. Nothing begins after the time is over; what was left out is listed.
"""

import argparse
import datetime
import faulthandler
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LATEST = ROOT / "benchmarks" / "gpu.json"
#: The share of the time for the comparison, where times are measured too; and the most that is printed of failures.
SHARE, PRINTED = 0.6, 7000


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("gpu.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=LATEST, help="where the numbers go")
    parser.add_argument("--only", choices=("correct", "time"))
    parser.add_argument("--model", nargs="+", default=[], help="networks compared, as of the command line")
    parser.add_argument("--assets", type=Path, help="a folder with models/ and images/: real networks and photographs")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--limit", type=int, default=16, help="images in the studies")
    parser.add_argument("--batch", type=int, default=64, help="images in a pass that is timed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for, writes the numbers, and prints what failed."""
    begin = time.monotonic()
    asked = parsed(arguments)
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here. `--device cpu` compares the CPU with itself.", file=sys.stderr)
        return 2
    # A device that hangs ends the run, with the line at which it hangs.
    faulthandler.dump_traceback_later(60 * asked.minutes + 90, exit=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads())
    from benchmarks.agreement import Log

    log, about = Log(begin + 60 * asked.minutes), machine(asked.device)
    print(json.dumps(about), flush=True)
    for name, part in (("correct", compare), ("time", measure)):
        if asked.only in (None, name):
            part(log, asked, begin)
            write(asked.out, about, log)
    faulthandler.cancel_dump_traceback_later()
    print(f"Numbers written to {asked.out.name} after {time.monotonic() - begin:.0f} s.\n")
    print(failures(log))
    return int(bool(log.failures))


def machine(device: str) -> dict[str, Any]:
    """What it ran on."""
    import torch

    from benchmarks.result import machine as described

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    command = ["git", "rev-parse", "--short", "HEAD"]
    known = (
        shutil.which("git") and subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    )
    return {**described(), "device": name, "cuda": torch.version.cuda, "date": datetime.date.today().isoformat(),
            "commit": (known or "").strip() or None}  # fmt: skip


def compare(log: Any, asked: argparse.Namespace, begin: float) -> None:
    """The device beside the CPU, in full float32: the bundled network first, then the others until time is over."""
    from benchmarks import agreement

    whole = log.until
    if asked.only is None:
        log.until = begin + SHARE * 60 * asked.minutes
    _, masks = agreement.shapes(4)
    with agreement.exact():
        for number, subject in enumerate(agreement.subjects(asked.assets, asked.model)):
            agreement.methods(log, subject, asked.device)
            if number == 0 and subject.name == "shapes":
                agreement.metrics(log, subject, asked.device, masks)
                agreement.perturbations(log, subject, asked.device)
                agreement.studies(log, asked.device, asked.limit, threads())
    for subject in agreement.subjects(asked.assets, asked.model):
        if subject.name in ("shapes", "tf_efficientnet_lite0"):
            agreement.rounded(log, subject, asked.device)
    log.until = whole


def measure(log: Any, asked: argparse.Namespace, _begin: float) -> None:
    """Where the host waits; time of studies, of variants of a pass, of methods and metrics."""
    from benchmarks import device_time

    device_time.synchronisations(log, asked.device, asked.batch)
    log.item("time noise study", lambda: device_time.study(asked.device, asked.limit, threads()))
    device_time.filled(log, asked.device, 4 * asked.limit, threads())
    device_time.variants(log, asked.device, asked.batch)
    device_time.times(log, asked.device, asked.batch)


def threads() -> int:
    """Threads of the CPU, for methods and for a study's one worker: OMP_NUM_THREADS, or up to eight cores."""
    from benchmarks.result import cores

    return int(os.environ.get("OMP_NUM_THREADS", 0)) or min(8, cores())


def write(path: Path, about: dict[str, Any], log: Any) -> None:
    """All numbers as JSON."""
    found = {"machine": about, "failures": log.failures, "skipped": log.skipped, "results": log.records}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


def failures(log: Any) -> str:
    """One line for each failure, and what was left out."""
    lines = [f"{name}: {problem}" for name, problem in log.failures]
    left = f"Left out, as the time was over: {', '.join(log.skipped)}" if log.skipped else "Nothing was left out."
    counted = f"{len(log.records)} items, {len(lines)} failed."
    return "\n".join([left[: PRINTED // 4], *lines])[:PRINTED] + f"\n{counted}"


if __name__ == "__main__":
    sys.exit(main())
