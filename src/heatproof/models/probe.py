"""One forward pass of noise with every module observed: its output, how often it runs, in which order."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.errors import LayerError, ModelError
from heatproof.models.layout import Layout, fits, layout_of

#: Two rows show which outputs keep the batch in front (Swin's windows do not).
ROWS = 2


class Classifier(Protocol):
    """The parts of a classifier that are needed to find its layers; `models.model.Model` is one."""

    module: nn.Module
    name: str
    device: torch.device
    input_shape: tuple[int, ...]

    @property
    def dtype(self) -> Any: ...  # torch.dtype; a cached property is one only at run time
    def normalise(self, x: torch.Tensor) -> torch.Tensor: ...
    def output(self, z: torch.Tensor) -> Any: ...
    def evaluating(self) -> AbstractContextManager[Any]: ...


@dataclass
class ProbeRecord:
    """One module in the pass: its last output's shape and layout (None where it has no positions), calls, order.

    `opaque`: it returned a dict or no tensor, so a target layer must be looked for inside it. `fits`: the
    grid has the image's aspect. `source`: identity of its first input; `sees_image`: that input has the
    image's shape.
    """

    name: str
    module: nn.Module
    finished: int
    calls: int
    shape: tuple[int, ...] | None
    layout: Layout | None
    fits: bool
    opaque: bool
    sees_image: bool
    source: tuple[int, tuple[int, ...]] | None


@neutral()
def probe(model: Classifier) -> list[ProbeRecord]:
    """The records of all modules but the root, in the order in which they finished.

    Raises ModelError where the model does not run on images of its own geometry.
    """
    shape = model.input_shape
    size = shape[1:]
    noise = torch.rand((ROWS, *shape), generator=torch.Generator().manual_seed(0))
    z = model.normalise(noise.to(model.device))
    records: dict[str, ProbeRecord] = {}
    try:
        with model.evaluating(), torch.no_grad(), ExitStack() as handles:
            for name, module in model.module.named_modules():
                if name:
                    handles.callback(module.register_forward_hook(_watcher(name, records, shape)).remove)
            model.output(z)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model raises on an input that does not suit it
        raise ModelError(
            f"Expected {model.name!r} to run on inputs of {' × '.join(map(str, size))}. It failed with "
            f"{type(error).__name__}: {error}. Set `size` to what the model was built for."
        ) from error
    return sorted(records.values(), key=lambda record: record.finished)


def _watcher(name: str, records: dict[str, ProbeRecord], shape: tuple[int, ...]) -> Callable[..., None]:
    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor, source = _first_tensor(output), _first_tensor(inputs)
        layout = None if tensor is None else _layout(module, tensor, shape[1:])
        before = records.get(name)
        records[name] = ProbeRecord(
            name=name,
            module=module,
            finished=sum(record.calls for record in records.values()),
            calls=1 + (before.calls if before else 0),
            shape=None if tensor is None else tuple(tensor.shape),
            layout=layout,
            fits=layout is not None and fits(layout, shape[1:]),
            opaque=tensor is None or isinstance(output, Mapping),
            sees_image=source is not None and tuple(source.shape) == (ROWS, *shape),
            source=None if source is None else (source.data_ptr(), tuple(source.shape)),
        )

    return watch


def _first_tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((item for item in items if isinstance(item, torch.Tensor)), None)


def _layout(module: nn.Module, tensor: torch.Tensor, size: tuple[int, ...]) -> Layout | None:
    if tensor.dim() < 3 or tensor.shape[0] != ROWS:
        return None
    try:
        return layout_of(module, tensor, size)
    except LayerError:
        return None
