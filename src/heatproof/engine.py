"""The engine: every quantity once per batch, whatever number of methods asks for it.

`Batch` is one model on some pictures. `explanation` runs a set of methods on it; `explain` is the public call on any
number of pictures, which halves a batch that does not fit in memory.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from heatproof import seeds, targets
from heatproof.attributions import Request, display_maps, flags, requested
from heatproof.data.inputs import Inputs, as_inputs
from heatproof.errors import HeatproofError, InvalidInput, ModelError
from heatproof.models import Model, resolve_layer
from heatproof.models.capture import Captured, captured
from heatproof.models.tail import Record, Tail, recording

T = TypeVar("T")

#: The flag of a picture on which the model gives NaN or infinity.
NO_ANSWER = "the model gave non-finite output"

#: Quantities that need the graph from the layer to the logits.
_GRAPH = {"gradients"}


@dataclass
class Batch:
    """One batch of pictures `(N, 3, H, W)` in [0, 1] under one model, and what has been worked out on it.

    Attributes:
        needs: the union of what the methods will ask for; decides what the one forward pass keeps.
        target: a rule of `heatproof.targets`, or `(N,)` classes.
        ids: the pictures' names, from which their random numbers come.
        condition: what was done to the pictures (part of the seed of methods that draw random numbers).
        differentiable: keep the graph, so that maps can be differentiated by `x`.
    """

    model: Model
    x: torch.Tensor
    layer: str
    needs: frozenset[str]
    target_rule: targets.Rule = "predicted"
    ids: Sequence[str] = ()
    seed: int = 0
    condition: str = ""
    labels: Sequence[int | None] | None = None
    clean: torch.Tensor | None = None
    differentiable: bool = False
    _record: Record | None = field(default=None, init=False)

    def quantity(self, name: str, method: str) -> Any:
        """One named quantity of the vocabulary; `method` names the random stream of a `generator`."""
        if name == "generator":
            return seeds.generators(self.seed, self.ids, method, self.condition)
        return getattr(self, name)

    @cached_property
    def _captured(self) -> Captured:
        """The one forward pass; a tail is recorded in it where a method may want one."""
        spatial = self.needs & {"activations", "gradients", "head", "tail"}
        names = [self.layer] if spatial else []
        with ExitStack() as stack:
            if "tail" in self.needs and self.layer not in _LINEAR.get(self.model.module, ()):
                self._record = stack.enter_context(recording(self.model, self.layer))
            return captured(self.model, self.x, names, gradients=bool(self.needs & _GRAPH), trunk=self.differentiable)

    @cached_property
    def tail(self) -> Tail | None:
        """Activations at the layer → logits; None where `head` says it all."""
        if self.head is not None:
            return None
        found = self._captured
        if self._record is None:  # the layer was known to feed a linear head, and on this batch it does not
            with recording(self.model, self.layer) as self._record:
                self.model.logits(self.x)
        layout = found.layouts[self.layer]
        return Tail(self.model, self._record, layout, self.x, found.logits, self.differentiable)

    @cached_property
    def logits(self) -> torch.Tensor:
        """`(N, K)`."""
        return self._captured.logits if self.differentiable else self._captured.logits.detach()

    @cached_property
    def target(self) -> torch.Tensor:
        """`(N,)` the class explained."""
        return targets.resolved(self.target_rule, self._captured.logits.detach(), self.labels, self.clean)

    @cached_property
    def activations(self) -> torch.Tensor:
        """`(N, C, *spatial)`, float32 whatever the weights are."""
        found = self._captured.activations(self.layer).float()
        return found if self.differentiable else found.detach()

    @cached_property
    def gradients(self) -> torch.Tensor:
        """`(N, C, *spatial)`, float32; the graph is freed with this unless the maps are to be differentiated."""
        return self._captured.gradients(self.target, differentiable=self.differentiable)[self.layer].float()

    @cached_property
    def head(self) -> torch.Tensor | None:
        """`(K, C)` weights where the logits are a linear layer on the pooled activations; else None."""
        module = self.model.module
        found = linear_head(module, self.activations.detach(), self._captured.logits.detach())
        if found is not None:
            _LINEAR.setdefault(module, set()).add(self.layer)
        return found

    @cached_property
    def z(self) -> torch.Tensor:
        """The normalised picture."""
        return self.model.normalise(self.x)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Images → logit of the target, `(N,)`."""
        return self.model.logits(images).gather(1, self.target[:, None])[:, 0]


