"""Layer outputs to grids, by the names of pytorch-grad-cam.

Grids of tokens are read from the tensors without them; a layer that gives a dictionary needs one.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from heatproof.compat.missing import missing_names


def vit_reshape_transform(tensor: torch.Tensor, height: int = 14, width: int = 14) -> torch.Tensor:
    """`(N, 1 + height·width, C)` with a class token → `(N, C, height, width)`."""
    return tensor[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def swinT_reshape_transform(tensor: torch.Tensor, height: int = 7, width: int = 7) -> torch.Tensor:
    """`(N, height·width, C)` → `(N, C, height, width)`."""
    return tensor.transpose(1, 2).unflatten(2, (height, width))


def fasterrcnn_reshape_transform(x: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The levels of a feature pyramid → `(N, ΣC, h, w)`: magnitudes, resized to the level `pool`."""
    size = x["pool"].shape[-2:]
    return torch.cat([F.interpolate(level.abs(), size, mode="bilinear") for level in x.values()], 1)


__getattr__ = missing_names(__name__, {})
