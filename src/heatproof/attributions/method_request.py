"""A requested method: which one, at which layers, plain or refined, with which options.

The same spelling everywhere — in Python, on the command line, in study files and in the rows:

    gradcam                                        at the layer that the call or the study names
    gradcam@layer3                                 at another layer
    gradcam@stage:2                                at the network's second stage, counted from the shallowest
    gradcam++[compat=true]                         with an option
    refine:layercam                                RefineCAM over all stages of the model, the shallowest as base
    refine:layercam@layer2                         the same with another stage as base
    refine:layercam@layer2+layer4                  over these layers, whatever their order here
    refine:gradcam++[operator=geometric]           with another operator; options of the base go there too
    layercam[power=0.5]                            the root of the display map: the same order of the pixels
    python:my.module:fn                            a function of the user's (`heatproof.attributions.foreign`)
    maps:FOLDER                                    maps made beforehand
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heatproof import quantities, spelling
from heatproof.attributions.catalogue import ATTRIBUTIONS, check_choice
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.attributions.refine import OPERATORS
from heatproof.errors import InvalidInput
from heatproof.registry import Entry, unknown
from heatproof.tensors import CHANNELS

REFINE = "refine:"


@dataclass(frozen=True)
class Request:
    """One requested method; `key` is the spelling that the results carry.

    `layers` are as written, empty where none were given; `operator` is empty for a plain method. `power`: what the
    display map, which lies in [0, 1], is raised to; any power keeps the order of the pixels, but
    above 1 the lowest come to tie at six digits.
    """

    key: str
    entry: Entry
    options: Mapping[str, Any]
    layers: tuple[str, ...] = ()
    operator: str = ""
    power: float = 1.0

    @property
    def refined(self) -> bool:
        """Whether it is RefineCAM over several layers."""
        return bool(self.operator)

    @property
    def name(self) -> str:
        """The canonical spelling: the registered name, the requested layers, the options that are no defaults."""
        options = {k: v for k, v in self.options.items() if v != self.entry.options[k]}
        if self.operator not in ("", "product"):
            options["operator"] = self.operator
        if self.power != 1.0:
            options["power"] = int(self.power) if self.power.is_integer() else self.power
        return spelling.format(f"{REFINE if self.refined else ''}{self.entry.name}", options, self.layers)

    @property
    def form(self) -> str:
        """The form of the raw map; a refined map is already at the input's size."""
        return "display" if self.refined else self.entry.traits["form"]

    @property
    def spatial(self) -> bool:
        """Whether the method reads a layer."""
        return reads_layer(self.entry)

    @property
    def reads_default(self) -> bool:
        """Whether it reads a layer and names none, so that it reads the one that is named for all."""
        return self.spatial and not self.layers

    @property
    def targeted(self) -> bool:
        """Whether another target gives another map."""
        return bool(quantities.having(self.entry.needs, "targeted"))


def requested(methods: str | Iterable[str] | Mapping[str, Mapping[str, Any]]) -> list[Request]:
    """`"gradcam"`, `["gradcam", "refine:layercam"]` or `{"eigencam": {"sign": "raw"}}` → requests in order.

    Raises:
        UnknownName: a method or an option that does not exist, with near misses.
        InvalidInput: nothing requested, or the same spelling twice.
    """
    if isinstance(methods, str):
        methods = [methods]
    given = dict(methods) if isinstance(methods, Mapping) else {}
    spellings = list(methods)
    for text in spellings:
        if not isinstance(text, str):
            raise InvalidInput(f"Methods must be names, or a mapping from name to options. Got {type(text).__name__}.")
    if not spellings:
        raise InvalidInput(f"Expected at least one method. Got none. Known: {', '.join(ATTRIBUTIONS)}.")
    if len(set(spellings)) < len(spellings):
        raise InvalidInput(f"Every method must be asked for once. Got {', '.join(spellings)}.")
    return [parsed(text, given.get(text)) for text in spellings]


def parsed(text: str, options: Mapping[str, Any] | None = None) -> Request:
    """One spelling → its request; `options` go over those in brackets."""
    asked = spelling.parse(text)
    refined = asked.name.lower().startswith(REFINE) and len(asked.name) > len(REFINE)
    name = asked.name[len(REFINE) :].strip() if refined else asked.name
    entry = ATTRIBUTIONS[PLUGIN_METHODS.register_from(name) if PLUGIN_METHODS.by_name(name) else name]
    found = {**asked.options, **(options or {})}
    operator = ""
    if refined:
        if not reads_layer(entry):
            raise InvalidInput(
                f"RefineCAM multiplies the maps of several layers. Got {entry.name!r}, which reads none. "
                "Refine a CAM, as in `refine:layercam`."
            )
        operator = check_choice("operator", found.pop("operator", "product"), OPERATORS)
    power = _checked_power(found.pop("power", 1.0)) if "power" not in entry.options else 1.0
    layers = asked.layers
    if layers and not reads_layer(entry):
        raise InvalidInput(f"{entry.name!r} reads no layer. Got {text!r}. Leave `@{'+'.join(layers)}` out.")
    if len(layers) > 1 and not operator:
        raise InvalidInput(f"A plain method has one layer. Got {text!r}. Several layers go with `refine:`.")
    if len(set(layers)) < len(layers):
        raise InvalidInput(f"Every layer must be named once. Got {text!r}.")
    return Request(text, entry, _checked_options(entry, found, bool(operator)), layers, operator, power)


def _checked_power(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"`power` must be a number above 0. Got {value!r}.")
    return float(value)


def _checked_options(entry: Entry, options: Mapping[str, Any], refined: bool) -> dict[str, Any]:
    known = {**entry.options, **({"operator": ""} if refined else {})}
    for option in options:
        if option not in known:
            raise unknown(f"option of {entry.name!r}", option, known or ["(it has none)"])
    found = entry.checked_options(options)
    if entry.traits["form"] == "rgb":
        check_choice("channels", found["channels"], CHANNELS)
    return found


def reads_layer(entry: Entry) -> bool:
    """Whether a method names a quantity of a layer."""
    return bool(quantities.belonging(entry.needs, "layer"))
