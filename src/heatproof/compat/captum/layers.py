"""Attributions of layers: activations, their gradients, Grad-CAM, and integrated gradients."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from heatproof.compat.captum.base import GradientAttribution, LayerAttribution
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensor,
    Tensors,
    alike,
    baselines_of,
    extra_of,
    gradients_by,
    inputs_of,
    one_number_a_row,
    precise,
    repeated,
    repeated_target,
)
from heatproof.compat.captum.capture import Layered
from heatproof.compat.captum.gradients import GuidedBackprop
from heatproof.compat.captum.paths import integrated, nodes_and_weights
from heatproof.errors import LayerError, warn
from heatproof.models import layout_of


class _Layer(LayerAttribution):
    def _pass(self, inputs: Tensors, extra: tuple[Any, ...], target: Any = None, **options: Any) -> Layered:
        return Layered(self.forward_func, self.places, inputs, target, extra, **options)

    def _by_layer(self, found: Layered, values: list[Tensors]) -> Any:
        shaped = [found.shaped(at, parts) for at, parts in enumerate(values)]
        return shaped if isinstance(self.layer, list | tuple) else shaped[0]

    def _with_gradients(
        self, inputs: Any, target: Any, extra: Any, of_input: bool, grad_kwargs: Any
    ) -> tuple[Layered, list[Tensors]]:
        found = self._pass(inputs_of(inputs), extra_of(extra), target, gradients=True, of_input=of_input)
        flat, output = tuple(value for layer in found.layers for value in layer), one_number_a_row(found.output)
        slopes = tuple(map(precise, _gradients(output, flat, grad_kwargs)))
        return found, _grouped(slopes, found.layers)


def _gradients(output: Tensor, at: Tensors, grad_kwargs: Any) -> Tensors:
    """The gradients; zeros for a layer that the output does not use where `materialize_grads` asks for them."""
    if (grad_kwargs or {}).get("materialize_grads") and not output.requires_grad:
        return tuple(torch.zeros_like(one) for one in at)
    return gradients_by(output, at, "the layer")


def _grouped(flat: Tensors, like: list[Tensors]) -> list[Tensors]:
    stream = iter(flat)
    return [tuple(next(stream) for _ in layer) for layer in like]


class LayerActivation(_Layer):
    """What a layer gives."""

    _multiply_by_inputs = True

    def attribute(
        self, inputs: Any, additional_forward_args: Any = None, attribute_to_layer_input: bool = False
    ) -> Any:  # type: ignore[override]
        """The layer's output, or its input; a list for several layers."""
        found = self._pass(inputs_of(inputs), extra_of(additional_forward_args), of_input=attribute_to_layer_input)
        return self._by_layer(found, [tuple(map(precise, layer)) for layer in found.layers])


class LayerGradientXActivation(_Layer):
    """Activation times gradient, or the gradient alone where `multiply_by_inputs` is False."""

    def __init__(self, forward_func: Callable, layer: Any, device_ids: Any = None, multiply_by_inputs: bool = True):
        super().__init__(forward_func, layer, device_ids)
        self._multiply_by_inputs = multiply_by_inputs

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Any = None,
    ) -> Any:
        """Of the layer's shape; a list for several layers.

        `grad_kwargs={"materialize_grads": True}`: zeros where the output does not use the layer, else an error.
        """
        found, slopes = self._with_gradients(
            inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs
        )
        if self.multiplies_by_inputs:
            slopes = [
                tuple(precise(value.detach()) * slope for value, slope in zip(*pair, strict=True))
                for pair in zip(found.layers, slopes, strict=True)
            ]
        return self._by_layer(found, slopes)


class LayerGradCam(_Layer):
    """Grad-CAM at a layer: `Σ_c mean(∂y/∂A_c) A_c`, `(N, 1, *spatial)`, signed unless `relu_attributions`.

    The layer gives `(N, C, *spatial)`. Tokens or channels-last outputs of a network on images are put in this form,
    which Captum leaves to the user.
    """

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: Any = None,
    ) -> Any:
        """`(N, 1, *spatial)`, or `(N, C, *spatial)` with `attr_dim_summation=False`; a tuple if the layer gives one."""
        found, slopes = self._with_gradients(
            inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs
        )
        size = tuple(inputs_of(inputs)[0].shape[2:])

        def cam(value: Tensor, slope: Tensor) -> Tensor:
            value, slope = _channels_first(self.places[0][1], precise(value.detach()), slope, size)
            over = tuple(range(2, slope.dim()))
            found = (slope.mean(over, keepdim=True) if over else slope) * value
            found = found.sum(1, keepdim=True) if attr_dim_summation and found.dim() > 1 else found
            return found.relu() if relu_attributions else found

        return self._by_layer(found, [tuple(map(cam, found.layers[0], slopes[0]))])


