"""Runs a study into its folder: resolve, check, begin, jobs − done, finish. Resuming is the same call again.

What is particular to a study — its settings, jobs and gallery — is its `kinds.Kind`; nothing here knows of it.
"""

import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import heatproof
from heatproof import targets
from heatproof.data import Pictures
from heatproof.engine import ResolvedMethod, chosen_layer, needs_by_layer, refusals, resolve_layers
from heatproof.errors import InvalidStudy, StoreError
from heatproof.models import Model
from heatproof.models.capture import captured
from heatproof.progress import Silent
from heatproof.studies import jobs as shared
from heatproof.studies.executors import Advance, Executor, Processes, Serial
from heatproof.studies.jobs import Job, Setup, all_requests
from heatproof.studies.kinds import Progress, kind_of
from heatproof.studies.pictures import opened
from heatproof.studies.settings import Plan
from heatproof.studies.store import Store

#: Pictures per pass where the plan does not say: more gains nothing on a CPU, a GPU wants to be filled.
BATCH = {"cpu": 8}
BATCH_ON_GPU = 64


@dataclass(frozen=True)
class Done:
    """What a run did: the folder, how many jobs it ran and how many were there already."""

    folder: Path
    ran: int
    kept: int


def run(
    plan: Plan,
    folder: str | os.PathLike,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Done:
    """Runs what is missing of a study.

    Args:
        plan: from `checked_plan`.
        folder: where the results go; made if need be. The same plan again finishes what is missing.
        workers: processes; by default one per core on a CPU and one on a GPU. Changes no number.
        executor: another way to run jobs, in place of `workers`.

    Raises:
        InvalidStudy, ModelError, UnknownName …: before any work is done.
        StoreError: the folder belongs to another study, is in use, or cannot be written.
    """
    progress = progress or Silent()
    if workers is not None and workers < 1:
        raise InvalidStudy(f"`workers` must be at least 1. Got {workers}.")
    progress.stage("Loading models and pictures", 0)
    kind, device = kind_of(plan.study), resolved_device(plan.device)
    plan = plan.model_copy(update={"device": device, "batch_size": plan.batch_size or default_batch(device)})
    pictures = opened(plan)
    if plan.target == "label":
        refuse_unlabelled(plan, pictures)
    plan = kind.resolved(plan, pictures)
    jobs = all_jobs(plan, pictures)
    spread = not isinstance(executor or chosen_executor(workers, plan.threads, device, len(jobs)), Serial)
    parcels = kind.parcels(plan) if spread else ()
    checked = [checked_model(plan, index, device) for index in range(len(plan.models))]
    with Store(folder).opened() as store:
        said = {**described(plan, checked, pictures, jobs, command), **kind.facts(plan, pictures)}
        refuse_other(store, said)
        if store.plan() is None:
            store.write_plan(said)
        threads = torch.get_num_threads()
        try:
            begun = kind.begun(store, plan, pictures, device, progress)
            setup = Setup(plan, tuple(c.layer for c in checked), pictures, str(store.folder), said["version"], device,
                          begun, tuple(c.refused for c in checked), parcels)  # fmt: skip
            done = store.done()
            todo = [job for job in jobs if job.key not in done]
            how = executor or chosen_executor(workers, plan.threads, device, len(todo))
            with how.running(prepare, setup) as map_jobs:
                progress.stage("Measuring", len(jobs), len(jobs) - len(todo))
                for _ in map_jobs(todo, progress.advance):
                    pass
                kind.finish(store, setup, map_jobs, progress)
        finally:
            torch.set_num_threads(threads)
    return Done(Path(folder), len(todo), len(jobs) - len(todo))


def prepare(setup: Setup) -> Callable[[Any, Advance], str]:
    """What a worker does its jobs with; sets the threads the plan asks for."""
    torch.set_num_threads(setup.plan.threads)
    kind = kind_of(setup.plan.study)
    kind.unpack(setup.foreign)
    return kind.worker(setup)


def resolved_device(device: str) -> str:
    """`auto` → a GPU where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_batch(device: str) -> int:
    """Pictures per pass where the plan does not say."""
    return BATCH.get(device, BATCH_ON_GPU)


def chosen_executor(workers: int | None, threads: int, device: str, jobs: int) -> Executor:
    """Processes where there are several workers, else this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or (max(1, cores // threads) if device == "cpu" else 1)
    return Processes(count) if min(count, jobs) > 1 else Serial()


def refuse_unlabelled(plan: Plan, pictures: Sequence[Pictures]) -> None:
    """Target `label` on pictures of which none has a label would measure nothing."""
    for dataset, found in zip(plan.datasets, pictures, strict=True):
        if all(label is None for label in found.labels):
            raise InvalidStudy(
                f"Target `label` needs labels. Got none for the {len(found.ids)} pictures of {dataset.label}. "
                "Give a CSV of labels or one subfolder per class, or use target `predicted`."
            )


@dataclass(frozen=True)
class Checked:
    """A model that loads, answers like a classifier, and has the layer."""

    label: str
    layer: str
    classes: int
    class_names: list[str] | None
    fingerprint: str
    refused: Mapping[str, str]


def checked_model(plan: Plan, index: int, device: str) -> Checked:
    """Loads a model and runs it once on a grey picture: what is wrong with it is said before the study begins."""
    model = shared.load(plan, index, device)
    requests = all_requests(plan)
    layer = chosen_layer(model, plan.models[index].layer, any(request.spatial for request in requests))
    places = resolve_layers(model, requests, layer)
    refused = _refused(places, model, plan.made_elsewhere)
    needs = needs_by_layer([place for place in places if place.key not in refused])
    layers = [name for name, wanted in needs.items() if wanted.kept]
    graph = [name for name in layers if needs[name].graph]
    x = torch.full((1, 3, *model.geometry.size), 0.5, device=model.device)
    with model.evaluating():
        found = captured(model, x, layers, gradients=graph)
        logits = found.logits.detach()
        if graph:
            found.gradients_of(found.logits[:, 0], graph)
    if plan.target.isdigit():
        targets.resolved(int(plan.target), logits)
    return Checked(plan.models[index].label, layer, logits.shape[1], model.classes, model.fingerprint, refused)


def _refused(places: Sequence[ResolvedMethod], model: Model, others: bool) -> dict[str, str]:
    """Method → why it cannot serve the model; not one that can is an error before any work, unless there are others."""
    refused = refusals(model, places)
    real = [place.key for place in places if not place.request.entry.traits["control"]]
    if not others and all(key in refused for key in real):
        why = "; ".join(f"{key}: {reason}" for key, reason in refused.items())
        raise InvalidStudy(f"Expected at least one method that can explain {model.name}. Got {why}.")
    return refused


def all_jobs(plan: Plan, pictures: Sequence[Pictures]) -> list[Job]:
    """One job for every `batch_size` pictures of every dataset under every model."""
    size = plan.batch_size or 1
    return [
        Job(model, dataset, start, min(start + size, len(pictures[dataset].ids)))
        for model, dataset in itertools.product(range(len(plan.models)), range(len(plan.datasets)))
        for start in range(0, len(pictures[dataset].ids), size)
    ]


def described(
    plan: Plan, checked: Sequence[Checked], pictures: Sequence[Pictures], jobs: Sequence[Job], command: str
) -> dict[str, Any]:
    """`study.json`: everything the numbers depend on, and what a reader of the report wants to know."""
    models = [
        {**wanted.model_dump(), "name": found.label, "layer": found.layer, "asked_layer": wanted.layer,
         "classes": found.classes, "fingerprint": found.fingerprint, "not_applicable": dict(found.refused)}
        for wanted, found in zip(plan.models, checked, strict=True)
    ]  # fmt: skip
    datasets = [
        {**wanted.model_dump(exclude={"download"}), "name": wanted.label, "pictures": len(found.ids),
         "labelled": sum(label is not None for label in found.labels), "fingerprint": found.fingerprint}
        for wanted, found in zip(plan.datasets, pictures, strict=True)
    ]  # fmt: skip
    for dataset in datasets:  # where the files lie is no part of what they are
        dataset.update(dict.fromkeys({"images", "labels", "root", "masks"} & dataset.keys()))
    for model in models:
        model["checkpoint"] = Path(model["checkpoint"]).name if model["checkpoint"] else None
    return {
        **plan.model_dump(exclude={"models", "datasets"}),
        "models": models,
        "datasets": datasets,
        "options": {request.name: dict(request.options) for request in all_requests(plan) if request.options},
        "jobs": len(jobs),
        "version": versions(),
        "command": command,
    }


def versions() -> str:
    """What the numbers were made with."""
    return f"heatproof {heatproof.__version__}, torch {torch.__version__}, python {platform.python_version()}"


def refuse_other(store: Store, said: Mapping[str, Any]) -> None:
    """A folder with another plan is left alone, and the differences are named."""
    differences = store.differences(said)
    if not differences:
        return
    finished = len(store.done()) >= said["jobs"]
    if finished and all(phrase.startswith("version is ") for phrase in differences):
        return  # nothing is left to run, so nothing would be mixed
    raise StoreError(
        f"{store.folder} holds a study with other settings: {'; '.join(differences)}. "
        "Give the same settings to finish it, or another --out."
    )
