"""A network in the form that other libraries call: a plain module, float32 in, `(N, K)` logits out."""

from typing import Any

import torch
from torch import nn

from heatproof.memo import PerModule

#: Whether a module gives float32 `(N, K)` outputs by itself.
_PLAIN = PerModule[bool]()


def plain_module(network: Any, z: torch.Tensor) -> nn.Module:
    """The user's own module, so that its layers keep their names, where it gives float32 `(N, K)` logits by itself.

    Otherwise `network`, the engine's module around it. `z` are images that the network takes.
    """
    module = network.module
    if network.output != "logit":
        return network
    return module if _PLAIN.found(module, None, lambda: _is_plain(module, z)) else network


def _is_plain(module: nn.Module, z: torch.Tensor) -> bool:
    try:
        answer = module(z[:1])
    except RuntimeError:  # half precision takes no float32
        return False
    is_logits = isinstance(answer, torch.Tensor) and answer.dtype == torch.float32
    return is_logits and answer.dim() == 2 and answer.shape[1] > 1
