"""A new last layer for another number of classes."""

import torch
from torch import nn

from heatproof.errors import ModelError
from heatproof.seeds import seeded


def with_new_head(module: nn.Module, outputs: int, classes: int, seed: int = 0) -> str:
    """Replaces the last linear layer of `module`, or 1 × 1 convolution, of `outputs` by one of `classes`, in place.

    It is drawn by `seed`, as PyTorch draws new layers. A head of that size stays as it is.

    Returns:
        The layer's name.

    Raises:
        ModelError: no such layer.
    """
    found = [
        (name, layer)
        for name, layer in module.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == outputs)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == outputs and set(layer.kernel_size) == {1})
    ]
    if not found:
        raise ModelError(
            f"Expected a last linear layer of {outputs} outputs in {type(module).__name__}, to be replaced by one of "
            f"{classes}. Found none. Give a model with {classes} outputs."
        )
    name, old = found[-1]
    if outputs == classes:
        return name
    with seeded(torch.Generator().manual_seed(seed), torch.device("cpu")):
        bias = old.bias is not None
        new: nn.Module = (
            nn.Linear(old.in_features, classes, bias)
            if isinstance(old, nn.Linear)
            else nn.Conv2d(old.in_channels, classes, 1, bias=bias)
        )
    module.set_submodule(name, new.to(old.weight))
    if hasattr(module, "num_classes"):
        module.num_classes = classes  # type: ignore[assignment] - timm's networks say it
    return name
