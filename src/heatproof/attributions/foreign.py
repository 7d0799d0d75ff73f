"""Methods from elsewhere: functions of the user's, and maps that were made beforehand.

    heatproof.register("mine", fn)          a function in this process
    python:package.module:fn                the same by name; worker processes find it by themselves
    maps:FOLDER, maps:FILE.npz              maps by the images' names

A function names quantities of the engine, as every method here does, or it is `fn(model, inputs, targets)`, as in most
libraries. Foreign maps are brought to the image's size if they have another; every one of them is checked.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heatproof import seeds
from heatproof.ambient import callers_state
from heatproof.attributions.catalogue import ATTRIBUTIONS, attribution, check_choice
from heatproof.attributions.stored import Stored, fitted, looked_up
from heatproof.errors import InvalidInput
from heatproof.models.plain import plain_module
from heatproof.plugins import (
    PYTHON,
    Plugins,
    declare,
    import_path,
    named_function,
    parameters_of,
    plain_options,
    required,
    takes,
)
from heatproof.quantities import belonging
from heatproof.registry import Entry

MAPS = "maps:"

#: The forms of foreign maps; a map at layer resolution is upsampled to the image's size before anything else.
FOREIGN_FORMS = ("display", "signed", "rgb")


@dataclass(frozen=True)
class ForeignMethod:
    """The arguments of `register` (a `plugins.Recipe`)."""

    name: str
    method: Any
    form: str | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()
    one_by_one: bool = False


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
    """Registers a foreign method under a name, for `explain` and for studies.

    Args:
        name: any that is not taken.
        method: one of
            a function whose parameters name quantities of the engine: as `@attribution`;
            a function `(model, inputs, targets) → maps`, tensor or array: the module, normalised inputs that require a
            gradient, and classes `(N,)`. Maps are `(N, H, W)`, or have a channel dimension, which is summed where the
            map is signed and of which the largest magnitude is taken where it is not. Further parameters with a
            default (bool, number, text) are the method's options;
            maps made beforehand: a mapping from the images' names to arrays, a folder of `NAME.npy` or grey images, or
            an `.npz`.
            Those of a perturbed image are under `CONDITION/NAME`, such as `gaussian-noise-3/cat.png`.
        form: `display` (min–max only), `signed` (ReLU first) or `rgb`; a function of quantities also `cam`, which is
            its default where it reads a layer. Else the default is `display`.
        source: what to cite.
        aliases: other spellings.
        one_by_one: the function is called with one image at a time, so that random numbers it draws from the global
            generators of torch and numpy belong to the image alone. Else they are seeded once for each batch.

    Returns:
        The name.

    Raises:
        InvalidInput: a name that is taken, or something that is no method.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> def input_size(model, inputs, targets):
        ...     return inputs.abs().sum(1)
        >>> heatproof.register("input-size", input_size, source="ours")
        'input-size'
        >>> heatproof.explain(heatproof.load_model("shapes"), demo_shapes(n=2), "input-size")
        Maps(input-size: (2, 96, 96); layer='')
    """
    PLUGIN_METHODS.check_name(name)
    if isinstance(method, str) and method.startswith(PYTHON):
        method = named_function(method)
    spellings = (aliases,) if isinstance(aliases, str) else tuple(aliases)
    return PLUGIN_METHODS.register(ForeignMethod(name, method, form, source, spellings, one_by_one))


def unregister(name: str) -> None:
    """Removes what `register` put under a name."""
    PLUGIN_METHODS.unregister(name)


def _file(recipe: ForeignMethod) -> None:
    """Puts a recipe into the registry."""
    name, method, form = recipe.name, recipe.method, recipe.form
    details: dict[str, Any] = {"source": recipe.source or "foreign", "aliases": recipe.aliases}
    if isinstance(method, str | Path | Mapping):
        found, form = looked_up(Stored(name, method)), check_choice("form", form or "display", FOREIGN_FORMS)
        details["stored"] = True  # stored maps cannot explain another image
    elif not callable(method):
        raise InvalidInput(
            f"A method must be a function, or maps by the images' names (a mapping, a folder, an .npz). "
            f"Got {type(method).__name__}."
        )
    elif (parameters := required(method)) and parameters[0].name in ATTRIBUTIONS.vocabulary:
        at_layer = belonging((p.name for p in parameters), "layer")
        found, form = method, form or ("cam" if at_layer else "display")
    else:
        form = check_choice("form", form or "display", FOREIGN_FORMS)
        found = _method_calling(name, method, form, recipe.one_by_one)
    attribution(name, form=form, **details)(found)


# --- functions ---


def _method_calling(name: str, function: Callable, form: str, one_by_one: bool) -> Callable:
    """`function(model, inputs, targets, **options)` as a method that names quantities."""
    if not takes(function, 3):
        raise InvalidInput(
            f"{name!r} must take (model, inputs, targets), or quantities: {', '.join(ATTRIBUTIONS.vocabulary)}. "
            f"Got ({', '.join(p.name for p in required(function))})."
        )

    def method(z: torch.Tensor, target: torch.Tensor, network, generator, **chosen: Any) -> torch.Tensor:
        model = plain_module(network, z)
        parts = [slice(i, i + 1) for i in range(len(z))] if one_by_one else [slice(0, len(z))]
        found = []
        for part in parts:
            inputs = z[part].detach().clone().requires_grad_()
            with (
                seeds.seeded(generator[part.start], z.device),
                torch.enable_grad(),
                import_path(name),
                callers_state(),
            ):
                maps = function(model, inputs, target[part].clone(), **chosen)
            found.append(fitted(maps, inputs, form, name))
        return torch.cat(found)

    return declare(method, _NEEDS, plain_options(parameters_of(function)[3:]), inspect.getdoc(function))


_NEEDS = ("z", "target", "network", "generator")


# --- plug-ins ---


def _recipe_of(entry: Entry) -> ForeignMethod:
    return ForeignMethod(entry.name, entry.function, entry.traits["form"], entry.source)


#: Methods of the user's own: by a call of `register`, by `python:…`, and maps by `maps:…`.
PLUGIN_METHODS = Plugins(
    __name__,
    ATTRIBUTIONS,
    file=_file,
    described=_recipe_of,
    sources={
        "python:package.module:function": lambda spec: ForeignMethod(spec, named_function(spec)),
        "maps:FOLDER_OR_NPZ": lambda spec: ForeignMethod(spec, Path(spec.removeprefix(MAPS))),
    },
    families=FAMILIES,
)
