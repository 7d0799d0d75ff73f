"""Whether the logits are a linear layer on the average of a layer's activations: found by arithmetic, not by name."""

import torch
from torch import nn


def linear_head(
    module: nn.Module, activations: torch.Tensor, logits: torch.Tensor, precision: torch.dtype
) -> torch.Tensor | None:
    """The weights `(K, C)` of a last linear layer W if `W ⟨A⟩ + b` gives the logits, else None.

    A convolution of one position is a linear layer; it may stand before the average or after it.
    The comparison allows for rounding in the layer's own dtype and in `precision`, the network's. Images with
    non-finite logits are left out of it.
    """
    pooled = activations.float().flatten(2).mean(2)
    finite = torch.isfinite(logits).all(1)
    expected = logits[finite]
    largest = float(expected.abs().max().clamp_min(1e-6)) if len(expected) else 0.0
    for layer in reversed([m for m in module.modules() if isinstance(m, _LINEAR)]):
        rounding = 4 * max(torch.finfo(layer.weight.dtype).eps, torch.finfo(precision).eps)
        for weight, bias in _parts(layer, logits.shape[1]):
            if weight.shape != (logits.shape[1], pooled.shape[1]):
                continue
            given = nn.functional.linear(pooled[finite], weight, bias)
            if torch.allclose(given, expected, max(1e-3, rounding), max(1e-4, rounding) * largest):
                return weight
    return None


#: Modules that are linear in the channels, where a convolution has one position.
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

#: The two logits that may stand for a single output l: −l/2 and l/2 in `Model.unwrap`, others in other call styles.
_ONE_OUTPUT = ((-0.5, 0.5), (-1.0, 1.0), (1.0, -1.0), (0.5, -0.5))


def _parts(layer: nn.Module, classes: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight `(K, C)` and bias in float32; of a single output, for each pair of logits that may stand for it."""
    assert isinstance(layer, _LINEAR)
    if not isinstance(layer, nn.Linear) and (set(layer.kernel_size) != {1} or layer.groups > 1):
        return []
    weight = layer.weight.detach().float().flatten(1)
    bias = None if layer.bias is None else layer.bias.detach().float()
    if len(weight) > 1 or classes != 2:
        return [(weight, bias)]
    scales = [weight.new_tensor(pair)[:, None] for pair in _ONE_OUTPUT]
    return [(scale * weight, None if bias is None else scale[:, 0] * bias) for scale in scales]