#: Layers that were found to feed a linear head through average pooling: nothing needs recording there.
_LINEAR: MutableMapping[nn.Module, set[str]] = WeakIdKeyDictionary()


def linear_head(module: nn.Module, activations: torch.Tensor, logits: torch.Tensor) -> torch.Tensor | None:
    """The weights of a last linear layer W if `W ⟨A⟩ + b` gives the logits; found by arithmetic, not by name.

    Pictures on which the model gives non-finite logits prove nothing and are left out of the comparison.
    """
    pooled = activations.flatten(2).mean(2)
    finite = torch.isfinite(logits).all(1)
    expected = logits[finite]
    slack = 1e-4 * float(expected.abs().max().clamp_min(1e-6)) if len(expected) else 0.0
    for layer in reversed([m for m in module.modules() if isinstance(m, nn.Linear)]):
        if layer.weight.shape != (logits.shape[1], pooled.shape[1]):
            continue
        weight, bias = layer.weight.detach().float(), None if layer.bias is None else layer.bias.detach().float()
        if torch.allclose(nn.functional.linear(pooled[finite], weight, bias), expected, 1e-3, slack):
            return weight
    return None


@dataclass
class Explanation:
    """What the methods said of one batch, by the spelling asked for."""

    logits: torch.Tensor
    target: torch.Tensor
    raw: dict[str, torch.Tensor]
    flags: dict[str, list[str]]
    layer: str
    size: tuple[int, ...]
    forms: dict[str, str]

    def display(self, key: str) -> torch.Tensor:
        """`(N, H, W)` in [0, 1]; zeros where the map is constant or not finite (see `flags`)."""
        return display_maps(self.raw[key], self.forms[key], self.size)


def explanation(batch: Batch, requests: Sequence[Request]) -> Explanation:
    """Runs the methods on a batch. Errors inside a method carry its name."""
    # Inside a caller's inference mode no gradient could be had, so it is left for the while.
    with batch.model.evaluating(), torch.inference_mode(False), torch.set_grad_enabled(batch.differentiable):
        batch.target  # noqa: B018 - resolved first, so that a wrong target is an error before any work on maps
        raw = {request.key: _raw_map(batch, request) for request in requests}
        return Explanation(
            batch.logits,
            batch.target,
            raw,
            {r.key: _reasons(batch, raw[r.key].detach(), r) for r in requests},
            batch.layer,
            tuple(batch.x.shape[2:]),
            {r.key: r.entry.traits["form"] for r in requests},
        )


def _reasons(batch: Batch, raw: torch.Tensor, request: Request) -> list[str]:
    """Why each map says nothing; where the model has no answer, no map that asks it can have one."""
    found = flags(raw, request.entry.traits["form"])
    if not set(request.entry.needs) - {"x", "generator"}:
        return found
    answered = torch.isfinite(batch.logits.detach()).all(1).tolist()
    return [flag if fine else NO_ANSWER for flag, fine in zip(found, answered, strict=True)]


def needs_of(requests: Sequence[Request]) -> frozenset[str]:
    """The union of the quantities that the methods name."""
    return frozenset(need for request in requests for need in request.entry.needs)


