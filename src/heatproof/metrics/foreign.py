"""Metrics from elsewhere under the same roof: functions of the user's, and those of Quantus.

    heatproof.register_metric("mine", fn, better="high")    a function in this process
    python:package.module:fn                                the same by name; it says `fn.better = "high"` itself
    quantus:Sparseness                                      a metric of Quantus (`heatproof.metrics.quantus`)

A function names quantities of the engine, as every metric here does, or it is `fn(model, x_batch, y_batch, a_batch)`,
as Quantus has it.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from heatproof import seeds
from heatproof.errors import InvalidInput
from heatproof.importing import current_folder_importable, named_function, parameters_of, parcel, required, unpacked
from heatproof.metrics.again import explainer
from heatproof.metrics.catalogue import BETTER, FAMILIES, METRICS, composite, metric
from heatproof.models.plain import plain_module
from heatproof.registry import Entry, unknown
from heatproof.tensors import upsampled

PYTHON, QUANTUS = "python:", "quantus:"

#: What a function in the style of Quantus may ask for besides its four arrays, by name.
ALSO = ("s_batch", "explain_func", "explain_func_kwargs", "channel_first", "device")

#: What a function may say of itself: `fn.better = "low"`.
SAID = ("better", "range", "family", "passes", "source", "degenerate", "undefined", "one_by_one")


@dataclass(frozen=True)
class Recipe:
    """What `register_metric` was told, to be told again in a worker process."""

    name: str
    function: Any
    better: str | None = None
    range: tuple[float | None, float | None] = (None, None)
    family: str = "fidelity"
    passes: str = "its own affair"
    source: str = "foreign"
    degenerate: float | None = math.nan
    undefined: str = "the metric gave no number"
    aliases: tuple[str, ...] = ()
    one_by_one: bool = False
    parts: tuple[tuple[str, str], ...] = ()  # of a composite
    foreign: bool = True  # not one of those that a family stands for


#: Metrics that were registered in this process, and that no name leads to.
_HERE: dict[str, Recipe] = {}


def register_metric(
    name: str,
    function: Any,
    *,
    better: str | None = None,
    range: tuple[float | None, float | None] = (None, None),
    family: str = "fidelity",
    passes: str = "its own affair",
    source: str = "foreign",
    degenerate: float | None = math.nan,
    undefined: str = "the metric gave no number",
    aliases: Iterable[str] = (),
    one_by_one: bool = False,
) -> str:
    """Files a foreign metric under a name, for `score` and for studies.

    Args:
        name: any that is not taken.
        function: one of
            a function whose positional parameters name quantities of the engine and whose keyword-only ones are its
            options: as `@heatproof.metrics.metric`, tensors in, `(N,)` values or a `Curve` out;
            a function `(model, x_batch, y_batch, a_batch)` → one number for each picture: the module, normalised
            pictures `(N, C, H, W)`, classes `(N,)` and display maps `(N, 1, H, W)`, as arrays. It also gets
            `s_batch` (the masks), `explain_func`, `explain_func_kwargs`, `channel_first` or `device` where it names
            them. Further parameters with a default (bool, number, text) are the metric's options;
            a metric of Quantus, `quantus.Sparseness(abs=True)`, called with one picture at a time.
        better: `high` or `low`; a metric of Quantus says it itself.
        range, family, passes, source, undefined: as `heatproof list metrics` and the reports show them.
        degenerate: what it says of a map that is constant or not finite; NaN by default; None: what the function gives.
        aliases: other spellings.
        one_by_one: the function is called with one picture at a time, so that a value cannot depend on the neighbours,
            and random numbers from the global generators of torch and numpy belong to the picture alone. Else they are
            seeded once for each batch.

    Returns:
        The name.

    Raises:
        InvalidInput: a name that is taken, something that is no metric, or a direction that nobody said.
    """
    if not isinstance(name, str) or not name.strip() or set(name) & set("@[],") or ":" in name:
        raise InvalidInput(f"A metric's name must be text without @ [ ] , and a colon. Got {name!r}.")
    if name.strip().lower() in ("all", *FAMILIES):
        raise InvalidInput(f"{name!r} names a family of metrics. Take another name.")
    if isinstance(function, str):
        if not function.startswith(PYTHON):
            raise InvalidInput(f"A metric must be a function, or python:package.module:function. Got {function!r}.")
        function = named_function(function, PYTHON)
    spellings = (aliases,) if isinstance(aliases, str) else tuple(aliases)
    recipe = Recipe(name, function, better, range, family, passes, source, degenerate, undefined, spellings, one_by_one)
    _file(recipe)
    _HERE[name] = recipe
    return name


def register_from(spec: str) -> str:
    """`python:package.module:fn` or `quantus:Name` → its registered name; again is free.

    Raises:
        InvalidInput, UnknownName: no such module, function or metric, or nothing that says which way is better.
        MissingExtra: Quantus is not installed. NotApplicable: what it says of one picture is nothing.
    """
    if spec in METRICS:
        return METRICS[spec].name
    if spec.startswith(PYTHON):
        _file(_as_said(spec, named_function(spec, PYTHON)))
    elif spec.startswith(QUANTUS):
        from heatproof.metrics.quantus import found_class

        kind = found_class(spec.removeprefix(QUANTUS))
        spec = f"{QUANTUS}{kind.__name__}"
        _file(Recipe(spec, kind))
    else:
        raise InvalidInput(f"Expected python:package.module:function, or quantus:Metric. Got {spec!r}.")
    return spec


def by_name(name: str) -> bool:
    """Whether the name itself says where the metric is."""
    return name.startswith((PYTHON, QUANTUS))


def _as_said(spec: str, function: Callable) -> Recipe:
    """What is known of a function that is only named: by its own attributes, or as it is registered here."""
    known = next((entry for entry in METRICS.values() if entry.function is function), None)
    said = dict(known.traits, source=known.source) if known else vars(function) if hasattr(function, "__dict__") else {}
    return replace(Recipe(spec, function), **{key: said[key] for key in SAID if key in said})


def _file(recipe: Recipe) -> None:
    """Puts a recipe into the registry."""
    from heatproof.metrics import quantus

    if recipe.parts:
        found = recipe.function
    elif quantus.belongs(recipe.function):
        recipe, found = quantus.described(recipe)
    elif not callable(recipe.function):
        raise InvalidInput(f"A metric must be a function, or one of Quantus. Got {type(recipe.function).__name__}.")
    elif (names := {p.name for p in required(recipe.function)}) and names <= set(METRICS.vocabulary):
        found = recipe.function
    else:
        found = _in_quantus_style(recipe)
    if recipe.better not in BETTER:
        hint = ' Write `function.better = "high"` or "low" below it.' if by_name(recipe.name) else ""
        raise InvalidInput(f"`better` of {recipe.name!r} must be 'high' or 'low'. Got {recipe.better!r}.{hint}")
    low, high = recipe.range
    details: dict[str, Any] = {"family": recipe.family, "better": recipe.better, "range": (low, high),
        "passes": recipe.passes, "degenerate": recipe.degenerate, "undefined": recipe.undefined,
        "source": recipe.source, "aliases": recipe.aliases, "foreign": recipe.foreign}  # fmt: skip
    filed = partial(composite, parts=dict(recipe.parts)) if recipe.parts else metric
    filed(recipe.name, **details)(found)


# --- functions ---

_NEEDS = ("z", "target", "maps", "mask", "network", "model", "generator")


def _in_quantus_style(recipe: Recipe) -> Callable:
    """`function(model, x_batch, y_batch, a_batch, **options)` as a metric that names quantities."""
    name, function = recipe.name, recipe.function
    parameters, wanted = parameters_of(function), required(function)
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    named = [p.name for p in parameters if p.name in ALSO]
    if parameters and len([p for p in wanted if p.name not in ALSO]) != 4 and not (starred and len(wanted) < 4):
        raise InvalidInput(
            f"{name!r} must take (model, x_batch, y_batch, a_batch), or quantities: {', '.join(METRICS.vocabulary)}. "
            f"Got ({', '.join(p.name for p in wanted)})."
        )
    options = [
        p.replace(kind=p.KEYWORD_ONLY)
        for p in parameters[4:]
        if p.name not in ALSO and isinstance(p.default, bool | int | float | str)
    ]
    path = current_folder_importable if name.startswith(PYTHON) else nullcontext

    def called(module: Any, x: Any, y: Any, a: Any, also: dict[str, Any], chosen: dict[str, Any]) -> Any:
        with path():
            return function(module, x, y, a, **{key: also[key] for key in named}, **chosen)

    return with_arrays(recipe, called, options, "explain_func" in named, inspect.getdoc(function))


def with_arrays(
    recipe: Recipe,
    called: Callable[..., Any],
    options: Iterable[inspect.Parameter],
    again: bool,
    said: str | None,
    needs_mask: bool = False,
    signed: bool = False,
) -> Callable:
    """A metric of quantities that calls `called(module, x, y, a, also, options)` with arrays, seeded.

    Args:
        again: it explains other pictures too, so it is not asked about maps made elsewhere.
        needs_mask: it is not asked about a picture without one.
        signed: the option `attributions` says which maps it gets, `display` or `raw`.
    """

    def function(
        z, target, maps, mask, network, model, generator, explain=None, raw: Any = None, **chosen: Any
    ) -> torch.Tensor:
        module = plain_module(network, z)
        shown = _channels(maps, raw, chosen.pop("attributions")) if signed else maps[:, None]
        rows = [slice(i, i + 1) for i in range(len(z))] if recipe.one_by_one else [slice(0, len(z))]
        found = []
        for part in rows:
            if recipe.one_by_one and _hopeless(recipe, z[part], maps[part], mask[part], needs_mask):
                found.append(torch.full((1,), torch.nan, dtype=torch.float64))
                continue
            also = {
                "s_batch": mask[part][:, None].cpu().numpy(),
                "explain_func": explain and explainer(explain, model, network, part, recipe.name),
                "explain_func_kwargs": {},
                "channel_first": True,
                "device": str(z.device),
            }
            arrays = z[part].cpu().numpy(), target[part].cpu().numpy(), shown[part].float().cpu().numpy()
            with seeds.seeded(generator[part.start], z.device), torch.enable_grad():
                given = called(module, *(array.copy() for array in arrays), also, chosen)
            found.append(_numbers(given, part.stop - part.start, recipe.name))
        return torch.cat(found).to(maps.device)

    positional = [*_NEEDS, *(["explain"] if again else []), *(["raw"] if signed else [])]
    given = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in positional]
    function.__signature__ = inspect.Signature([*given, *options])  # type: ignore[attr-defined]
    function.__doc__ = said
    return function


def _channels(maps: torch.Tensor, raw: torch.Tensor, which: str) -> torch.Tensor:
    """`(N, channels, *spatial)`: display maps, or those the method made, at the picture's size."""
    if which not in ("display", "raw"):
        raise unknown("`attributions`", str(which), ("display", "raw"))
    if which == "display":
        return maps[:, None]
    return raw if raw.dim() > maps.dim() else upsampled(raw, tuple(maps.shape[1:]))[:, None]


