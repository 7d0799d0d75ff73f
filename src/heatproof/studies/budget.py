"""The cost of a study, measured on a few of its images, and the number of images that fit a budget in minutes."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch

from heatproof.engine import ResolvedMethod
from heatproof.errors import InvalidStudy, StoreError, warn
from heatproof.statistics.wording import IMAGES
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import Job, Setup
from heatproof.studies.loading import StudyModels
from heatproof.studies.measurement import Measurement
from heatproof.studies.measures import Measures
from heatproof.studies.store import Store
from heatproof.studies.study import ALL
from heatproof.studies.worker import Worker

#: Images of each dataset that are measured together.
MEASURED = 2
#: If fewer images of each dataset fit, a cheaper plan is tried first; a verdict on fewer is an indication.
WANTED = IMAGES
#: The share of the budget for the images: the rest is for loading, tables and the page.
SHARE = 0.85
#: The speed that each worker after the first adds; less than 1, because workers share the memory.
EACH_FURTHER = 0.8
#: Settings that a budget decides; a resumed study keeps them.
DECIDED = ("limit", "severities", "transformations")


@dataclass(frozen=True)
class Estimate:
    """The number of images that fit, of how many, and the minutes that they take."""

    images: int
    of: int
    minutes: float

    @property
    def facts(self) -> dict[str, Any]:
        """For `study.json`."""
        return {"images": self.images, "of": self.of, "minutes": round(self.minutes, 2)}

    def __str__(self) -> str:
        return f" {self.images} of {self.of} images, about {max(1, round(self.minutes))} min"


@dataclass(frozen=True)
class Cost:
    """Seconds that an image of each dataset takes in one process, and how many images each has."""

    seconds: Sequence[float]
    counts: Sequence[int]

    def images(self, limit: int) -> int:
        """The number of images, with at most `limit` of each dataset."""
        return sum(min(limit, count) for count in self.counts)

    def of(self, limit: int) -> float:
        """Seconds for at most `limit` images of each dataset."""
        return sum(each * min(limit, count) for each, count in zip(self.seconds, self.counts, strict=True))

    def fitting(self, seconds: float) -> int:
        """The largest `limit` that takes no longer than `seconds`."""
        return bisect_right(range(1, max(self.counts) + 1), seconds, key=self.of)


def within_budget(setup: Setup, models: StudyModels, store: Store, workers: int) -> tuple[Any, Estimate]:
    """The plan with as many images as fit, and the estimate; a resumed study keeps its first estimate.

    If few images fit, the study's cheaper plan is tried first.

    Raises:
        InvalidStudy: so few images fit that no method could be told from a control (`fewest`).
        StoreError: the study was begun with another budget.
    """
    plan, there = setup.plan, store.plan()
    if there is not None and there.get("budget") != plan.budget:
        raise StoreError(
            f"{store.folder} holds a study with a budget of {there.get('budget')}, and {plan.budget:g} is asked for. "
            "Give the same budget to finish it, or another --out."
        )
    if there is not None and there.get("estimate"):
        kept = {name: there[name] for name in DECIDED if name in type(plan).model_fields}
        kept = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
        return plan.model_copy(update=kept), Estimate(**there["estimate"])
    minutes = float(plan.budget or 0)
    speed = 1 + EACH_FURTHER * (workers - 1)
    seconds = 60 * minutes * SHARE * speed
    cost = measured_cost(setup, models)
    largest = max(cost.counts)
    while cost.fitting(seconds) < min(WANTED, largest):
        study = setup.study
        cheaper = study.called("cheaper plan", study.cheaper, plan) if study.cheaper else None
        if cheaper is None:
            break
        plan = cheaper
        cost = measured_cost(replace(setup, plan=plan), models)
    limit, least = cost.fitting(seconds), min(fewest(len(plan.methods)), largest)
    if limit < least:
        each = " of each set" if len(cost.counts) > 1 else ""
        raise InvalidStudy(
            f"A budget of {minutes:g} min is too small: an image costs {max(cost.seconds):.1f} s, so {least} "
            f"images{each} take about {minutes * cost.of(least) / seconds:.1f} min. Give more minutes, or fewer "
            "methods. Where other programs kept the processor busy meanwhile, this is too high: --limit N in place of "
            "--budget takes N images, whatever they cost."
        )
    changed = [name for name in type(plan).model_fields if getattr(plan, name) != getattr(setup.plan, name)]
    if changed:
        warn(f"To fit the budget: {', '.join(f'{name} {getattr(plan, name)}' for name in changed)}.")
    estimate = Estimate(cost.images(limit), sum(cost.counts), minutes * cost.of(limit) / seconds)
    return (plan if limit == largest else plan.model_copy(update={"limit": limit})), estimate


def fewest(methods: int) -> int:
    """Images on which one-sided tests of so many methods, each by two scores together, can be significant at 5 %."""
    from heatproof.statistics.paired import can_be_significant  # imports pandas and scipy.stats

    return next(n for n in count(1) if can_be_significant(n, 2 * max(1, methods), 0.95, one_sided=True))


def measured_cost(setup: Setup, models: StudyModels) -> Cost:
    """Seconds per image of each dataset under all models, estimated from a few images.

    Only parts are timed: every method explains once, the first method is scored by every metric, and the cheapest other
    condition is measured. Each part is multiplied by how often it occurs, a metric of all conditions by their number.

    Raises:
        InvalidStudy: a dataset with no image that can be measured.
    """
    torch.set_num_threads(setup.plan.threads)
    worker = Worker(setup, models)
    seconds = [0.0] * len(setup.datasets)
    for model in range(len(models)):  # one model is held at a time
        for dataset in range(len(setup.datasets)):
            seconds[dataset] += _seconds_of_image(_few_images(worker, model, dataset))
    return Cost(seconds, [len(dataset.images.ids) for dataset in setup.datasets])


def _seconds_of_image(whole: Measurement) -> float:
    reference, *others = whole.conditions
    asked = [(measure, request) for measure, request in whole.measures.taken if not request.parts]
    due = [(measure, request) for measure, request in asked if not request.paired]

    def seconds(methods: Sequence[ResolvedMethod], taken: list[Any], conditions: Sequence[Condition]) -> float:
        part = Measurement(whole.plan, whole.dataset, whole.models, methods, whole.layer, Measures(taken), whole.block,
                           conditions)  # fmt: skip
        start = time.monotonic()
        part.run(lambda share: None)
        return (time.monotonic() - start) / len(whole.block.ids)

    seconds(whole.methods[:1], [], [reference])  # warm-up: what a first call loads is no part of the cost
    each = [seconds([method], [], [reference]) for method in whole.methods]
    together = seconds(whole.methods, [], [reference])

    def scored(taken: list[Any]) -> float:
        """Seconds for these measures of all methods under one condition."""
        again, once = ([one for one in taken if one[1].having("explains") is explains] for explains in (True, False))
        if not each:
            return 0.0
        first = whole.methods[:1]
        found = len(each) * max(0.0, seconds(first, once, [reference]) - each[0]) if once else 0.0
        return found + (sum(each) / each[0] * max(0.0, seconds(first, again, [reference]) - each[0]) if again else 0.0)

    everywhere = [one for one in due if one[0].conditions == ALL]
    total = together + scored([one for one in due if one not in everywhere])
    total += (1 + len(others)) * scored(everywhere)
    if others:
        cheapest = min(others, key=lambda condition: condition.cost)
        pairs = [one for one in asked if one[1].paired]
        one = max(0.0, seconds(whole.methods, pairs, [reference, cheapest]) - together)
        total += one * sum(condition.cost for condition in others) / cheapest.cost
    return total


def _few_images(worker: Worker, model: int, dataset: int) -> Measurement:
    """The measurement of the first MEASURED images that can be opened; a single one costs more per image."""
    number = len(worker.setup.datasets[dataset].images.ids)
    block = worker.block(model, dataset, range(number), most=MEASURED)
    if not block.ids:
        label, why = worker.setup.datasets[dataset].settings.label, next(iter(block.failed.values()), "there are none")
        raise InvalidStudy(f"Expected an image of {label} that can be measured. Got {number}, and none can: {why}.")
    return worker.measurement(Job(model, dataset, block.indices[0], block.indices[-1] + 1), block)
