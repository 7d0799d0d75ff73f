"""Growth: what a report of many rows takes, and what a study of many images takes.

`python -m benchmarks.growth FOLDER ROWS [IMAGES_A_JOB]`: a study with so many rows, and what its report costs. A small
noise study (8 methods and 5 controls, 30 conditions, 6 measures of a pair: 2,500 rows an image) is run once, and its
rows are written again and again with other images and other values. It has the size of a large study, and says nothing
about methods. The same command again times every table and every section of its page.

`python -m benchmarks.growth images FOLDER 25 100 400`: noise studies on so many small images, each in a process of its
own: seconds an image, peak memory, memory over the run, and bytes a row with maps and checksums.
"""

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "eigencam", "layercam", "gradient", "refine:layercam")
KINDS = ("gaussian-noise", "contrast", "jpeg", "defocus-blur", "brightness", "shot-noise")
#: Images of the small study.
IMAGES = 8
#: The study of many small images: two methods and the controls under two perturbations.
SMALL = {
    **{"study": "noise-robustness", "models": "shapes", "methods": ["gradcam", "layercam"], "severities": [3]},
    **{"perturbations": ["gaussian-noise", "contrast"], "segmenters": ["grid"], "batch_size": 25, "sampling": "first"},
}
ROOT = Path(__file__).resolve().parents[1]
#: Measures whose values lie in [0, 1], and are drawn anew.
DRAWN = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")


def template(folder: Path) -> pa.Table:
    """The rows of the small study, which is run where it is not there."""
    from heatproof.studies import run
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.store import connect

    plan = checked_plan(
        {"study": "noise-robustness", "models": "shapes", "datasets": "shapes", "limit": IMAGES, "batch_size": IMAGES,
         "methods": list(METHODS), "perturbations": list(KINDS), "segmenters": ["grid"]}
    )  # fmt: skip
    run.run(plan, folder, workers=1)
    return connect(folder).sql("SELECT * FROM rows").to_arrow_table()


