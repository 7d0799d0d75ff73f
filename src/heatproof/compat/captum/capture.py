"""The outputs or inputs of layers in a forward pass of any function, and the same pass with others in their place."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from heatproof.compat.captum.base import Place
from heatproof.compat.captum.calls import InvalidArgument, Tensor, Tensors, output_of, tupled
from heatproof.errors import LayerError
from heatproof.locks import held, of_this_thread
from heatproof.models.layer_names import several_calls


class Layered:
    """A pass: the output for the target, and what every layer gave (`of_input`: got), a tuple of tensors each."""

    def __init__(
        self,
        function: Callable,
        places: Sequence[Place],
        inputs: Tensors,
        target: Any = None,
        extra: tuple[Any, ...] = (),
        *,
        of_input: bool = False,
        instead: Sequence[Tensors] | None = None,
        gradients: bool = False,
    ):
        """Runs the function.

        Args:
            instead: what the layers give (get) in this pass.
            gradients: what the layers give becomes a leaf of a graph, where it is no part of one.

        Raises:
            LayerError: a layer that does not run, or several times where its name has no number of a call.
        """
        self.gradients, self.instead, self.of_input = gradients, instead, of_input
        self.values: dict[int, Tensors] = {}
        self.whole: dict[int, bool] = {}
        self.calls = Counter[int]()
        with ExitStack() as handles, torch.set_grad_enabled(gradients):
            for at, (_, module, call) in enumerate(places):
                handles.enter_context(held(module))
                handles.callback(self._hooked(module, at, call or 0).remove)
            self.output = output_of(function, inputs, target, extra)
        for at, (name, _, call) in enumerate(places):
            if self.calls[at] > 1 if call is None else 0 < self.calls[at] <= call:
                raise LayerError(several_calls(name, range(self.calls[at])))
            if not self.calls[at]:
                raise LayerError(f"Layer {name!r} did not run in the forward pass. Choose one that does.")

    @property
    def layers(self) -> list[Tensors]:
        """What every layer gave, or got."""
        return [self.values[at] for at in sorted(self.values)]

    def shaped(self, at: int, parts: Tensors) -> Any:
        """A tuple where the layer gives one, else the only tensor."""
        return tuple(parts) if self.whole[at] or len(parts) != 1 else parts[0]

    def _hooked(self, module: nn.Module, at: int, wanted: int) -> Any:
        def met(given: Any) -> Any:
            self.calls[at] += 1
            return self._kept(at, given) if self.calls[at] == wanted + 1 else given

        if not self.of_input:
            return module.register_forward_hook(of_this_thread(lambda _m, _i, output: met(output), lambda _m, _i, o: o))

        def before(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if not args:
                return met_named(named)
            return met(args), named

        def met_named(named: dict[str, Any]) -> Any:
            values = met(tuple(named.values()))
            return (), dict(zip(named, values, strict=True))

        return module.register_forward_pre_hook(
            of_this_thread(before, lambda _m, args, named: (args, named)), with_kwargs=True
        )

    def _kept(self, at: int, given: Any) -> Any:
        parts = tupled(given)
        chosen = [i for i, part in enumerate(parts) if isinstance(part, Tensor)]
        if not chosen:
            raise InvalidArgument(f"A layer must give tensors. Got {type(given).__name__}.")
        values = tuple(parts[i] for i in chosen) if self.instead is None else self.instead[at]
        self.values[at] = tuple(self._leaf(value) for value in values)
        self.whole[at] = isinstance(given, tuple | list) and not (self.of_input and len(chosen) == 1)
        new = list(parts)
        for i, value in zip(chosen, self.values[at], strict=True):
            new[i] = value.to(parts[i].dtype).clone()  # the network may write into it
        return type(given)(new) if isinstance(given, tuple | list) else new[0]

    def _leaf(self, value: Tensor) -> Tensor:
        if self.gradients and value.is_floating_point() and not value.requires_grad:
            return value.detach().requires_grad_()
        return value if self.gradients else value.detach().clone()
