"""What all attributions in Captum's style have in common."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from heatproof.ambient import neutral
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensor,
    Tensors,
    baselines_of,
    explained,
    extra_of,
    gradients,
    inputs_of,
    one_number_a_row,
    output_of,
)
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.models import resolve_layer
from heatproof.models.layer_names import module_and_call
from heatproof.models.model import bare


class NotProvided(NotApplicable, NotImplementedError):
    """A part of Captum's interface that heatproof does not have."""


class Attribution:
    """A method for one network, called by `attribute(inputs, target=…)`.

    `attribute` runs the network in eval mode, and leaves it as it was. Any state of torch that the caller has set, such
    as autocast, holds for the network only.
    """

    def __init__(self, forward_func: Callable):
        if not callable(forward_func):
            got = type(forward_func).__name__
            raise InvalidInput(f"`forward_func` must be a torch.nn.Module or a function. Got {got}.")
        self.forward_func = forward_func

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "attribute" in vars(cls):
            cls.attribute = _guarded(cls.attribute)

    def attribute(self, inputs: Any, **options: Any) -> Any:
        """Attributions of the inputs' shapes; a tuple where the inputs are one."""
        raise NotProvided(f"{self.get_name()} defines no `attribute`.")

    def attribute_future(self, *args: Any, **options: Any) -> Any:
        """Not available."""
        raise NotProvided("heatproof has no `attribute_future`: take `attribute`.")

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the attributions are multiplied by the inputs, or by their difference from a baseline."""
        return getattr(self, "_multiply_by_inputs", False)

    def has_convergence_delta(self) -> bool:
        """Whether `attribute` takes `return_convergence_delta`."""
        return "return_convergence_delta" in inspect.signature(self.attribute).parameters

    @property
    def is_delta_supported(self) -> bool:
        """As `has_convergence_delta`."""
        return self.has_convergence_delta()

    def compute_convergence_delta(self, attributions: Any, *args: Any, **options: Any) -> Tensor:
        """How far the attributions of each row are from the change of its output, `(N,)`."""
        raise NotProvided(f"{self.get_name()} has no convergence delta.")

    @classmethod
    def get_name(cls) -> str:
        """The class's name in words: `Integrated Gradients`."""
        return "".join(f" {c}" if i and c.isupper() else c for i, c in enumerate(cls.__name__))


def _guarded(function: Callable) -> Callable:
    @functools.wraps(function)
    def attribute(self: Attribution, *args: Any, **options: Any) -> Any:
        with neutral(), explained(self.forward_func):
            return function(self, *args, **options)

    return attribute


class GradientAttribution(Attribution):
    """An attribution by gradients, those of `gradient_func(forward_func, inputs, target, additional_forward_args)`."""

    def __init__(self, forward_func: Callable):
        super().__init__(forward_func)
        self.gradient_func = gradients

    def compute_convergence_delta(  # type: ignore[override]
        self,
        attributions: Any,
        start_point: Any,
        end_point: Any,
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """`Σ attributions − (F(end) − F(start))` for each row, `(N,)`; 0 where the attributions are complete."""
        ends, parts = inputs_of(end_point), inputs_of(attributions)
        starts = baselines_of(start_point, ends)
        for part, end in zip(parts, ends, strict=True):
            if len(part) != len(end):
                raise InvalidArgument(f"Expected one attribution for each of the {len(end)} rows. Got {len(part)}.")
        extra = extra_of(additional_forward_args)
        with neutral(), explained(self.forward_func), torch.no_grad():
            after, before = (
                one_number_a_row(output_of(self.forward_func, points, target, extra)).flatten()
                for points in (ends, starts)
            )
            return sums(parts) - (after - before)


def sums(parts: Tensors) -> Tensor:
    """The sum of every row over all parts, `(N,)`."""
    return torch.stack([part.flatten(1).sum(1) if part.dim() > 1 else part for part in parts]).sum(0)


class PerturbationAttribution(Attribution):
    """An attribution by changes of the inputs; the function may return one number for the whole batch."""

    _multiply_by_inputs = True


class LayerAttribution(GradientAttribution):
    """An attribution of a layer: a module, a name, or a list of them."""

    def __init__(self, forward_func: Callable, layer: Any, device_ids: Any = None):
        super().__init__(forward_func)
        self.layer, self.device_ids = layer, device_ids
        several = layer if isinstance(layer, list | tuple) else [layer]
        self.places = [_place(forward_func, one) for one in several]

    @staticmethod
    def interpolate(layer_attribution: Any, interpolate_dims: Any, interpolate_mode: str = "nearest") -> Any:
        """Attributions `(N, C, *spatial)` resized to `interpolate_dims`, an integer or a tuple."""
        if isinstance(layer_attribution, tuple):
            return tuple(
                LayerAttribution.interpolate(one, interpolate_dims, interpolate_mode) for one in layer_attribution
            )
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)


#: A layer: its name, its module, and the number of its call where the name has one.
Place = tuple[str, nn.Module, "int | None"]


def _place(function: Any, layer: Any) -> Place:
    if isinstance(function, nn.Module):
        root = bare(function)
        name = resolve_layer(root, layer)
        return name, *module_and_call(root, name)
    if not isinstance(layer, nn.Module):
        got = type(layer).__name__
        raise InvalidInput(
            f"`layer` must be a module where `forward_func` is no module, so that has no names. Got {got}."
        )
    return type(layer).__name__, layer, None
