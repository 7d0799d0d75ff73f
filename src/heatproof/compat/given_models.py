"""Networks as other libraries call them: with normalised inputs and targets of any kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from heatproof import targets as rules
from heatproof.ambient import ordinary
from heatproof.attributions import Request, requested
from heatproof.engine import explain
from heatproof.errors import InvalidInput, InvalidTarget, LayerError
from heatproof.explained_output import Output
from heatproof.geometry import Geometry
from heatproof.locks import held, of_this_thread
from heatproof.memo import PerModule, cached_property
from heatproof.models import Layers, Model, find_layers
from heatproof.models.capture import first_tensor
from heatproof.models.layout import layout_of
from heatproof.models.model import bare, module_device
from heatproof.models.preprocessing import Preprocessing
from heatproof.rounding import top_class

T = TypeVar("T")

#: A function of a layer's output that gives the activations `(N, C, *spatial)`.
Reshape = Callable[[Any], torch.Tensor]

#: The layers found, by input shape.
_LAYERS = PerModule[Layers]()


def known_layers(model: Model) -> Layers:
    """The target layers, found once for each module and input shape: these call styles make a model in every call."""
    return _LAYERS.found(model.module, model.input_shape, lambda: find_layers(model))


class AsGiven(Model):
    """A module whose inputs are taken as they are: `x` is `z`, of any range.

    One logit l becomes the logits l and −l, so that class 0 is the output at index 0, as in other libraries: a raw map
    of it explains l itself. Where a layer gives a dict or a tuple, `reshape` says what of it is explained. A layer of
    one position gives a flagged map.
    """

    one_position = True
    warns_of_values = False  # the output may be anything, and is taken as it is

    def __init__(self, module: nn.Module, shape: Sequence[int], reshape: Reshape | None = None):
        module = bare(module)
        size = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        super().__init__(
            module,
            Preprocessing(geometry=Geometry(size)),
            type(module).__name__,
            module_device(module),
            input_shape=tuple(shape),
        )
        self.one_logit = False
        self.reading = None if reshape is None else partial(_reshaped, reshape)

    @cached_property
    def layers(self) -> Layers:
        """As `known_layers`."""
        return known_layers(self)

    def unwrap(self, output: Any) -> torch.Tensor:
        """As `Model.unwrap`, except for one logit."""
        found = super().unwrap(output)
        tensor, _ = first_tensor(getattr(output, "logits", output))
        self.one_logit = tensor is not None and tensor[0].numel() == 1
        if self.one_logit:
            one = found[:, 1:] - found[:, :1]
            return torch.cat([one, -one], 1)
        return found

    def predicted(self, logits: torch.Tensor) -> torch.Tensor:
        """The rule for no target: the most probable class; class 0 where there is one logit."""
        return torch.zeros_like(logits[:, 0], dtype=torch.int64) if self.one_logit else top_class(logits)


class Scored(AsGiven):
    """A module with the user's score, a function of one image's output, as two logits: 0 and the score."""

    def __init__(
        self,
        module: nn.Module,
        shape: Sequence[int],
        score: Callable[[Any], Any],
        reshape: Reshape | None = None,
    ):
        super().__init__(module, shape, reshape)
        self._score = score

    def unwrap(self, output: Any) -> torch.Tensor:
        """`(N, 2)`, whatever the output is made of: maps of classes, boxes, a dictionary."""
        if not isinstance(output, torch.Tensor | list):
            output = first_tensor(getattr(output, "logits", output))[0]
        if output is None:
            raise InvalidInput("Expected the model to return a tensor, or a list with one entry for each image.")
        scores = torch.stack([number(self._score, row) for row in output])
        return torch.stack([torch.zeros_like(scores), scores], 1)


def number(score: Callable[[Any], Any], row: Any) -> torch.Tensor:
    """What a user's function makes of one image's output, as a float32 scalar; anything but one number is an error."""
    found = score(row)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise InvalidTarget(f"A target must give one number, as a scalar tensor, for each image's output. Got {got}.")
    return found.reshape(()).float()


@dataclass(frozen=True)
class Wanted:
    """The targets: classes by a rule, or a function of the output for each image."""

    rule: Any = None
    output: Output = "logit"
    scores: tuple[Callable[[Any], Any], ...] = ()


def by_images(
    module: nn.Module,
    inputs: Any,
    wanted: Wanted,
    work: Callable[[AsGiven, torch.Tensor, Any, Output], T],
    reshape: Reshape | None = None,
) -> list[T]:
    """`work(model, inputs, rule, output)`: once, or image by image where each has its own score."""
    inputs = checked(inputs)
    shape = inputs.shape[1:]
    if wanted.scores:
        models = [Scored(module, shape, score, reshape) for score in wanted.scores]
        return [work(model, inputs[i : i + 1], 1, "logit") for i, model in enumerate(models)]
    model = AsGiven(module, shape, reshape)
    return [work(model, inputs, model.predicted if wanted.rule is None else wanted.rule, wanted.output)]


def _reshaped(reshape: Reshape, layer: nn.Module, output: Any, size: tuple[int, ...]) -> torch.Tensor | None:
    """What `reshape` makes of an output that is no tensor; None where that is the grid of the output's first tensor.

    The grid has gradients, since the network goes on with it. What a function makes of several tensors has none.
    """
    if isinstance(output, torch.Tensor):
        return None
    try:
        made = reshape(output)
    except Exception as error:  # whatever a user's function raises
        raise InvalidInput(
            f"`reshape_transform` must make a tensor of what {type(layer).__name__} gives, a {type(output).__name__}. "
            f"Got {type(error).__name__}: {error}"
        ) from error
    first, _ = first_tensor(output)
    if first is not None and isinstance(made, torch.Tensor):
        try:
            grid = layout_of(layer, first, size).to_grid(first)
        except LayerError:
            return made
        return None if grid.shape == made.shape and torch.equal(grid, made) else made
    return made


def checked(inputs: Any) -> torch.Tensor:
    """A float tensor `(N, C, *spatial)`; anything else is an error."""
    if not isinstance(inputs, torch.Tensor) or inputs.dim() not in (3, 4, 5) or not inputs.dtype.is_floating_point:
        got = f"{tuple(inputs.shape)} {inputs.dtype}" if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        raise InvalidInput(f"Expected a normalised float tensor (N, C, H, W), as the network takes it. Got {got}.")
    return ordinary(inputs).detach()


@dataclass
class Found:
    """Raw maps, forms and flags by method, and the logits (the scores, where those are the user's)."""

    raw: dict[str, torch.Tensor]
    forms: dict[str, str]
    flags: dict[str, list[str]]
    logits: torch.Tensor
    layers: dict[str, tuple[str, ...]]


def raw_maps(
    module: nn.Module,
    inputs: Any,
    methods: Mapping[str, Mapping[str, Any]],
    wanted: Wanted,
    layer: Any = "auto",
    reshape: Reshape | None = None,
) -> Found:
    """Raw maps by several methods, from the same passes; float64 for float64 inputs."""

    def work(model: AsGiven, some: torch.Tensor, rule: Any, output: Output):
        found = explain(model, some, methods, rule, layer, raw=True, output=output)
        return found, found.logits[:, :1] if model.one_logit else found.logits

    parts = by_images(module, inputs, wanted, work, reshape)
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    forms = {request.key: request.form for request in requested(methods)}
    return Found(
        {key: torch.cat([found[key] for found, _ in parts]).to(dtype) for key in methods},
        forms,
        {key: [flag for found, _ in parts for flag in found.flags[key]] for key in methods},
        torch.cat([logits for _, logits in parts]),
        parts[0][0].layers,
    )


def unscaled(method: str, options: Mapping[str, Any]) -> Request:
    """The request for a method whose maps an adapter gives in the peer's own form, not as display maps.

    Raises:
        InvalidInput: `power`, which rescales a display map.
    """
    (request,) = requested({method: options})
    if request.power != 1:
        raise InvalidInput(
            f"`power` rescales heatproof's display maps, which this adapter does not give. Got {request.power:g}: "
            "raise the returned map to it, or use heatproof.explain."
        )
    return request


def as_rule(target: Any, count: int) -> Any:
    """An integer, or one for each image (list, array, tensor); None where none is given."""
    if target is None:
        return None
    found = rules.as_classes(target)
    if found.dim() and (found.dim() > 1 or len(found) != count):
        raise rules.miscounted(found.shape, count)
    return found if found.dim() else int(found)


def last_softmax(model: nn.Module) -> nn.Module | None:
    """The last of a network's modules, where it is a softmax."""
    last = list(model.modules())[-1]
    return last if isinstance(last, nn.Softmax) else None


@contextmanager
def skipped(module: nn.Module | None) -> Iterator[None]:
    """A module gives what it gets, in this thread; None: nothing is changed."""
    if module is None:
        yield
        return
    with held(module):
        handle = module.register_forward_hook(of_this_thread(lambda _module, inputs, _output: inputs[0]))
        try:
            yield
        finally:
            handle.remove()
