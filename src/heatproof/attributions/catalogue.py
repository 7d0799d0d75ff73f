"""The registry of attribution methods, and a method as it was asked for: entry, options, spelling."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.registry import Entry, Registry

#: What the engine can hand to an attribution method.
SUPPLIED = (
    "x z logits target activations gradients head tail score generator".split()  # noqa: SIM905 - reads as a list of words
)

ATTRIBUTIONS = Registry("method", SUPPLIED)


def attribution(name: str, *, form: str = "cam", control: bool = False, **details: Any):
    """Files a function under `name`.

    Args:
        form: how the raw map becomes a display map: `cam` (ReLU, upsampling, min-max) or
            `display` (already at input size; min-max only).
        control: uninformed on purpose (protocols §2); every study carries these as extra arms.
        details: `aliases`, `source`.
    """
    if form not in ("cam", "display"):
        raise InvalidInput(f"`form` must be 'cam' or 'display'. Got {form!r}.")
    return ATTRIBUTIONS.register(name, form=form, control=control, **details)


@dataclass(frozen=True)
class Request:
    """One method as asked for; `key` is the spelling that the results carry."""

    key: str
    entry: Entry
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The registered name, with the options that differ from the defaults."""
        changed = {k: v for k, v in self.options.items() if v != self.entry.options[k]}
        inside = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in sorted(changed.items()))
        return f"{self.entry.name}[{inside}]" if inside else self.entry.name


def requested(methods: str | Iterable[str] | Mapping[str, Mapping[str, Any]]) -> list[Request]:
    """`"gradcam"`, `["gradcam", "gradcam++[compat=true]"]` or `{"eigencam": {"sign": "raw"}}` → requests in order.

    Raises:
        UnknownName: a method or an option that does not exist, with near misses.
        InvalidInput: nothing asked for, or the same spelling twice.
    """
    if isinstance(methods, str):
        methods = [methods]
    given = dict(methods) if isinstance(methods, Mapping) else None
    spellings = list(methods)
    for spelling in spellings:
        if not isinstance(spelling, str):
            raise InvalidInput(
                f"Methods must be names, or a mapping from name to options. Got {type(spelling).__name__}."
            )
    if not spellings:
        raise InvalidInput(f"Expected at least one method. Got none. Known: {', '.join(ATTRIBUTIONS)}.")
    if len(set(spellings)) < len(spellings):
        raise InvalidInput(f"Every method must be asked for once. Got {', '.join(map(str, spellings))}.")
    found = []
    for spelling in spellings:
        entry, options = ATTRIBUTIONS.parse(spelling)
        if given is not None:
            options = {**options, **(given[spelling] or {})}
        found.append(Request(spelling, entry, entry.checked_options(options)))
    return found
