"""The methods that the settings of a study name beside `methods`: display names, and the reference."""

from typing import Any

from heatproof.display_names import checked_labels, method_called
from heatproof.errors import InvalidInput, InvalidStudy, UnknownName

#: The sections of a page that compare a reference with every other method.
COMPARING = ("scores", "robustness")


def named_methods(plan: Any) -> dict[str, Any]:
    """`labels` and `reference` of some settings, with the canonical names of methods.

    Raises:
        UnknownName: a method that is none of the study's, with near misses.
        InvalidInput: as `checked_labels`; a reference without another method.
    """
    real = [*plan.methods, *(one.label for one in plan.given_maps)]
    controls = _controls() if plan.controls == "all" else []
    labels = {_canonical(name): text for name, text in plan.labels.items()}
    if len(labels) < len(plan.labels):
        raise InvalidInput(f"`labels` must name each method once. Got {', '.join(plan.labels)}.")
    found: dict[str, Any] = {"labels": checked_labels(labels, [*real, *controls])}
    if plan.reference is not None:
        found["reference"] = method_called(_canonical(plan.reference), real, "method for `reference`", found["labels"])
        if len(real) < 2:
            raise InvalidInput("`reference` needs another method to be compared with. Got one method.")
    return found


def with_names(plan: Any, study: Any) -> Any:
    """The settings with canonical names in `labels` and `reference`.

    Raises:
        UnknownName, InvalidInput: as `named_methods`.
        InvalidStudy: a reference in a study whose page has no section for it.
    """
    if not plan.labels and plan.reference is None:
        return plan
    if plan.reference is not None and not set(COMPARING) & {one for one in study.sections if isinstance(one, str)}:
        raise InvalidStudy(
            f"`reference` compares methods by scores or robustness. The study {study.name!r} has neither on its page."
        )
    return plan.model_copy(update=named_methods(plan))


def _canonical(spelling: str) -> str:
    """The canonical name of a method; text that names none, as of maps made beforehand, as it is."""
    from heatproof.attributions import requested

    try:
        return requested([spelling])[0].name
    except (UnknownName, InvalidInput):
        return spelling


def _controls() -> list[str]:
    from heatproof.attributions import ATTRIBUTIONS

    return [name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]]
