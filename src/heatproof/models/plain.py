"""A network in the form that other libraries call: a plain module, float32 in, `(N, K)` logits out."""

from typing import Any

import torch
from torch import nn

from heatproof.ambient import autocast_dtype, callers_state
from heatproof.memo import PerModule

#: Whether a module gives float32 `(N, K)` outputs by itself, by the dtype of the caller's autocast.
_PLAIN = PerModule[bool]()


def plain_module(network: Any, z: torch.Tensor) -> nn.Module:
    """The user's own module, so that its layers keep their names, where it gives float32 `(N, K)` logits by itself.

    Under the caller's autocast the logits may have its dtype. Otherwise `network`, the engine's module around it. `z`
    are images that the network takes.
    """
    module = network.module
    if network.output != "logit":
        return network
    autocast = autocast_dtype(z.device)
    return module if _PLAIN.found(module, autocast, lambda: _is_plain(module, z, autocast)) else network


def _is_plain(module: nn.Module, z: torch.Tensor, autocast: torch.dtype | None) -> bool:
    try:
        with callers_state():
            answer = module(z[:1])
    except RuntimeError:  # half precision takes no float32
        return False
    is_logits = isinstance(answer, torch.Tensor) and answer.dtype in (torch.float32, autocast)
    return is_logits and answer.dim() == 2 and answer.shape[1] > 1
