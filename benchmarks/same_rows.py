"""`python -m benchmarks.same_rows [--limit N]`: how far the rows of a study depend on what should not matter.

A small noise study and a small score study of the bundled network run again and again: with other batches, two
threads, and narrower vectors. The rows of each are joined with those of the first, and their largest differences are
printed by family. One setting alone is changed each time. The first runs twice: its rows must be the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
#: Name → settings of the studies, and variables of the process.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "the same again": ({}, {}),
    "one image a batch": ({"batch_size": 1}, {}),
    "batches of 5": ({"batch_size": 5}, {}),
    "two threads": ({"threads": 2}, {}),
    "vectors of AVX2": ({}, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "no vectors": ({}, {"ATEN_CPU_CAPABILITY": "default"}),
}
#: The columns that tell the rows of a study apart.
KEYS = ("study", "image", "method", "perturbation", "severity", "segmenter", "strength", "metric")
#: Metrics whose values are few whole numbers, or follow from the order of a few: one swap moves them far.
RANKED = ("rbo", "kappa", "spearman")


def rows(limit: int, more: dict[str, Any]) -> Any:
    """The rows of both studies."""
    import pandas as pd

    from benchmarks.agreement import studies_of as small
    from benchmarks.agreement import study_rows

    found = []
    for settings in small(limit):
        asked = {"batch_size": BATCH, "threads": 1, "device": "cpu", "compile": "never", **settings, **more}
        found.append(study_rows(asked).assign(study=settings["study"]))
    return pd.concat(found, ignore_index=True)


def measured(limit: int) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Each variant, and what `between` finds."""
    import pandas as pd

    def of(name: str, settings: dict[str, Any], variables: dict[str, str]) -> Any:
        file = Path(folder) / f"{name}.parquet"
        asked = [sys.executable, "-W", "ignore", "-m", "benchmarks.same_rows", "--limit", str(limit)]
        subprocess.run(
            [*asked, "--write", str(file), json.dumps(settings)], check=True, cwd=ROOT, env={**os.environ, **variables}
        )
        return pd.read_parquet(file)

    with tempfile.TemporaryDirectory() as folder:
        first = of("first", {}, {})
        for name, (settings, variables) in VARIANTS.items():
            yield name, between(first, of(name, settings, variables))


def between(ours: Any, theirs: Any) -> dict[str, dict[str, float]]:
    """Family of rows → how many there are, how many differ by more than 1e-5, and the largest difference.

    Rows that only one side has, and values that only one side has, differ by infinity.
    """
    both = ours.merge(theirs, on=list(KEYS), how="outer", suffixes=("", "_there"), indicator=True)
    gap = (both["value"] - both["value_there"]).abs().fillna(0)
    alone = (both["_merge"] != "both") | (both["value"].isna() != both["value_there"].isna())
    gap = gap.mask(alone, float("inf"))
    ranked = both["metric"].isin(RANKED)
    families = {"ranks of segments": ranked, "other rows of methods": ~ranked & (both["method"] != "")}
    families["the network's answers"] = both["method"] == ""
    return {
        name: {"rows": int(kept.sum()), "beyond": int((gap[kept] > 1e-5).sum()), "largest": float(gap[kept].max())}
        for name, kept in families.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints a table, in Markdown."""
    parser = argparse.ArgumentParser("python -m benchmarks.same_rows", description=__doc__)
    parser.add_argument("--limit", type=int, default=24, help="images")
    parser.add_argument("--write", nargs=2, metavar=("FILE", "SETTINGS"), help="the rows of one variant alone")
    asked = parser.parse_args(arguments)
    if asked.write:
        rows(asked.limit, json.loads(asked.write[1])).to_parquet(asked.write[0])
        return
    begun = False
    for name, found in measured(asked.limit):
        if not begun:
            print("| changed | " + " | ".join(f"{family} ({one['rows']:,})" for family, one in found.items()) + " |")
            print("|---" * (len(found) + 1) + "|")
            begun = True
        cells = [f"{one['largest']:.1e} at most, {one['beyond']} beyond 1e-5" for one in found.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
