"""Which classes of an image a study explains: its label, one of several labels, its most probable classes."""

from collections.abc import Sequence
from typing import Any

from heatproof.data.class_matching import further_labels
from heatproof.errors import InvalidStudy, warn
from heatproof.flags import FINE, Flag, Reason
from heatproof.models import Model
from heatproof.rounding import top_class
from heatproof.studies.jobs import Dataset, ImageBlock, target_rule
from heatproof.studies.settings import Plan
from heatproof.studies.study import Study
from heatproof.targets import Rule, nth, one_by_one


def rule_of(target: str, block: ImageBlock, model: Model) -> Rule:
    """The rule for the class explained. An image without such a label has its prediction, in rows that are flagged or
    left out (`unlabelled`, `without_class`)."""
    rule = target_rule(target, model.classes)
    kind, number = nth(str(rule))
    if kind != "label" or (number == 1 and not block.unlabelled):
        return rule
    classes = [labels[number - 1] if len(labels) >= number else None for labels in block.all_labels()]
    predicted = lambda logits: top_class(logits).tolist()  # noqa: E731
    return lambda logits: [p if c is None else c for p, c in zip(predicted(logits), classes, strict=True)]


def unlabelled(target: str, block: ImageBlock) -> list[Flag]:
    """For each image why it has no label that could be explained; `FINE` where it has one, or needs none."""
    why = [block.unlabelled.get(one, "") if target == "label" else "" for one in block.ids]
    return [Flag(Reason.UNUSABLE, text) if text else FINE for text in why]


def without_class(target: str, block: ImageBlock) -> set[str]:
    """The images that have no second label, where the second is explained: they have no rows."""
    kind, number = nth(target)
    if kind != "label" or number == 1:
        return set()
    return {one for one, labels in zip(block.ids, block.all_labels(), strict=True) if len(labels) < number}


def share_with_class(target: str, datasets: Sequence[Dataset]) -> float:
    """The share of all images that have the class that a rule names: fewer have a second label than a first."""
    kind, number = nth(target)
    if kind != "label" or number == 1:
        return 1.0
    counts = [len(further_labels(one.images).get(id, ())) + 1 for one in datasets for id in one.images.ids]
    return sum(count >= number for count in counts) / max(1, len(counts))


def with_targets(plan: Any, datasets: Sequence[Dataset]) -> Any:
    """A plan whose `targets` each name one class of an image; the first of them is its `target`.

    Raises:
        InvalidStudy: together with a `target`, with maps made beforehand, or of a network of values.
    """
    if not plan.targets:
        return plan
    if "target" in plan.model_fields_set and plan.target != plan.targets[0]:
        raise InvalidStudy(f"Give `target` or `targets`. Got {plan.target!r} and {', '.join(plan.targets)}.")
    if plan.given_maps:
        raise InvalidStudy("Maps made beforehand are of one class of each image. Leave out `targets`, or `maps`.")
    if values := [one.label for one in plan.models if one.output == "value"]:
        raise InvalidStudy(f"{values[0]} is a network of values, which has no classes. Leave out `targets`.")
    most = max((len(more) + 1 for one in datasets for more in further_labels(one.images).values()), default=1)
    targets: list[str] = list(dict.fromkeys(rule for target in plan.targets for rule in one_by_one(target, most)))
    if len(targets) > 1 and any(one.masked for one in datasets):
        warn("Each image has one mask, so scores of localisation take it as the ground truth of every class explained.")
    return plan.model_copy(update={"target": targets[0], "targets": tuple(targets)})


def check_labels(study: Study, plan: Plan, datasets: Sequence[Dataset]) -> None:
    """Warns of images with several labels.

    Raises:
        InvalidStudy: images with several labels, of which only the first would be explained.
    """
    explained = {condition.target or plan.target for condition in study.all_conditions(plan)}
    for dataset in datasets:
        several = [one for one in dataset.images.ids if one in further_labels(dataset.images)]
        if not several:
            continue
        whole = len(dataset.images.ids)
        about = f"{len(several)} of the {whole} images of {dataset.settings.label} have several labels"
        if "label" in explained and "label:2" not in explained:
            raise InvalidStudy(
                f"Target `label` is one class of each image. {about}, such as {several[0]}. Explain all of them with "
                "the study score and `targets: labels` (--targets labels), or take target `predicted`."
            )
        warn(f"{about}. An image is classified right where its most probable class is one of them.")
