"""The cost of a study, measured on a few of its images, and the number of images that fit a budget in minutes."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from heatproof.errors import InvalidStudy, StoreError, warn
from heatproof.statistics.wording import IMAGES
from heatproof.studies.checked_models import checked_model
from heatproof.studies.jobs import Setup
from heatproof.studies.loading import StudyModels
from heatproof.studies.prediction import EACH_FURTHER, measured
from heatproof.studies.store import Store

#: If fewer images of each dataset fit, a cheaper plan is tried first; a verdict on fewer is an indication.
WANTED = IMAGES
#: The share of the budget for the images: the rest is for loading, tables and the page.
SHARE = 0.85
#: Settings that a budget decides; a resumed study keeps them.
DECIDED = ("limit", "severities", "transformations")


@dataclass(frozen=True)
class Estimate:
    """The number of images that fit, of how many, the minutes that they take, and the seconds of one worker alone."""

    images: int
    of: int
    minutes: float
    seconds: float = 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """For `study.json`."""
        whole = {"images": self.images, "of": self.of, "minutes": round(self.minutes, 2)}
        return {**whole, "seconds": round(self.seconds, 2)} if self.seconds else whole

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
            "methods; `heatproof plan` says what each costs. --limit N in place of --budget takes N images, whatever "
            "they cost."
        )
    changed = [name for name in type(plan).model_fields if getattr(plan, name) != getattr(setup.plan, name)]
    if changed:
        warn(f"To fit the budget: {', '.join(f'{name} {getattr(plan, name)}' for name in changed)}.")
    spent = cost.of(limit)
    estimate = Estimate(cost.images(limit), sum(cost.counts), minutes * spent / seconds, spent)
    return (plan if limit == largest else plan.model_copy(update={"limit": limit})), estimate


def fewest(methods: int) -> int:
    """Images on which one-sided tests of so many methods, each by two scores together, can be significant at 5 %."""
    from heatproof.statistics.paired import can_be_significant  # imports pandas and scipy.stats

    return next(n for n in count(1) if can_be_significant(n, 2 * max(1, methods), 0.95, one_sided=True))


def measured_cost(setup: Setup, models: StudyModels) -> Cost:
    """Seconds per image of each dataset under all models, by the calibration that `heatproof plan` makes.

    Raises:
        InvalidStudy: a dataset with no image that can be measured.
    """
    conditions = setup.study.all_conditions(setup.plan)
    checked = [checked_model(setup.plan, index, models, conditions) for index in range(len(models))]
    seconds = [0.0] * len(setup.datasets)
    for (_, dataset), found in measured(setup, checked, models).items():
        seconds[dataset] += found.time.seconds
    return Cost(seconds, [len(dataset.images.ids) for dataset in setup.datasets])
