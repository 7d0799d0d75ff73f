"""What a worker process imports and does: all that measuring needs, and nothing that only statistics and pages need."""

from collections.abc import Callable
from typing import Any

import torch

from heatproof.plugins import imported
from heatproof.studies.executors import Advance
from heatproof.studies.gallery import CaseFile, draw
from heatproof.studies.jobs import Job, Setup
from heatproof.studies.loading import StudyModels
from heatproof.studies.worker import Worker


def prepare(setup: Setup, models: StudyModels | None = None) -> Callable[[Any, Advance], Any]:
    """The function with which a worker does jobs and draws cases; sets the plan's number of threads.

    models: those already loaded in this process; by default the worker loads its own.
    """
    torch.set_num_threads(setup.plan.threads)
    imported(setup.plugins)
    worker = Worker(setup, models)

    def work(job: Job | CaseFile, advance: Advance) -> Any:
        return worker(job, advance) if isinstance(job, Job) else draw(worker, job, advance)

    return work
