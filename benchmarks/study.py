"""The whole noise study on photographs: one job, in process, beside the passes that it cannot do without."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.floor import Passes, Timing, full_pass, head_pass, no_collection, study_passes
from benchmarks.networks import ASSETS, CHECKPOINT, Split, mobilenet
from benchmarks.result import Part, Result
from benchmarks.settings import Settings
from benchmarks.stopwatch import Spent, Stopwatch, followed, watched
from heatproof.engine import Explanation, references
from heatproof.engine import batch as engine
from heatproof.models import Model, load_model
from heatproof.models.capture import Captured
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.studies import changed_images, measurement, worker
from heatproof.studies.datasets import open_datasets
from heatproof.studies.jobs import Job, Setup, all_requests
from heatproof.studies.loading import StudyModels
from heatproof.studies.noise_robustness import NoisePlan
from heatproof.studies.plan import checked_plan
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store
from heatproof.studies.worker import Worker

AIM = 1.25
#: Paper N: CAM and noise of one image, one method, one condition.
PAPER = 0.445

#: Which functions of the study make up which part of its time (exclusive of each other).
PLACES: Sequence[tuple[Any, str, str]] = (
    (worker, "open_block", "opening images"),
    (references, "segment", "segments"),
    (Perturber, "apply", "perturbation arithmetic"),
    (changed_images, "loss_gradient", "attack passes"),
    (engine, "captured", "forward passes"),
    (Captured, "gradients_of", "head backward passes"),
    (measurement, "explanation", "maps"),
    (Explanation, "display", "display maps"),
    (references.Pairs, "__init__", "scores"),
    (references.Pairs, "values", "scores"),
    (Rows, "add", "rows"),
    (Rows, "extend", "rows"),
    (Rows, "table", "rows"),
    (Store, "write_shard", "writing"),
)
PASSES = ("attack passes", "forward passes", "head backward passes")
CAM_AND_NOISE = (*PASSES, "perturbation arithmetic", "maps", "display maps")
#: Parts of our time that are not the study's: the floor's own passes, run in between.
FLOOR = "floor"


def results(settings: Settings) -> Iterator[Result]:
    """MobileNetV2, six CAMs and the controls, eight perturbations, five severities; skipped without the assets."""
    if not CHECKPOINT.exists():
        print("study: skipped, the shared network and photographs are not beside the project")
        return
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield _measured(2 if settings.quick else settings.images)
    finally:
        torch.set_num_threads(threads)


def _measured(images: int) -> Result:
    plan = photograph_plan(images)
    model = load_model("timm:mobilenetv2_100", CHECKPOINT, {"pad_type": "same"}, 0.5, 0.5, device="cpu")
    # Imports and memory, but no segments that would then be remembered.
    measured_job(photograph_plan(1, perturbations=["fgsm"], severities=[1], segmenters=["slic"]), model)
    return summary(plan, measured_job(plan, model, mobilenet(model.module)))


def photograph_plan(count: int, **settings: Any) -> NoisePlan:
    """The study of the issue on the first photographs; one job holds them all, up to eight."""
    images = ASSETS / "images"
    dataset = {"images": str(images), "labels": str(images / "labels.csv")}
    base = {
        "study": "noise-robustness",
        "models": ["timm:mobilenetv2_100"],
        "datasets": [dataset],
        "limit": count,
        "batch_size": min(8, count),
    }
    return checked_plan({**base, "device": "cpu", **settings})


@dataclass
class JobTimes:
    """One study on one thread: where its time went, and the floor's passes run in between."""

    watch: Stopwatch
    floor: dict[str, Timing]
    passes: Passes
    jobs: int


class OneModel(StudyModels):
    """A model that is loaded already."""

    def __init__(self, plan: NoisePlan, model: Model):
        super().__init__(plan, "cpu")
        self._given = model

    def __call__(self, index: int, state: str = "") -> Model:
        """The given one, whatever the number and the state."""
        return self._given


