"""The study of refined maps (paper R, Tables 1 and 2, Figure 5): what does combining stages gain, and cost?"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from heatproof.errors import InvalidStudy
from heatproof.statistics.special_rows import PRODUCT, TRUTH
from heatproof.studies.cases import moved_and_held
from heatproof.studies.noise_robustness import NoisePlan, fewer_severities, noisy_conditions, pair_measures
from heatproof.studies.settings import method_names
from heatproof.studies.study import Measure, Study

#: Base CAMs of paper R, without Score-CAM, which asks the network once for every channel of every stage.
BASES = ("gradcam", "gradcam++", "layercam", "shapleycam", "guided-gradcam")
#: Methods without stages that stand beside, as in paper R.
BESIDE = (
    *("input-x-gradient", "deeplift", "integrated-gradients[steps=10]"),
    *("lime[samples=200]", "kernelshap[samples=200]"),
)
METRICS = ("arcc",)


class RefinePlan(NoisePlan):
    """The settings of a refine study."""

    study: str = "refine"
    methods: tuple[str, ...] = Field(BASES, description="The base CAMs; see `heatproof list methods`.")
    beside: tuple[str, ...] = Field(BESIDE, description="Methods that stand beside, not refined.")
    operators: tuple[str, ...] = Field(
        (PRODUCT, "geometric", "inverse-exp"),
        min_length=1,
        description="How stages are combined; the first refines from every stage, the others from the shallowest.",
    )
    perturbations: tuple[str, ...] = Field(
        ("gaussian-noise",), description="Kinds of noise under which stability is measured."
    )
    severities: tuple[int, ...] = Field((1, 3), description="Among 1–5.")
    target: str = Field("label", description="The class explained: label, predicted, least, an index, or its name.")

    @field_validator("beside")
    @classmethod
    def _known_beside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return method_names(value)

    @field_validator("operators")
    @classmethod
    def _known_operators(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from heatproof.attributions.refine import OPERATORS

        if wrong := [name for name in value if name not in OPERATORS]:
            raise ValueError(f"must be among {', '.join(OPERATORS)}. Got {wrong[0]}")
        return tuple(dict.fromkeys(value))

    @property
    def scores_ground_truth(self) -> bool:
        return True

    @classmethod
    def makes_methods(cls) -> bool:
        return True


def with_arms(plan: RefinePlan, datasets: Sequence[Any], models: Any) -> RefinePlan:
    """The plan with every base CAM at every stage, plain and refined, in place of the base CAMs.

    Raises:
        InvalidStudy: networks with another number of stages each, or with one, or a method that reads no layer.
    """
    from heatproof.attributions import requested
    from heatproof.statistics.refinement import arms_of

    if flat := [one.name for one in requested(plan.methods) if not one.spatial or one.layers or one.refined]:
        raise InvalidStudy(
            f"A refine study refines plain CAMs at every stage by itself. Got {flat[0]!r} among the methods: name base "
            "CAMs without a layer; what has no stages goes to --beside."
        )
    counts = {one.label: len(models(i).layers.stages) for i, one in enumerate(plan.models)}
    if min(counts.values()) < 2 or len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InvalidStudy(f"A refine study needs networks with the same number of stages, at least two. Got {found}.")
    arms = [arm.method for arm in arms_of(plan.methods, next(iter(counts.values())), plan.operators)]
    return plan.model_copy(update={"methods": (*arms, *plan.beside)})


def measures(plan: RefinePlan) -> list[Measure]:
    """ARCC and its parts, the cosine with the ground truth where there is one, and pair metrics under noise."""
    return [*map(Measure, METRICS), Measure(TRUTH, optional=True), *pair_measures(plan)]


STUDY = Study(
    name="refine",
    summary="what refining CAMs over the stages of a network gains, and what it costs in stability (paper R)",
    heading="Are refined heatmaps better?",
    settings=RefinePlan,
    conditions=noisy_conditions,
    measures=measures,
    tables={
        "arms.csv": "refinement_arms",
        "refinement.csv": "refinement_gains",
        "fooled.csv": "fooled",
        "pairs.parquet": "pairs",
        "pictures.parquet": "scores_by_image",
    },
    sections=("refinement", "peaks", "gallery"),
    cases=moved_and_held,
    check=with_arms,
    cheaper=fewer_severities,
    batch=2,
    source="Domeniconi et al. 2026, tables 1 and 2, figure 5",
)
