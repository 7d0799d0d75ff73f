"""What a worker process imports and does: all that measuring needs, and nothing that only statistics and pages need."""

import platform
from collections.abc import Callable
from typing import Any

import torch

from heatproof.errors import StoreError
from heatproof.plugins import imported
from heatproof.studies.executors import Advance
from heatproof.studies.gallery import CaseFile, draw
from heatproof.studies.jobs import Dataset, Job, Setup
from heatproof.studies.loading import StudyModels
from heatproof.studies.store import Store
from heatproof.studies.worker import Worker


def prepare(setup: Setup, models: StudyModels | None = None) -> Callable[[Any, Advance], Any]:
    """The function with which a worker does jobs and draws cases; sets the plan's number of threads.

    models: those already loaded in this process; by default the worker loads its own.
    """
    torch.set_num_threads(setup.plan.threads)
    imported(setup.plugins)
    if models is None:
        check_place(setup)
    worker = Worker(setup, models)

    def work(job: Job | CaseFile, advance: Advance) -> Any:
        return worker(job, advance) if isinstance(job, Job) else draw(worker, job, advance)

    return work


def check_place(setup: Setup) -> None:
    """Whether this machine, which may be another than that of the command, sees the results and the images.

    Raises:
        StoreError: it does not.
    """
    where = platform.node() or "a worker's machine"
    if setup.folder and Store(setup.folder).plan() is None:
        raise StoreError(
            f"The results folder {setup.folder} is not there on {where}. Workers of a cluster need a folder that "
            "they all share, or an address such as s3://bucket/study."
        )
    for dataset in setup.datasets:
        if not _visible(dataset):
            raise StoreError(
                f"The images of {dataset.settings.label} are not there on {where}. Workers of a cluster need "
                "them at the same path."
            )


def _visible(dataset: Dataset) -> bool:
    """Whether one of the first image files is there; true of images without files."""
    paths = getattr(dataset.images, "paths", None) or ()
    flags, ids = dataset.images.flags, dataset.images.ids
    first = [path for path, one in zip(paths, ids, strict=False) if one not in flags][:3]
    return not first or any(path.exists() for path in first)