def measured_job(plan: NoisePlan, model: Model, split: Split | None = None) -> JobTimes:
    """Runs a study's jobs; with `split` each pass of the study is followed by the floor's on the same images."""
    kinds = {kind: bool(PERTURBATIONS.parse(kind)[0].traits["attack"]) for kind in plan.perturbations}
    watch, floor = Stopwatch(), {"head": Timing(), "full": Timing()}
    twins = _twins(watch, floor, split) if split else ()
    with tempfile.TemporaryDirectory() as folder, watched(watch, PLACES), followed(twins), no_collection():
        study, jobs = prepared(plan, model, Path(folder))
        for job in jobs:
            with watch.part("other"):
                study(job, lambda share: None)
    return JobTimes(watch, floor, study_passes(kinds, plan.levels), len(jobs))


def prepared(plan: NoisePlan, model: Model, folder: Path) -> tuple[Worker, list[Job]]:
    """The study with its output in `folder`, and its jobs."""
    for name in ("rows", "maps"):
        (folder / name).mkdir(parents=True)
    datasets = open_datasets(plan)
    setup = Setup(plan, (model.layers.last,), datasets, str(folder), "benchmark", "cpu", {})
    size, count = plan.batch_size or 8, len(datasets[0].images.ids)
    return Worker(setup, OneModel(plan, model)), [Job(0, 0, i, min(i + size, count)) for i in range(0, count, size)]


def _twins(watch: Stopwatch, floor: dict[str, Timing], split: Split) -> Sequence[tuple[Any, str, Callable]]:
    """The floor's passes, each right after its like in the study, so that both see the machine in the same mood."""

    def full(model: Model, images: torch.Tensor, clean: torch.Tensor) -> None:
        with watch.part(FLOOR):
            z = model.normalise(images.detach())
            floor["full"].run(lambda: full_pass(split.network, z, clean))

    def head(batch: engine.Batch, *_positions: Any, **_options: Any) -> None:
        with watch.part(FLOOR):
            z = batch.model.normalise(batch.x)
            floor["head"].run(lambda: head_pass(split.trunk, split.head, z))

    return [(changed_images, "loss_gradient", full), (measurement, "explanation", head)]


def summary(plan: NoisePlan, job: JobTimes) -> Result:
    """Time without the segments (counted apart) beside the floor, and every part."""
    total, segments = job.watch.total(FLOOR), job.watch.parts["segments"]
    floor = _floor(job)
    time = Spent(total.seconds - segments.seconds, total.processor - segments.processor)
    each = {kind: job.floor[kind].seconds for kind, _ in job.passes.items()}
    ratio = time.seconds / floor.seconds
    maps = len(all_requests(plan))
    return Result(
        "study",
        f"noise study, MobileNetV2, {maps} maps, {len(plan.perturbations)} × {plan.levels} conditions, no segments",
        time.seconds,
        floor.seconds,
        ratio,
        (ratio, ratio),
        AIM,
        n=plan.limit or 0,
        repeats=1,
        threads=1,
        batch=plan.batch_size or 0,
        processor_ratio=time.processor / floor.processor,
        parts=[
            Part(f"{kind} passes", _mean(each[kind]) * count * job.jobs, count * job.jobs)
            for kind, count in job.passes.items()
        ],
        details=_details(plan, job, total, floor),
        notes=["each pass of the study was followed by the floor's on the same images; means, not medians"],
    )


def _floor(job: JobTimes) -> Spent:
    """The floor's passes at their mean time, for all jobs."""
    counts = dict(job.passes.items())
    seconds = sum(_mean(job.floor[kind].seconds) * count for kind, count in counts.items())
    processor = sum(_mean(job.floor[kind].processor) * count for kind, count in counts.items())
    return Spent(seconds * job.jobs, processor * job.jobs)


def _details(plan: NoisePlan, job: JobTimes, total: Spent, floor: Spent) -> dict[str, Any]:
    parts = job.watch.parts
    images = plan.limit or 1
    explained = images * len(plan.perturbations) * plan.levels
    cam_and_noise = sum(parts[name].seconds for name in CAM_AND_NOISE)
    return {
        "time_by_part": {
            name: {"seconds": spent.seconds, "processor": spent.processor}
            for name, spent in sorted(parts.items(), key=lambda item: -item[1].seconds)
            if name != FLOOR
        },
        "ratio_with_segments": total.seconds / floor.seconds,
        "seconds_a_image": total.seconds / images,
        "seconds_a_image_and_condition_cam_and_noise_all_methods": cam_and_noise / explained,
        "seconds_a_image_and_condition_cam_and_noise_one_method": cam_and_noise / explained / len(plan.methods),
        "paper_seconds": PAPER,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
