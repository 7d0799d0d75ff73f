"""Which layers to explain: the last feature map before pooling, and one for each stage, by architecture.

| family | `last` and `stages` |
|---|---|
| VGG | the max pools, `features[20, 15, 10, 5]` of vgg11 |
| ConvNeXt | the last block of each stage, `features[7, 5, 3, 1][-1]` |
| Swin (version 1) | `norm1` of each stage's last block |
| ViT, DeiT, BEiT … | the norm before the attention of the last block, and of three evenly spaced ones before it: |
| | after the last attention the class token alone is read, so later patch gradients are all zero |
| all others | one probing forward: of each spatial size the outermost module that finishes last (`_probed`) |

ResNet so gets `layer1` … `layer4`, DenseNet its dense blocks and `features.norm5`, MobileNet and EfficientNet the
activation before the pooling (`features.18`, timm's `bn2`). The first four are those of Domeniconi et al. 2026.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from heatproof.errors import LayerError, ModelError
from heatproof.models.layout import Layout, layout_of
from heatproof.registry import unknown

if TYPE_CHECKING:
    from heatproof.models.model import Model

#: How many stages are kept, the deepest ones.
STAGES = 4

#: Two rows show which outputs keep the batch in front (Swin's windows do not).
_PROBE_ROWS = 2

_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True)
class Layers:
    """`last`: the feature map before pooling; `stages`: up to four names, shallow → deep, one per resolution."""

    last: str
    stages: tuple[str, ...]


@dataclass
class _Record:
    """What one module did in the probing forward."""

    name: str
    module: nn.Module
    finished: int
    calls: int
    shape: tuple[int, ...] | None
    layout: Layout | None
    sees_picture: bool
    input_key: tuple | None


# --- names -----------------------------------------------------------------------------------------------------


def resolve_layer(model: "Model | nn.Module", layer: "str | nn.Module") -> str:
    """The canonical dotted name of a layer given as `layer4.1`, `layer4[-1]`, `features[7][-1]` or the module itself.

    Raises UnknownName with near misses, or LayerError for a module that is no part of the model.
    """
    root = model if isinstance(model, nn.Module) else model.module
    if isinstance(layer, nn.Module):
        return _name_of(root, layer)
    if not isinstance(layer, str):
        raise LayerError(f"A layer must be a name or a module of the model. Got {type(layer).__name__}.")
    names = [name for name, _ in root.named_modules(remove_duplicate=False) if name]
    if layer in names:
        return layer
    for spelling in (layer, layer.removeprefix("model.")):
        found = _indexed(root, spelling)
        if found:
            return found
    raise unknown("layer", layer, names)


def _name_of(root: nn.Module, layer: nn.Module) -> str:
    for name, module in root.named_modules():
        if module is layer and name:
            return name
    raise LayerError(
        f"Expected a layer that is part of {type(root).__name__}. Got a {type(layer).__name__} that is not. "
        "Give a submodule of the wrapped module, or its name."
    )


def _indexed(root: nn.Module, spelling: str) -> str | None:
    """`layer4[-1].conv2` → `layer4.1.conv2`, or None where a step does not exist."""
    if not re.fullmatch(r"\w+(\.-?\w+|\[-?\d+\])*", spelling):
        return None
    module, path = root, []
    for step in re.findall(r"-?\w+", spelling):
        children = dict(module.named_children())
        if step not in children and re.fullmatch(r"-?\d+", step) and -len(children) <= int(step) < len(children):
            step = list(children)[int(step)]
        if step not in children:
            return None
        path.append(step)
        module = children[step]
    return ".".join(path)


# --- finding ---------------------------------------------------------------------------------------------------


def find_layers(model: "Model", last: str | None = None) -> Layers:
    """The target layers of `model` by the table above; `last` replaces the one found and need not be a stage.

    Raises LayerError where nothing in the model is spatial, ModelError where it cannot run on its own input size.
    """
    stages = _known(model.module) or _found_by_probe(model)
    if not stages and last is None:
        raise LayerError(
            f"Expected a layer with places (N × C × h × w) in {type(model.module).__name__}. Found none that runs "
            "once per forward. Name one with `layer`."
        )
    return Layers(last or stages[-1], tuple(stages) or (last or "",))


def check_spatial(model: "Model", names: Sequence[str]) -> None:
    """One probing forward: LayerError for a named layer that does not run, runs twice, or has no places."""
    records = {record.name: record for record in _probe(model)}
    for name in names:
        record = records.get(name)
        if record is not None and record.layout is not None and record.calls == 1:
            continue
        gives = (
            "it is not run"
            if record is None
            else f"it runs {record.calls} times"
            if record.calls > 1
            else f"it gives {' × '.join(map(str, ('N', *(record.shape or ())[1:]))) if record.shape else 'no tensor'}"
        )
        raise LayerError(
            f"Expected a layer that runs once and has places, such as {', '.join(model.layers.stages)}. "
            f"Got {name!r}: {gives}."
        )


def _known(module: nn.Module) -> list[str]:
    """The stages of the outermost part whose family has a rule; empty where there is none."""
    for prefix, part in module.named_modules():
        rule = _RULES.get(type(part).__name__)
        names = rule(part) if rule else []
        if names:
            return [f"{prefix}.{name}" if prefix else name for name in names][-STAGES:]
    return []


def _vgg(module: nn.Module) -> list[str]:
    features = getattr(module, "features", None)
    if not isinstance(features, nn.Sequential):
        return []
    return [f"features.{i}" for i, part in features.named_children() if isinstance(part, nn.MaxPool2d)]


def _last_of_stages(block: str, inner: str = "") -> Callable[[nn.Module], list[str]]:
    """A rule: of each run of sibling modules of class `block`, the last one (its child `inner`)."""

    def rule(module: nn.Module) -> list[str]:
        names = []
        for prefix, parent in module.named_modules():
            blocks = [name for name, child in parent.named_children() if type(child).__name__ == block]
            if blocks and isinstance(parent, nn.Sequential | nn.ModuleList):
                names.append(".".join(filter(None, (prefix, blocks[-1], inner))))
        return names

    return rule


def _either(*rules: Callable[[nn.Module], list[str]]) -> Callable[[nn.Module], list[str]]:
    return lambda module: next((names for rule in rules if (names := rule(module))), [])


_RULES: dict[str, Callable[[nn.Module], list[str]]] = {
    "VGG": _vgg,
    "ConvNeXt": _either(_last_of_stages("CNBlock"), _last_of_stages("ConvNeXtBlock")),
    "SwinTransformer": _last_of_stages("SwinTransformerBlock", "norm1"),
}


def _found_by_probe(model: "Model") -> list[str]:
    records = _probe(model)
    return _attention_inputs(records) or _probed(records)


def _probed(records: list[_Record]) -> list[str]:
    """Of each spatial size the outermost module that finishes last, shallow → deep.

    Outermost, but no container of several stages: one that holds more than two sizes (`features` of MobileNet) is
    opened, and so is what takes the picture itself or returns no tensor. What is inside a kept module is no
    candidate, so the first convolution of ResNet-50's `layer2`, still at `layer1`'s size, does not displace `layer1`.
    """
    candidates = _outermost(records, everywhere=False) or _outermost(records, everywhere=True)
    latest: dict[tuple[int, ...], _Record] = {}
    for record in sorted(candidates, key=lambda r: r.finished):
        assert record.layout is not None
        latest[record.layout.grid] = record
    return [record.name for record in sorted(latest.values(), key=lambda r: r.finished)][-STAGES:]


def _outermost(records: list[_Record], everywhere: bool) -> list[_Record]:
    by_name = {record.name: record for record in records}
    sizes = _sizes_inside(records)
    kept: list[_Record] = []
    opened = {""}
    for name in sorted(by_name, key=lambda n: n.count(".") + bool(n)):
        record = by_name[name]
        parents = [p for p in _ancestors(name) if p in by_name or p == ""]
        if not all(p in opened for p in parents):
            continue
        spans = len(sizes[name]) > 2
        if record.layout is not None and not spans and record.calls == 1:
            if not isinstance(record.module, _PASSING) and not _pools_to_fixed_size(record.module):
                kept.append(record)
        elif spans or record.sees_picture or record.shape is None or everywhere:
            opened.add(name)
    return kept


def _ancestors(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(len(parts)))


def _sizes_inside(records: list[_Record]) -> dict[str, set[tuple[int, ...]]]:
    sizes: dict[str, set[tuple[int, ...]]] = {record.name: set() for record in records}
    for record in records:
        if record.layout is None:
            continue
        for name in (*_ancestors(record.name), record.name):
            if name in sizes:
                sizes[name].add(record.layout.grid)
    return sizes


def _pools_to_fixed_size(module: nn.Module) -> bool:
    """Adaptive pools: VGG's `avgpool` is 7 × 7 whatever came in, so it is past the last feature map."""
    return "adaptive" in type(module).__name__.lower()


