"""Runs a study into its folder: checks, calibration, the jobs not done yet, the gallery. The same call resumes it."""

import itertools
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from heatproof.addresses import Place, place
from heatproof.ambient import neutral
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.engine import dry_run
from heatproof.errors import InvalidStudy, StoreError, warn
from heatproof.locks import STUDIES, held
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.plugins import PYTHON
from heatproof.progress import Silent
from heatproof.studies.answers import refuse_attacks, with_outputs, with_tolerances
from heatproof.studies.archive import write_archive
from heatproof.studies.budget import within_budget
from heatproof.studies.calibration import calibrated
from heatproof.studies.checked_models import Checked, checked_model
from heatproof.studies.class_labels import facts_about_classes, with_class_names
from heatproof.studies.condition_checks import check_conditions, fingerprint_of
from heatproof.studies.cost import Explained, Passes, PassesMade, passes_of_image, told
from heatproof.studies.datasets import open_datasets
from heatproof.studies.description import described
from heatproof.studies.executors import Executor, Processes, Serial
from heatproof.studies.explained_classes import check_labels, share_with_class
from heatproof.studies.gallery import write_gallery
from heatproof.studies.given_maps import check_given, warn_of_missing
from heatproof.studies.jobs import Dataset, Job, JobDone, Setup, all_requests
from heatproof.studies.loading import StudyModels
from heatproof.studies.machines import machines_of, this_machine
from heatproof.studies.measures import Measures
from heatproof.studies.naming import with_names
from heatproof.studies.own_code import own_code, warn_of_failures
from heatproof.studies.part_cost import part_samples
from heatproof.studies.settings import Plan
from heatproof.studies.shards import Shard
from heatproof.studies.store import Store
from heatproof.studies.study import BUILT_IN, Study, study_named
from heatproof.studies.worker_process import prepare

#: Default number of images per pass on a GPU; small batches leave it idle.
BATCH_ON_GPU = 64


class Progress(Protocol):
    """Shows progress: `stage` begins a stage of `total` units, `advance` moves it on."""

    def stage(self, name: str, total: float, done: float = 0) -> None: ...
    def advance(self, units: float) -> None: ...


@dataclass(frozen=True)
class Done:
    """The result of a run: the folder, how many jobs it ran and how many were done already, the passes it made."""

    folder: Place
    ran: int
    kept: int
    passes: PassesMade | None = None


@neutral()
def run(
    plan: Plan,
    folder: str | os.PathLike | Place,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    command: str = "",
    shard: Shard | None = None,
) -> Done:
    """Runs the jobs of a study that are not done yet, and makes its gallery.

    Args:
        plan: from `checked_plan`.
        folder: the results folder, created if missing. The same plan again resumes the study.
        workers: processes; by default the cores divided by the plan's `threads` on a CPU, and one on a GPU. The numbers
            do not depend on it.
        executor: another way to run jobs, in place of `workers`.
        shard: only these jobs, into a folder of their own below `folder`, without a gallery; see `merging`.

    Raises:
        InvalidStudy, ModelError, UnknownName …: the plan cannot be run; raised before any work.
        StoreError: the folder belongs to another study, is in use, or cannot be written.

    A process runs one study at a time, since its number of threads belongs to it as a whole: other threads wait.
    """
    if shard is not None and plan.budget is not None:
        raise InvalidStudy("--shard needs one --limit for all machines, and --budget gives each its own. Give --limit.")
    with held(STUDIES):
        where = place(folder) if shard is None else place(folder) / shard.name
        return _run(plan, where, workers, executor, progress or Silent(), command, shard)


