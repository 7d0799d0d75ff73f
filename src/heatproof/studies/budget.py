"""What a study costs, measured on a few of its own images, and how many images fit into a number of minutes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from heatproof.engine import ResolvedMethod
from heatproof.errors import InvalidStudy, StoreError, warn
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import Job, Setup, open_block
from heatproof.studies.measurement import Measurement
from heatproof.studies.measures import Measures
from heatproof.studies.store import Store
from heatproof.studies.worker import Worker

#: Images that are measured together.
MEASURED = 2
#: Images below which a cheaper plan is preferred to fewer images, and below which a study is refused.
WANTED, FEWEST = 50, 8
#: The share of the budget for the images: the rest is for loading, tables and the page.
SHARE = 0.85
#: What a second worker adds where two share one memory.
EACH_FURTHER = 0.8
#: Settings that a budget decides, and that the same study keeps when it is resumed.
DECIDED = ("limit", "severities")


@dataclass(frozen=True)
class Estimate:
    """How many images, of how many, and how long they will take."""

    images: int
    of: int
    minutes: float

    @property
    def facts(self) -> dict[str, Any]:
        """For `study.json`."""
        return {"images": self.images, "of": self.of, "minutes": round(self.minutes, 2)}

    def __str__(self) -> str:
        return f" {self.images} of {self.of} images, about {max(1, round(self.minutes))} min"


def within_budget(setup: Setup, store: Store, workers: int) -> tuple[Any, Estimate | None]:
    """The plan with as many images as fit, and how long it will take; the estimate of a study begun before is kept.

    Where few images would fit, the study's cheaper plan is taken first.

    Raises:
        InvalidStudy: not even FEWEST images fit.
    """
    plan, there = setup.plan, store.plan()
    if there is not None and there.get("budget") == plan.budget and there.get("estimate"):
        kept = {name: there[name] for name in DECIDED if name in type(plan).model_fields}
        kept = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
        return plan.model_copy(update=kept), Estimate(**there["estimate"])
    if there is not None and there.get("budget") != plan.budget:
        raise StoreError(
            f"{store.folder} holds a study with a budget of {there.get('budget')}, and {plan.budget:g} is asked for. "
            "Give the same budget to finish it, or another --out."
        )
    total = min(len(dataset.images.ids) for dataset in setup.datasets)
    minutes = float(plan.budget or 0)
    seconds = 60 * minutes * SHARE * (1 + EACH_FURTHER * (workers - 1)) / len(setup.datasets)
    cost = cost_of_image(setup)
    while seconds / cost < min(WANTED, total):
        cheaper = setup.study.cheaper(plan) if setup.study.cheaper else None
        if cheaper is None:
            break
        plan = cheaper
        cost = cost_of_image(replace(setup, plan=plan))
    images = min(total, int(seconds / cost))
    if images < min(FEWEST, total):
        least = min(FEWEST, total)
        raise InvalidStudy(
            f"A budget of {minutes:g} min is too small: an image costs {cost:.1f} s, so {least} images take about "
            f"{minutes * least * cost / seconds:.1f} min. Give more minutes, or fewer methods."
        )
    changed = [name for name in type(plan).model_fields if getattr(plan, name) != getattr(setup.plan, name)]
    if changed:
        warn(f"To fit the budget: {', '.join(f'{name} {getattr(plan, name)}' for name in changed)}.")
    estimate = Estimate(images, total, minutes * images * cost / seconds)
    return (plan if images == total else plan.model_copy(update={"limit": images})), estimate


def cost_of_image(setup: Setup) -> float:
    """Seconds that one image takes in one process, under all models.

    Not the whole image is measured: every method explains it once, the first method is scored by every metric, and one
    condition is measured; the rest follows from how often each of these comes.
    """
    torch.set_num_threads(setup.plan.threads)
    return sum(_cost_under(Worker(setup), model) for model in range(len(setup.plan.models)))


def _cost_under(worker: Worker, index: int) -> float:
    whole = _first_images(worker, index)
    reference, *others = whole.conditions
    asked = [(measure, request) for measure, request in whole.measures.taken if not request.parts]
    due = [(measure, request) for measure, request in asked if not request.paired]
    again, once = ([one for one in due if one[1].having("explains") is explains] for explains in (True, False))

    def seconds(methods: Sequence[ResolvedMethod], taken: list[Any], conditions: Sequence[Condition]) -> float:
        part = Measurement(whole.plan, whole.dataset, whole.models, methods, whole.layer, Measures(taken), whole.block,
                           conditions)  # fmt: skip
        start = time.monotonic()
        part.run(lambda share: None)
        return (time.monotonic() - start) / len(whole.block.ids)

    seconds(whole.methods[:1], [], [reference])  # what a first call loads is no part of an image's cost
    each = [seconds([method], [], [reference]) for method in whole.methods]
    together = seconds(whole.methods, [], [reference])
    total = together
    if each:
        first = whole.methods[:1]
        total += len(each) * max(0.0, seconds(first, once, [reference]) - each[0]) if once else 0.0
        total += sum(each) / each[0] * max(0.0, seconds(first, again, [reference]) - each[0]) if again else 0.0
    if others:
        cheapest = min(others, key=lambda condition: condition.cost)
        pairs = [one for one in asked if one[1].paired]
        one = max(0.0, seconds(whole.methods, pairs, [reference, cheapest]) - together)
        total += one * sum(condition.cost for condition in others) / cheapest.cost
    return total


def _first_images(worker: Worker, index: int) -> Measurement:
    """The first images that can be opened, a batch of MEASURED: one alone costs more."""
    images, model = worker.setup.datasets[0].images, worker.model(index)
    found = (i for i in range(len(images.ids)) if open_block(images, [i], model, worker.plan.target).ids)
    indices = list(islice(found, MEASURED))
    if not indices:
        raise InvalidStudy(f"Expected an image that can be opened. Got {len(images.ids)}, and none can.")
    block = open_block(images, indices, model, worker.plan.target)
    return worker.measurement(Job(index, 0, indices[0], indices[-1] + 1), block)
