"""Runs a study into its folder: checks, calibration, the jobs not done yet, the gallery. The same call resumes it."""

import itertools
import os
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from heatproof.addresses import Place, place
from heatproof.ambient import neutral
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.engine import dry_run
from heatproof.errors import InvalidStudy, StoreError
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
from heatproof.studies.compiling import asked_to_compile, compile_all, compile_choices, compile_chosen, threads
from heatproof.studies.condition_checks import check_conditions, fingerprint_of
from heatproof.studies.cost import Passes, PassesMade, told
from heatproof.studies.datasets import open_datasets
from heatproof.studies.decided_passes import decided_passes
from heatproof.studies.description import described
from heatproof.studies.execution import Execution, resolved_device, worker_count
from heatproof.studies.executors import Executor, Serial
from heatproof.studies.explained_classes import check_labels
from heatproof.studies.gallery import write_gallery
from heatproof.studies.given_maps import check_given, warn_of_missing
from heatproof.studies.image_costs import image_costs
from heatproof.studies.jobs import Dataset, Job, JobDone, Setup, all_requests
from heatproof.studies.loading import StudyModels
from heatproof.studies.machines import machines_of, this_machine
from heatproof.studies.measures import Measures
from heatproof.studies.naming import with_names
from heatproof.studies.own_code import own_code, warn_of_failures
from heatproof.studies.prediction import TimeTaken, check_seconds, duration, predicted
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
    """The result of a run: the folder, how many jobs it ran and how many were done already, its passes and its time.

    time: None where none was predicted. compiled: the models that ran on a compiled copy where only logits are wanted.
    jobs: of the whole study, of which a shard has some.
    """

    folder: Place
    ran: int
    kept: int
    passes: PassesMade | None = None
    time: TimeTaken | None = None
    compiled: tuple[str, ...] = ()
    jobs: int = 0


@neutral()
def run(
    plan: Plan,
    folder: str | os.PathLike | Place,
    *,
    workers: int | None = None,
    executor: Executor | str | None = None,
    address: str | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
    command: str = "",
    measure: float | None = None,
    shard: Shard | None = None,
    gallery: bool = True,
) -> Done:
    """Runs the jobs of a study that are not done yet, and makes its gallery.

    Args:
        plan: from `checked_plan`.
        folder: the results folder, created if missing. The same plan again resumes the study.
        workers, executor, address, timeout: see `Execution`; no number depends on them.
        measure: seconds of a measurement that predicts the time beforehand, as of `planned`; None for no prediction.
        shard: only these jobs, into a folder of their own below `folder`, without a gallery; see `merging`.
        gallery: whether the gallery of the page is drawn.

    Raises:
        InvalidStudy, ModelError, UnknownName …: the plan cannot be run; raised before any work.
        StoreError: the folder belongs to another study, is in use, or cannot be written.

    A process runs one study at a time, since its number of threads belongs to it as a whole: other threads wait.
    """
    execution = Execution(workers, executor, address, timeout)
    execution.check()
    if shard is not None and plan.budget is not None:
        raise InvalidStudy("--shard needs one --limit for all machines, and --budget gives each its own. Give --limit.")
    with held(STUDIES):
        if measure is not None:
            check_seconds(measure)
        where = place(folder) if shard is None else place(folder) / shard.name
        return _run(plan, where, execution, progress or Silent(), command, measure, shard, gallery)


