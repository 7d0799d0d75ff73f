"""Forward passes of noise with every module observed: its outputs, call by call, and what their rows depend on.

Two passes differ in one image (`heatproof.models.rows`). Weights of zero hide a dependence, so an output that does not
change counts as dependent where autograd finds a path from the image to it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from heatproof import seeds
from heatproof.ambient import neutral
from heatproof.errors import LayerError, ModelError, warn
from heatproof.locks import of_this_thread
from heatproof.memo import PerModule
from heatproof.models.layout import Layout, fits, layout_of
from heatproof.models.observable import observable_modules
from heatproof.models.rows import (
    CHANGED,
    MIXED_SHARE,
    MIXED_SHARE_QUANTISED,
    ROWS,
    Facts,
    Rows,
    rows_between,
    sampled,
)


class Classifier(Protocol):
    """The parts of a classifier that are needed to find its layers; `models.model.Model` is one."""

    module: nn.Module
    name: str
    device: torch.device
    input_shape: tuple[int, ...]

    @property
    def dtype(self) -> Any: ...  # torch.dtype; a cached property is one only at run time
    def normalise(self, x: torch.Tensor) -> torch.Tensor: ...
    def unwrap(self, output: Any) -> torch.Tensor: ...
    def output(self, z: torch.Tensor) -> Any: ...
    def evaluating(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class ProbeRecord:
    """One call of a module: its output's shape and layout (None where it has no positions), its place in the pass.

    `call` counts from 0, of `calls` in the pass. `rows`: what the rows of its output are. `opaque`: it returned a dict
    or no tensor, so a target layer must be looked for inside it. `fits`: the grid has the image's aspect. `source`:
    identity of its first input; `sees_image`: that input has the image's shape.
    """

    name: str
    module: nn.Module
    finished: int
    call: int
    shape: tuple[int, ...] | None
    layout: Layout | None
    fits: bool
    opaque: bool
    sees_image: bool
    source: tuple[int, tuple[int, ...]] | None
    calls: int = 1
    rows: Rows = Rows.IMAGES


#: What is known of a module's outputs, by the shape of one image.
_FACTS = PerModule[Facts]()

#: Whether the pass that is under way is one of a probe, which no map and no score needs.
probing: ContextVar[bool] = ContextVar("probing", default=False)

#: A module's first name and the number of a call → something about that call.
_Samples = dict[tuple[str, int], torch.Tensor]


@neutral()
def probe(model: Classifier, shape: tuple[int, ...] | None = None) -> list[ProbeRecord]:
    """The records of all calls of all modules but the root, in the order in which they finished.

    `shape` is that of one image, the model's own by default. Two forward passes of three images; one more where an
    output with positions does not change. Of outputs without positions it is not known whether they are fixed.

    Raises ModelError where the model does not run on images of that shape.
    """
    shape = tuple(shape or model.input_shape)
    one, two = _images(model, shape)
    before, after, records = _Samples(), _Samples(), list[ProbeRecord]()

    def watch(name: str, call: int, module: nn.Module, inputs: Any, output: Any) -> None:
        _keep(model, before, name, call, output)
        if name:
            records.append(_record(name, call, module, inputs, output, shape, len(records)))

    _run(model, one, watch)
    _run(model, two, lambda name, call, _module, _inputs, output: _keep(model, after, name, call, output))
    share = MIXED_SHARE_QUANTISED if quantised(model.module) else MIXED_SHARE
    rows = {key: rows_between(before[key], after[key], share) for key in before if key in after}
    spatial = {(record.name, record.call) for record in records if record.layout is not None}
    still = {key for key, found in rows.items() if found is Rows.FIXED}
    if still & spatial:  # a head of zeros alone costs no further pass
        rows |= dict.fromkeys(still & _connected(model, one), Rows.IMAGES)
    rows |= dict.fromkeys(still - spatial, Rows.IMAGES)
    times = Counter(record.name for record in records)
    records = [replace(r, calls=times[r.name], rows=_rows_of(r, rows)) for r in records]
    _FACTS.put(model.module, shape, _facts(records, rows.get(("", 0), Rows.IMAGES)))
    return records


def facts(model: Classifier, shape: tuple[int, ...]) -> Facts:
    """What the rows of all outputs are, for images of that shape: probed once for each module and shape.

    Where the model cannot run on three such images nothing is known of any module, and a warning says so.
    """
    known = _FACTS.get(model.module, shape)
    if known is None:
        try:
            probe(model, shape)
        except (ModelError, torch.OutOfMemoryError) as error:
            _FACTS.put(model.module, shape, Facts({}, Rows.IMAGES, ""))
            _warn_of_ignorance(model, shape, error)
        known = _FACTS.get(model.module, shape)
        assert known is not None
    return known


def _warn_of_ignorance(model: Classifier, shape: tuple[int, ...], error: Exception) -> None:
    """Warns that the probe has failed, where one image alone can be run; else an error follows anyway."""
    try:
        _run(model, _images(model, shape)[0][:1], lambda *_: None)
    except (ModelError, torch.OutOfMemoryError):
        return
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    warn(
        f"{model.name} could not be run on {ROWS} images of noise at once, so it is not known which layers depend on "
        f"the image: look whether maps change with it. {reason}"
    )


def carry_facts(source: nn.Module, target: nn.Module) -> None:
    """What is known of a network holds for its copy with other weights."""
    _FACTS.carry(source, target)


def quantised(module: nn.Module) -> bool:
    """Whether some part of a network computes with integers."""
    return any("quantized" in type(part).__module__ for part in module.modules())


def _images(model: Classifier, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised noise twice; in the second batch one image is other noise, and darker, so that statistics move."""
    generator = torch.Generator().manual_seed(0)
    noise, other = torch.rand((ROWS, *shape), generator=generator), torch.rand(shape, generator=generator)
    changed = noise.clone()
    changed[CHANGED] = other / 4
    one, two = (model.normalise(x.to(model.device)).to(model.dtype) for x in (noise, changed))
    return one, two


