"""The study of parts: does a map weigh the parts of an object as the network does (FunnyBirds)?"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from heatproof.errors import InvalidStudy
from heatproof.statistics.special_rows import CHECKS, CONTRASTIVITY, CORRECTNESS
from heatproof.studies.cases import telling_parts
from heatproof.studies.settings import DatasetPlan, ModelPlan, Plan
from heatproof.studies.study import Study

METHODS = (
    *("gradcam", "gradcam++", "layercam", "eigencam", "refine:layercam"),
    *("input-x-gradient", "integrated-gradients[steps=20]"),
)


class PartsPlan(Plan):
    """The settings of a study of parts."""

    study: str = "parts"
    models: tuple[ModelPlan, ...] = Field(
        (ModelPlan.model_validate({"spec": "creatures"}),),
        description="One model or a list, trained on these images. Default: creatures.",
    )
    datasets: tuple[DatasetPlan, ...] = Field(
        tuple(DatasetPlan.model_validate({"images": name}) for name in ("creatures", "creatures:val")),
        description="Test sets and their validation set, made of removable parts: `creatures` and `creatures:val` (the "
        "default), or `funnybirds-test:FOLDER` and `funnybirds-val:FOLDER`.",
    )
    methods: tuple[str, ...] = Field(METHODS, description="Methods; see `heatproof list methods`.")
    validation: str = Field(
        "",
        description="The set on which the threshold of every method is chosen, by its name in the results. Default: "
        "the one that is a validation set by its name (`creatures:val`, `funnybirds-val:FOLDER`), else the last.",
    )


def with_validation(plan: PartsPlan, datasets: Sequence[Any], models: Any) -> PartsPlan:
    """The plan with the validation set named.

    Raises:
        InvalidStudy: images without parts, one set only, another name, or images in both kinds of sets.
        InvalidInput: a network without the classes of the images.
    """
    labels = [one.label for one in plan.datasets]
    for one, dataset in zip(plan.datasets, datasets, strict=True):
        if not dataset.parted:
            raise InvalidStudy(
                f"The study parts needs images made of parts that can be removed. Got {one.label}. Take creatures and "
                "creatures:val, or funnybirds-test:FOLDER and funnybirds-val:FOLDER."
            )
    if len(labels) < 2:
        raise InvalidStudy(
            f"The study parts needs a test set and a validation set. Got {labels[0]} alone. Name both, such as "
            "creatures and creatures:val."
        )
    named = [one.label for one in plan.datasets if one.validates]
    name = plan.validation or (named[0] if len(named) == 1 else labels[-1])
    if name not in labels:
        raise InvalidStudy(f"`validation` must be one of {', '.join(labels)}. Got {name!r}.")
    chosen = datasets[labels.index(name)]
    for label, other in zip(labels, datasets, strict=True):
        if label != name and type(other.images) is type(chosen.images) and _overlap(chosen.images, other.images):
            raise InvalidStudy(
                f"The images of {name} must not be among those of {label}: the thresholds are chosen on them. Take "
                "disjoint sets, such as funnybirds-test:FOLDER and funnybirds-val:FOLDER."
            )
    _check_classes(plan, datasets, models)
    return plan.model_copy(update={"validation": name})


def _check_classes(plan: PartsPlan, datasets: Sequence[Any], models: Any) -> None:
    """InvalidInput where a network has not the classes of the images."""
    from heatproof.studies.part_sets import images_by_parts

    for number in range(len(plan.models)):
        for dataset in datasets:
            images_by_parts(dataset.images, [], models(number).classes)


def _overlap(one: Any, other: Any) -> bool:
    return bool(set(one.ids) & set(other.ids))


STUDY = Study(
    name="parts",
    summary="whether maps weigh the parts of an object as the network does, on images whose parts can be removed",
    heading="Does the heatmap weigh the parts of the object as the network does?",
    settings=PartsPlan,
    measures=(*CHECKS, CORRECTNESS, CONTRASTIVITY),
    tables={"parts.csv": "parts", "thresholds.csv": "part_thresholds", "pictures.parquet": "part_images"},
    sections=("parts", "gallery"),
    cases=telling_parts,
    check=with_validation,
    source="Hesse et al. 2023 (FunnyBirds)",
)
