"""`python -m benchmarks [names] [--quick] [--json FILE]`: measures, prints a table, writes the numbers."""

import argparse
import datetime
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.settings import Settings

#: In the order of the table; each is a module with `results(settings)`.
NAMES = (
    "cams",
    "family",
    "methods",
    "queries",
    "ablation",
    "study",
    "road",
    "curves",
    "scores",
    "compiled",
    "explanations",
    "memory",
    "startup",
)
LATEST = Path(__file__).with_name("latest.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks asked for, all by default. Misses of an aim are shown, they are no error."""
    asked = parsed(arguments)
    settings = Settings(asked.threads, asked.quick, asked.images)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read once, when torch is imported
        os.environ[variable] = str(settings.threads)
    import torch

    torch.set_num_threads(settings.threads)
    from benchmarks.result import machine
    from benchmarks.table import block, heading

    about = machine()
    print(heading(about, settings), flush=True)
    found = []
    for name in asked.names or NAMES:
        for result in importlib.import_module(f"benchmarks.{name}").results(settings):
            print(block(result), flush=True)
            found.append(result.record())
    write(asked.json, about, settings, found)
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    from benchmarks.result import cores

    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few repetitions, two images in the study")
    parser.add_argument("--threads", type=int, default=cores(), help="of the methods; the study has one")
    parser.add_argument("--images", type=int, default=8, help="in the study")
    parser.add_argument("--json", type=Path, default=LATEST, help="where the numbers go")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"a benchmark must be one of {', '.join(NAMES)}. Got {unknown[0]!r}.")
    if asked.threads < 1 or asked.images < 1:
        parser.error("--threads and --images must be at least 1.")
    return asked


def write(path: Path, about: dict, settings: Settings, found: list[dict]) -> None:
    """The numbers as JSON; benchmarks that were not run keep what they had, with the date of their run."""
    now = datetime.date.today().isoformat()
    records = {record["name"]: {**record, "date": now, "quick": settings.quick, "machine": about} for record in found}
    before = json.loads(path.read_text("utf-8")) if path.exists() else {"results": []}
    kept = [record for record in before["results"] if record["name"] not in records]
    text = json.dumps({"results": [*kept, *records.values()]}, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, "utf-8")
    print(f"Numbers written to {path.name}.")


if __name__ == "__main__":
    sys.exit(main())
