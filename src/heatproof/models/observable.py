"""Which parts of a network can be observed while it runs: all but those compiled by TorchScript."""

from collections.abc import Iterator

import torch
from torch import nn

from heatproof.errors import LayerError

#: Methods that ask the network alone, and read neither a layer nor a gradient, by the number of spatial dims.
WITHOUT_LAYERS = {2: "rise or occlusion"}


def without_layers(spatial: int) -> str:
    """The advice where no layer can be read: methods that always apply."""
    return f"take a method that reads no layer, such as {WITHOUT_LAYERS.get(spatial, 'rise')}"


def of_compiled(layer: str, spatial: int) -> LayerError:
    """The error for a layer that TorchScript runs."""
    return LayerError(
        f"Layer {layer!r} is compiled by TorchScript, which shows nothing of its layers. Give the Python module that "
        f"it was made of, or {without_layers(spatial)}."
    )


def compiled(module: nn.Module) -> bool:
    """Whether a module is TorchScript (`torch.jit.script`, `torch.jit.trace`), which calls no hook of a part of it."""
    return isinstance(module, torch.jit.ScriptModule)


def within_compiled(root: nn.Module, name: str) -> bool:
    """Whether the name is that of a part of a compiled module, of which frozen ones list none."""
    return any(compiled(part) and (not at or name.startswith(f"{at}.")) for at, part in root.named_modules())


def observable_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that hooks can observe, by name; parts of a compiled one are left out with it."""
    hidden = [f"{name}." if name else "" for name, part in module.named_modules() if compiled(part)]
    for name, part in module.named_modules():
        if not compiled(part) and not any(name.startswith(prefix) for prefix in hidden):
            yield name, part


def why_hidden(module: nn.Module) -> str:
    """Says as one phrase that TorchScript hides layers; empty where no part of the network is TorchScript."""
    if not some_compiled(module):
        return ""
    return (
        "it is compiled by TorchScript, which shows nothing of its layers; give the Python module that it was made of, "
        "or take a method that reads no layer, such as gradient or rise"
    )


def unseen(name: str) -> str:
    """Says as one phrase that what a part computes with cannot be seen, and what to do."""
    return (
        f"what {name} computes with cannot be seen; give the Python module that it was made of, or take a method that "
        "needs only gradients, such as gradient or integrated-gradients"
    )


def some_compiled(module: nn.Module) -> bool:
    """Whether the network or a part of it is TorchScript."""
    return any(compiled(part) for part in module.modules())