def _run(
    plan: Plan,
    folder: Place,
    workers: int | None,
    executor: Executor | None,
    progress: Progress | Silent,
    command: str,
    shard: Shard | None,
) -> Done:
    if workers is not None and workers < 1:
        raise InvalidStudy(f"`workers` must be at least 1. Got {workers}.")
    progress.stage("Loading models and images", 0)
    given = plan
    study, device = study_named(plan.study), resolved_device(plan.device)
    plan = plan.model_copy(update={"device": device, "batch_size": plan.batch_size or default_batch(study, device)})
    datasets = open_datasets(plan)
    models = StudyModels(plan, device)
    plan = with_class_names(with_outputs(plan, models), datasets, models)
    plan, measures = checked_study(study, plan, datasets, models)
    checked = [checked_model(plan, index, models, study.all_conditions(plan)) for index in range(len(models))]
    warn_of_failures(plan, measures, datasets, models, [one.layer for one in checked], study.explains_labels(plan))
    estimate = None
    if plan.budget is not None:
        progress.stage("Measuring what an image costs", 0)
        layers, refused = tuple(c.layer for c in checked), tuple(c.refused for c in checked)
        bare = Setup(plan, layers, datasets, "", "", device, refused=refused, declared=study)
        plan, estimate = within_budget(bare, models, Store(folder), worker_count(workers, plan.threads, device))
        datasets = open_datasets(plan)
    jobs = all_jobs(plan, datasets)
    costs = [] if isinstance(progress, Silent) else image_costs(study, plan, measures, datasets, checked)
    spread = not isinstance(executor or chosen_executor(workers, plan.threads, device, len(jobs)), Serial)
    plugins, declared = (exported_plugins(plan, measures), exported_study(study, plan)) if spread else ((), study)
    with Store(folder).opened() as store:
        facts: dict[str, Any] = described(plan, measures, checked, datasets, jobs, command)
        facts["estimate"] = estimate and estimate.facts
        if shard is not None:
            facts["shard"], jobs = str(shard), shard.of(jobs)
        if code := own_code(study, plan, measures, {one.label: one.code for one in checked}):
            facts["code"] = code
        facts["conditions"] = [fingerprint_of(condition) for condition in study.all_conditions(plan)]
        facts |= facts_about_classes(plan, datasets, checked)
        refuse_other(store, facts, len(jobs))
        done = store.done()
        unfinished = any(job.key not in done for job in jobs)
        facts["machines"] = machines_of(store, this_machine(device, plan.threads), unfinished)
        store.begin(facts)
        write_archive(store.folder, given, plan)
        threads = torch.get_num_threads()
        try:
            strengths = calibrated(store, plan, study.all_conditions(plan), datasets, models, progress)
            setup = Setup(plan, tuple(c.layer for c in checked), datasets, str(store.folder), facts["version"], device,
                          strengths, tuple(c.refused for c in checked), plugins, declared)  # fmt: skip
            done = store.done()
            todo = [job for job in jobs if job.key not in done]
            how = executor or chosen_executor(workers, plan.threads, device, len(todo))
            alone = isinstance(how, Serial)
            if not alone:
                models.clear()  # workers load their own
            with how.running(partial(prepare, models=models if alone else None), setup) as map_jobs:
                cost = told(costs) if costs else ""
                progress.stage(f"Measuring{estimate or ''}{cost}", len(jobs), len(jobs) - len(todo))
                finished = list(map_jobs(todo, progress.advance))
                if shard is None:
                    write_gallery(store, setup, map_jobs, progress)
        finally:
            torch.set_num_threads(threads)
    passes = passes_made(finished, todo, costs) if costs and todo else None
    return Done(store.folder, len(todo), len(jobs) - len(todo), passes)


def passes_made(finished: Sequence[JobDone], jobs: Sequence[Job], costs: Sequence[Passes]) -> PassesMade:
    """The passes of some finished jobs, beside those that their images needed."""
    made = sum((Passes(one.forward, one.backward) for one in finished), Passes())
    images = sum({(job.dataset, job.start): job.stop - job.start for job in jobs}.values())
    return PassesMade(made, sum((costs[job.model] * (job.stop - job.start) for job in jobs), Passes()), images)


def image_costs(
    study: Study, plan: Plan, measures: Measures, datasets: Sequence[Dataset], checked: Sequence[Checked]
) -> list[Passes]:
    """What an image costs under each model, counted on a toy network before any work; empty where that fails."""
    masked, mosaics = any(one.masked for one in datasets), any(one.mosaics for one in datasets)
    conditions, every = study.all_conditions(plan), all_requests(plan)
    parts = next((part_samples(one.images) for one in datasets if one.parted), [])
    shares = [share_with_class(one.target, datasets) for one in conditions]
    found = []
    for model in checked:
        able = [one for one in every if one.key not in model.refused]
        explained = Explained(able, model.channels, model.linear, model.layers_read)
        try:
            found.append(passes_of_image(explained, measures, conditions, masked, mosaics, parts, shares))
        except Exception as error:  # what fails on a small image may well run on those of the study
            warn(f"The passes that an image needs could not be counted: {type(error).__name__}.")
            return []
    return found


