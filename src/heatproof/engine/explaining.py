"""The public call: pictures in, maps out, any number of methods from the same passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import nn

from heatproof import outputs, targets
from heatproof.attributions import requested
from heatproof.data.inputs import Inputs, as_inputs
from heatproof.engine.batch import Batch, needs_by_layer
from heatproof.engine.explanation import Explanation, Placed, explanation, placed, refuse_inapplicable
from heatproof.errors import InvalidInput
from heatproof.models import Model, resolve_layer, wrap
from heatproof.registry import unknown
from heatproof.tensors import UPSAMPLING

T = TypeVar("T")


def halved(work: Callable[[slice], T], count: int) -> Iterator[T]:
    """`work(slice)` over `count` rows; where memory runs out, the half is tried, then the half of that."""
    pending = [slice(0, count)]
    while pending:
        rows = pending.pop(0)
        try:
            done = work(rows)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or rows.stop - rows.start < 2:
                raise
            middle = (rows.start + rows.stop) // 2
            pending[:0] = [slice(rows.start, middle), slice(middle, rows.stop)]
        else:
            yield done
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _out_of_memory(error: BaseException) -> bool:
    said = ("can't allocate memory", "not enough memory")  # PyTorch's CPU allocator on Linux, on Windows
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


class Maps(Mapping[str, torch.Tensor]):
    """Method → maps `(N, H, W)`, by the spellings asked for; also what they were made with.

    With several targets for each picture, `target` is `(N, T)`, maps are `(N, T, H, W)` and flags a list for each.

    Attributes:
        target: `(N,)` the classes explained.      logits: `(N, K)`.
        layer: the layer's name.                   layers: method → the layers it read, shallow → deep.
        flags: method → one reason per map, `""` where it is fine.
        ids: the pictures' names.
    """

    def __init__(self, maps: dict[str, torch.Tensor], **about: Any):
        self._maps = maps
        self.target: torch.Tensor = about["target"]
        self.logits: torch.Tensor = about["logits"]
        self.layer: str = about["layer"]
        self.layers: dict[str, tuple[str, ...]] = about["layers"]
        self.flags: dict[str, Any] = about["flags"]
        self._inputs: Inputs = about["inputs"]

    @cached_property
    def ids(self) -> list[str]:
        """File names, or hashes of the content."""
        return list(self._inputs.ids)

    def __getitem__(self, method: str) -> torch.Tensor:
        return self._maps[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(maps.shape)}" for name, maps in self.items())
        return f"Maps({shapes}; layer={self.layer!r})"


def explain(
    model: Model | nn.Module,
    images: Any,
    methods: Any = ("gradcam",),
    target: targets.Rule = "predicted",
    layer: str | nn.Module = "auto",
    raw: bool = False,
    *,
    output: outputs.Output = "logit",
    upsample: str = "bilinear",
    labels: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    differentiable: bool = False,
) -> Maps:
    """Explains pictures with one or several methods, all from the same passes.

    Args:
        model: from `load_model` or `wrap`; a bare `nn.Module` is wrapped with the defaults of `wrap`.
        images: paths, PIL pictures, uint8 or float arrays `(H, W, 3)`, one or several: resized and cropped as the
            model wants them. A float tensor `(N, 3, H, W)` is taken as it is: RGB in [0, 1], never resized. For
            signals and volumes (`wrap(…, input_shape=…)`) a float tensor `(N, C, *spatial)`, as the network takes it.
        methods: names (see `heatproof list methods`), `name@layer`, `refine:name`, `name[option=value]`, or a mapping
            from those to options.
        target: `predicted`, `label` (give `labels`), `least`, `top3`, an integer, one integer per image, or a callable
            on the logits. Several for each image, `(N, T)`, share one forward pass.
        layer: a name, a module of the model, or `auto`: the last feature map before pooling.
        raw: signed maps at layer resolution instead of display maps (three channels where a method has them).
        output: the number that is explained: `logit`, `probability`, `log-probability`, or a callable
            `(logits (N, K), target (N,)) → (N,)`.
        upsample: `bilinear`, `bicubic` or `nearest`.
        differentiable: maps keep their graph to a tensor `images` that requires a gradient.

    Returns:
        A mapping from the spellings asked for to `(N, H, W)` float tensors on the model's device, in [0, 1], higher =
        more important; zeros where a map is constant or not finite, which `.flags` says. `(N, T, H, W)` for several
        targets.

    Raises:
        UnknownName, InvalidInput, InvalidTarget, LayerError: each says what was expected. NotApplicable: a method that
        cannot serve this network, before any work is done.
    """
    model = as_model(model)
    requests = requested(methods)
    outputs.checked_output(output)
    if upsample not in UPSAMPLING:
        raise unknown("`upsample`", str(upsample), UPSAMPLING)
    inputs = as_inputs(images, model.geometry, None if model.pictures else model.input_shape)
    if batch_size < 1:
        raise InvalidInput(f"`batch_size` must be at least 1. Got {batch_size}.")
    name = chosen_layer(model, layer, any(request.spatial for request in requests))
    rule = per_image(target, labels, len(inputs))
    places = placed(model, requests, name)
    refuse_inapplicable(model, places, output)
    needs = needs_by_layer([(place.request, place.layers) for place in places])

    def made(rows: slice) -> Batch:
        return Batch(
            model,
            inputs.batch(rows).to(model.device),
            needs,
            rule[rows] if isinstance(rule, torch.Tensor) and rule.dim() else rule,
            lambda: inputs.ids[rows],
            seed,
            labels=None if labels is None else list(labels)[rows],
            differentiable=differentiable,
            output=output,
        )

    parts: list[Explanation] = []
    for start in range(0, len(inputs), batch_size):
        stop = min(start + batch_size, len(inputs))
        parts += _parts(made, slice(start, stop), places, upsample)
    pick = (lambda part, key: part.raw[key]) if raw else (lambda part, key: part.display(key, upsample))
    return Maps(
        {place.key: torch.cat([pick(part, place.key) for part in parts]) for place in places},
        target=torch.cat([part.target for part in parts]),
        logits=torch.cat([part.logits for part in parts]),
        layer=name,
        layers={place.key: place.layers for place in places if place.request.spatial},
        flags={place.key: [flag for part in parts for flag in part.flags[place.key]] for place in places},
        inputs=inputs,
    )


def _parts(
    made: Callable[[slice], Batch], rows: slice, places: Sequence[Placed], upsample: str
) -> Iterator[Explanation]:
    def work(part: slice) -> Explanation:
        batch = made(slice(rows.start + part.start, rows.start + part.stop))
        return explanation(batch, places, upsample=upsample)

    return halved(work, rows.stop - rows.start)


def as_model(model: Model | nn.Module) -> Model:
    """A bare module is wrapped with the defaults of `wrap`."""
    if isinstance(model, nn.Module):
        return wrap(model)
    if not isinstance(model, Model):
        raise InvalidInput(f"`model` must come from load_model or wrap, or be a module. Got {type(model).__name__}.")
    return model


def chosen_layer(model: Model, layer: str | nn.Module, needed: bool = True) -> str:
    """The layer's name in the model: `auto` is the last feature map before pooling; unknown names get near misses.

    Where no method reads a layer none is looked for, and `auto` becomes the empty text.
    """
    if isinstance(layer, str) and layer == "auto":
        return model.last_layer if needed else ""
    return resolve_layer(model, layer)


def per_image(target: targets.Rule, labels: Sequence[int] | None, count: int) -> targets.Rule:
    """Targets given per image are counted before the first pass: too few is an error, never a silent zero map."""
    if labels is not None and len(labels) != count:
        raise InvalidInput(f"Expected one label for each of the {count} images. Got {len(labels)}.")
    if isinstance(target, str | int) or callable(target):
        return target
    found = targets.as_classes(target)
    if found.dim() != 0 and (found.dim() > 2 or len(found) != count):
        raise targets.miscounted(found.shape, count)
    return found