def _run(
    plan: Plan,
    folder: Place,
    execution: Execution,
    progress: Progress | Silent,
    command: str,
    measure: float | None,
    shard: Shard | None,
    gallery: bool,
) -> Done:
    progress.stage("Loading models and images", 0)
    given = plan
    ready = prepared(plan)
    study, device, plan, datasets, models = ready.study, ready.device, ready.plan, ready.datasets, ready.models
    measures, checked = ready.measures, ready.checked
    estimate = None
    if plan.budget is not None:
        progress.stage("Measuring what an image costs", 0)
        count = worker_count(execution.workers, plan.threads, device)
        plan, estimate = within_budget(ready.setup, models, Store(folder), count)
        datasets = open_datasets(plan)
    every_job = all_jobs(plan, datasets)
    jobs = every_job if shard is None else shard.of(every_job)
    costs = [] if isinstance(progress, Silent) else image_costs(study, plan, measures, datasets, checked)
    told_seconds = estimate.seconds if estimate is not None else 0.0
    spread = not isinstance(execution.chosen(plan.threads, device, len(jobs)), Serial)
    plugins, declared = (exported_plugins(plan, measures), exported_study(study, plan)) if spread else ((), study)
    with Store(folder).opened() as store:
        facts: dict[str, Any] = described(plan, measures, checked, datasets, every_job, command)
        facts["estimate"] = estimate and estimate.facts
        if shard is not None:
            facts["shard"] = str(shard)
        if code := own_code(study, plan, measures, {one.label: one.code for one in checked}):
            facts["code"] = code
        facts["conditions"] = [fingerprint_of(condition) for condition in study.all_conditions(plan)]
        facts |= facts_about_classes(plan, datasets, checked)
        compiled = asked_to_compile(plan, store.plan())
        if compiled is None and shard is not None:
            compiled = []  # each machine would decide by its own speed
        facts |= {"compiled": compiled} if compiled else {}
        refuse_other(store, facts, len(jobs))
        done = store.done()
        todo = [job for job in jobs if job.key not in done]
        facts["machines"] = machines_of(store, this_machine(device, plan.threads), bool(todo))
        with threads(plan.threads):
            progress.stage("Preparing", 0)
            if compiled is None:
                of_image = lambda: costs or image_costs(study, plan, measures, datasets, checked)  # noqa: E731
                images = sum(len(dataset.images.ids) for dataset in datasets)
                choices = compile_choices(plan, models, of_image, images)
                if new := [one for one in choices if one.compiling]:
                    saved = duration(sum(one.saved for one in new))
                    progress.stage(f"Compiling {', '.join(one.model for one in new)}: saves at least {saved}", 0)
                compiled = compile_chosen(models, choices)
                facts |= {"compiled": compiled} if compiled else {}
            elif compiled and todo:
                progress.stage(f"Compiling {', '.join(compiled)}, up to a minute", 0)
                compile_all(models, compiled)
            bare = replace(ready, plan=plan, datasets=datasets).setup
            passes = decided_passes(bare, models, jobs if todo else [], store.plan(), shard is None)
            facts |= passes.facts
            store.begin(facts)
            every = compiled and set(compiled) == {one.label for one in plan.models}
            as_run = plan.model_copy(update={"compile": "always"}) if every else plan
            write_archive(store.folder, given, as_run)
            strengths = calibrated(store, plan, study.all_conditions(plan), datasets, models, progress)
            setup = Setup(plan, tuple(c.layer for c in checked), datasets, str(store.folder), facts["version"], device,
                          strengths, tuple(c.refused for c in checked), plugins, declared,
                          tuple(c.fingerprint for c in checked), tuple(compiled), passes.together,
                          passes.lower)  # fmt: skip
            if measure is not None and not told_seconds and todo:
                progress.stage("Measuring what an image costs", 0)
                told_seconds = predicted(setup, measures, checked, models, jobs, 1, measure, costs).seconds
            how = execution.chosen(plan.threads, device, len(todo))
            alone = isinstance(how, Serial)
            if not alone:
                models.clear()  # workers load their own
            began = time.monotonic()
            with how.running(partial(prepare, models=models if alone else None), setup) as map_jobs:
                cost = told(costs) if costs else ""
                progress.stage(f"Measuring{estimate or ''}{cost}{passes}", len(jobs), len(jobs) - len(todo))
                finished = list(map_jobs(todo, progress.advance))
                elapsed = time.monotonic() - began
                if shard is None and gallery:
                    write_gallery(store, setup, map_jobs, progress)
    made = passes_made(finished, todo, costs) if costs and todo else None
    taken = time_taken(finished, todo, jobs, told_seconds, elapsed)
    return Done(store.folder, len(todo), len(jobs) - len(todo), made, taken, tuple(compiled), len(every_job))


@dataclass(frozen=True)
class Prepared:
    """A study whose settings, images and models have been checked, and of which nothing has been run."""

    study: Study
    device: str
    plan: Any
    datasets: tuple[Dataset, ...]
    models: StudyModels
    measures: Measures
    checked: list[Checked]

    @property
    def setup(self) -> Setup:
        """What a worker needs, without a folder for results."""
        layers, refused = tuple(one.layer for one in self.checked), tuple(one.refused for one in self.checked)
        return Setup(self.plan, layers, self.datasets, "", "", self.device, refused=refused, declared=self.study)


def prepared(plan: Plan) -> Prepared:
    """A plan with its images opened and its models loaded and run once.

    Raises:
        InvalidStudy, ModelError, UnknownName …: the plan cannot be run.
    """
    study, device = study_named(plan.study), resolved_device(plan.device)
    plan = plan.model_copy(update={"device": device, "batch_size": plan.batch_size or default_batch(study, device)})
    datasets = open_datasets(plan)
    models = StudyModels(plan, device)
    plan = with_class_names(with_outputs(plan, models), datasets, models)
    plan, measures = checked_study(study, plan, datasets, models)
    checked = [checked_model(plan, index, models, study.all_conditions(plan)) for index in range(len(models))]
    warn_of_failures(plan, measures, datasets, models, [one.layer for one in checked], study.explains_labels(plan))
    return Prepared(study, device, plan, datasets, models, measures, checked)


def time_taken(
    finished: Sequence[JobDone], todo: Sequence[Job], jobs: Sequence[Job], told: float, elapsed: float
) -> TimeTaken | None:
    """The time of some finished jobs beside that predicted for all `jobs`; None where none was."""
    if not told or not todo:
        return None
    share = sum(job.stop - job.start for job in todo) / sum(job.stop - job.start for job in jobs)
    return TimeTaken(sum(one.seconds for one in finished), told * share, elapsed)


def passes_made(finished: Sequence[JobDone], jobs: Sequence[Job], costs: Sequence[Passes]) -> PassesMade:
    """The passes of some finished jobs, beside those that their images needed."""
    made = sum((Passes(one.forward, one.backward, tails=one.tails) for one in finished), Passes())
    images = sum({(job.dataset, job.start): job.stop - job.start for job in jobs}.values())
    needed = sum((costs[job.model] * (job.stop - job.start) for job in jobs), Passes())
    return PassesMade(made, needed, images, sum(one.probes for one in finished))


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


def default_batch(study: Study, device: str) -> int:
    """Default number of images per pass; larger batches gain nothing on a CPU."""
    return study.batch if device == "cpu" else BATCH_ON_GPU


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
