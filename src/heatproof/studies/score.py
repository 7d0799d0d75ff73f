"""The score study: how good the maps of methods, or maps made beforehand, are by any number of metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from heatproof.errors import InvalidInput, NotApplicable, warn
from heatproof.spelling import head
from heatproof.studies.cases import telling_scores
from heatproof.studies.conditions import CLEAN, Condition
from heatproof.studies.settings import (
    MapsPlan,
    Plan,
    maps_given,
    once,
    refuse_twice,
    some,
    spelled,
    unknown_as_value,
)
from heatproof.studies.study import ALL, Measure, Study

#: The metrics if none are named, as in `heatproof.score`.
DEFAULT_METRICS = ("arcc", "insertion", "deletion")


class ScorePlan(Plan):
    """The settings of a score study."""

    study: str = "score"
    metrics: tuple[str, ...] = Field(
        DEFAULT_METRICS,
        description="Metrics (see `heatproof list metrics`), families such as fidelity or localisation, or all. A "
        "score is flagged `saturated` where no masking moved the probability, because it is 0 or 1: it tells no "
        "methods apart. --output value with a class as --target scores the logit instead.",
    )
    metric_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Options by metric: `{deletion: {steps: 56}}`."
    )
    targets: tuple[str, ...] = Field(
        (),
        description="Several classes of each image in place of one --target: `labels` (all labels of an image), `top3` "
        "(the most probable), or targets as there. An image's score is the mean over its classes.",
    )
    maps: tuple[MapsPlan, ...] = Field(
        (), description="Maps made beforehand, under *Maps made beforehand*; or paths, or paths by name."
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics_spelled(cls, value: Any) -> Any:
        """A single metric needs no list, and options may be written below a name: `- road: {ties: block}`."""
        return spelled([value] if isinstance(value, str | Mapping) else value, "a metric's")

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        with unknown_as_value():
            return once([_canonical(spelling) for spelling in some(value)])

    @field_validator("metric_options")
    @classmethod
    def _known_options(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        with unknown_as_value():
            _by_metric(value)
        return value

    @field_validator("targets", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        named = [value] if isinstance(value, str | int) else value
        return [str(one) for one in named] if isinstance(named, list | tuple) else named

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from heatproof.targets import one_by_one, refuse_several

        for target in value:
            refuse_several(one_by_one(target)[0])
        return once(value)

    @field_validator("maps", mode="before")
    @classmethod
    def _maps_listed(cls, value: Any) -> Any:
        return maps_given(value)

    @model_validator(mode="before")
    @classmethod
    def _maps_alone(cls, settings: Any) -> Any:
        """If maps are given and no methods are named, only the maps are scored."""
        if isinstance(settings, Mapping) and settings.get("maps") and "methods" not in settings:
            return {**settings, "methods": ()}
        return settings

    @model_validator(mode="after")
    def _something(self) -> "ScorePlan":
        if not self.methods and not self.maps:
            raise ValueError("`methods` must name at least one, or `maps` must. Got none")
        refuse_twice("maps", [one.label for one in self.maps])
        taken = set(self.methods) | _controls()
        if twice := [one.label for one in self.maps if one.label in taken]:
            raise ValueError(f"maps: {twice[0]!r} is a method's name too. Give the maps another: NAME=PATH")
        with unknown_as_value():
            self.chosen_metrics(masked=True, mosaics=True)
        return self

    @classmethod
    def without_methods(cls) -> bool:
        """True, as a study may score only maps made beforehand."""
        return True

    @property
    def given_maps(self) -> tuple[MapsPlan, ...]:
        return self.maps

    @property
    def pooled_targets(self) -> tuple[str, ...]:
        """The classes of each image over which its scores are averaged; empty where one class is explained."""
        return self.targets if len(self.targets) > 1 else ()

    def chosen_metrics(
        self, masked: bool, mosaics: bool, values: bool = False, parted: bool = True
    ) -> tuple[list[str], list[str]]:
        """The metrics with families resolved and options applied, parts of composites first; and the metrics left out.

        Those for want of masks; a warning names those that networks of values have not.

        Args:
            masked: whether any image has a mask; if not, metrics that need one are left out of families.
            mosaics: whether any image is a mosaic; if not, metrics that need those are left out.
            parted: whether any image is made of removable parts; if not, metrics that need those are left out of
                families.
            values: whether all models are networks of values; then metrics that need a probability are left out of
                families and of the default.

        Raises:
            NotApplicable: a metric named that needs a probability, of networks of values, or none that needs none.
            UnknownName, InvalidInput: an unknown metric, a wrong option, or options of a metric that is not chosen.
        """
        from heatproof.metrics.metric_request import left_out_of_values, parsed_metric, requested_metrics

        options = _by_metric(self.metric_options)
        chosen, left, without = [], [], {}
        for spelling in self.metrics:
            family = not _single(spelling)
            unnamed = family or "metrics" not in self.model_fields_set
            for request in requested_metrics([spelling], parts=False, reference=False):
                unmasked = family and not masked and "mask" in request.entry.needs
                unparted = family and not parted and request.of_parts
                if unmasked or unparted or (request.of_mosaics and not mosaics):
                    left.append(request.key)
                    continue
                if values and (why := request.refusal_of_values):
                    if not unnamed:
                        raise NotApplicable(f"{request.key!r} has no meaning for a network of values: {why}.")
                    without[request.key] = why
                    chosen += [part.key for part in request.parts.values() if not part.refusal_of_values]
                    continue
                given = {**request.options, **options.get(request.entry.name, {})}
                chosen.append(parsed_metric(request.entry.name, given).key if given else request.key)
        unused = set(options) - {parsed_metric(key).entry.name for key in [*chosen, *left, *without]}
        if unused:
            raise InvalidInput(
                f"Options go with a metric that is asked for. Got {min(unused)!r}, and the metrics "
                f"{', '.join(self.metrics)}."
            )
        if without:
            warn(left_out_of_values(without))
        if without and not chosen and not left:
            raise NotApplicable(f"Expected a metric with a meaning for a network of values. Got {', '.join(without)}.")
        keys = [request.key for request in requested_metrics(once(chosen))] if chosen else []
        return keys, list(once(left))


def _single(spelling: str) -> bool:
    """Whether the spelling names one metric, and not a family."""
    from heatproof.metrics.catalogue import METRICS
    from heatproof.metrics.foreign import PLUGIN_METRICS

    name = head(spelling)
    return PLUGIN_METRICS.by_name(name) or name in METRICS


def _canonical(spelling: str) -> str:
    """A metric's key; a family as it is written."""
    from heatproof.metrics.metric_request import parsed_metric, requested_metrics

    if _single(spelling):
        return parsed_metric(spelling).key
    requested_metrics([spelling], parts=False, reference=False)
    return spelling.strip()