# --- transformers of one resolution ----------------------------------------------------------------------------


def _attention_inputs(records: list[_Record]) -> list[str]:
    """For a class token over equal blocks: what the attention of four evenly spaced blocks reads, the last included.

    That is the block's norm that reads the block's own input, or, where there is none, the block before it.
    """
    blocks = _equal_blocks(records)
    if len(blocks) < 2 or blocks[-1].layout is None or blocks[-1].layout.prefix == 0:
        return []
    depth = len(blocks)
    chosen = sorted({max(0, math.ceil((i + 1) * depth / STAGES) - 1) for i in range(STAGES)})
    names = [_before_attention(records, blocks, index) for index in chosen]
    return list(dict.fromkeys(name for name in names if name))


def _equal_blocks(records: list[_Record]) -> list[_Record]:
    """The longest run of siblings of one class that all give tokens."""
    groups: dict[tuple[str, type], list[_Record]] = {}
    for record in sorted(records, key=lambda r: r.finished):
        tokens = record.layout is not None and record.layout.kind == "tokens" and record.calls == 1
        if tokens and next(record.module.children(), None) is not None:
            groups.setdefault((record.name.rpartition(".")[0], type(record.module)), []).append(record)
    return max(groups.values(), key=len, default=[])


def _before_attention(records: list[_Record], blocks: list[_Record], index: int) -> str | None:
    block = blocks[index]
    for record in records:
        inside = record.name.rpartition(".")[0] == block.name
        if inside and "norm" in type(record.module).__name__.lower() and record.shape == block.shape:
            if record.input_key == block.input_key and record.calls == 1:
                return record.name
    return blocks[index - 1].name if index else None


