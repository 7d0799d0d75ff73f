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
of the first three rows are those of Domeniconi et al. 2026; the last two are found by probing forwards. All run once in
a forward pass, and each row of their output depends on one image, so the layers of another input (text, prototypes) are
left out.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from heatproof.errors import LayerError, ModelError
from heatproof.models.layer_names import several_calls
from heatproof.models.observable import some_compiled, without_layers
from heatproof.models.probe import Classifier, ProbeRecord, probe
from heatproof.models.rows import Rows

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
    stages, records = _stages(model)
    if not stages and last is None:
        raise LayerError(_none_found(model, records))
    return Layers(last or stages[-1], tuple(stages) or (last or "",))


def _stages(model: Classifier) -> tuple[list[str], list[ProbeRecord]]:
    """The stages, and the probe's records where one was made.

    Layers that mix images of a batch are taken only where there are no others: they are refused for several images.
    """
    families = list(_stages_by_family(model.module))
    try:
        records = probe(model)
    except ModelError:
        if families:
            return families[0], []
        raise
    for allowed in ({Rows.IMAGES}, {Rows.IMAGES, Rows.MIXED}):
        usable = {record.name for record in records if record.calls == 1 and record.rows in allowed}
        found = next((names for names in families if usable.issuperset(names)), None)
        found = found or _layers_of_probe(
            [r for r in records if r.rows in allowed | {Rows.FOLDED} and r.call == r.calls - 1]
        )
        if found:
            return found, records
    return [], records


class NameableLayer(NamedTuple):
    """A layer that can be explained.

    kind: its class. shape: channels and grid of its output. stage: `stage:2` for the second stage, empty for none.
    default: whether it is explained where none is named.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    stage: str
    default: bool


def nameable_layers(model: Classifier, layers: Layers) -> list[NameableLayer]:
    """The layers with positions that can be named, shallow → deep; of one that runs several times its first call."""
    stages = {name: f"stage:{number}" for number, name in enumerate(layers.stages, 1)}
    found = []
    for record in _nameable(model):
        assert record.layout is not None and record.shape is not None
        channels = record.shape[1 if record.layout.kind == "channels-first" else -1]
        name = f"{record.name}#0" if record.calls > 1 else record.name
        shape = (channels, *record.layout.grid)
        stage, default = stages.get(record.name, ""), record.name == layers.last
        found.append(NameableLayer(name, type(record.module).__name__, shape, stage, default))
    return found


def nameable_calls(model: Classifier) -> list[str]:
    """The names of `nameable_layers`."""
    return [f"{record.name}#0" if record.calls > 1 else record.name for record in _nameable(model)]


def _nameable(model: Classifier) -> list[ProbeRecord]:
    return [r for r in probe(model) if r.rows is Rows.IMAGES and r.layout is not None and r.call == 0]


def _none_found(model: Classifier, records: list[ProbeRecord]) -> str:
    """Says that no layer was found, why, and what can be done: every layer named here can be explained."""
    kind, otherwise = type(model.module).__name__, without_layers(len(model.input_shape) - 1)
    expected = (
        f"Expected a layer with positions (N × C × h × w) in {kind} that runs once in a forward pass. Found none. "
    )
    if some_compiled(model.module):
        return (
            f"{expected}It is compiled by TorchScript, which shows nothing of its layers: give the Python module that "
            f"it was made of, or {otherwise}."
        )
    usable = [record for record in records if record.rows is Rows.IMAGES]
    latest = {record.name: record for record in usable}.values()
    repeated = _layers_of_probe([replace(record, calls=1) for record in latest])
    if not repeated:
        able = [r.name for r in usable if r.layout is not None and r.calls == 1]
        if able:
            return f"{expected}Name one with `layer`, such as {able[-1]!r}, or {otherwise}."
        return f"{expected}{_why_none(records)}{otherwise[0].upper()}{otherwise[1:]}."
    calls = [record.call for record in usable if record.name == repeated[-1]]
    return expected + several_calls(repeated[-1], calls)


def _why_none(records: list[ProbeRecord]) -> str:
    """Why no layer can be named either; empty where none has positions."""
    kinds = {record.rows for record in records if record.shape is not None and len(record.shape) > 2}
    if Rows.FOLDED in kinds:
        return "Its layers see views, windows or parts, whose rows are not images. "
    return "None of its layers depends on the image. " if kinds == {Rows.FIXED} else ""


# --- families with a rule of their own ---


def _stages_by_family(module: nn.Module) -> Iterator[list[str]]:
    """The stages of every part whose family has a rule, the outermost first."""
    for prefix, part in module.named_modules():
        rule = _RULES.get(type(part).__name__)
        names = rule(part) if rule else []
        if names:
            yield [f"{prefix}.{name}" if prefix else name for name in names][-STAGES:]


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
