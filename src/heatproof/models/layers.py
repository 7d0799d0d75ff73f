"""Which layers to explain: the last feature map before pooling, and one for each stage, by architecture.

| family | `last` and `stages` |
|---|---|
| VGG | the max pools, `features[20, 15, 10, 5]` of vgg11 |
| ConvNeXt | the last block of each stage, `features[7, 5, 3, 1][-1]` |
| Swin (version 1) | `norm1` of each stage's last block |
| a class token over equal blocks (ViT, DeiT, BEiT …) | what the attention of the last block reads (`norm1`, |
| | `ln_1`, `layernorm_before`), and of three evenly spaced ones before: after the last attention the class |
| | token alone is read, so the gradients of later patches are all zero |
| all others | of each spatial size the outermost module that finishes last (`_per_resolution`); where that is a |
| | linear bottleneck, the activation that widens it again, in the next stage's first block (`_widened_layer`) |

So ResNet gets `layer1` … `layer4`, DenseNet its dense blocks and `features.norm5`, MobileNet and EfficientNet
the activation before the pooling (`features.18`, timm's `bn2`) and for earlier stages `features.4.conv.0`, timm's
`blocks.2.0.bn1`: the narrow, signed outputs of their blocks give speckled maps (LayerCAM on MobileNetV2). Layers
of the first three rows are those of Domeniconi et al. 2026; the last two are found by one probing forward.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from heatproof.errors import LayerError
from heatproof.models.probe import Classifier, ProbeRecord, probe
from heatproof.registry import unknown

#: How many stages are kept, the deepest ones.
STAGES = 4

Sizes = dict[str, set[tuple[int, ...]]]

_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True)
class Layers:
    """`last`: the feature map before pooling; `stages`: up to four, shallow → deep, one per resolution."""

    last: str
    stages: tuple[str, ...]


def find_layers(model: Classifier, last: str | None = None) -> Layers:
    """The target layers of `model` by the table above; `last` replaces the one found and need not be a stage.

    Raises LayerError where no layer has spatial positions, ModelError where the model cannot run on its input size.
    """
    stages = _stages_by_family(model.module) or _layers_of_probe(probe(model))
    if not stages and last is None:
        raise LayerError(
            f"Expected a layer with positions (N × C × h × w) in {type(model.module).__name__}. Found none that "
            "runs once in a forward pass. Name one with `layer`."
        )
    return Layers(last or stages[-1], tuple(stages) or (last or "",))


# --- names ---


def resolve_layer(model: Classifier | nn.Module, layer: str | nn.Module) -> str:
    """The dotted name of a layer given as `layer4.1`, `layer4[-1]`, `features[7][-1]` or the module itself.

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
    found = _resolve_indices(root, layer) or _resolve_indices(root, layer.removeprefix("model."))
    if found is None:
        raise unknown("layer", layer, names)
    return found


def _name_of(root: nn.Module, layer: nn.Module) -> str:
    for name, module in root.named_modules():
        if module is layer and name:
            return name
    raise LayerError(
        f"Expected a layer that is part of {type(root).__name__}. Got a {type(layer).__name__} that is not. "
        "Give a submodule of the wrapped module, or its name."
    )


def _resolve_indices(root: nn.Module, spelling: str) -> str | None:
    """`layer4[-1].conv2` → `layer4.1.conv2`, or None where a step does not exist."""
    if not re.fullmatch(r"\w+(\.-?\w+|\[-?\d+\])*", spelling):
        return None
    module, path = root, []
    for step in re.findall(r"-?\w+", spelling):
        children = dict(module.named_children())
        number = re.fullmatch(r"-?\d+", step)
        if step not in children and number and -len(children) <= int(step) < len(children):
            step = list(children)[int(step)]
        if step not in children:
            return None
        path.append(step)
        module = children[step]
    return ".".join(path)


# --- families with a rule of their own ---


def _stages_by_family(module: nn.Module) -> list[str]:
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


def _last_of_stages(classes: Sequence[str], inner: str = "") -> Callable[[nn.Module], list[str]]:
    """A rule: of each run of sibling blocks of these classes, the last one (its child `inner`)."""

    def rule(module: nn.Module) -> list[str]:
        names = []
        for prefix, parent in module.named_modules():
            blocks = [name for name, child in parent.named_children() if type(child).__name__ in classes]
            if blocks and isinstance(parent, nn.Sequential | nn.ModuleList):
                names.append(".".join(filter(None, (prefix, blocks[-1], inner))))
        return names

    return rule


#: Class name, the same in torchvision and timm → rule. Swin 2 normalises after the attention: no such layer.
_RULES: dict[str, Callable[[nn.Module], list[str]]] = {
    "VGG": _vgg,
    "ConvNeXt": _last_of_stages(("CNBlock", "ConvNeXtBlock")),
    "SwinTransformer": _last_of_stages(("SwinTransformerBlock",), "norm1"),
}


# --- all others ---


