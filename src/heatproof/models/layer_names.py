"""Names of layers: spellings, modules, and the calls of a module that runs more than once in a forward pass.

layer4.1        the module's dotted name
layer4[-1]      an index among its parent's children
encoder#0       the first call of a module that runs several times, `encoder#1` the second
"""

import re
from collections.abc import Sequence
from typing import Protocol

from torch import nn

from heatproof.errors import LayerError
from heatproof.models.observable import of_compiled, within_compiled
from heatproof.registry import unknown


class HasModule(Protocol):
    """Something around a network, such as `models.model.Model`."""

    module: nn.Module


def resolve_layer(model: HasModule | nn.Module, layer: str | nn.Module) -> str:
    """The dotted name of a layer given as `layer4.1`, `layer4[-1]`, `features[7][-1]` or the module itself.

    The number of a call is kept: `encoder[0]#1` becomes `encoder.0#1`.

    Raises UnknownName with near misses, or LayerError for a module that is no part of the model, a part of a frozen
    TorchScript module, or a call that is no number.
    """
    root = model if isinstance(model, nn.Module) else model.module
    if isinstance(layer, nn.Module):
        return _name_of(root, layer)
    if not isinstance(layer, str):
        raise LayerError(f"A layer must be a name or a module of the model. Got {type(layer).__name__}.")
    names = [name for name, _ in root.named_modules(remove_duplicate=False) if name]
    if layer in names:
        return layer
    spelling, mark, call = layer.rpartition("#") if "#" in layer else (layer, "", "")
    if mark and not call.isdecimal():
        raise LayerError(f"A call of a layer must be a number from 0, such as {spelling}#0. Got {layer!r}.")
    found = spelling if spelling in names else _resolve_indices(root, spelling)
    found = found or _resolve_indices(root, spelling.removeprefix("model."))
    if found is None and within_compiled(root, spelling):
        raise of_compiled(
            spelling, 2 if isinstance(model, nn.Module) else len(getattr(model, "input_shape", (0,) * 3)) - 1
        )
    if found is None:
        raise unknown("layer", spelling, names)
    return f"{found}#{int(call)}" if mark else found


def module_and_call(root: nn.Module, name: str) -> tuple[nn.Module, int | None]:
    """The module of a resolved name, and the number of its call; None where the name has none."""
    base, mark, call = name.rpartition("#")
    parts = dict(root.named_modules(remove_duplicate=False))
    wanted, number = (base, int(call)) if name not in parts and mark else (name, None)
    if wanted not in parts:
        raise AttributeError(f"{type(root).__name__} has no layer {wanted!r}")
    return parts[wanted], number


def several_calls(name: str, calls: Sequence[int]) -> str:
    """Says that a layer runs several times, and names the calls that can be chosen."""
    base = name.rpartition("#")[0] or name
    names = [f"{base}#{call}" for call in calls]
    listed = " or ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} … {names[-1]}"
    times = "once" if len(names) == 1 else f"{len(names)} times"
    return f"Layer {base!r} runs {times} in a forward pass. Choose a call by its number: {listed}."


def _name_of(root: nn.Module, layer: nn.Module) -> str:
    for name, module in root.named_modules():
        if module is layer and name:
            return name
    raise LayerError(
        f"Expected a layer that is part of {type(root).__name__}. Got a {type(layer).__name__} that is not. "
        "Give a submodule of the wrapped module, or its name."
    )


def _resolve_indices(root: nn.Module, spelling: str) -> str | None:
    """`layer4[-1].conv2` → `layer4.1.conv2`, or None where a step does not exist."""
    if not re.fullmatch(r"\w+(\.-?\w+|\[-?\d{1,9}\])*", spelling):
        return None
    module, path = root, []
    for step in re.findall(r"-?\w+", spelling):
        children = dict(module.named_children())
        number = re.fullmatch(r"-?\d{1,9}", step)
        if step not in children and number and -len(children) <= int(step) < len(children):
            step = list(children)[int(step)]
        if step not in children:
            return None
        path.append(step)
        module = children[step]
    return ".".join(path)
