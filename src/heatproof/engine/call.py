"""The common part of `explain` and `score`: checks arguments, resolves methods, makes batches."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from heatproof import explained_output, targets
from heatproof.attributions import Request
from heatproof.data.inputs import Inputs, as_inputs
from heatproof.engine.batch import Batch
from heatproof.engine.memory import halved
from heatproof.engine.resolved_methods import ResolvedMethod, chosen_layer, refuse_inapplicable, resolve_layers
from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.models import Model, wrap

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """Methods that will explain some images; `Call.of` checks and resolves what the user gave."""

    model: Model
    inputs: Inputs
    methods: list[ResolvedMethod]
    layer: str
    target: targets.Rule
    labels: list[int] | None
    output: explained_output.Output
    seed: int
    batch_size: int

    @classmethod
    def of(
        cls,
        model: Model,
        images: Any,
        requests: Sequence[Request],
        target: targets.Rule,
        layer: str | nn.Module,
        *,
        labels: Sequence[int] | None,
        output: explained_output.Output,
        seed: int,
        batch_size: int,
    ) -> "Call":
        """Checks all arguments before any work.

        Raises:
            InvalidInput, InvalidTarget, UnknownName, LayerError, NotApplicable: as `explain`.
        """
        explained_output.checked_output(output)
        inputs = as_inputs(images, model.geometry, None if model.takes_images else model.input_shape)
        if batch_size < 1:
            raise InvalidInput(f"`batch_size` must be at least 1. Got {batch_size}.")
        name = chosen_layer(model, layer, any(request.reads_default for request in requests))
        rule = _checked_target(targets.with_indices(target, model.classes), labels, len(inputs))
        methods = resolve_layers(model, requests, name)
        refuse_inapplicable(model, methods, output)
        known = None if labels is None else list(labels)
        return cls(model, inputs, methods, name, rule, known, output, seed, batch_size)

    def batch(self, rows: slice, **more: Any) -> Batch:
        """The batch of these images; `more`: further attributes of `Batch`."""
        several = isinstance(self.target, torch.Tensor) and self.target.dim()
        x = self.inputs.batch(rows)
        if flat := self.inputs.flat(rows):
            warnings.warn(one_colour_warning(flat), HeatproofWarning, stacklevel=5)
        return Batch.of(
            self.model,
            self.methods,
            x.to(self.model.device),
            target_rule=self.target[rows] if several else self.target,  # type: ignore[index]
            ids=lambda: self.inputs.ids[rows],
            seed=self.seed,
            labels=None if self.labels is None else self.labels[rows],
            output=self.output,
            **more,
        )

    def over(self, work: Callable[[slice], T]) -> Iterator[T]:
        """`work(rows)` for all images, batch by batch; where memory runs out, with half a batch."""
        for start in range(0, len(self.inputs), self.batch_size):
            count = min(self.batch_size, len(self.inputs) - start)
            yield from halved(lambda part, at=start: work(slice(at + part.start, at + part.stop)), count)


def one_colour_warning(names: Sequence[str]) -> str:
    """The warning about images that are nearly one colour."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"Nearly one colour after preprocessing: {', '.join(names[:3])}{more}. If the stored values have another range "
        "than their type, set `window=(low, high)` (--window low,high), or `auto`."
    )


def as_model(model: Model | nn.Module) -> Model:
    """The model; a bare module is wrapped with the defaults of `wrap`."""
    if isinstance(model, nn.Module):
        return wrap(model)
    if not isinstance(model, Model):
        raise InvalidInput(f"`model` must come from load_model or wrap, or be a module. Got {type(model).__name__}.")
    return model


def _checked_target(target: targets.Rule, labels: Sequence[int] | None, count: int) -> targets.Rule:
    """The target rule; raises an error where labels or targets per image are not as many as the images."""
    if labels is not None and len(labels) != count:
        raise InvalidInput(f"Expected one label for each of the {count} images. Got {len(labels)}.")
    if isinstance(target, str | int) or callable(target):
        return target
    found = targets.as_classes(target)
    if found.dim() != 0 and (found.dim() > 2 or len(found) != count):
        raise targets.miscounted(found.shape, count)
    return found
