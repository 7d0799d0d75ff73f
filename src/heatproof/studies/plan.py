"""The plan of a study, from a study file or the command line, checked before any work."""

import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from heatproof.errors import InvalidStudy, UnknownName
from heatproof.plugins import PYTHON
from heatproof.studies.settings import Plan
from heatproof.studies.study import all_studies, study_named, study_names
from heatproof.studies.studyfile import BESIDE


def checked_plan(settings: Mapping[str, Any], lines: Mapping[str, int] | None = None, source: str = "") -> Any:
    """A plan from a mapping of settings; an error names the field, its line in the file, and what is allowed.

    Raises:
        InvalidStudy: with every problem on a line of its own.
    """
    where, lines = (f"{source}: " if source else ""), lines or {}
    kind = _settings_of(settings.get("study"), where, lines)
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        problems = [_problem(item, lines, kind) for item in error.errors()]
        meant = [one.partition("Did you mean ")[2].rstrip("?") for one in problems]
        problems = [one for one in problems if one.removesuffix(" is missing") not in meant]
        text = "; ".join(problems).rstrip(".?") + ("?" if problems[-1].endswith("?") else ".")
        raise InvalidStudy(where + text) from None


def refuse_unknown(settings: Mapping[str, Any], lines: Mapping[str, int], source: str) -> None:
    """InvalidStudy for a study file with a setting that there is not, such as `model` for `models`."""
    known = _settings_of(settings.get("study"), f"{source}: ", lines).model_fields
    if settings.keys() - known.keys():
        checked_plan(settings, lines, source)


def _settings_of(name: Any, where: str, lines: Mapping[str, int]) -> type[Plan]:
    """The class of the settings of the study of that name."""
    if name is None:
        raise InvalidStudy(f"{where}`study` is missing. Name one of {', '.join(study_names())}.")
    try:
        return study_named(str(name)).settings
    except UnknownName as error:
        if str(name).startswith(PYTHON):
            raise
        hint = str(error).partition("? ")[0].partition(". ")[2]
        near = f" {hint}" if hint.startswith("Did you mean") else ""
        known = ", ".join(study_names())
        raise InvalidStudy(f"{where}{_at('study', lines)}must be one of {known}. Got {name!r}.{near}") from None


def _at(path: str, lines: Mapping[str, int]) -> str:
    line = lines.get(path, lines.get(path.partition(".")[0]))
    return (f"line {line}: " if line else "") + (f"`{path}` " if path else "")


def _problem(item: Mapping[str, Any], lines: Mapping[str, int], kind: type[Plan]) -> str:
    name = _at(".".join(str(part) for part in item["loc"]), lines)
    if item["type"] == "extra_forbidden":
        fields = [*_fields_at(item["loc"], kind), *(BESIDE if lines and len(item["loc"]) == 1 else ())]
        typed = str(item["loc"][-1])
        near = difflib.get_close_matches({"image": "datasets", "images": "datasets"}.get(typed, typed), fields, n=1)
        return f"{name}is no setting. " + (
            f"Did you mean `{near[0]}`?" if near else _known_settings(item["loc"], fields)
        )
    if item["type"] == "missing":
        return f"{name}is missing"
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    if item["type"] == "value_error":
        return (
            f"{name.rstrip()}: {message}"
            if name and (message[:1].isupper() or message[:1] == "'")
            else f"{name}{message}"
        )
    return f"{name}{message[:1].lower()}{message[1:]}. Got {item['input']!r}"


def _known_settings(location: Sequence[Any], fields: Sequence[str]) -> str:
    """The studies that have this setting, or else the known settings."""
    name = location[0] if len(location) == 1 else None
    owners = [study.name for study in all_studies() if name in study.settings.model_fields]
    return f"It belongs to the study {' or '.join(owners)}" if owners else f"Known: {', '.join(fields)}"


def _fields_at(location: Sequence[Any], kind: type[Plan]) -> list[str]:
    """The settings of the plan, or of the list item at the location."""
    if len(location) > 1 and location[0] in kind.model_fields:
        inside = [arg for arg in typing.get_args(kind.model_fields[location[0]].annotation)
                  if isinstance(arg, type) and issubclass(arg, BaseModel)]  # fmt: skip
        if inside:
            return list(inside[0].model_fields)
    return list(kind.model_fields)
