"""A study as it was asked for: from a study file or the command line, checked before any work is done."""

import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from heatproof.errors import InvalidStudy
from heatproof.registry import nearest
from heatproof.studies.scoreplan import ScorePlan
from heatproof.studies.settings import DEFAULT_METHODS, DatasetPlan, ModelPlan, Plan, canonical, once, some
from heatproof.studies.studyfile import read_settings

__all__ = [
    "DEFAULT_METHODS",
    "PLANS",
    "STUDIES",
    "DatasetPlan",
    "ModelPlan",
    "NoisePlan",
    "Plan",
    "ScorePlan",
    "checked_plan",
    "read_settings",
]

#: Flip rates that calibration looks for when none are named (protocols §3).
FLIP_RATES = (0.05, 0.15, 0.3, 0.5)


class NoisePlan(Plan):
    """The noise-robustness study (paper N)."""

    SOURCE: ClassVar[str] = "Sarkar et al. 2025, arXiv 2508.18154"

    study: Literal["noise-robustness"] = "noise-robustness"
    perturbations: tuple[str, ...] = Field((), validate_default=True)
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    calibrate: tuple[float, ...] = ()
    segmenters: tuple[str, ...] = ("quickshift",)
    ties: Literal["b", "a", "stable"] = "b"
    persistence: float = Field(0.9, gt=0, lt=1)

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
    def levels(self) -> int:
        """How many severities each perturbation has."""
        return len(self.calibrate) or len(self.severities)


#: The studies there are, with what each shows.
STUDIES = {
    "noise-robustness": "which maps keep their ranking under noise and change it when the prediction changes (paper N)",
    "score": "how good maps are by any number of metrics, with intervals, and which metrics a useless map fools",
}

PLANS: Mapping[str, type[Plan]] = {"noise-robustness": NoisePlan, "score": ScorePlan}


def checked_plan(settings: Mapping[str, Any], lines: Mapping[str, int] | None = None, source: str = "") -> Any:
    """A plan from plain settings; an error names the field, its line in the file, and what is allowed.

    Raises:
        InvalidStudy: with every problem on a line of its own.
    """
    study = settings.get("study", "noise-robustness")
    where = f"{source}: " if source else ""
    if not isinstance(study, str) or study not in PLANS:
        raise InvalidStudy(f"{where}{_at('study', lines or {})}{_no_study(study)}")
    kind = PLANS[study]
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        problems = [_problem(item, lines or {}, kind) for item in error.errors()]
        raise InvalidStudy(
            where + "; ".join(problems).rstrip(".?") + ("?" if problems[-1].endswith("?") else ".")
        ) from None


def _no_study(study: Any) -> str:
    near = nearest(str(study), STUDIES)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"must be one of {', '.join(STUDIES)}. Got {study!r}.{hint}"


def _at(path: str, lines: Mapping[str, int]) -> str:
    line = lines.get(path, lines.get(path.partition(".")[0]))
    return (f"line {line}: " if line else "") + (f"`{path}` " if path else "")


def _problem(item: Mapping[str, Any], lines: Mapping[str, int], kind: type[Plan]) -> str:
    name = _at(".".join(str(part) for part in item["loc"]), lines)
    if item["type"] == "extra_forbidden":
        fields = _fields_at(item["loc"], kind)
        near = difflib.get_close_matches(str(item["loc"][-1]), fields, n=1)
        return f"{name}is no setting. " + (f"Did you mean `{near[0]}`?" if near else _known(item["loc"], fields))
    if item["type"] == "missing":
        return f"{name}is missing"
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    if item["type"] == "value_error":
        return f"{name.rstrip()}: {message}" if name and message.startswith("No ") else f"{name}{message}"
    return f"{name}{message[:1].lower()}{message[1:]}. Got {item['input']!r}"


def _known(location: Sequence[Any], fields: Sequence[str]) -> str:
    """The settings there are, and the study that has the one asked for."""
    owners = [study for study, plan in PLANS.items() if len(location) == 1 and location[0] in plan.model_fields]
    return f"It belongs to the study {' or '.join(owners)}" if owners else f"Known: {', '.join(fields)}"


def _fields_at(location: Sequence[Any], kind: type[Plan]) -> list[str]:
    """The settings of the plan, or of the thing in one of its lists in which the location lies."""
    if len(location) > 1 and location[0] in kind.model_fields:
        inside = [arg for arg in typing.get_args(kind.model_fields[location[0]].annotation)
                  if isinstance(arg, type) and issubclass(arg, BaseModel)]  # fmt: skip
        if inside:
            return list(inside[0].model_fields)
    return list(kind.model_fields)