def _by_metric(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    from heatproof.metrics.metric_request import parsed_metric

    return {parsed_metric(name, options).entry.name: options for name, options in given.items()}


def _controls() -> set[str]:
    from heatproof.attributions import ATTRIBUTIONS

    return {name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]}


def with_metrics_named(plan: ScorePlan, datasets: Sequence[Any], models: Any) -> ScorePlan:
    """The settings with families replaced by their metrics; those that need a mask are left out if there are no masks.

    Raises:
        InvalidInput: no metric is left.
    """
    from heatproof.errors import warn
    from heatproof.metrics.metric_request import parsed_metric

    values = all(one.output == "value" for one in plan.models)
    masked, mosaics = any(one.masked for one in datasets), any(one.mosaics for one in datasets)
    parted = any(one.parted for one in datasets)
    chosen, left = plan.chosen_metrics(masked, mosaics, values, parted)
    left = [key for key in left if parted or not parsed_metric(key).of_parts] if chosen else left
    of_mosaics = [] if mosaics else [key for key in left if parsed_metric(key).of_mosaics]
    if masked or not chosen:
        left = [key for key in left if key not in of_mosaics]
    if not chosen:
        need = "mask" if left else "mosaic"
        advice = "" if left else " mosaic:FOLDER makes mosaics."
        raise InvalidInput(f"Expected at least one metric that needs no {need}. Got {', '.join(plan.metrics)}.{advice}")
    if masked and of_mosaics:
        warn(
            f"No mosaics, so {', '.join(of_mosaics)} is left out: on other images it is `energy` once more. "
            "mosaic:FOLDER makes mosaics."
        )
    if left:
        warn(f"No masks, so these metrics are left out: {', '.join(left)}. --masks says where the objects are.")
    return plan.model_copy(update={"metrics": tuple(chosen), "metric_options": {}})


def completed(plan: ScorePlan, datasets: Sequence[Any], models: Any) -> ScorePlan:
    """The settings with their metrics named, and with targets that each name one class."""
    from heatproof.studies.explained_classes import with_targets

    return with_metrics_named(with_targets(plan, datasets), datasets, models)


def conditions(plan: ScorePlan) -> list[Condition]:
    """The images as they are, for every class explained."""
    return [CLEAN, *(Condition(target=target) for target in plan.targets if target != plan.target)]


def measures(plan: ScorePlan) -> list[Measure]:
    """Every metric of the settings, for every class explained."""
    return [Measure(name, conditions=ALL if plan.pooled_targets else "") for name in plan.metrics]


STUDY = Study(
    name="score",
    summary="how good maps are by any number of metrics, with intervals, and which metrics a useless map fools",
    heading="Which heatmap can be believed, and by which score?",
    settings=ScorePlan,
    conditions=conditions,
    measures=measures,
    tables={
        "scores.csv": "scores",
        "classes.csv": "classes",
        "fooled.csv": "fooled",
        "statistics.csv": "score_tests",
        "curves.csv": "curves",
        "agreement.csv": "agreement",
        "pictures.parquet": "scores_by_image",
    },
    sections=("score_verdict", "scores", "classes", "peaks", "gallery"),
    cases=telling_scores,
    check=completed,
)
