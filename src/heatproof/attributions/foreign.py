"""Methods from elsewhere under the same roof: a function of the user's, or maps that were made beforehand.

    heatproof.register("mine", fn)          a function in this process
    python:package.module:fn                the same by name; worker processes find it by themselves
    maps:FOLDER, maps:FILE.npz              maps by the pictures' names

A function names quantities of the engine, as every method here does, or it is `fn(model, inputs, targets)`, as most
libraries have it. Foreign maps are at the picture's size or are brought there; every one of them is checked.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heatproof import seeds
from heatproof.attributions.catalogue import ATTRIBUTIONS, attribution, one_of
from heatproof.attributions.stored import Stored, fitted, looked_up
from heatproof.errors import InvalidInput
from heatproof.importing import current_folder_importable, named_function, parameters_of, parcel, required, unpacked
from heatproof.models.plain import plain_module
from heatproof.quantities import belonging
from heatproof.registry import Entry

PYTHON, MAPS = "python:", "maps:"

#: What a foreign map can be; a map at layer resolution is brought to the picture's size as it comes.
FOREIGN_FORMS = ("display", "signed", "rgb")


@dataclass(frozen=True)
class Recipe:
    """What `register` was told, to be told again in a worker process."""

    name: str
    method: Any
    form: str | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()
    one_by_one: bool = False


#: Methods that were registered in this process, and that no name leads to.
_HERE: dict[str, Recipe] = {}


#: What `--methods` takes for several methods.
FAMILIES = ("all", "cams")


def register(
    name: str,
    method: Any,
    *,
    form: str | None = None,
    source: str = "",
    aliases: Iterable[str] = (),
    one_by_one: bool = False,
) -> str:
    """Files a foreign method under a name, for `explain` and for studies.

    Args:
        name: any that is not taken.
        method: one of
            a function whose parameters name quantities of the engine: as `@attribution`;
            a function `(model, inputs, targets) → maps`, tensor or array: the module, normalised inputs that require a
            gradient, and classes `(N,)`. Maps are `(N, H, W)`, or have a channel dimension, which is summed where the
            map is signed and of which the largest magnitude is taken where it is not. Further parameters with a
            default (bool, number, text) are the method's options;
            maps made beforehand: a mapping from the pictures' names to arrays, a folder of `NAME.npy`, or an `.npz`.
            Those of a perturbed picture are under `CONDITION/NAME`, such as `gaussian-noise-3/cat.png`.
        form: `display` (min–max only), `signed` (ReLU first) or `rgb`; a function of quantities also `cam`, which is
            its default where it reads a layer. `display` else.
        source: what to cite.
        aliases: other spellings.
        one_by_one: the function is called with one picture at a time, so that random numbers it draws from the global
            generators of torch and numpy belong to the picture alone. Else they are seeded once for each batch.

    Returns:
        The name.

    Raises:
        InvalidInput: a name that is taken, or something that is no method.
    """
    if not isinstance(name, str) or not name.strip() or set(name) & set("@[],") or ":" in name:
        raise InvalidInput(f"A method's name must be text without @ [ ] , and a colon. Got {name!r}.")
    if name.strip().lower() in FAMILIES:
        raise InvalidInput(f"{name!r} names a family of methods on the command line. Take another name.")
    if isinstance(method, str) and method.startswith(PYTHON):
        method = named_function(method, PYTHON)
    spellings = (aliases,) if isinstance(aliases, str) else tuple(aliases)
    recipe = Recipe(name, method, form, source, spellings, one_by_one)
    _file(recipe)
    _HERE[name] = recipe
    return name


def unregister(name: str) -> None:
    """Takes out again what `register` filed under a name."""
    ATTRIBUTIONS.remove(name)
    _HERE.pop(name, None)


def register_from(spec: str) -> str:
    """`python:package.module:fn` or `maps:PATH` → its name, which is the spelling; again is free.

    Raises:
        InvalidInput, UnknownName: there is no such module, function, folder or file.
    """
    if spec in ATTRIBUTIONS and ATTRIBUTIONS[spec].name == spec:
        return spec
    if spec.startswith(PYTHON):
        _file(Recipe(spec, named_function(spec, PYTHON)))
    elif spec.startswith(MAPS):
        _file(Recipe(spec, Path(spec.removeprefix(MAPS))))
    else:
        raise InvalidInput(f"Expected python:package.module:function, or maps:FOLDER_OR_NPZ. Got {spec!r}.")
    return spec


def by_name(name: str) -> bool:
    """Whether the name itself says where the method is."""
    return name.startswith((PYTHON, MAPS))


def _file(recipe: Recipe) -> None:
    """Puts a recipe into the registry."""
    name, method, form = recipe.name, recipe.method, recipe.form
    details: dict[str, Any] = {"source": recipe.source or "foreign", "aliases": recipe.aliases}
    if isinstance(method, str | Path | Mapping):
        found, form = looked_up(Stored(name, method)), one_of("form", form or "display", FOREIGN_FORMS)
        details["stored"] = True  # what is only looked up cannot be asked about another picture
    elif not callable(method):
        raise InvalidInput(
            f"A method must be a function, or maps by the pictures' names (a mapping, a folder, an .npz). "
            f"Got {type(method).__name__}."
        )
    elif (parameters := required(method)) and parameters[0].name in ATTRIBUTIONS.vocabulary:
        at_layer = belonging((p.name for p in parameters), "layer")
        found, form = method, form or ("cam" if at_layer else "display")
    else:
        form = one_of("form", form or "display", FOREIGN_FORMS)
        found = _called(name, method, form, recipe.one_by_one)
    attribution(name, form=form, **details)(found)


# --- functions ---


def _called(name: str, function: Callable, form: str, one_by_one: bool) -> Callable:
    """`function(model, inputs, targets, **options)` as a method that names quantities."""
    parameters, wanted = parameters_of(function), required(function)
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if parameters and len(wanted) != 3 and not (starred and len(wanted) < 3):
        raise InvalidInput(
            f"{name!r} must take (model, inputs, targets), or quantities: {', '.join(ATTRIBUTIONS.vocabulary)}. "
            f"Got ({', '.join(p.name for p in wanted)})."
        )
    options = [
        p.replace(kind=p.KEYWORD_ONLY) for p in parameters[3:] if isinstance(p.default, bool | int | float | str)
    ]
    path = current_folder_importable if name.startswith(PYTHON) else nullcontext

    def method(z: torch.Tensor, target: torch.Tensor, network, generator, **chosen: Any) -> torch.Tensor:
        model = plain_module(network, z)
        parts = [slice(i, i + 1) for i in range(len(z))] if one_by_one else [slice(0, len(z))]
        found = []
        for part in parts:
            inputs = z[part].detach().clone().requires_grad_()
            with seeds.seeded(generator[part.start], z.device), torch.enable_grad(), path():
                maps = function(model, inputs, target[part].clone(), **chosen)
            found.append(fitted(maps, inputs, form, name))
        return torch.cat(found)

    given = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in _NEEDS]
    method.__signature__ = inspect.Signature([*given, *options])  # type: ignore[attr-defined]
    method.__doc__ = inspect.getdoc(function)
    return method


_NEEDS = ("z", "target", "network", "generator")


# --- worker processes ---


def shipped(entries: Iterable[Entry]) -> tuple[bytes, ...]:
    """The recipes of those methods that a fresh process does not know, for `received` there.

    Raises:
        InvalidInput: one that cannot be sent (a lambda, a function of a notebook).
    """
    parcels = []
    for entry in entries:
        home = getattr(entry.function, "__module__", "") or ""
        if by_name(entry.name) or (entry.name not in _HERE and home.startswith("heatproof.")):
            continue
        recipe = _HERE.get(entry.name) or Recipe(entry.name, entry.function, entry.traits["form"], entry.source)
        parcels.append(parcel(recipe, entry.name, "method"))
    return tuple(parcels)


def received(parcels: Iterable[bytes]) -> None:
    """Registers what was sent and is not known here; importing a module may have done it already."""
    for sent in parcels:
        recipe = unpacked(sent)
        if recipe.name not in ATTRIBUTIONS:
            _file(recipe)
            _HERE[recipe.name] = recipe
