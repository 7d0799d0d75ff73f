"""What the last pass of the user's model left: its input, its output and, with their graph, the layers' outputs."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from heatproof.errors import InvalidInput, LayerError
from heatproof.locks import is_held
from heatproof.models.layer_names import module_and_call
from heatproof.models.layout import layout_of
from heatproof.models.model import bare


@dataclass
class Pass:
    """One forward pass; `output` where it is a tensor; `layers`: name → what its calls gave with gradients on."""

    inputs: torch.Tensor
    output: torch.Tensor | None = None
    layers: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def gradients(self, scores: torch.Tensor, model: nn.Module, names: Sequence[str]) -> list[tuple[torch.Tensor, ...]]:
        """For each layer activations and gradients of the summed `scores`, `(N, C, *spatial)`, by the pass's own graph.

        Raises:
            LayerError: no gradient reaches a layer. InvalidInput: `scores` have no graph.
        """
        if not scores.requires_grad:
            raise InvalidInput(
                "`scores` must be the model's output, or be made from it with gradients on. Give the output, and what "
                "is made of it as `targets`."
            )
        found = []
        for name in names:
            module, call = module_and_call(bare(model), name)
            outputs = self.layers.get(name, [])
            if len(outputs) <= (call or 0) or (call is None and len(outputs) > 1):
                raise LayerError(f"{name!r} ran {len(outputs)} times with gradients. Name a call that did, {name}#0.")
            native = outputs[call or 0]
            (gradient,) = torch.autograd.grad(scores.sum(), native, retain_graph=True, allow_unused=True)
            if gradient is None:
                raise LayerError(f"The scores are not connected to every target layer: no gradient reaches {name!r}.")
            layout = layout_of(module, native, tuple(self.inputs.shape[2:]), single=True)
            found.append((layout.to_grid(native.detach()), layout.to_grid(gradient)))
        return found


class PassKeeper:
    """Hooks that keep the last pass of each thread; heatproof's own passes are not kept."""

    def __init__(self, model: nn.Module, names: Sequence[str], layers: bool, enabled: Callable[[], bool]):
        """
        Args:
            layers: keep the outputs of the layers `names`, with their graph.
            enabled: whether a pass is kept.
        """
        self._model, self._enabled = model, enabled
        self._passes: dict[int, Pass] = {}  # by thread
        self.handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end),
        ]
        for name in names if layers else ():
            module, _ = module_and_call(bare(model), name)
            self.handles.append(module.register_forward_hook(self._keeper(name)))

    def last(self) -> Pass | None:
        """This thread's last pass."""
        return self._passes.get(threading.get_ident())

    def clear(self) -> None:
        """Forgets all passes."""
        self._passes.clear()

    def _wanted(self) -> bool:
        return self._enabled() and not is_held(bare(self._model))

    def _begin(self, _module: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
        if not self._wanted():
            return
        alive = {thread.ident for thread in threading.enumerate()}
        for thread in self._passes.keys() - alive:
            self._passes.pop(thread, None)
        tensors = (value for value in (*arguments, *named.values()) if isinstance(value, torch.Tensor))
        found = next(tensors, None)
        self._passes.pop(threading.get_ident(), None)
        if found is not None:
            self._passes[threading.get_ident()] = Pass(found.detach().clone())

    def _end(self, _module: nn.Module, _arguments: tuple, output: Any) -> None:
        if self._wanted() and (kept := self.last()):
            kept.output = output.detach() if isinstance(output, torch.Tensor) else None

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _arguments: tuple, output: Any) -> None:
            graph = isinstance(output, torch.Tensor) and output.requires_grad
            if graph and self._wanted() and (kept := self.last()):
                kept.layers.setdefault(name, []).append(output)

        return keep