def write(folder: Path, rows: int, images_a_job: int = IMAGES) -> int:
    """Writes a study with at least so many rows; returns their number."""
    from heatproof.studies.rows import ORDER, SCHEMA
    from heatproof.studies.store import Store

    made = template(folder.with_name("template")).select(SCHEMA.names).cast(SCHEMA)
    first = sorted(set(made["image"].to_pylist()))
    made = made.filter(pc.is_in(made["image"], pa.array(first[:images_a_job])))
    names, values = np.asarray(made["image"].to_pylist()), made["value"].to_numpy()
    drawn = np.isin(np.asarray(made["metric"].to_pylist()), DRAWN)
    jobs = -(-rows // made.num_rows)
    with Store(folder).opened() as store:
        plan = Store(folder.with_name("template")).plan() or {}
        count = jobs * images_a_job
        plan["datasets"][0]["image_count"], plan["jobs"], plan["batch_size"] = count, jobs, images_a_job
        store.write_plan({**plan, "limit": count, "samples": {}})
        for job in range(jobs):
            rng = np.random.default_rng(job)
            other = np.where(drawn, np.clip(values + rng.normal(0, 0.1, len(values)), 0, 1), values)
            named = np.char.add(f"{job:06d}/", names)
            table = made.set_column(made.column_names.index("value"), SCHEMA.field("value"), pa.array(other))
            table = table.set_column(table.column_names.index("image"), SCHEMA.field("image"), pa.array(named))
            table = table.sort_by([(name, "ascending") for name in ORDER])
            store.write_shard(f"m00-d00-{job * images_a_job:07d}", table)
    return jobs * made.num_rows


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Runs it, and prints its seconds, those of the processor, and the peak memory of this process so far."""
    start, busy = time.perf_counter(), time.process_time()
    found = work()
    busy = time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<40} {time.perf_counter() - start:8.2f} s {busy:8.2f} s {peak:8.0f} MB", flush=True)
    return found


def report(folder: Path) -> None:
    """Times what a report of the folder does, part after part."""
    from heatproof.report.findings import Findings
    from heatproof.report.page import write_page
    from heatproof.report.source import open_source
    from heatproof.report.tables import file_tables
    from heatproof.studies.store import Store

    timed("done", lambda: len(Store(folder).done()))
    source = timed("connect", lambda: open_source(folder))
    timed("count", lambda: source.connection.execute("SELECT count(*) FROM rows").fetchone())
    query = "SELECT method, median(value) FROM rows WHERE metric = 'rbo' AND NOT changed GROUP BY method"
    timed("median of rbo by method", lambda: source.connection.execute(query).fetchall())
    findings = Findings(source)
    for part in ("robustness", "noise_checks", "scores", "reasons", "flagged"):
        timed(f"findings.{part}", lambda part=part: getattr(findings, part))
    for name, made in findings.study.tables.items():
        timed(f"table {name}", lambda name=name, made=made: findings._table(name, made))
    timed("tables written", lambda: file_tables(folder / "tables", findings.tables))
    for section in findings.study.sections:
        timed(f"section {section}", lambda section=section: list(findings._sections_of(section)))
    timed("page", lambda: write_page(findings))


def images_of(folder: Path, count: int) -> Path:
    """A folder of so many small images with labels, drawn once for each number."""
    from heatproof.data.shapes import demo_shapes
    from heatproof.data.shapes_folder import write_shapes

    found = folder / f"shapes-{count}"
    write_shapes(demo_shapes("train", count), found)
    return found


class Watched:
    """The memory of this process and its finished jobs, looked at four times a second: (seconds, jobs, MB)."""

    def __init__(self, rows: Path):
        self.rows, self.seen, self.start, self._end = rows, [], time.perf_counter(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        page = resource.getpagesize() / 1e6
        while not self._end.wait(0.25):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            done = len(list(self.rows.glob("*.parquet"))) if self.rows.is_dir() else 0
            self.seen.append((time.perf_counter() - self.start, done, resident))


def small_study(folder: Path, images: Path, count: int) -> dict[str, Any]:
    """Runs the study of small images in this process, and says what it took."""
    import pyarrow.parquet as pq

    from benchmarks.memory import peak
    from heatproof.studies import run
    from heatproof.studies.plan import checked_plan

    data = {"datasets": {"images": str(images / "images"), "labels": str(images / "labels.csv")}}
    plan = checked_plan({**SMALL, **data, "limit": count})
    busy = time.process_time()
    with Watched(folder / "rows") as watched:
        run.run(plan, folder, workers=1)
    seconds, busy = time.perf_counter() - watched.start, time.process_time() - busy
    rows = sum(pq.read_metadata(file).num_rows for file in (folder / "rows").glob("*.parquet"))
    kept = {kind: sum(file.stat().st_size for file in (folder / kind).iterdir()) for kind in ("rows", "maps", "sums")}
    jobs = len(list((folder / "rows").iterdir()))
    running = [(at, done, size) for at, done, size in watched.seen if done]
    quarters = [max(size for _, done, size in running if done <= jobs * part / 4) for part in range(1, 5)
                if any(done <= jobs * part / 4 for _, done, _ in running)]  # fmt: skip
    return {
        **{"images": count, "rows": rows, "seconds": round(seconds, 1), "processor_seconds": round(busy, 1)},
        **{"processor_ms_an_image": round(1000 * busy / count, 1), "peak_mb": round(peak())},
        **{"mb_after_quarters": [round(size) for size in quarters]},
        **{f"{kind}_bytes_a_row": round(size / rows, 2) for kind, size in kept.items()},
        "bytes_a_row": round(sum(kept.values()) / rows, 2),
    }


def grown(folder: Path, counts: list[int]) -> None:
    """The study of small images at every number, each in a process of its own; a line of JSON for each."""
    images = images_of(folder, max(counts))
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.growth", "one", str(folder / f"study-{count}"), str(images)]
        done = subprocess.run([*command, str(count)], cwd=ROOT, check=True, capture_output=True, text=True)
        print(done.stdout.splitlines()[-1], flush=True)


def main() -> None:
    """Writes the study where it is not there, states its size, and times its report; or runs studies of images."""
    if sys.argv[1] == "images":
        return grown(Path(sys.argv[2]), list(map(int, sys.argv[3:])))
    if sys.argv[1] == "one":
        return print(json.dumps(small_study(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
    folder, rows = Path(sys.argv[1]), int(float(sys.argv[2]))
    if not (folder / "study.json").exists():
        start = time.perf_counter()
        made = write(folder, rows, *map(int, sys.argv[3:4]))
        size = sum(path.stat().st_size for path in (folder / "rows").iterdir())
        jobs = len(list((folder / "rows").iterdir()))
        print(json.dumps({"rows": made, "jobs": jobs, "bytes_a_row": round(size / made, 2),
                          "seconds_to_write": round(time.perf_counter() - start, 1)}))  # fmt: skip
        return
    timed("start", lambda: None)
    report(folder)


if __name__ == "__main__":
    main()