def _channels_first(module: Any, value: Tensor, slope: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if len(size) < 2 or value.dim() < 3:
        return value, slope
    try:
        layout = layout_of(module, value, size)
    except LayerError:
        return value, slope
    return layout.to_grid(value), layout.to_grid(slope)


class LayerIntegratedGradients(_Layer):
    """Integrated gradients of a layer, from what it gives for the baselines to what it gives for the inputs."""

    def __init__(self, forward_func: Callable, layer: Any, device_ids: Any = None, multiply_by_inputs: bool = True):
        super().__init__(forward_func, layer, device_ids)
        self._multiply_by_inputs = multiply_by_inputs

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: Any = None,
    ) -> Any:
        """Of the layer's shape; a list for several layers. Arguments as in IntegratedGradients."""
        some, extra = inputs_of(inputs), extra_of(additional_forward_args)
        bases, count = baselines_of(baselines, some), len(some[0])
        first, last = (self._pass(points, extra, of_input=attribute_to_layer_input) for points in (bases, some))
        starts, ends = (tuple(precise(value) for layer in found.layers for value in layer) for found in (first, last))

        def gradients_at(points: Tensors, times: int) -> Tensors:
            leaves = tuple(point.detach().requires_grad_() for point in points)
            found = self._pass(
                repeated(some, times, count, each=False),
                repeated(extra, times, count, each=False),
                repeated_target(target, times, count, each=False),
                gradients=True,
                of_input=attribute_to_layer_input,
                instead=_grouped(leaves, last.layers),
            )
            return _gradients(one_number_a_row(found.output), leaves, grad_kwargs)

        found = integrated(gradients_at, starts, ends, nodes_and_weights(method, n_steps), internal_batch_size)
        if self.multiplies_by_inputs:
            found = tuple(one * (end - start) for one, start, end in zip(found, starts, ends, strict=True))
        shaped = self._by_layer(last, _grouped(found, last.layers))
        if not return_convergence_delta:
            return shaped
        return shaped, self._delta(found, bases, some, target, extra)

    def _delta(self, found: Tensors, starts: Tensors, ends: Tensors, target: Any, extra: tuple[Any, ...]) -> Tensor:
        before, after = (self._pass(points, extra, target).output.flatten() for points in (starts, ends))
        return torch.stack([part.flatten(1).sum(1) for part in found]).sum(0) - (after - before)


class GuidedGradCam(GradientAttribution):
    """Guided backpropagation times `relu` of Grad-CAM at a layer, resized to the input."""

    def __init__(self, model: Any, layer: Any, device_ids: Any = None):
        super().__init__(model)
        self.model = model
        self.grad_cam, self.guided_backprop = LayerGradCam(model, layer, device_ids), GuidedBackprop(model)

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
    ) -> Any:
        """Of the inputs' shapes; an input without the layer's dimensions has an empty tensor, and a warning."""
        cam = self.grad_cam.attribute(
            inputs, target, additional_forward_args, attribute_to_layer_input, relu_attributions=True
        )
        if isinstance(cam, tuple):
            if len(cam) != 1:
                raise InvalidArgument(f"Guided Grad-CAM needs a layer that gives one tensor. Got {len(cam)}.")
            (cam,) = cam
        guided = self.guided_backprop.attribute(inputs_of(inputs), target, additional_forward_args)
        return alike(inputs, tuple(_times_cam(one, cam, interpolate_mode) for one in guided))


def _times_cam(one: Tensor, cam: Tensor, mode: str) -> Tensor:
    if one.dim() != cam.dim() or one.dim() < 3:
        warn(f"Grad-CAM {tuple(cam.shape)} cannot be resized to an input {tuple(one.shape)}: its map is empty.")
        return one.new_empty(0)
    return one * F.interpolate(cam, one.shape[2:], mode=mode)
