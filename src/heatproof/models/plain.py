"""A network as code that is not ours calls it: a plain module, float32 in, `(N, K)` logits out."""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

#: By module, whether it gives float32 `(N, K)` outputs by itself.
_PLAIN: MutableMapping[nn.Module, bool] = WeakIdKeyDictionary()


def plain_module(network: Any, z: torch.Tensor) -> nn.Module:
    """The user's own module, so that its layers have their names; the engine's around it where it answers otherwise.

    `network` is the engine's module, `z` pictures that the network takes.
    """
    module = network.module
    if network.output != "logit":
        return network
    if module not in _PLAIN:
        try:
            answer = module(z[:1])
        except RuntimeError:  # half precision takes no float32
            answer = None
        _PLAIN[module] = (
            isinstance(answer, torch.Tensor)
            and answer.dtype == torch.float32
            and answer.dim() == 2
            and answer.shape[1] > 1
        )
    return module if _PLAIN[module] else network
