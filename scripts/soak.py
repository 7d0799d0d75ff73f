"""Half an hour of explanations and small studies in one process: memory, file handles and threads stay flat.

    python scripts/soak.py                  thirty minutes
    python scripts/soak.py --minutes 10 --out soak.json

Every round explains with some of all methods on inputs of other kinds and sizes, and scores; every third runs a small
study with its page and reads its store, every 24th with two worker processes. After each round the process is
measured. What is loaded at the first use grows at first, so the first third of the rounds does not count. The exit
status is 1 if anything grows.
"""

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

#: By how much the memory may grow from the second to the last third: MiB, or a share of it.
MEMORY, SHARE = 24.0, 0.03
#: Methods of a round; a study every so many rounds, with two workers every so many.
METHODS, STUDY, WORKERS = 5, 3, 24


#: Methods that take longer than all others of a round together.
SLOW = (
    *("lime", "kernelshap", "opticam", "rise", "extremal-perturbation", "meaningful-perturbation", "iba"),
    *("scorecam", "sscam", "iscam", "smoothgradcam++", "occlusion", "finercam"),
)


class Measured(NamedTuple):
    """The process after a round."""

    minutes: float
    memory: float
    handles: int
    threads: int


def measured(began: float) -> Measured:
    """Memory in MiB, open files and threads of this process."""
    import psutil

    gc.collect()
    process = psutil.Process()
    return Measured(
        (time.monotonic() - began) / 60, process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()
    )


def growth(rounds: Sequence[Measured]) -> dict[str, tuple[float, float]]:
    """What the second and the last third of the rounds hold: handles and threads as medians, and the least memory.

    Memory goes up by 150 MiB in a study and down again after it; what is never given back raises the least of it too.
    """
    third = max(1, len(rounds) // 3)
    parts = rounds[third : 2 * third] or rounds[-1:], rounds[-third:]
    held = {"memory": min, "handles": _median, "threads": _median}
    before, after = parts
    return {
        name: (of([getattr(one, name) for one in before]), of([getattr(one, name) for one in after]))
        for name, of in held.items()
    }


def faults(rounds: Sequence[Measured]) -> list[str]:
    """What has grown, a sentence each."""
    found = growth(rounds)
    before, after = found["memory"]
    told = (
        [f"Memory grew from {before:.0f} to {after:.0f} MiB."] if after - before > max(MEMORY, SHARE * before) else []
    )
    for name in ("handles", "threads"):
        before, after = found[name]
        told += [f"The {name} grew from {before:g} to {after:g}."] if after > before else []
    return told


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def photographs(folder: Path, rng: random.Random) -> Path:
    """A folder of six small images of two classes."""
    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(rng.randrange(2**32))
    for number in range(6):
        where = folder / f"class {number % 2}"
        where.mkdir(parents=True, exist_ok=True)
        side = rng.choice((64, 96, 120))
        pixels = drawn.integers(0, 256, (side, rng.choice((80, 96)), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(where / f"{number}.{rng.choice(('png', 'jpg'))}")
    return folder


def round_of(number: int, model: Any, folder: Path) -> str:
    """Does the work of a round; what it did, in words."""
    import torch

    import heatproof
    from heatproof.attributions import ATTRIBUTIONS
    from heatproof.data import demo_shapes
    from heatproof.errors import HeatproofError

    rng = random.Random(number)
    names = [name for name in ATTRIBUTIONS if name not in SLOW]
    methods = rng.sample(names, METHODS)
    images = photographs(folder / "images", rng)
    loaded = heatproof.load_model(rng.choice(("shapes", "shapes-vit")), device="cpu") if number % 4 == 0 else model
    kinds = (
        lambda: torch.rand(rng.choice((1, 2, 3)), *loaded.input_shape),
        lambda: demo_shapes(n=3),
        lambda: [str(path) for path in sorted(images.rglob("*.*"))[:3]],
        lambda: str(images),
    )
    refused = 0
    for method in methods:
        try:
            heatproof.explain(loaded, rng.choice(kinds)(), method, target=rng.choice((0, "predicted", "top3")))
        except HeatproofError:  # not every method is for every network
            refused += 1
    heatproof.score(model, demo_shapes(n=2), ["gradcam", "eigencam"], ["complexity", "road", "insertion"])
    told = f"{METHODS - refused} methods"
    if number % STUDY == 0:
        workers = 2 if number % WORKERS == 0 else 1
        _study(model, images, folder / "out", workers)
        told += f", a study with {workers} worker{'s' * (workers > 1)}"
    return told


def _study(model: Any, images: Path, out: Path, workers: int) -> None:
    import heatproof
    from heatproof.studies.store import connect

    given = "shapes" if workers > 1 else model
    settings = {"methods": ["gradcam", "layercam"], "metrics": ["complexity", "insertion"], "batch_size": 2}
    heatproof.run("score", given, str(images), out=out, workers=workers, progress=False, **settings)
    with connect(out) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchall()
    heatproof.show(model, str(images), ["gradcam"]).save(out.parent / "shown")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("soak.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures of every round")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs rounds until the time is over; prints a line for some of them, and what has grown."""
    asked = parsed(arguments)
    import torch

    import heatproof

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, began, rounds = heatproof.load_model("shapes", device="cpu"), time.monotonic(), []
    while not rounds or rounds[-1].minutes < asked.minutes:
        with tempfile.TemporaryDirectory(prefix="heatproof-soak-") as folder:
            told = round_of(len(rounds), model, Path(folder))
        now = measured(began)
        rounds.append(now)
        if len(rounds) % 10 == 1:
            print(f"{now.minutes:5.1f} min, round {len(rounds):4}: {now.memory:6.0f} MiB, {now.handles} handles, "
                  f"{now.threads} threads ({threading.active_count()} of Python); {told}", flush=True)  # fmt: skip
    for name, (before, after) in growth(rounds).items():
        print(f"{name}: {before:g} in the second third, {after:g} in the last")
    print(f"{len(rounds)} rounds in {rounds[-1].minutes:.1f} minutes, process {os.getpid()}")
    if asked.out:
        asked.out.write_text(json.dumps([one._asdict() for one in rounds], indent=1) + "\n", "utf-8")
    found = faults(rounds)
    print("\n".join(found) or "Nothing grows.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