_Watch = Callable[[str, int, nn.Module, Any, Any], None]


def _run(model: Classifier, z: torch.Tensor, watch: _Watch, graph: bool = False) -> None:
    """One pass with `watch` after every call; the random numbers that a network draws are the same each time."""
    token = probing.set(True)
    try:
        with (
            model.evaluating(),
            _watched(model.module, watch),
            seeds.seeded(torch.Generator().manual_seed(0), model.device),
            torch.set_grad_enabled(graph),
        ):
            z = z.clone()  # a network may write into what it is given
            model.output(z.requires_grad_() * 1.0 if graph else z)
    except (torch.OutOfMemoryError, ModelError):
        raise
    except Exception as error:  # whatever a model raises on an input that does not suit it
        raise ModelError(
            f"Expected {model.name!r} to run on inputs of {' × '.join(map(str, z.shape[2:]))}. It failed with "
            f"{type(error).__name__}: {error}. Set `size` to what the model was built for."
        ) from error
    finally:
        probing.reset(token)


@contextmanager
def _watched(module: nn.Module, watch: _Watch) -> Iterator[None]:
    calls = Counter[str]()

    def watcher(name: str) -> Callable[..., None]:
        def after(part: nn.Module, inputs: Any, output: Any) -> None:
            watch(name, calls[name], part, inputs, output)
            calls[name] += 1

        return after

    with ExitStack() as handles:
        for name, part in observable_modules(module):
            handles.callback(part.register_forward_hook(of_this_thread(watcher(name))).remove)
        yield


def _keep(model: Classifier, samples: _Samples, name: str, call: int, output: Any) -> None:
    """Adds a sample of an output; of the whole network's, of its logits."""
    tensor = dequantised(_first_tensor(output)) if name else _logits(model, output)
    found = sampled(tensor)
    if found is not None:
        samples[name, call] = found


def _logits(model: Classifier, output: Any) -> torch.Tensor | None:
    try:
        return model.unwrap(output)
    except Exception:  # no classifier's output, or a function of the user's that does not like noise
        return None


def _connected(model: Classifier, z: torch.Tensor) -> set[tuple[str, int]]:
    """The calls to whose output autograd finds a path from the image; none where the network has no such pass."""
    found: set[tuple[str, int]] = set()

    def watch(name: str, call: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is not None and tensor.requires_grad:
            found.add((name, call))

    try:
        _run(model, z, watch, graph=True)
    except (ModelError, torch.OutOfMemoryError):
        return set()
    return found


def _rows_of(record: ProbeRecord, rows: Mapping[tuple[str, int], Rows]) -> Rows:
    folded = record.shape is not None and len(record.shape) > 2 and record.shape[0] != ROWS
    return Rows.FOLDED if folded else rows.get((record.name, record.call), Rows.IMAGES)


def _facts(records: list[ProbeRecord], logits: Rows) -> Facts:
    calls: dict[str, list[Rows]] = {}
    for record in sorted(records, key=lambda record: record.call):
        calls.setdefault(record.name, []).append(record.rows)
    mixing = next((record.name for record in records if record.rows is Rows.MIXED), "")
    return Facts({name: tuple(rows) for name, rows in calls.items()}, logits, mixing)


def _record(
    name: str, call: int, module: nn.Module, inputs: Any, output: Any, shape: tuple[int, ...], finished: int
) -> ProbeRecord:
    tensor, source = dequantised(_first_tensor(output)), _first_tensor(inputs)
    layout = None if tensor is None else _layout(module, tensor, shape[1:])
    return ProbeRecord(
        name=name,
        module=module,
        finished=finished,
        call=call,
        shape=None if tensor is None else tuple(tensor.shape),
        layout=layout,
        fits=layout is not None and fits(layout, shape[1:]),
        opaque=tensor is None or isinstance(output, Mapping),
        sees_image=source is not None and tuple(source.shape) == (ROWS, *shape),
        source=None if source is None or source.is_quantized else (source.data_ptr(), tuple(source.shape)),
    )


def _first_tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((item for item in items if isinstance(item, torch.Tensor)), None)


def dequantised(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """An output of a statically quantised layer in floating point; any other as it is."""
    return tensor.dequantize() if tensor is not None and tensor.is_quantized else tensor


def _layout(module: nn.Module, tensor: torch.Tensor, size: tuple[int, ...]) -> Layout | None:
    if tensor.dim() < 3 or tensor.shape[0] != ROWS:
        return None
    try:
        return layout_of(module, tensor, size)
    except LayerError:
        return None
