"""What the settings of every study have in common: models, pictures, methods, and how numbers come about."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from heatproof import spelling
from heatproof.errors import UnknownName

DEFAULT_METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "eigencam", "ablationcam")


class Strict(BaseModel):
    """Settings of one thing: unknown fields are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelPlan(Strict):
    """One model of a study: the arguments of `heatproof.load_model`, and the layer to explain."""

    spec: str
    name: str | None = None
    checkpoint: str | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    mean: float | tuple[float, float, float] | None = None
    std: float | tuple[float, float, float] | None = None
    size: int | tuple[int, int] | None = None
    layer: str = "auto"
    multi_label: bool = False

    @property
    def label(self) -> str:
        """What the rows call it."""
        return self.name or self.spec


class DatasetPlan(Strict):
    """One set of pictures: the arguments of `heatproof.data.load_pictures`."""

    images: str
    name: str | None = None
    labels: str | None = None
    root: str | None = None
    download: bool = False

    @property
    def label(self) -> str:
        """What the rows call it: the name, or the folder's own."""
        return self.name or (Path(self.images).name if "/" in self.images or "\\" in self.images else self.images)


class Plan(Strict):
    """What every study asks for; each study adds its own. All of it is part of what the numbers depend on."""

    SOURCE: ClassVar[str] = "ours"

    study: str
    models: tuple[ModelPlan, ...]
    datasets: tuple[DatasetPlan, ...]
    methods: tuple[str, ...] = DEFAULT_METHODS
    controls: Literal["all", "none"] = "all"
    target: str = "predicted"
    resamples: int = Field(1000, ge=100)
    limit: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    batch_size: int | None = Field(None, ge=1)
    threads: int = Field(1, ge=1)
    device: str = "auto"

    @field_validator("models", "datasets", "methods", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """One entry may be written without a list."""
        return [value] if isinstance(value, str | Mapping) else value

    @field_validator("methods", mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        """Options may be written below a method's name: `- rise: {masks: 8000}`."""
        return spelled(value, "a method's")

    @field_validator("target", mode="before")
    @classmethod
    def _index_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("models", mode="before")
    @classmethod
    def _spec_alone(cls, value: Any) -> Any:
        return [{"spec": item} if isinstance(item, str) else item for item in listed(value)]

    @field_validator("datasets", mode="before")
    @classmethod
    def _images_alone(cls, value: Any) -> Any:
        return [{"images": item} if isinstance(item, str) else item for item in listed(value)]

    @field_validator("models", "datasets")
    @classmethod
    def _not_empty(cls, value: tuple) -> tuple:
        return some(value)

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Names are checked here, so that a typing error costs no time; the registries resolve aliases."""
        return method_names(some(value))

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        from heatproof import targets

        if value not in targets.RULES and not value.isdigit():
            raise ValueError(targets.unknown_rule(value))
        return value

    @model_validator(mode="after")
    def _told_apart(self) -> "Plan":
        for kind, names in (("models", self.models), ("datasets", self.datasets)):
            refuse_twice(kind, [item.label for item in names])
        return self

    @property
    def made_elsewhere(self) -> bool:
        """Whether there are maps that no method here makes."""
        return False


def listed(value: Any) -> Any:
    """A list as it is, anything else as the one item of a list."""
    return value if isinstance(value, list | tuple) else [value]


def some(value: tuple) -> tuple:
    """ValueError where there is nothing."""
    if not value:
        raise ValueError("must name at least one. Got none")
    return value


def refuse_twice(kind: str, labels: Sequence[str]) -> None:
    """ValueError where two have one name: their rows could not be told apart."""
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise ValueError(f"{kind}: {min(twice)!r} is there twice. Give each a `name` of its own")


def spelled(value: Any, whose: str) -> Any:
    """`{rise: {masks: 8000}}` among names → `rise[masks=8000]`."""
    if not isinstance(value, list | tuple):
        return value
    return [text for item in value for text in _spellings(item, whose)]


def _spellings(item: Any, whose: str) -> list[Any]:
    if not isinstance(item, Mapping):
        return [item]
    found = []
    for name, options in item.items():
        if not isinstance(options or {}, Mapping):
            raise ValueError(f"{whose} options must be `name: value` pairs. Got {name}: {options!r}")
        found.append(spelling.format(str(name), options))
    return found


def method_names(spellings: Sequence[str]) -> tuple[str, ...]:
    """Canonical names of methods, each once. ValueError for one that does not exist, and for a control."""
    from heatproof.attributions import requested

    with unknown_as_value():
        requests = requested(spellings)
    controls = [request.name for request in requests if request.entry.traits["control"]]
    if controls:
        raise ValueError(f"leave controls to `controls: all`. Got {', '.join(controls)}")
    return once([request.name for request in requests])


def canonical(registry: Any, text: str) -> str:
    """The registered name, with the options named in brackets, sorted."""
    with unknown_as_value():
        entry, options = registry.parse(text)
    return spelling.format(entry.name, options)


@contextmanager
def unknown_as_value() -> Iterator[None]:
    """Within it an unknown name is a ValueError, which a validator may raise."""
    try:
        yield
    except UnknownName as error:
        raise ValueError(str(error)) from None


def once(names: Sequence[str]) -> tuple[str, ...]:
    """Every name once, in order."""
    return tuple(dict.fromkeys(names))
