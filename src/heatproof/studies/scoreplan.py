"""The settings of a score study: metrics, maps made beforehand, and masks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from heatproof.errors import InvalidInput
from heatproof.spelling import head
from heatproof.studies.settings import (
    DatasetPlan,
    Plan,
    Strict,
    listed,
    method_names,
    once,
    refuse_twice,
    some,
    spelled,
    unknown_as_value,
)

#: What is asked where nothing is named, as in `heatproof.score`.
DEFAULT_METRICS = ("arcc", "insertion", "deletion")


class MapsPlan(Strict):
    """Maps made beforehand: a folder (grey pictures or .npy), an .npz by name, or one array for all pictures."""

    path: str
    name: str | None = None

    @property
    def label(self) -> str:
        """What the rows call it: the name, or the file's or folder's own."""
        return self.name or Path(self.path).stem


class MaskedPlan(DatasetPlan):
    """A set of pictures, or of files named one by one, and where the masks of its objects are."""

    images: str | tuple[str, ...]  # type: ignore[assignment]
    masks: str | None = None

    @property
    def label(self) -> str:
        """The name, or the folder's own; several files are `pictures`."""
        if self.name or isinstance(self.images, str):
            return super().label
        return "pictures"


class ScorePlan(Plan):
    """How good the maps of methods, or maps made beforehand, are by any number of metrics."""

    study: Literal["score"] = "score"
    datasets: tuple[MaskedPlan, ...]  # type: ignore[assignment]
    metrics: tuple[str, ...] = DEFAULT_METRICS
    metric_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    maps: tuple[MapsPlan, ...] = ()

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics_spelled(cls, value: Any) -> Any:
        """One may be written without a list, and options below a name: `- road: {ties: block}`."""
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

    @field_validator("maps", mode="before")
    @classmethod
    def _maps_listed(cls, value: Any) -> Any:
        return maps_given(value)

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return method_names(value) if value else ()

    @model_validator(mode="before")
    @classmethod
    def _maps_alone(cls, settings: Any) -> Any:
        """Where maps are given and no methods are named, the maps are all there is to score."""
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
            self.chosen_metrics(masked=True)
        return self

    @property
    def made_elsewhere(self) -> bool:
        return bool(self.maps)

    def chosen_metrics(self, masked: bool) -> tuple[list[str], list[str]]:
        """The metrics that families and options come to, with the parts of composites before them; those left out.

        Args:
            masked: whether any picture has a mask; if not, metrics that need one are left out of families.
        """
        from heatproof.metrics.request import parsed_metric, requested_metrics

        options = _by_metric(self.metric_options)
        chosen, left = [], []
        for spelling in self.metrics:
            family = not _single(spelling)
            for request in requested_metrics([spelling], parts=False, reference=False):
                if family and not masked and "mask" in request.entry.needs:
                    left.append(request.key)
                    continue
                given = {**request.options, **options.get(request.entry.name, {})}
                chosen.append(parsed_metric(request.entry.name, given).key if given else request.key)
        unused = set(options) - {parsed_metric(key).entry.name for key in [*chosen, *left]}
        if unused:
            raise InvalidInput(
                f"Options go with a metric that is asked for. Got {min(unused)!r}, and the metrics "
                f"{', '.join(self.metrics)}."
            )
        return [request.key for request in requested_metrics(once(chosen))] if chosen else [], list(once(left))

    def resolved(self, masked: bool) -> "ScorePlan":
        """The plan with every metric named."""
        chosen, _ = self.chosen_metrics(masked)
        return self.model_copy(update={"metrics": tuple(chosen), "metric_options": {}})


def maps_given(value: Any) -> Any:
    """`PATH`, `NAME=PATH`, `{NAME: PATH}` or a list of any of these → mappings with `path` and `name`."""
    if isinstance(value, Mapping) and "path" not in value:
        return [{"name": str(name), "path": path} for name, path in value.items()]
    found: list[Any] = []
    for item in listed(value):
        if isinstance(item, str):
            name, equals, path = item.partition("=")
            whole = not equals or not name or Path(item).exists()
            found.append({"path": item} if whole else {"name": name.strip(), "path": path})
        elif isinstance(item, Mapping) and "path" not in item:
            found += maps_given(item)
        else:
            found.append(item)
    return found


def _single(spelling: str) -> bool:
    """Whether one metric is meant, and not a family."""
    from heatproof.metrics.catalogue import METRICS
    from heatproof.metrics.foreign import PLUGIN_METRICS

    name = head(spelling)
    return PLUGIN_METRICS.by_name(name) or name in METRICS


def _canonical(spelling: str) -> str:
    """A metric's key; a family as it is written."""
    from heatproof.metrics.request import parsed_metric, requested_metrics

    if _single(spelling):
        return parsed_metric(spelling).key
    requested_metrics([spelling], parts=False, reference=False)
    return spelling.strip()


def _by_metric(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    from heatproof.metrics.request import parsed_metric

    return {parsed_metric(name, options).entry.name: options for name, options in given.items()}


def _controls() -> set[str]:
    from heatproof.attributions import ATTRIBUTIONS

    return {name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]}
