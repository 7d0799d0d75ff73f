"""The noise-robustness study (paper N): do maps keep their ranking under noise, and follow a changed prediction?"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from heatproof import spelling
from heatproof.statistics.special_rows import HALVED
from heatproof.studies.cases import moved_and_held
from heatproof.studies.conditions import CLEAN, Condition
from heatproof.studies.settings import Plan, canonical, once, some
from heatproof.studies.study import Measure, Study

#: The default flip rates for calibration (protocols §3).
FLIP_RATES = (0.05, 0.15, 0.3, 0.5)
#: Pair metrics of a map and its clean map → their options that the study sets.
PAIR_METRICS: Mapping[str, tuple[str, ...]] = {
    "rbo": ("segmenter", "ties", "p"),
    "kappa": ("segmenter", "ties", "p"),
    "l1": (),
    "spearman": ("segmenter",),
    "ssim": (),
    "cosine": (),
}
#: The tables of every study with noise, and those of the noise study's own checks.
TABLES = {
    "robustness.csv": "robustness",
    "statistics.csv": "robustness_tests",
    "truth.csv": "mask_cosine",
    "pairs.parquet": "pairs",
}
CHECKS = {
    "boundaries.csv": "boundaries",
    "models.csv": "networks",
    "rare_flips.csv": "rare_flips",
    "similarity.csv": "similarity",
    "similarity_steps.csv": "similarity_steps",
}


class NoisePlan(Plan):
    """The settings of the noise-robustness study."""

    study: str = "noise-robustness"
    perturbations: tuple[str, ...] = Field(
        (), validate_default=True, description="Kinds of noise and attacks; see `heatproof list perturbations`."
    )
    severities: tuple[int, ...] = Field((1, 2, 3, 4, 5), description="Among 1–5.")
    calibrate: tuple[float, ...] = Field(
        (),
        description="Find strengths at which these shares of the predictions flip, in place of severities; "
        "`true` for .05, .15, .3 and .5.",
    )
    segmenters: tuple[str, ...] = Field(
        ("quickshift",),
        description="quickshift, slic, felzenszwalb, grid, split, split-object; several give the segmenter ablation.",
    )
    boundaries: bool = Field(
        False,
        description="Also compare maps with the borders of the segments moved on purpose: by half a cell of a grid, "
        "through the middle of every segment of the first segmenter, and through the objects' centres where there are "
        "masks.",
    )
    ties: Literal["b", "a", "stable"] = Field(
        "b", description="How equal ranks count in RBO: `b` (symmetric), `a`, or `stable` (by index)."
    )
    persistence: float = Field(0.9, gt=0, lt=1, description="RBO's p, between 0 and 1. Lower is more top-weighted.")

    @field_validator("segmenters", "perturbations", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Mapping) else value

    @field_validator("calibrate", mode="before")
    @classmethod
    def _default_shares(cls, value: Any) -> Any:
        """`calibrate: true` takes the default flip rates."""
        return (FLIP_RATES if value else ()) if isinstance(value, bool) else value

    @field_validator("severities")
    @classmethod
    def _on_the_ladder(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        outside = [severity for severity in some(value) if not 1 <= severity <= 5]
        if outside:
            raise ValueError(f"must be among 1, 2, 3, 4, 5. Got {outside[0]}")
        return tuple(sorted(set(value)))

    @field_validator("calibrate")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in value):
            raise ValueError(f"must be flip rates between 0 and 1. Got {list(value)}")
        return tuple(sorted(set(value)))

    @field_validator("perturbations")
    @classmethod
    def _known_perturbations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from heatproof.perturbations import PERTURBATIONS, default_kinds

        return once([canonical(PERTURBATIONS, kind) for kind in value or default_kinds()])

    @field_validator("segmenters")
    @classmethod
    def _known_segmenters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from heatproof.segments import SEGMENTERS

        return once([canonical(SEGMENTERS, name) for name in some(value)])

    @model_validator(mode="after")
    def _one_scale(self) -> "NoisePlan":
        if self.calibrate and "severities" in self.model_fields_set:
            raise ValueError("give `severities` or `calibrate`, which finds strengths in their place. Got both")
        return self

    @property
    def all_segmenters(self) -> tuple[str, ...]:
        """The segmenters, and with `boundaries` those whose borders are moved, each with what it is compared to."""
        of = {"of": self.segmenters[0]}
        moved = (*(spelling.format(name, of) for name in HALVED), "grid", "grid[shift=0.5]")
        return once([*self.segmenters, *(moved if self.boundaries else ())])

    @property
    def levels(self) -> int:
        """How many severities each perturbation has."""
        return len(self.calibrate) or len(self.severities)


def noisy_conditions(plan: NoisePlan) -> list[Condition]:
    """The clean images, then every perturbation at every severity; all severities of a kind together."""
    rates = list(enumerate(plan.calibrate, 1))
    noisy = [
        [Condition(kind, severity, flip_rate=rate) for severity, rate in rates]
        or [Condition(kind, severity) for severity in plan.severities]
        for kind in plan.perturbations
    ]
    return [CLEAN, *(condition for kind in noisy for condition in kind)]


def pair_measures(plan: NoisePlan) -> list[Measure]:
    """The metrics of a map and its clean map, under every segmenter; one that needs masks only where there are any."""
    given = {"ties": plan.ties, "p": plan.persistence}
    return [
        Measure(
            spelling.format(name, {k: {**given, "segmenter": segmenter}[k] for k in options}),
            name,
            segmenter,
            optional=segmenter not in plan.segmenters,
        )
        for segmenter in plan.all_segmenters
        for name, options in PAIR_METRICS.items()
    ]


def measures(plan: NoisePlan) -> Sequence[Measure]:
    """The metrics of pairs, and the agreement of the clean maps with the object's mask where there are masks."""
    return [*pair_measures(plan), Measure("mask-cosine", optional=True)]


def fewer_severities(plan: NoisePlan) -> NoisePlan | None:
    """The same under the middle severity alone; None where there is one already, or strengths are calibrated."""
    if plan.calibrate or len(plan.severities) == 1:
        return None
    return plan.model_copy(update={"severities": (plan.severities[len(plan.severities) // 2],)})


def without_attacks_on_values(plan: NoisePlan, datasets: Sequence[Any], models: Any) -> NoisePlan:
    """The plan; of networks of values without the attacks among the default perturbations."""
    from heatproof.studies.answers import without_attacks

    return without_attacks(plan)  # type: ignore[return-value]


STUDY = Study(
    name="noise-robustness",
    summary="which maps keep their ranking under noise and change it when the prediction changes (paper N)",
    heading="Which heatmap can be trusted when images are noisy?",
    settings=NoisePlan,
    conditions=noisy_conditions,
    measures=measures,
    tables={**TABLES, **CHECKS},
    sections=(
        *("robustness_verdict", "robustness", "networks", "segmenters", "boundaries", "rare_flips", "similarity"),
        *("mask_cosine", "peaks", "gallery"),
    ),
    cases=moved_and_held,
    check=without_attacks_on_values,
    cheaper=fewer_severities,
    source="Sarkar et al. 2025, arXiv 2508.18154",
)