# --- the probing forward ---------------------------------------------------------------------------------------


def _probe(model: "Model") -> list[_Record]:
    """One forward of two noise pictures with every module watched; records in finishing order."""
    size = model.geometry.size
    records: dict[str, _Record] = {}
    handles = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            source = first_tensor(inputs)
            calls = records[name].calls + 1 if name in records else 1
            order = max((r.finished for r in records.values()), default=-1) + 1
            records[name] = _Record(
                name,
                module,
                order,
                calls,
                None if tensor is None else tuple(tensor.shape),
                _layout_or_none(module, tensor, size),
                source is not None and tuple(source.shape) == (_PROBE_ROWS, 3, *size),
                None if source is None else (source.data_ptr(), tuple(source.shape)),
            )

        return hook

    noise = torch.rand((_PROBE_ROWS, 3, *size), generator=torch.Generator().manual_seed(0))
    z = model.normalise(noise.to(model.device)).to(model.dtype)
    try:
        for name, module in model.module.named_modules():
            if name:
                handles.append(module.register_forward_hook(watch(name)))
        with model.evaluating(), torch.no_grad():
            model.module(z)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        raise ModelError(
            f"Expected {model.name!r} to run on pictures of {size[0]} × {size[1]}. It failed: {error}. "
            "Set `size` to what the model was built for."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return sorted(records.values(), key=lambda r: r.finished)


def first_tensor(output: Any) -> torch.Tensor | None:
    """The tensor itself, or the first one of a tuple or list."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple | list):
        return next((item for item in output if isinstance(item, torch.Tensor)), None)
    return None


def _layout_or_none(module: nn.Module, tensor: torch.Tensor | None, size: tuple[int, int]) -> Layout | None:
    if tensor is None or tensor.dim() < 3 or tensor.shape[0] != _PROBE_ROWS:
        return None
    try:
        return layout_of(module, tensor, size)
    except LayerError:
        return None
