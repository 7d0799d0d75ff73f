"""The grids that a user's `reshape_transform` makes of layers whose output is a tensor, which is read without it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from heatproof.locks import held


@contextmanager
def observed(
    module: nn.Module,
    layers: Sequence[tuple[nn.Module, int | None]],
    transform: Callable[[torch.Tensor], torch.Tensor] | None,
) -> Iterator[dict[int, tuple[int, ...] | str]]:
    """For each layer, at its call, the grid that a `reshape_transform` makes of its output, or the error it raises.

    Layers that give no tensor are left out: there the function is used (`heatproof.compat.given_models`).
    """
    seen: dict[int, tuple[int, ...] | str] = {}

    def keeper(index: int, reshaped: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        calls = itertools.count()

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if next(calls) == (layers[index][1] or 0) and isinstance(output, torch.Tensor):
                try:
                    seen[index] = tuple(reshaped(output.detach()).shape[2:])
                except Exception as error:  # whatever a user's function raises on a grid it was not made for
                    seen[index] = f"{type(error).__name__}: {error}"

        return keep

    if transform is None:
        yield seen
        return
    with held(module), ExitStack() as handles:
        for i, (layer, _) in enumerate(layers):
            handles.callback(layer.register_forward_hook(keeper(i, transform)).remove)
        yield seen