def _layers_of_probe(records: list[ProbeRecord]) -> list[str]:
    stages = _per_resolution(records)
    blocks = _equal_blocks(records)
    if len(blocks) < 2 or len({r.layout.grid for r in stages if r.layout and r.layout.kind == "tokens"}) != 1:
        return [record.name for record in stages]
    layout = blocks[-1].layout
    if layout is not None and layout.prefix:
        return _attention_inputs(records, blocks)
    spaced = [blocks[i].name for i in _evenly_spaced(len(blocks))]
    last = stages[-1]
    if last.layout is None or last.layout.prefix:  # class tokens that join later (CaiT) read the blocks' patches
        return spaced
    return [*spaced[:-1], last.name]


def _per_resolution(records: list[ProbeRecord]) -> list[ProbeRecord]:
    """Of each spatial size the outermost module that finishes last, shallow → deep.

    A container of several stages does not count: a module that holds more than two sizes (MobileNet's `features`)
    is opened, and so is one that returns no tensor, or takes the image and does not fit. Modules inside a kept one
    are no candidates: the first convolution of ResNet-50's `layer2`, at `layer1`'s size, does not replace `layer1`.
    """
    sizes = _sizes_inside(records)
    candidates = _outermost(records, sizes, everywhere=False) or _outermost(records, sizes, everywhere=True)
    latest = {record.layout.grid: record for record in candidates if record.layout}  # in finishing order
    kept = sorted(latest.values(), key=lambda record: record.finished)[-STAGES:]
    return [_widened_layer(record, records) if _ends_narrow(record.module) else record for record in kept]


#: Blocks that end in a projection to few channels without an activation, in torchvision and timm.
_NARROW = {
    "InvertedResidual",
    "MBConv",
    "FusedMBConv",
    "DepthwiseSeparableConv",
    "EdgeResidual",
    "UniversalInvertedResidual",
}


def _ends_narrow(module: nn.Module) -> bool:
    last = module
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    return type(last).__name__ in _NARROW


def _widened_layer(narrow: ProbeRecord, records: list[ProbeRecord]) -> ProbeRecord:
    """The last module of the bottleneck's size: the activation in the next block that widens it again."""
    assert narrow.layout is not None
    later = [r for r in records if r.finished > narrow.finished and r.layout and r.layout.grid == narrow.layout.grid]
    return next((r for r in reversed(later) if r.calls == 1 and r.fits), narrow)


def _outermost(records: list[ProbeRecord], sizes: Sizes, everywhere: bool) -> list[ProbeRecord]:
    names = {record.name for record in records}
    opened, kept = set(), []
    for record in sorted(records, key=lambda record: record.name.count(".")):
        if not all(parent in opened for parent in _ancestors(record.name) if parent in names):
            continue
        spans = len(sizes[record.name]) > 2
        if record.fits and not spans and not record.opaque:
            kept.append(record)
        elif spans or record.opaque or record.sees_image or everywhere:
            opened.add(record.name)
    return sorted(filter(_eligible, kept), key=lambda record: record.finished)


def _eligible(record: ProbeRecord) -> bool:
    """Runs once, does something, and is no adaptive pool: VGG's `avgpool` gives 7 × 7 for any input."""
    pools = "adaptive" in type(record.module).__name__.lower()
    return record.calls == 1 and not pools and not isinstance(record.module, _PASSING)


def _ancestors(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts)))


def _sizes_inside(records: list[ProbeRecord]) -> Sizes:
    """Module → the spatial sizes of its output and of all outputs inside it."""
    sizes: Sizes = {record.name: set() for record in records}
    for record in records:
        for name in (*_ancestors(record.name), record.name):
            if name in sizes and record.layout and record.fits:
                sizes[name].add(record.layout.grid)
    return sizes


# --- transformers of one resolution ---


def _equal_blocks(records: list[ProbeRecord]) -> list[ProbeRecord]:
    """The longest run of siblings of one class that all give tokens, in the order in which they run."""
    groups: dict[tuple[str, type], list[ProbeRecord]] = {}
    for record in records:
        composed = next(record.module.children(), None) is not None
        if composed and record.layout and record.layout.kind == "tokens" and record.calls == 1:
            groups.setdefault((record.name.rpartition(".")[0], type(record.module)), []).append(record)
    return max(groups.values(), key=len, default=[])


def _evenly_spaced(depth: int) -> list[int]:
    """Four block numbers, the last included: 2, 5, 8, 11 of twelve."""
    return sorted({max(0, math.ceil((i + 1) * depth / STAGES) - 1) for i in range(STAGES)})


def _attention_inputs(records: list[ProbeRecord], blocks: list[ProbeRecord]) -> list[str]:
    """For four blocks the norm that reads the block's own input; without one, the block before."""
    names = []
    for index in _evenly_spaced(len(blocks)):
        block = blocks[index]
        norms = [r.name for r in records if _normalises_input(r, block)]
        names += norms[:1] or [blocks[index - 1].name for _ in range(index > 0)]
    return list(dict.fromkeys(names))


def _normalises_input(record: ProbeRecord, block: ProbeRecord) -> bool:
    return (
        record.name.rpartition(".")[0] == block.name
        and "norm" in type(record.module).__name__.lower()
        and record.shape == block.shape
        and record.source == block.source
        and record.calls == 1
    )
