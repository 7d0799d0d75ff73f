"""The audit: which heatmap may be shown for this model on these images, and how far it can be trusted.

It unites the noise study, a few metrics, and the checks against the weights and the class, for a few methods and all
controls. Every quantity is computed once.
"""

import datetime
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from heatproof.studies.cases import moved_and_held
from heatproof.studies.noise_robustness import TABLES, NoisePlan, fewer_severities, noisy_conditions, pair_measures
from heatproof.studies.score import STUDY as SCORE
from heatproof.studies.study import Measure, Study

#: The default methods. Ablation-CAM is left out if the head is not linear, as it then costs a pass for every channel.
METHODS = (
    *("gradcam", "gradcam++", "layercam", "eigencam", "ablationcam", "finercam", "refine:layercam"),
    "integrated-gradients[steps=10]",
)
METRICS = ("road", "coherency", "complexity", "arcc", "insertion", "deletion-mean", "mprt", "random-logit")
#: Metrics that need a mask.
LOCALISATION = ("energy", "mask-cosine", "pointing-game")


class AuditPlan(NoisePlan):
    """The settings of an audit."""

    study: str = "audit"
    methods: tuple[str, ...] = Field(METHODS, description="Methods; see `heatproof list methods`.")
    perturbations: tuple[str, ...] = Field(
        ("gaussian-noise", "jpeg", "fgsm"),
        description="Kinds of noise and attacks; see `heatproof list perturbations`.",
    )
    severities: tuple[int, ...] = Field((1, 3, 5), description="Among 1–5.")
    author: str | None = Field(None, description="Who audits, for the auditor's section of the page.")
    date: str | None = Field(None, description="The date of the audit, as 2026-03-31; no clock is read.")
    commit: str | None = Field(None, description="The commit of the code that is audited.")

    @field_validator("date", mode="before")
    @classmethod
    def _date(cls, value: Any) -> Any:
        """A date as text; YAML reads an unquoted one as a date."""
        if value is None:
            return None
        try:
            return datetime.date.fromisoformat(str(value)).isoformat()
        except ValueError:
            raise ValueError(f"must be a date such as 2026-03-31. Got {value!r}") from None


def measures(plan: AuditPlan) -> list[Measure]:
    """Pair metrics under noise; on the clean images `METRICS`, and `LOCALISATION` where there are masks."""
    located = [Measure(name, optional=True) for name in LOCALISATION]
    return [*pair_measures(plan), *map(Measure, _metrics(plan)), *located]


def _metrics(plan: AuditPlan) -> list[str]:
    """`METRICS`; of networks of values those that need no probability."""
    from heatproof.metrics.metric_request import requested_metrics

    if any(one.output != "value" for one in plan.models):
        return list(METRICS)
    return [name for name in METRICS if not requested_metrics([name], parts=False)[0].refusal_of_values]


def with_cheap_methods(plan: AuditPlan, datasets: Sequence[Any], models: Any) -> AuditPlan:
    """The plan without Ablation-CAM where it would run the network once for every channel, unless it was asked for.

    Of networks of values also without the attacks among the default perturbations.
    """
    from heatproof.studies.answers import without_attacks
    from heatproof.studies.loading import has_linear_head

    plan = without_attacks(plan)  # type: ignore[assignment]
    named = "methods" in plan.model_fields_set
    if named or all(has_linear_head(models(i), one.layer) for i, one in enumerate(plan.models)):
        return plan
    return plan.model_copy(update={"methods": tuple(name for name in plan.methods if name != "ablationcam")})


STUDY = Study(
    name="audit",
    summary="which heatmap may be shown for a model on some images, and how far it can be trusted",
    heading="Which heatmap may be shown for this model, and how far can it be trusted?",
    settings=AuditPlan,
    conditions=noisy_conditions,
    measures=measures,
    tables={
        "verdicts.csv": "verdicts",
        "audit.csv": "audit",
        "per_image.csv": "per_image",
        **SCORE.tables,
        "score_statistics.csv": "score_tests",
        **TABLES,
        "boundaries.csv": "boundaries",
    },
    sections=(
        *("audit", "per_image", "robustness", "segmenters", "boundaries", "mask_cosine", "scores", "peaks"),
        *("gallery", "auditor"),
    ),
    documents={"model_card.md": "model_card", "tables/audit.xlsx": "workbook"},
    cases=moved_and_held,
    check=with_cheap_methods,
    cheaper=fewer_severities,
    batch=2,
)