def _hopeless(recipe: Recipe, z: torch.Tensor, maps: torch.Tensor, mask: torch.Tensor, needs_mask: bool) -> bool:
    """Nothing that a function could say: the picture is no picture, the map no map, the mask empty."""
    constant = recipe.degenerate is not None and bool(maps.amin() == maps.amax())
    return constant or (needs_mask and not mask.any()) or not bool(torch.isfinite(z).all())


def _numbers(given: Any, count: int, name: str) -> torch.Tensor:
    """What a foreign function gave → `(count,)` float64."""
    try:
        found = given.detach().cpu() if isinstance(given, torch.Tensor) else np.asarray(given, dtype=np.float64)
        found = torch.as_tensor(found, dtype=torch.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name!r} must give one number for each picture. Got {type(given).__name__}.") from None
    if found.numel() != count or found.dim() > 1:
        raise InvalidInput(f"{name!r} must give {count} numbers, one for each picture. Got {tuple(found.shape)}.")
    return found.reshape(count)


# --- worker processes ---


def shipped(entries: Iterable[Entry]) -> tuple[bytes, ...]:
    """The recipes of those metrics that a fresh process does not know, for `received` there.

    Raises:
        InvalidInput: one that cannot be sent (a lambda, a function of a notebook).
    """
    parcels = []
    for entry in entries:
        home = getattr(entry.function, "__module__", "") or ""
        if by_name(entry.name) or (entry.name not in _HERE and home.startswith("heatproof.")):
            continue
        known = {key: entry.traits[key] for key in SAID if key in entry.traits}
        known |= {"parts": tuple(entry.traits.get("parts", {}).items()), "aliases": entry.aliases}
        known["foreign"] = entry.traits.get("foreign", False)
        recipe = _HERE.get(entry.name) or Recipe(entry.name, entry.function, source=entry.source, **known)
        parcels.append(parcel(recipe, entry.name, "metric"))
    return tuple(parcels)


def received(parcels: Iterable[bytes]) -> None:
    """Registers what was sent and is not known here; importing a module may have done it already."""
    for sent in parcels:
        recipe = unpacked(sent)
        if recipe.name not in METRICS:
            _file(recipe)
            _HERE[recipe.name] = recipe
