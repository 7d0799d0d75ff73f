"""What the last pass of the user's model left: its input, its output and, with their graph, the layers' outputs."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from heatproof.errors import InvalidInput, LayerError, NoGradient
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

    def reaches(self, scores: Any, names: Sequence[str]) -> bool:
        """Whether `scores` and the outputs of the layers have a graph, so that no further pass is needed."""
        return isinstance(scores, torch.Tensor) and scores.requires_grad and all(self.layers.get(n) for n in names)

    def gradients(self, scores: torch.Tensor, model: nn.Module, names: Sequence[str]) -> list[tuple[torch.Tensor, ...]]:
        """For each layer activations and gradients of the summed `scores`, `(N, C, *spatial)`, by the pass's own graph.

        They are float32, or float64 where the network is.

        Raises:
            NoGradient: the scores are of another pass, or do not depend on a layer. InvalidInput: they have no graph.
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
                raise NoGradient(disconnected(repr(name)))
            layout = layout_of(module, native, tuple(self.inputs.shape[2:]), single=True)
            dtype = torch.promote_types(native.dtype, torch.float32)
            found.append(tuple(layout.to_grid(one).to(dtype) for one in (native.detach(), gradient)))
        return found


def disconnected(layers: str) -> str:
    """The text of an error: no gradient of the scores reaches `layers`."""
    return f"The scores are not connected to every target layer: no gradient reaches {layers}."


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

    def _keeper(self, name: str) -> Callable[..., torch.Tensor | None]:
        def keep(_module: nn.Module, _arguments: tuple, output: Any) -> torch.Tensor | None:
            graph = isinstance(output, torch.Tensor) and output.requires_grad
            if not (graph and self._wanted() and (kept := self.last())):
                return None
            kept.layers.setdefault(name, []).append(output)
            return output.clone()  # the next layer may write into what it is given

        return keep
