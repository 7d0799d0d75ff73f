"""The fidelity study (paper F): do metrics rank the methods alike for other classes, and on transformed images?"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from heatproof import spelling
from heatproof.errors import InvalidStudy, warn
from heatproof.studies.cases import best_and_worst
from heatproof.studies.conditions import CLEAN, Condition
from heatproof.studies.score import STUDY as SCORE
from heatproof.studies.score import ScorePlan, with_metrics_named
from heatproof.studies.settings import canonical, once, some, spelled
from heatproof.studies.study import ALL, Measure, Study

#: The methods of F that cost few passes an image. Score-CAM, RISE, LIME and IBA cost hundreds in every condition.
METHODS = ("gradient", "integrated-gradients[steps=20]", "guided-backprop", "gradcam", "gradcam++")
#: The classes explained on the images as they are.
TARGETS = ("label", "predicted", "least")
#: The metrics of F that cost at most a pass for each step of a curve.
CHEAP = (
    *("average-increase", "average-drop", "average-gain", "insertion", "deletion-mean", "deletion"),
    *("local-accuracy", "sufficiency", "completeness", "entropy", "nonzero-count"),
)
#: Sets of metrics by name. Those that F adds cost tens of passes, or explanations, for each map.
SETS = {
    "cheap": CHEAP,
    "paper": (
        *CHEAP[:6], "monotonicity-correlation", *CHEAP[6:], "monotonicity-pearson", "effective-complexity",
        "max-sensitivity", "average-sensitivity",
    ),
}  # fmt: skip
#: Transformation → its option and the four values of F; those of `resize-back`, which is ours, are those of `resize`.
SEEDS, SIZES = (44, 55, 93, 32), (448, 128, 64, 32)
VARIANTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "mixup": ("seed", SEEDS),
    "resize": ("size", SIZES),
    "rotation": ("degrees", (45, 135, 225, 315)),
    "crop": ("seed", SEEDS),
    "resize-back": ("size", SIZES),
}


class FidelityPlan(ScorePlan):
    """The settings of a fidelity study."""

    study: str = "fidelity"
    methods: tuple[str, ...] = Field(METHODS, description="Methods; see `heatproof list methods`.")
    metrics: tuple[str, ...] = Field(
        CHEAP,
        description="Metrics, families or all; `cheap` are those of F with at most a pass for each step of a curve, "
        "`paper` those that F has.",
    )
    target: str = Field(
        "label",
        description="The class explained on the images as they are, which all else is compared with, and on "
        "transformed images.",
    )
    targets: tuple[str, ...] = Field(
        TARGETS, description="The classes explained on the images as they are; that of --target is one of them."
    )
    transformations: tuple[str, ...] = Field(
        ("mixup", "resize", "rotation", "crop"),
        validate_default=True,
        description="Transformations of the images; a name alone stands for four variants (mixup and crop with four "
        "seeds, resize and resize-back to 448, 128, 64, 32, rotation by 45, 135, 225, 315 degrees), "
        "`resize[size=128]` for one; `none` for none.",
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _sets_of_metrics(cls, value: Any) -> Any:
        """`cheap` and `paper` stand for their metrics."""
        named = [value] if isinstance(value, str | Mapping) else value
        if not isinstance(named, list | tuple):
            return value
        return [one for name in named for one in (SETS.get(name, [name]) if isinstance(name, str) else [name])]

    @field_validator("targets", "transformations", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        named = [value] if isinstance(value, str | int | Mapping) else value
        named = [str(one) if isinstance(one, int) else one for one in named] if isinstance(named, list) else named
        return () if list(named or ()) == ["none"] else spelled(named, "a transformation's")

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from heatproof.targets import refuse_several

        for target in some(value):
            refuse_several(target)
        return once(value)

    @field_validator("transformations")
    @classmethod
    def _known_transformations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from heatproof.transformations import TRANSFORMATIONS

        return once([canonical(TRANSFORMATIONS, one) for name in value for one in variants(name)])

    @property
    def pooled_targets(self) -> tuple[str, ...]:
        """Empty, as the classes are compared with each other."""
        return ()


def variants(name: str) -> list[str]:
    """The four variants that the name of a transformation alone stands for; else what is written."""
    option, values = VARIANTS.get(name, ("", ()))
    return [spelling.format(name, {option: value}) for value in values] or [name]


def conditions(plan: FidelityPlan) -> list[Condition]:
    """The images as they are, for every class; then transformed, for the class of the reference."""
    others = [Condition(target=target) for target in plan.targets if target != plan.target]
    return [CLEAN, *others, *(Condition(transformation=one) for one in plan.transformations)]


def measures(plan: FidelityPlan) -> list[Measure]:
    """Every metric, under every condition."""
    return [Measure(name, conditions=ALL, curves=False) for name in plan.metrics]


def with_known_labels(plan: FidelityPlan, datasets: Sequence[Any], models: Any) -> FidelityPlan:
    """The plan with its metrics named; without labels the predicted class takes the place of the label, if it may.

    Raises:
        InvalidStudy: a network of values, which has no classes to choose among.
    """
    if values := [one.label for one in plan.models if one.output == "value"]:
        raise InvalidStudy(
            f"The study fidelity compares the maps of several classes, and {values[0]} is a network of values. Take "
            "the study score."
        )
    asked = plan.model_fields_set & {"target", "targets"}
    if not asked and all(label is None for one in datasets for label in one.images.labels):
        warn("No image has a label, so the predicted class is explained in its place. --labels says what images show.")
        plan = plan.model_copy(update={"target": "predicted", "targets": ("predicted", "least")})
    return with_metrics_named(plan, datasets, models)  # type: ignore[return-value]


def fewer_variants(plan: FidelityPlan) -> FidelityPlan | None:
    """The same with the first variant of each transformation; None where there is one of each already."""
    first = {spelling.head(one): one for one in reversed(plan.transformations)}
    kept = tuple(one for one in plan.transformations if first[spelling.head(one)] == one)
    return None if kept == plan.transformations else plan.model_copy(update={"transformations": kept})


STUDY = Study(
    name="fidelity",
    summary="which scores hold for other classes and on transformed images, and which follow the confidence (paper F)",
    heading="Which scores of heatmaps hold for other classes and on transformed images?",
    settings=FidelityPlan,
    conditions=conditions,
    measures=measures,
    tables={
        "targets.csv": "targets",
        "transformations.csv": "transformations",
        "confidence.csv": "confidence",
        "rankings.csv": "rankings",
        "fooled_by_condition.csv": "fooled_by_condition",
        **SCORE.tables,
    },
    sections=(
        *("fidelity_verdict", "score_verdict", "fidelity_targets", "fidelity_transformations", "fidelity_confidence"),
        *("scores", "peaks", "gallery"),
    ),
    cases=best_and_worst,
    check=with_known_labels,
    cheaper=fewer_variants,
    batch=2,
    source="Zhang, Torres & Hermanns 2024 (ACML)",
)