def _raw_map(batch: Batch, request: Request) -> torch.Tensor:
    given = {need: batch.quantity(need, request.name) for need in request.entry.needs}
    try:
        return request.entry.function(**given, **request.options)
    except HeatproofError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        shapes = {k: tuple(v.shape) for k, v in given.items() if isinstance(v, torch.Tensor)}
        error.add_note(f"in method {request.key!r} at layer {batch.layer!r}, given {shapes}")
        raise


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

    Attributes:
        target: `(N,)` the classes explained.      logits: `(N, K)`.
        layer: the layer's name.                   flags: method → one reason per map, `""` where it is fine.
        ids: the pictures' names.
    """

    def __init__(self, maps: dict[str, torch.Tensor], **about: Any):
        self._maps = maps
        self.target: torch.Tensor = about["target"]
        self.logits: torch.Tensor = about["logits"]
        self.layer: str = about["layer"]
        self.flags: dict[str, list[str]] = about["flags"]
        self.ids: list[str] = about["ids"]

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
    labels: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    differentiable: bool = False,
) -> Maps:
    """Explains pictures with one or several methods, all from the same passes.

    Args:
        model: from `load_model` or `wrap`; a bare `nn.Module` is wrapped with the defaults of `wrap`.
        images: paths, PIL pictures, uint8 or float arrays `(H, W, 3)`, one or several: resized and cropped as the
            model wants them. A float tensor `(N, 3, H, W)` is taken as it is: RGB in [0, 1], never resized.
        methods: names (see `heatproof list methods`), `name[option=value]`, or a mapping from name to options.
        target: `predicted`, `label` (give `labels`), `least`, an integer, one integer per image, or a callable on the
            logits.
        layer: a name, a module of the model, or `auto`: the last feature map before pooling.
        raw: signed maps at layer resolution instead of display maps.
        differentiable: maps keep their graph to a tensor `images` that requires a gradient.

    Returns:
        A mapping from the spellings asked for to `(N, H, W)` float tensors on the model's device, in [0, 1], higher =
        more important; zeros where a map is constant or not finite, which `.flags` says.

    Raises:
        UnknownName, InvalidInput, InvalidTarget, LayerError: each says what was expected.
    """
    if isinstance(model, nn.Module):
        from heatproof.models import wrap

        model = wrap(model)
    if not isinstance(model, Model):
        raise InvalidInput(f"`model` must come from load_model or wrap, or be a module. Got {type(model).__name__}.")
    requests = requested(methods)
    inputs = as_inputs(images, model.geometry)
    if batch_size < 1:
        raise InvalidInput(f"`batch_size` must be at least 1. Got {batch_size}.")
    name = chosen_layer(model, layer)
    rule = _per_image(target, labels, len(inputs))
    parts: list[Explanation] = []
    for start in range(0, len(inputs), batch_size):
        parts += _parts(model, inputs, slice(start, min(start + batch_size, len(inputs))), requests, name, rule, labels,
                        seed, differentiable)  # fmt: skip
    pick = (lambda part, key: part.raw[key]) if raw else (lambda part, key: part.display(key))
    return Maps(
        {r.key: torch.cat([pick(part, r.key) for part in parts]) for r in requests},
        target=torch.cat([part.target for part in parts]),
        logits=torch.cat([part.logits for part in parts]),
        layer=name,
        flags={r.key: [flag for part in parts for flag in part.flags[r.key]] for r in requests},
        ids=list(inputs.ids),
    )


def chosen_layer(model: Model, layer: str | nn.Module) -> str:
    """The layer's name in the model: `auto` is the last feature map before pooling; unknown names get near misses."""
    if isinstance(layer, str) and layer == "auto":
        return model.layers.last
    return resolve_layer(model, layer)


def _per_image(target: targets.Rule, labels: Sequence[int] | None, count: int) -> targets.Rule:
    """Targets given per image are counted before the first pass: too few is an error, never a silent zero map."""
    if labels is not None and len(labels) != count:
        raise InvalidInput(f"Expected one label for each of the {count} images. Got {len(labels)}.")
    if isinstance(target, str | int) or callable(target):
        return target
    found = targets.as_classes(target)
    if found.dim() != 0 and found.shape != (count,):
        raise targets.InvalidTarget(
            f"Expected one target for each of the {count} images. Got {tuple(found.shape)}. "
            "Give an integer for all, or a list with one integer per image."
        )
    return found


def _parts(
    model: Model,
    inputs: Inputs,
    rows: slice,
    requests: Sequence[Request],
    layer: str,
    rule: targets.Rule,
    labels: Sequence[int] | None,
    seed: int,
    differentiable: bool,
) -> Iterator[Explanation]:
    x = inputs.batch(rows).to(model.device)

    def work(part: slice) -> Explanation:
        here = slice(rows.start + part.start, rows.start + part.stop)
        batch = Batch(
            model,
            x[part],
            layer,
            needs_of(requests),
            rule[here] if isinstance(rule, torch.Tensor) and rule.dim() else rule,
            inputs.ids[here],
            seed,
            labels=None if labels is None else list(labels)[here],
            differentiable=differentiable,
        )
        return explanation(batch, requests)

    return halved(work, len(x))


def checked_logits(logits: torch.Tensor, model: Model) -> torch.Tensor:
    """Logits of a classifier with at least two classes, else a clear error."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ModelError(
            f"{model.name} must give (N, K) logits for K ≥ 2 classes. Got {tuple(logits.shape)}. "
            "A model with one output has no predicted class that could change."
        )
    return logits
