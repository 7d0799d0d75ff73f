"""What a study will take, before it runs: rows, passes, images to segment, disk and time.

Rows and passes are counted; seconds and bytes are measured on a few images (`image_time`) and multiplied.
"""

import io
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from heatproof.errors import InvalidStudy
from heatproof.studies.cell_passes import CellPasses
from heatproof.studies.checked_models import Checked
from heatproof.studies.compiling import CompileChoice
from heatproof.studies.conditions import Condition
from heatproof.studies.cost import Passes
from heatproof.studies.image_costs import image_costs
from heatproof.studies.image_time import Calibration, Cell, ImageTime
from heatproof.studies.jobs import Job, Setup, all_requests
from heatproof.studies.loading import StudyModels
from heatproof.studies.maps import KEPT, arrays
from heatproof.studies.measures import Measures
from heatproof.studies.row_counts import RowRules
from heatproof.studies.rows import Rows
from heatproof.studies.stopwatch import Clock
from heatproof.studies.timed_parts import NOT_MEASURED
from heatproof.studies.worker import Worker

#: The speed that each worker after the first adds; less than 1, because workers share the memory.
EACH_FURTHER = 0.8
#: Seconds of calibration by default.
SECONDS = 10.0
#: A part of a study that takes more than this share of it is named.
MUCH = 0.5
#: The most cases of a gallery of a study of heatproof's own.
CASES = 16


def check_seconds(measure: float) -> None:
    """InvalidStudy if a measurement cannot take so many seconds."""
    if not (0 < measure < math.inf):
        raise InvalidStudy(f"`measure` must be more than 0 seconds. Got {measure:g}.")


def duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s`, `3 h 20 min`, `2 d 4 h`; less than a second is `1 s`."""
    whole = max(1, round(seconds))
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


@dataclass(frozen=True)
class TimeTaken:
    """The time of the jobs of a run: what they took, what was predicted, and what passed on the clock."""

    seconds: float
    predicted: float
    elapsed: float

    def __str__(self) -> str:
        ratio = f"{self.seconds / self.predicted:.2f} × " if self.predicted else ""
        return (
            f"Time of the jobs: {duration(self.seconds)} ({ratio}the {duration(self.predicted)} predicted for one "
            f"worker), {duration(self.elapsed)} on the clock."
        )


class CompileCost(NamedTuple):
    """Whether the passes of a model without gradient run on a compiled copy, and the seconds of its jobs either way."""

    choice: CompileChoice
    eager: float
    compiled: float

    @property
    def facts(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**self.choice.facts, "seconds": {"eager": round(self.eager, 2), "compiled": round(self.compiled, 2)}}


class PartCost(NamedTuple):
    """What one method, metric, change of the images or model takes of a study.

    kind: `method`, `control`, `metric`, `change` or `model`. seconds, passes: of all images in one process; of a method
    with its scores. share: of the whole.
    """

    kind: str
    name: str
    seconds: float
    passes: float
    share: float


@dataclass(frozen=True)
class Prediction:
    """What a study takes.

    Attributes:
        study: its name.
        images: set of images → how many.
        jobs: how many jobs there are, each of a batch of images under one model.
        rows: kind of rows → how many, exact where every image can be read.
        passes: model → passes of all images: forward, backward, and partial ones from a layer on.
        segmented: how often an image is cut into segments.
        bytes: rows, maps, gallery → about how many bytes on the disk; the gallery at most.
        seconds: of the jobs, of one worker: the processor's on a CPU, the clock's on a GPU. Compiling, tables, page and
            gallery come on top.
        workers: how many workers there would be.
        device, threads: of each worker.
        rates: model → seconds of a forward and of a backward pass of one image.
        parts: what each method, metric, change and model takes, the costliest of each kind first.
        others: what methods and metrics that the study has not would add, by their passes alone.
        compile: for each model, whether passes without gradient run on a compiled copy of the network.
    """

    study: str
    images: Mapping[str, int]
    jobs: int
    rows: Mapping[str, int]
    passes: Mapping[str, Passes]
    segmented: int
    bytes: Mapping[str, int]
    seconds: float
    workers: int
    device: str
    threads: int
    rates: Mapping[str, Passes] = field(repr=False)
    parts: Sequence[PartCost] = field(repr=False)
    others: Sequence[PartCost] = field(default=(), repr=False)
    compile: Sequence[CompileCost] = field(default=(), repr=False)

    @property
    def compiling(self) -> float:
        """Seconds of compiling before the first job."""
        return sum(one.choice.compiling for one in self.compile)

    @property
    def all_passes(self) -> Passes:
        """Under all models."""
        return sum(self.passes.values(), Passes())

    def with_workers(self, workers: int) -> float:
        """Seconds on the clock with so many workers, at most one a job, on a machine that does nothing else.

        Compiling is in them; it is done once, for all workers.
        """
        return on_clock(self.seconds, workers, self.jobs) + self.compiling

    def dominant(self) -> PartCost | None:
        """A method, metric, change or model that takes more than half of the time beside others of its kind."""
        kinds = Counter("method" if part.kind == "control" else part.kind for part in self.parts)
        much = [part for part in self.parts if part.share > MUCH and kinds[part.kind.replace("control", "method")] > 1]
        order = ("metric", "method", "control", "change", "model")
        return min(much, key=lambda part: order.index(part.kind), default=None)

    @property
    def facts(self) -> dict[str, Any]:
        """As plain values for JSON."""
        passes = {name: {"forward": round(one.forward), "backward": round(one.backward), "partial": round(one.tails)}
                  for name, one in self.passes.items()}  # fmt: skip
        much = self.dominant()
        return {
            "study": self.study, "images": dict(self.images), "jobs": self.jobs,
            "rows": {**self.rows, "all": sum(self.rows.values())}, "passes": passes, "segmented": self.segmented,
            "bytes": {**self.bytes, "all": sum(self.bytes.values())}, "device": self.device, "threads": self.threads,
            "seconds": {"one worker": round(self.seconds, 2), "workers": self.workers,
                        "with workers": round(self.with_workers(self.workers), 2),
                        "compiling": round(self.compiling, 2)},
            "compile": [one.facts for one in self.compile],
            "parts": [_plain(part) for part in self.parts], "others": [_plain(part) for part in self.others],
            "more than half": None if much is None else {"kind": much.kind, "name": much.name},
        }  # fmt: skip


def _plain(part: PartCost) -> dict[str, Any]:
    return {**part._asdict(), "seconds": round(part.seconds, 2), "passes": round(part.passes),
            "share": round(part.share, 4)}  # fmt: skip


def on_clock(seconds: float, workers: int, jobs: int) -> float:
    """Seconds on the clock of work that takes one worker so many `seconds`."""
    workers = max(1, min(workers, jobs))
    rounds = math.ceil(jobs / workers) / max(1, jobs)  # the last jobs may leave workers idle
    return seconds * rounds * workers / (1 + EACH_FURTHER * (workers - 1))


@dataclass(frozen=True)
class Measured:
    """What the calibration found on the images of one dataset under one model."""

    time: ImageTime
    passes: CellPasses


def measured(
    setup: Setup, checked: Sequence[Checked], models: StudyModels, seconds: float = SECONDS
) -> dict[tuple[int, int], Measured]:
    """(model, dataset) → the time of one image, in about so many `seconds` together.

    Raises:
        InvalidStudy: a dataset with no image that can be measured.
    """
    worker, threads = Worker(setup, models), torch.get_num_threads()
    pairs = [(model, dataset) for model in range(len(models)) for dataset in range(len(setup.datasets))]
    found, clock = {}, Clock(setup.device, setup.plan.threads)
    try:
        torch.set_num_threads(setup.plan.threads)
        for number, (model, dataset) in enumerate(pairs):  # one model is held at a time
            passes = CellPasses.of(checked[model], all_requests(setup.plan))
            each = max(seconds / len(pairs) / 4, (seconds - clock()) / (len(pairs) - number))
            found[model, dataset] = Measured(Calibration(worker, model, dataset, passes, each).found(), passes)
        return found
    finally:
        torch.set_num_threads(threads)


def predicted(
    setup: Setup,
    measures: Measures,
    checked: Sequence[Checked],
    models: StudyModels,
    jobs: Sequence[Job],
    workers: int,
    seconds: float = SECONDS,
    costs: Sequence[Passes] = (),
    choices: Sequence[CompileChoice] = (),
) -> Prediction:
    """What a study takes, of which nothing is written.

    Args:
        costs: the passes of an image by model, where they are known.
        choices: of compiled copies, by model. Copies that are in the cache are measured; what others save is assumed.

    Raises:
        InvalidStudy: a dataset with no image that can be measured.
    """
    plan, datasets = setup.plan, setup.datasets
    if choices:
        models.compile([one.model for one in choices if one.compiled and one.cached])
    times = measured(setup, checked, models, seconds)
    labels = [one.label for one in checked]
    counts = [len(one.images.ids) for one in datasets]
    costs = costs or image_costs(setup.study, plan, measures, datasets, checked)
    rows: Counter[str] = Counter()
    ledger: list[tuple[str, Cell, int]] = []
    written = {"rows": 0.0, "maps": 0.0}
    rates: dict[str, Passes] = {}
    ways = [([], []) for _ in checked]
    for (model, dataset), found in times.items():
        there = [job for job in jobs if (job.model, job.dataset) == (model, dataset)]
        worker = Worker(setup, models)
        metrics = [request for _, request in measures.taken]
        points = {key: one.points for key, one in found.passes.metrics(metrics).items()}
        rules = RowRules(setup, measures, models(model), datasets[dataset], worker.methods(model), checked[model].sizes,
                         points)  # fmt: skip
        own = rules.rows(there)
        rows.update(own)
        rates.setdefault(labels[model], Passes(found.time.forward, found.time.backward))
        fixed, each, cost = _of_rows(worker, there[0], found.time.rows)
        written["rows"] += fixed * len(there) + each * sum(own.values())
        written["maps"] += _bytes_of_maps(setup, worker, there[0], found.time, counts[dataset]) + 2000 * len(there)
        count = counts[dataset]
        writing = Cell("", "", "", cost * sum(own.values()) / max(1, count))
        eager, compiled = of_passes(found.time, choices[model] if choices else None)
        chosen = compiled if choices and choices[model].compiled else eager
        ledger += [(labels[model], cell, count) for cell in (*chosen, writing)]
        for either, cells in zip(ways[model], (eager, compiled), strict=True):
            either.append(count * sum(cell.seconds for cell in (*cells, writing)))
    passes = {label: cost * sum(counts) for label, cost in zip(labels, costs, strict=True)} if costs else {}
    written["gallery"] = _bytes_of_gallery(setup, models)
    return Prediction(
        setup.study.name,
        {one.settings.label: count for one, count in zip(datasets, counts, strict=True)},
        len(jobs),
        dict(rows),
        passes,
        segmented(setup, measures),
        {kind: round(count) for kind, count in written.items()},
        sum(cell.seconds * count for _, cell, count in ledger),
        workers,
        setup.device,
        plan.threads,
        rates,
        part_costs(ledger, controls={one.key for one in all_requests(plan) if one.entry.traits["control"]}),
        compile=[CompileCost(one, *map(sum, either)) for one, either in zip(choices, ways, strict=False)],
    )


def of_passes(time: ImageTime, choice: CompileChoice | None) -> tuple[Sequence[Cell], Sequence[Cell]]:
    """The cells of one image with eager passes, and with passes on a compiled copy where only logits are wanted.

    One of the two was measured. A cell's passes may have been made for another before, so that it took less time.
    """
    if choice is None:
        return time.cells, time.cells
    gain = choice.gain
    if choice.compiled and choice.cached:
        most = gain / max(1e-9, 1 - gain)
        more = [min(cell.plain * time.forward * gain, cell.seconds * most) for cell in time.cells]
        changed = [replace(cell, seconds=cell.seconds + one) for cell, one in zip(time.cells, more, strict=True)]
        return changed, time.cells
    less = [gain * min(cell.plain * time.forward, cell.seconds) for cell in time.cells]
    return time.cells, [replace(cell, seconds=cell.seconds - one) for cell, one in zip(time.cells, less, strict=True)]


def part_costs(ledger: Sequence[tuple[str, Cell, int]], controls: set[str] = frozenset()) -> list[PartCost]:  # type: ignore[assignment]
    """The costs by method, metric, change and model of (model, cell, images)."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    passes: defaultdict[tuple[str, str], float] = defaultdict(float)
    whole = sum(cell.seconds * count for _, cell, count in ledger) or 1.0
    for model, cell, count in ledger:
        kind = "control" if cell.method in controls else "method"
        for key in ((kind, cell.method), ("metric", cell.metric), ("change", cell.change), ("model", model)):
            if key[1]:
                seconds[key] += cell.seconds * count
                passes[key] += cell.passes * count
    kinds = ("method", "control", "metric", "change", "model")
    found = [PartCost(*key, value, passes[key], value / whole) for key, value in seconds.items()]
    return sorted(found, key=lambda part: (kinds.index(part.kind), -part.seconds, part.name))


def segmented(setup: Setup, measures: Measures) -> int:
    """How often an image is cut into segments: once by each segmenter for pairs, under each condition by others."""
    found = 0
    for dataset in setup.datasets:
        conditions: Sequence[Condition] = setup.study.all_conditions(setup.plan)
        times: Counter[object] = Counter()
        for number in range(len(conditions)):
            for _, request in measures.at(not number, dataset.masked, dataset.mosaics):
                name = request.options.get("segmenter")
                if name is not None and request.paired:
                    times[name, "pair"] = 1
                elif name is not None:
                    times[name, number] = 1
            for method in all_requests(setup.plan):
                if (name := method.options.get("segmenter")) is not None:
                    times[name, number, "method"] = 1
        found += sum(times.values()) * len(dataset.images.ids)
    return found * len(setup.plan.models)


def _of_rows(worker: Worker, job: Job, rows: Rows) -> tuple[float, float, float]:
    """Bytes of a file of rows without any, bytes of one row, and the seconds that writing one takes."""
    clock = Clock("cpu")
    whole = worker.common_rows(job)
    whole.extend(rows)
    start = clock()
    table = whole.table()
    made = (clock() - start) / max(1, table.num_rows)
    table = table.filter(pc.field("flag") != NOT_MEASURED)  # values that are missing need less space
    if not table.num_rows:
        return 0.0, 0.0, 0.0

    def size(count: int) -> int:
        file = io.BytesIO()
        pq.write_table(table.slice(0, count), file, compression="zstd")
        return file.tell()

    start = clock()
    most, few = size(table.num_rows), table.num_rows // 2
    took = made + (clock() - start) / table.num_rows
    each = max(0.0, most - size(few)) / max(1, table.num_rows - few)
    return max(0.0, most - each * table.num_rows), each, took


def _bytes_of_maps(setup: Setup, worker: Worker, job: Job, time: ImageTime, count: int) -> float:
    """Of the maps of all images of a dataset, which are not compressed: as many for each method as were measured."""
    kept, methods = arrays([time.kept]), worker.methods(job.model)
    layer = (setup.layers[job.model],)
    stored = sum(one.request.form == "cam" and one.layers == layer for one in methods)
    conditions = len(setup.study.all_conditions(setup.plan))
    images = max(1, len(time.kept.images))
    raw = sum(kept[name].nbytes for name in ("values", "scale") if name in kept) / images
    if raw:
        raw *= conditions / len(kept["conditions"]) * stored / max(1, len(kept["methods"]))
    shown = kept["display"][0].nbytes / max(1, kept["display"].shape[1]) if "display" in kept else 0.0
    shown *= len(methods) + len(setup.datasets[job.dataset].given)
    return raw * count + shown * min(KEPT, count)


def _bytes_of_gallery(setup: Setup, models: StudyModels) -> float:
    """At most: images and maps of all cases, as if they could not be compressed."""
    if setup.study.cases is None:
        return 0.0
    plan = setup.plan
    shown = 1 + (len(getattr(plan, "severities", ())) if len(setup.study.all_conditions(plan)) > 1 else 0)
    channels, height, width = models(0).input_shape if len(models(0).input_shape) == 3 else (3, 1, 1)
    return float(CASES * shown * height * width * (channels + len(plan.methods) + len(plan.given_maps)))
