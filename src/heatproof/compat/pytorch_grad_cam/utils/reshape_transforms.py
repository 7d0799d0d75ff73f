"""Tokens to grids, by the names of pytorch-grad-cam; heatproof reads grids from the tensors and does not need them."""

import torch


def vit_reshape_transform(tensor: torch.Tensor, height: int = 14, width: int = 14) -> torch.Tensor:
    """`(N, 1 + height·width, C)` with a class token → `(N, C, height, width)`."""
    return tensor[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def swinT_reshape_transform(tensor: torch.Tensor, height: int = 7, width: int = 7) -> torch.Tensor:
    """`(N, height·width, C)` → `(N, C, height, width)`."""
    return tensor.transpose(1, 2).unflatten(2, (height, width))
