"""How a study's passes are made on a GPU: how many conditions share one, and whether under autocast. Decided once.

What is found is written into `study.json`, so that a study goes on as it was begun.
"""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from heatproof.engine import out_of_memory
from heatproof.errors import HeatproofError, warn
from heatproof.passes import rows_per_pass
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import Job, Setup
from heatproof.studies.loading import StudyModels
from heatproof.studies.lower_precision import LOWER as TYPE
from heatproof.studies.lower_precision import available, compared
from heatproof.studies.measurement import Measurement
from heatproof.studies.worker import Worker

#: The share of the free memory that conditions of one pass may take by their measured peak.
SHARE = 0.8
#: Names under which `study.json` holds what was found.
TOGETHER, LOWER = "conditions_in_a_pass", "lower_precision"


@dataclass(frozen=True)
class DecidedPasses:
    """For each model how many conditions share a pass; the models that run under autocast; facts for `study.json`."""

    together: tuple[int, ...]
    lower: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        most = max(self.together, default=1)
        told = [f"{most} conditions a pass"] if most > 1 else []
        told += ["bfloat16"] if self.lower else []
        return "".join(f", {one}" for one in told)


def decided_passes(
    setup: Setup, models: StudyModels, jobs: Sequence[Job], recorded: Mapping[str, Any] | None, alone: bool = True
) -> DecidedPasses:
    """What the plan asks for, what was recorded when the study was begun, or what is measured now.

    recorded: the contents of `study.json`, where it is there. alone: whether no other machine has a share of the study.
    Machines could decide about autocast in different ways, so `auto` is `never` where there are several.
    """
    plan, device = setup.plan, torch.device(setup.device)
    labels, asked = [one.label for one in plan.models], plan.autocast
    facts: dict[str, Any] = {name: dict(recorded[name]) for name in (TOGETHER, LOWER) if recorded and name in recorded}
    compares = asked == "always" or (asked == "auto" and alone and available(device))
    counts = plan.conditions_at_once == "auto" and device.type == "cuda"
    due = [name for name, wanted in ((LOWER, compares), (TOGETHER, counts)) if wanted and name not in facts]
    worker = Worker(setup, models)
    for job in _first_jobs(jobs) if due else ():
        _decide(facts, labels[job.model], due, asked == "always", worker, job)
    lower = [one for one in labels if compares and facts.get(LOWER, {}).get(one, {}).get("used")]
    found = facts.get(TOGETHER, {})
    each = [int(found.get(one, 1)) if plan.conditions_at_once == "auto" else plan.conditions_at_once for one in labels]
    return DecidedPasses(tuple(each), tuple(lower), facts)


def _first_jobs(jobs: Sequence[Job]) -> list[Job]:
    """The first job with the most images of each model: that is what memory has to hold."""
    found: dict[int, Job] = {}
    for job in jobs:
        known = found.get(job.model)
        if known is None or job.stop - job.start > known.stop - known.start:
            found[job.model] = job
    return list(found.values())


def _decide(facts: dict[str, Any], label: str, due: Sequence[str], always: bool, worker: Worker, job: Job) -> None:
    """Adds what is found for one model. Where memory runs out, or no image can be opened, nothing is shared."""
    block = worker.block(job.model, job.dataset, range(job.start, job.stop))
    measurement = worker.measurement(job, block)
    measurement = replace(measurement, conditions=[_at_some_level(one) for one in measurement.conditions])
    lower: dict[str, Any] = {"used": always}
    if LOWER in due:
        with _memory_may_end():
            found = compared(measurement) if block.ids else {"beyond": ["no image can be opened"]}
            lower = {"used": always or not found["beyond"], **found}
            _warn_of_difference(label, lower)
        facts.setdefault(LOWER, {})[label] = lower
    if TOGETHER in due:
        facts.setdefault(TOGETHER, {})[label] = 1
        with _memory_may_end():
            used = facts.get(LOWER, {}).get(label, {}).get("used")
            facts[TOGETHER][label] = found_together(replace(measurement, precision=TYPE if used else None))


def _at_some_level(condition: Condition) -> Condition:
    """A condition whose strength is not calibrated yet at its severity."""
    unknown = bool(condition.perturbation) and condition.level != condition.level
    return condition.at_level(float(condition.severity)) if unknown else condition


@contextmanager
def _memory_may_end() -> Iterator[None]:
    """Running out of memory ends the block, and is no error: jobs that do so are halved."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    gc.collect()


def _warn_of_difference(label: str, found: Mapping[str, Any]) -> None:
    """Where a network does not run under autocast though that was asked for, or does beyond the tolerance."""
    if beyond := found["beyond"]:
        how = "runs under autocast, as asked for" if found["used"] else "runs in full precision"
        first = ", ".join(beyond[:3]) + (f" and {len(beyond) - 3} more" if len(beyond) > 3 else "")
        warn(f"{label} {how}: in bfloat16 {first} would differ by more than the tolerance (docs/gpu.md).")


def found_together(measurement: Measurement) -> int:
    """How many conditions of these images the memory of the GPU holds in one pass, by the peak of one.

    At most what any pass of the engine has (`rows_per_pass`), as a GPU is full then; so many that passes are alike.
    """
    others, device = measurement.conditions[1:], measurement.model.device
    if not others or not measurement.block.ids:
        return 1
    try:
        measurement.explained(others[0])  # the first time a network's facts are found, and the reference is explained
        gc.collect()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        kept = measurement.explained(others[0])
    except HeatproofError:  # such images are not for this network
        return 1
    peak = max(1, torch.cuda.max_memory_allocated(device) - before)
    del kept
    gc.collect()
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    holds = int(SHARE * (torch.cuda.mem_get_info(device)[0] + idle) / peak)
    most = max(1, min(holds, rows_per_pass(measurement.x) // len(measurement.block.ids), len(others)))
    return math.ceil(len(others) / math.ceil(len(others) / most))
