"""The registry of attribution methods: what a method declares, and where it cannot be used."""

from collections.abc import Callable, Mapping
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.models import Model
from heatproof.registry import Registry, unknown

#: What a method's raw map is, and how it becomes a display map.
FORMS = {
    "cam": "one map at layer resolution: ReLU, upsampling, min-max",
    "rgb": "three channels at the input's size: `channels` makes them one, min-max",
    "signed": "one signed map at the input's size: ReLU, min-max",
    "display": "one map at the input's size, as people see it: min-max",
}

#: Options that the display reads, and not the method: added to every method of that form.
DISPLAY_OPTIONS: Mapping[str, Mapping[str, Any]] = {"rgb": {"channels": "abs-max"}}

#: (model, layer, options) → why the method cannot be used there; empty where it can.
Applies = Callable[[Model, str, Mapping[str, Any]], str]

ATTRIBUTIONS = Registry("method")


def attribution(
    name: str, *, form: str = "cam", control: bool = False, applies: Applies | None = None, **details: Any
) -> Callable[[Callable], Callable]:
    """Registers a function under `name`.

    Args:
        form: one of `FORMS`.
        control: an uninformed map (protocols §2); every study includes these as controls.
        applies: says, before any work, why the method cannot be used for a model and layer (one phrase, no full stop:
            `it has no attention`), or the empty text. May run the network once on noise.
        details: `aliases`, `source`; `logit_only=True` for a method that explains no other output.
    """
    if form not in FORMS:
        raise InvalidInput(f"`form` must be one of {', '.join(FORMS)}. Got {form!r}.")
    return ATTRIBUTIONS.register(
        name, extra=DISPLAY_OPTIONS.get(form, {}), form=form, control=control, applies=applies, **details
    )


def check_choice(option: str, value: str, allowed: Mapping[str, Any] | tuple[str, ...]) -> str:
    """`value`, or the error with near misses."""
    if not isinstance(value, str):
        raise InvalidInput(f"`{option}` must be text. Got {value!r:.100}.")
    if value not in allowed:
        raise unknown(f"`{option}`", value, allowed)
    return value
