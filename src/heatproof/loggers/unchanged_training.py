"""A training run is left as it was: random generators, and what the layers of a network keep beside their weights.

Modes (train or eval), `requires_grad` and gradients are left alone by every call of heatproof
(`heatproof.models.model.evaluating`), and autocast by `heatproof.ambient`.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from heatproof.errors import ModelError
from heatproof.models.model import module_device
from heatproof.seeds import generator, seeded


@contextmanager
def unchanged_training(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """Inside, the global generators of torch, NumPy and Python start from `seed`; at the end they are as before.

    Buffers (statistics of batch norm, counters) have the values and are the objects that they were before, also after
    an exception.
    """
    state = random.getstate()
    stores: list[dict[str, Any]] = [part._buffers for part in module.modules()]
    before = [
        (store, name, buffer, buffer._version, buffer.detach().clone())
        for store in stores
        for name, buffer in store.items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        with seeded(generator(seed, "training", "monitor"), module_device(module)):
            random.setstate(random.Random(seed).getstate())
            yield
    finally:
        random.setstate(state)
        for store, name, buffer, version, values in before:
            store[name] = buffer
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(values)


def refuse_sharded(module: nn.Module) -> None:
    """Raises ModelError for a network whose weights are spread over processes: one alone cannot run it."""
    sharded = any(type(part).__name__.startswith(("FullyShardedDataParallel", "FSDP")) for part in module.modules())
    if sharded or any(hasattr(p, "ds_id") or type(p.data).__name__ == "DTensor" for p in module.parameters()):
        raise ModelError(
            f"The weights of {type(module).__name__} are spread over processes (FSDP, ZeRO-3, DTensor), and maps are "
            "made in one. Explain the network after training, or train with DDP."
        )