def checked_study(study: Study, plan: Plan, datasets: Sequence[Dataset], models: StudyModels) -> tuple[Any, Measures]:
    """The plan, completed by `Study.check`, and its measures.

    Raises:
        InvalidInput: no labels for the target `label`, masks or maps of other images, no condition, an unknown section,
            a pair metric without a second condition, maps made beforehand with several conditions, a wrong option.
    """
    for dataset in datasets:
        dataset.ground_truth.check()
    plan = study.called("check", study.check, plan, datasets, models) if study.check else plan
    plan = with_names(plan, study)
    if study.explains_labels(plan):
        refuse_unlabelled(plan, datasets)
    check_conditions(study.all_conditions(plan))
    check_labels(study, plan, datasets)
    refuse_attacks(plan, study.all_conditions(plan))
    plan = with_tolerances(plan, datasets, models) if len(study.all_conditions(plan)) > 1 else plan
    for section in study.sections:
        if isinstance(section, str) and find_spec(f"heatproof.report.sections.{section}") is None:
            raise InvalidStudy(f"The study {study.name!r} has a section {section!r}, and there is none of that name.")
    for name, made in study.tables.items():
        if isinstance(made, str) and not hasattr(import_module("heatproof.report.tables"), made):
            raise InvalidStudy(
                f"The table {name} of the study {study.name!r} is {made!r}, and there is none of that name."
            )
    measures = Measures.of(study, plan)
    dry_run([request for _, request in measures.taken])
    warn_of_missing(measures, datasets)
    if plan.given_maps and len(study.all_conditions(plan)) > 1:
        raise InvalidStudy(
            f"Maps made beforehand belong to the images as they are, and the study {study.name!r} changes them. Name "
            "methods in place of maps, or take the study score."
        )
    for dataset in datasets:
        check_given(dataset)
    return plan, measures


def exported_plugins(plan: Plan, measures: Measures) -> tuple[bytes, ...]:
    """The methods and metrics that a new process cannot find, pickled.

    Raises:
        InvalidInput: one that cannot be pickled.
    """
    metrics = PLUGIN_METRICS.exported(request.entry for _, request in measures.taken)
    return (*PLUGIN_METHODS.exported(request.entry for request in all_requests(plan)), *metrics)


def exported_study(study: Study, plan: Plan) -> Study | None:
    """The study if a new process cannot find it by its name, else None.

    Raises:
        InvalidStudy: it cannot be pickled.
    """
    if study.name in BUILT_IN or plan.study.startswith(PYTHON):
        return None
    try:
        pickle.dumps(study)
    except Exception as error:  # pickle raises errors of many types
        raise InvalidStudy(
            f"The study {study.name!r} must be importable for several worker processes: {error}. Take one worker "
            "(--workers 1, `workers=1`), or name it python:package.module:STUDY."
        ) from error
    return study


def resolved_device(device: str) -> str:
    """`auto` → a GPU where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_batch(study: Study, device: str) -> int:
    """Default number of images per pass; larger batches gain nothing on a CPU."""
    return study.batch if device == "cpu" else BATCH_ON_GPU


def worker_count(workers: int | None, threads: int, device: str) -> int:
    """The number of processes: `workers`, else the cores divided by `threads` on a CPU, and one on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return workers or (max(1, cores // threads) if device == "cpu" else 1)


def chosen_executor(workers: int | None, threads: int, device: str, jobs: int) -> Executor:
    """Processes if there are several workers and several jobs, else this process."""
    count = worker_count(workers, threads, device)
    return Processes(count) if min(count, jobs) > 1 else Serial()


def refuse_unlabelled(plan: Plan, datasets: Sequence[Dataset]) -> None:
    """InvalidStudy if no image of a dataset has a label, for the target `label`."""
    for dataset in datasets:
        if all(label is None for label in dataset.images.labels):
            raise InvalidStudy(
                f"Target `label` needs labels. Got none for the {len(dataset.images.ids)} images of "
                f"{dataset.settings.label}. "
                "Give a CSV of labels or one subfolder per class, or use target `predicted`."
            )


def all_jobs(plan: Plan, datasets: Sequence[Dataset]) -> list[Job]:
    """One job for every `batch_size` images of every dataset under every model."""
    size, counts = plan.batch_size or 1, [len(dataset.images.ids) for dataset in datasets]
    return [
        Job(model, dataset, start, min(start + size, counts[dataset]))
        for model, dataset in itertools.product(range(len(plan.models)), range(len(counts)))
        for start in range(0, counts[dataset], size)
    ]


def refuse_other(store: Store, facts: Mapping[str, Any], jobs: int) -> None:
    """StoreError with the differences if the folder holds a study with another plan; `jobs`: how many it will hold."""
    differences = store.differences(facts)
    if not differences:
        return
    finished = len(store.done()) >= jobs
    if finished and all(phrase.startswith("version is ") for phrase in differences):
        return  # nothing is left to run, so nothing would be mixed
    raise StoreError(
        f"{store.folder} holds a study with other settings: {'; '.join(differences)}. "
        "Give the same settings to finish it, or another --out."
    )
