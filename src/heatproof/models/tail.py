"""Runs only the part of a network after a layer: its own `forward`, with everything before the layer replayed.

Modules that finished before the layer return their recorded output (the outermost only; a queue for modules that
run more than once), the layer returns the new activations, and the rest runs as written. Of a layer that runs several
times one call is meant: earlier calls return their recorded outputs, later ones run. Data-dependent branches,
shared modules and functional code therefore work, where a symbolic trace would fail. On every batch the replay is
checked against the recorded logits, which costs two tails; a method runs one for each channel and image. A model that
cannot be replayed is run whole, with a warning.
"""

import itertools
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from heatproof.errors import HeatproofWarning, ModelError
from heatproof.locks import held, of_this_thread
from heatproof.memo import PerModule
from heatproof.models.capture import first_tensor
from heatproof.models.layout import Layout
from heatproof.models.model import Model
from heatproof.models.observable import observable_modules


@dataclass
class Record:
    """Outputs of the outermost modules that finished before the call of `layer`, in the order of their calls.

    `call`: which call of the layer is meant, from 0. `done`: whether it has run.
    """

    layer: str
    call: int = 0
    outputs: list[tuple[nn.Module, Any]] = field(default_factory=list)
    native: Any = None
    done: bool = False

    def queues(self) -> dict[nn.Module, list[Any]]:
        """The recorded outputs of each module, first call first; the layer's own earlier calls too."""
        queues: dict[nn.Module, list[Any]] = {}
        for module, output in self.outputs:
            queues.setdefault(module, []).append(output)
        return queues


@contextmanager
def recording(model: Model, layer: str) -> Iterator[Record]:
    """Records one forward pass of `model`; hooks are removed at the end, also after an error."""
    target, call = model.submodule_and_call(layer)
    record, stack, calls = Record(layer, call or 0), [], itertools.count()

    def enter(module: nn.Module, _inputs: Any) -> None:
        if not record.done:
            stack.append((module, len(record.outputs)))

    def leave(module: nn.Module, _inputs: Any, output: Any) -> None:
        if record.done:
            return
        while stack and stack[-1][0] is not module:  # a call that raised and was caught inside the model
            stack.pop()
        inner = stack.pop()[1] if stack else 0
        del record.outputs[inner:]  # the outermost only
        if module is target and next(calls) == record.call:
            record.native, record.done = output, True
        else:
            record.outputs.append((module, output))

    with held(model.module), ExitStack() as handles:
        for _, module in observable_modules(model.module):
            # Registered before the capture's own hook, so the record holds the layer's output as the model made it.
            handles.callback(module.register_forward_pre_hook(of_this_thread(enter)).remove)
            handles.callback(module.register_forward_hook(of_this_thread(leave)).remove)
        yield record


