"""What a study will take, told before it runs: the same checks and the same images as `run`, and nothing is written."""

from typing import Any

from heatproof.ambient import neutral
from heatproof.errors import InvalidStudy
from heatproof.locks import STUDIES, held
from heatproof.progress import Silent
from heatproof.studies.compiling import compile_choices
from heatproof.studies.execution import worker_count
from heatproof.studies.image_costs import image_costs
from heatproof.studies.other_parts import with_others
from heatproof.studies.prediction import SECONDS, Prediction, check_seconds, predicted
from heatproof.studies.run import all_jobs, prepared
from heatproof.studies.settings import Plan


@neutral()
def planned(
    plan: Plan,
    *,
    workers: int | None = None,
    measure: float = SECONDS,
    others: bool = False,
    progress: Any = None,
) -> Prediction:
    """Predicts what a study takes; see `Prediction`.

    Args:
        plan: from `checked_plan`.
        workers: as of `run`.
        measure: about how many seconds the measurement takes; more is more exact.
        others: whether methods and metrics are listed that the study has not.

    Raises:
        InvalidStudy, ModelError, UnknownName …: the plan cannot be run.
    """
    if workers is not None and workers < 1:
        raise InvalidStudy(f"`workers` must be at least 1. Got {workers}.")
    check_seconds(measure)
    progress = progress or Silent()
    with held(STUDIES):
        progress.stage("Loading models and images", 0)
        ready = prepared(plan)
        progress.stage("Measuring what an image costs", 0)
        jobs = all_jobs(ready.plan, ready.datasets)
        count = worker_count(workers, ready.plan.threads, ready.device)
        costs = image_costs(ready.study, ready.plan, ready.measures, ready.datasets, ready.checked)
        images = sum(len(dataset.images.ids) for dataset in ready.datasets)
        choices = compile_choices(ready.plan, ready.models, lambda: costs, images)
        found = predicted(
            ready.setup, ready.measures, ready.checked, ready.models, jobs, count, measure, costs, choices
        )
        return with_others(found, ready) if others else found
