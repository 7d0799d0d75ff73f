"""The common part of `explain` and `score`: checks arguments, resolves methods, makes batches."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from heatproof import explained_output, targets
from heatproof.attributions import Request
from heatproof.data.input_form import InputForm
from heatproof.data.inputs import Inputs, as_inputs
from heatproof.data.streams import Stream
from heatproof.engine.batch import Batch
from heatproof.engine.memory import halved
from heatproof.engine.resolved_methods import ResolvedMethod, chosen_layer, refuse_inapplicable, resolve_layers
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput
from heatproof.models import Model, wrap
from heatproof.models.pipelines import is_pipeline
from heatproof.transfers import on_device

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """Methods that will explain some images; `Call.of` checks and resolves what the user gave."""

    model: Model
    inputs: Inputs | Stream
    methods: list[ResolvedMethod]
    layer: str
    target: targets.Rule
    labels: list[int | None] | None
    output: explained_output.Output
    seed: int
    batch_size: int
    normalised: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        images: Any,
        requests: Sequence[Request],
        target: targets.Rule,
        layer: str | nn.Module,
        *,
        labels: Sequence[int | str | None] | None,
        output: explained_output.Output,
        seed: int,
        batch_size: int,
        normalised: bool = False,
    ) -> "Call":
        """Checks all arguments before any work.

        Raises:
            InvalidInput, InvalidTarget, UnknownName, LayerError, NotApplicable: as `explain`.
        """
        model, output = of_output(model, output)
        model.warn_of_assumptions()
        inputs = model_inputs(images, model, normalised)
        if batch_size < 1:
            raise InvalidInput(f"`batch_size` must be at least 1. Got {batch_size}.")
        name = chosen_layer(model, layer, any(request.reads_default for request in requests))
        rule = _checked_target(targets.with_indices(target, model.classes), labels, inputs)
        methods = resolve_layers(model, requests, name)
        refuse_inapplicable(model, methods, output)
        known = None if labels is None else targets.checked_labels(labels, model.classes)
        return cls(model, inputs, methods, name, rule, known, output, seed, batch_size, normalised)

    def batch(self, rows: slice, **more: Any) -> Batch:
        """The batch of these images; `more`: further attributes of `Batch`."""
        several = isinstance(self.target, torch.Tensor) and self.target.dim()
        x = self.inputs.batch(rows)
        if flat := self.inputs.flat(rows):
            warnings.warn(one_colour_warning(flat), HeatproofWarning, stacklevel=5)
        return Batch.of(
            self.model,
            self.methods,
            on_device(x, self.model.device),
            target_rule=self.target[rows] if several else self.target,  # type: ignore[index]
            ids=lambda: self.inputs.ids[rows],
            seed=self.seed,
            labels=self._labels(rows),
            output=self.output,
            **more,
        )

    def _labels(self, rows: slice) -> list[int | None] | None:
        """The labels of these images; 0 for one that cannot be read, whose map is left out."""
        found: Any = self.inputs.labels if self.labels is None else self.labels
        if found is None:
            return None
        return [0 if row in self.inputs.failed else found[row] for row in range(rows.start, rows.stop)]

    def over(self, work: Callable[[slice], T]) -> Iterator[T]:
        """`work(rows)` for all images, batch by batch; where memory runs out, with half a batch."""
        start = 0
        while count := self.inputs.ready(start, self.batch_size):
            yield from halved(lambda part, at=start: work(slice(at + part.start, at + part.stop)), count)
            start += count
        if len(self.inputs.failed) == start:
            raise InvalidImage(f"No image can be used. The first: {self.inputs.failed[0].rstrip('.')}.")


def model_inputs(images: Any, model: Model, normalised: bool = False) -> Inputs | Stream:
    """Images in any form, as input of a model.

    `normalised`: tensors are as the network takes them, and the model's mean and std are undone.

    Raises:
        InvalidInput: see `as_inputs`.
    """
    inputs = as_inputs(images, input_form(model, normalised))
    if model.takes_images and not isinstance(images, torch.Tensor):
        model.warn_as_given()
    return inputs


def input_form(model: Model, normalised: bool = False) -> InputForm:
    """What a model takes, and whether tensors come normalised."""
    shape = None if model.normalises else model.input_shape
    undone = (model.mean, model.std) if normalised and model.normalises else (None, None)
    return InputForm(model.geometry, shape, *undone, classes=model.classes)


def one_colour_warning(names: Sequence[str]) -> str:
    """The warning about images that are nearly one colour."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"Nearly one colour after preprocessing: {', '.join(names[:3])}{more}. If the stored values have another range "
        "than their type, set `window=(low, high)` (--window low,high), or `auto`."
    )


def of_output(model: Model, output: explained_output.Output) -> tuple[Model, explained_output.Output]:
    """The model and the output explained, checked; with the output `value` a model whose outputs are values.

    Raises:
        UnknownName: no such output. InvalidInput: a probability of a network of values.
    """
    explained_output.checked_output(output)
    model = model.as_values() if output == "value" else model
    if model.of_values:
        explained_output.refuse_of_values(output)
        output = "value" if isinstance(output, str) else output
    return model, output


def as_model(model: Any) -> Model:
    """The model; a bare module, or a pipeline of Hugging Face, is wrapped as by `wrap`."""
    if isinstance(model, Model):
        return model
    if isinstance(model, nn.Module) or is_pipeline(model):
        return wrap(model)
    raise InvalidInput(
        "`model` must come from load_model or wrap, or be a module or an image-classification pipeline. Got "
        f"{type(model).__name__}."
    )


def _checked_target(target: targets.Rule, labels: Sequence[Any] | None, inputs: Inputs | Stream) -> targets.Rule:
    """The target rule; raises an error where labels or targets per image are not as many as the images."""
    if labels is not None and len(labels) != len(inputs):
        raise InvalidInput(f"Expected one label for each of the {len(inputs)} images. Got {len(labels)}.")
    if isinstance(target, str | int) or callable(target):
        return target
    found = targets.as_classes(target)
    if found.dim() != 0 and (found.dim() > 2 or len(found) != len(inputs)):
        raise targets.miscounted(found.shape, len(inputs))
    return found