class Tail:
    """Activations at a layer → logits, for the images of one recorded pass.

    Call it with `(M, C, *spatial)` and the row of the image they are variants of, or an `(M,)` tensor of rows. It
    returns `(M, K)`, with a graph where the grad mode is on.
    """

    def __init__(
        self, model: Model, record: Record, layout: Layout, x: torch.Tensor, logits: torch.Tensor, graph: bool
    ):
        self.model, self.record, self.layout, self.x, self.graph = model, record, layout, x, graph
        self.z = model.normalise(x).to(model.dtype)  # once, not for every chunk of variants
        native, self._replaced = first_tensor(record.native)
        self._quantised = native if native is not None and native.is_quantized else None
        self.native = native if self._quantised is None else self._quantised.dequantize()
        self.mode = self._checked(logits)

    def __call__(self, activations: torch.Tensor, rows: int | torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.graph or torch.is_grad_enabled()), self.model.evaluating():
            if self.mode != "whole":
                return self._run(activations, rows, self.mode)
            step = max(8, len(self.x))  # a whole pass takes the memory of as many images
            parts = [slice(i, i + step) for i in range(0, len(activations), step)]
            some = [rows if isinstance(rows, int) else rows[part] for part in parts]
            return torch.cat([self._run(activations[p], r, "whole") for p, r in zip(parts, some, strict=True)])

    def _run(self, activations: torch.Tensor, rows: int | torch.Tensor, mode: str) -> torch.Tensor:
        count = len(activations)
        assert self.native is not None
        native = self.layout.from_grid(
            activations.to(self.native.dtype), _gather_rows(self.native, rows, count, len(self.x), mode)
        )
        layer = self.model.submodule(self.record.layer)
        queues = {} if mode == "whole" else self.record.queues()
        # A clone: what follows may write in place (DenseNet's relu), and the caller's tensor must stay.
        value = self._replaced(self._as_recorded(native.clone()))
        answer = _Answer(value, self.record.call if mode == "whole" else len(queues.get(layer, ())))
        with ExitStack() as stack:
            for module, queue in queues.items():
                if module is not layer:
                    outputs = [self._gathered_all(output, rows, count, mode) for output in queue]
                    stack.enter_context(_replaced_forward(module, _replay(module, outputs)))
            if mode != "whole":
                earlier = [self._gathered_all(output, rows, count, mode) for output in queues.get(layer, ())]
                stack.enter_context(_replaced_forward(layer, _replay(layer, [*earlier, value])))
            # A hook also turns off fused paths (nn.TransformerEncoderLayer's), which would skip the layer.
            stack.callback(layer.register_forward_hook(of_this_thread(answer)).remove)
            z = _gather_rows(self.z, rows, count, len(self.x), mode)
            z = z if mode.startswith("view") else z.clone()  # a model may write to its input
            with _partial(mode != "whole"):
                logits = self.model.of_normalised(z)
        if not answer.given:
            raise ModelError(f"{self.model.name} did not run layer {self.record.layer!r} on these activations.")
        return logits

    def _as_recorded(self, native: torch.Tensor) -> torch.Tensor:
        """Activations as the layer gives them: with the scale of its output where that is quantised."""
        like = self._quantised
        if like is None:
            return native
        if like.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            return torch.quantize_per_tensor(native, like.q_scale(), like.q_zero_point(), like.dtype)
        scales, zeros = like.q_per_channel_scales(), like.q_per_channel_zero_points()
        return torch.quantize_per_channel(native, scales, zeros, like.q_per_channel_axis(), like.dtype)

    def _gathered_all(self, output: Any, rows: int | torch.Tensor, count: int, mode: str) -> Any:
        return tree_map_only(torch.Tensor, lambda t: _gather_rows(t, rows, count, len(self.x), mode), output)

    def _checked(self, logits: torch.Tensor) -> str:
        """The first of `MODES` that reproduces the logits, else `whole` forwards.

        It is selected anew for every batch: a position table with 49 rows looks like 7 images in windows, so a mode
        that is right for one batch size may be wrong for the next.
        """
        finite = torch.isfinite(logits).all(1).nonzero()[:, 0]
        if not len(finite):
            return "whole"  # nothing can be learned from this batch, and the next one may be fine
        here = (self.record.layer, len(self.x), self.model.precision)
        failed = _WHOLE.get(self.model.module, here) is not None
        modes = () if failed else MODES
        mode = next((mode for mode in modes if self._agrees(logits, finite, mode)), "whole")
        if mode == "whole" and not failed:
            _WHOLE.put(self.model.module, here, True)
            warnings.warn(
                f"{self.model.name}: what follows layer {self.record.layer!r} cannot be replayed by itself; whole "
                "forward passes are run instead (right, but slower).",
                HeatproofWarning,
                stacklevel=2,
            )
        return mode

    def _agrees(self, logits: torch.Tensor, finite: torch.Tensor, mode: str) -> bool:
        """Whether clean activations give the logits: those of one image twice, then of the last, first and last."""
        assert self.native is not None
        clean = self.layout.to_grid(self.native).detach()
        for rows in (int(finite[0]), torch.stack([finite[-1], finite[0], finite[-1]])):
            index = finite[:1].repeat(2) if isinstance(rows, int) else rows
            try:
                with torch.no_grad(), self.model.evaluating():
                    again = self._run(clean[index], rows, mode)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # whatever the model raises: it cannot be replayed this way
                return False
            expected = logits[index].detach()
            rounding = 4 * torch.finfo(self.model.precision).eps
            relative, absolute = max(1e-3, rounding), max(1e-4, rounding * float(expected.abs().max()))
            if again.shape != expected.shape or not torch.allclose(again, expected, rtol=relative, atol=absolute):
                return False
        return True


#: Ways to hand recorded rows to a new batch: as views or as copies (for models that write in place). With `-rows` only
#: tensors with one row for each image are indexed; those with k rows for each (windows, or a table) stay as they are.
MODES = ("view", "view-rows", "copy", "copy-rows")

#: The (layer, batch size, precision) that no mode could replay, so that it is tried, and the warning given, once.
_WHOLE = PerModule[bool]()


def _gather_rows(tensor: torch.Tensor, rows: int | torch.Tensor, count: int, batch: int, mode: str) -> torch.Tensor:
    """Rows of a recorded tensor for a new batch of `count`; windows (k · batch rows) move as blocks of k."""
    if tensor.dim() == 0 or tensor.shape[0] % batch or (mode.endswith("rows") and tensor.shape[0] != batch):
        return tensor.clone() if mode.startswith("copy") else tensor
    block = tensor.shape[0] // batch
    blocks = tensor.unflatten(0, (batch, block))
    if isinstance(rows, int):
        found = blocks[rows : rows + 1].expand(count, *blocks.shape[1:])
        found = found.clone() if mode.startswith("copy") else found
    else:
        found = blocks[rows]
    return found.flatten(0, 1)


_RUNNING = threading.local()


def partial_pass() -> bool:
    """Whether this thread runs only the part of a network after a layer."""
    return getattr(_RUNNING, "partial", False)


@contextmanager
def _partial(partial: bool) -> Iterator[None]:
    before, _RUNNING.partial = partial_pass(), partial
    try:
        yield
    finally:
        _RUNNING.partial = before


@contextmanager
def _replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = of_this_thread(forward, module.forward)
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.forward = before


def _replay(module: nn.Module, outputs: list[Any]) -> Any:
    """A forward that returns the recorded outputs in turn, then runs the module (a shared one, called again)."""
    forward, remaining = module.forward, deque(outputs)
    return lambda *args, **kwargs: remaining.popleft() if remaining else forward(*args, **kwargs)


class _Answer:
    """A forward hook that gives the new activations at one call of the layer, counted from 0."""

    def __init__(self, value: Any, call: int):
        self.value, self.remaining = value, call

    @property
    def given(self) -> bool:
        return self.remaining < 0

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        self.remaining -= 1
        return self.value if self.remaining == -1 else output
