"""The study of the metrics themselves (paper R, Figures 1 and 4): do they rank maps as the ground truth does?"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from heatproof import spelling
from heatproof.errors import InvalidStudy
from heatproof.statistics.special_rows import POWER, TRUTH
from heatproof.studies.score import STUDY as SCORE
from heatproof.studies.score import ScorePlan, measures, with_metrics_named
from heatproof.studies.settings import method_names
from heatproof.studies.study import Measure, Study

#: Methods of paper R and a few more, those that ask the network seldom.
METHODS = (
    *("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam", "ablationcam", "refine:layercam"),
    *("input-x-gradient", "integrated-gradients[steps=10]"),
)
#: Metrics of at most some thirty passes for each map.
METRICS = (
    *("average-drop", "average-increase", "average-gain", "local-accuracy", "sufficiency", "adcc", "arcc", "road"),
    *("insertion", "deletion", "deletion-mean", "monotonicity", "coherency", "complexity", "sparseness", "entropy"),
)


class ValidityPlan(ScorePlan):
    """The settings of a study of metrics."""

    study: str = "metric-validity"
    methods: tuple[str, ...] = Field(METHODS, description="Methods; see `heatproof list methods`.")
    metrics: tuple[str, ...] = Field(
        METRICS, description="The metrics to judge (see `heatproof list metrics`), families, or all."
    )
    target: str = Field(
        "label", description="The class explained: label, predicted, least, an index, or a class's name."
    )
    power: float = Field(
        0.5,
        ge=0,
        allow_inf_nan=False,
        description="Adds the first method's map raised to this power, which keeps the order of the pixels; 0: none. "
        "Above 1 the lowest values come to tie at six digits.",
    )

    @property
    def scores_ground_truth(self) -> bool:
        return True


def with_rescaled_map(plan: ValidityPlan, datasets: Sequence[Any], models: Any) -> ValidityPlan:
    """The plan with its metrics named, and the first method once more, rescaled.

    Raises:
        InvalidStudy: a set of images without ground truth.
    """
    if bare := [one.settings.label for one in datasets if not one.masked]:
        raise InvalidStudy(
            f"metric-validity holds metrics against the ground truth, and {bare[0]!r} has no masks. Give --masks (of "
            "`heatproof data shapes --out D`: --images D/images --masks D/masks --labels D/labels.csv), or `shapes`."
        )
    found: Any = with_metrics_named(plan, datasets, models)
    asked = spelling.parse(plan.methods[0]) if plan.methods and plan.power else None
    if asked is None or POWER in asked.options:
        return found
    arm = spelling.format(asked.name, {**asked.options, POWER: plan.power}, asked.layers)
    return found.model_copy(update={"methods": tuple(dict.fromkeys((*plan.methods, *method_names([arm]))))})


def with_ground_truth(plan: ValidityPlan) -> list[Measure]:
    """The metrics of the settings, and the cosine with the ground truth."""
    return list(dict.fromkeys([*measures(plan), Measure(TRUTH)]))


STUDY = Study(
    name="metric-validity",
    summary="which metrics rank maps as the ground truth does, and which a useless map fools (paper R)",
    heading="Which score of a heatmap can be believed?",
    settings=ValidityPlan,
    measures=with_ground_truth,
    tables={
        "validity.csv": "validity",
        "validity_models.csv": "validity_over_models",
        "fooled_matrix.csv": "fooled_matrix",
        "rescaled.csv": "rescalings",
        **SCORE.tables,
    },
    sections=("metric_validity", "scores", "peaks", "gallery"),
    cases=SCORE.cases,
    check=with_rescaled_map,
    source="Domeniconi et al. 2026, figures 1 and 4",
)
