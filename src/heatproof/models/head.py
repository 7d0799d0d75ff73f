"""Whether the logits are a linear layer on the average of a layer's activations: found by arithmetic, not by name."""

from collections.abc import Iterator

import torch
from torch import nn


def linear_head(
    module: nn.Module, activations: torch.Tensor, logits: torch.Tensor, precision: torch.dtype
) -> torch.Tensor | None:
    """The weights `(K, C)` of a last linear layer W if `W ⟨A⟩ + b` gives the logits, else None.

    The comparison allows for rounding in the layer's own dtype and in `precision`, the network's. Images with
    non-finite logits are left out of it.
    """
    pooled = activations.float().flatten(2).mean(2)
    finite = torch.isfinite(logits).all(1)
    expected = logits[finite]
    largest = float(expected.abs().max().clamp_min(1e-6)) if len(expected) else 0.0
    for layer in reversed([m for m in module.modules() if isinstance(m, nn.Linear)]):
        rounding = 4 * max(torch.finfo(layer.weight.dtype).eps, torch.finfo(precision).eps)
        for weight, bias in _parts(layer, logits.shape[1]):
            if weight.shape != (logits.shape[1], pooled.shape[1]):
                continue
            given = nn.functional.linear(pooled[finite], weight, bias)
            if torch.allclose(given, expected, max(1e-3, rounding), max(1e-4, rounding) * largest):
                return weight
    return None


def _parts(layer: nn.Linear, classes: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight and bias in float32; a single output l becomes −l/2 and l/2, or −l and l, as in `Model.unwrap`."""
    weight, bias = layer.weight.detach().float(), None if layer.bias is None else layer.bias.detach().float()
    if len(weight) != 1 or classes != 2:
        yield weight, bias
        return
    for share in (0.5, 1.0):
        both = None if bias is None else torch.cat([-bias, bias]) * share
        yield torch.cat([-weight, weight]) * share, both
