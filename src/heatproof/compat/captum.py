"""Captum's call style (0.9.0) on heatproof's methods: `attribute(inputs, target=)`.

    from heatproof.compat.captum import Attribution, LayerGradCam

    LayerGradCam(model, model.layer4).attribute(inputs, target=281)       (N, 1, h, w)
    Attribution("rise", model, masks=4000).attribute(inputs, target=281)  (N, 1, H, W), any of our methods

Inputs are normalised, as the network takes them; targets are an integer or one for each image. `target=None`
explains the most probable class (Captum: only models with one output).
"""

from typing import Any

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import requested
from heatproof.compat.given_models import Wanted, as_rule, checked, raw_maps
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.models import resolve_layer
from heatproof.models.model import bare


class Attribution:
    """Any method of heatproof's by name: raw maps, signed, `(N, C, *size)`.

    C is 1, except for methods whose map has the input's channels; `*size` is the layer's for a CAM, else the input's.
    """

    def __init__(self, method: str, model: nn.Module, layer: nn.Module | str | None = None, **options: Any):
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
        (self._request,) = requested({method: options})
        self.method, self.model, self.options = method, model, options
        self.layer = "auto" if layer is None else resolve_layer(bare(model), layer)

    @neutral()
    def attribute(self, inputs: Any, target: Any = None, additional_forward_args: Any = None, **options: Any) -> Any:
        """`options` replace those of the constructor. A tuple with one tensor gives a tuple, as in Captum."""
        _defaults(additional_forward_args=additional_forward_args)
        if isinstance(inputs, tuple):
            if len(inputs) != 1:
                raise InvalidInput(f"Expected one input tensor. Got {len(inputs)}.")
            return (Attribution.attribute(self, inputs[0], target, **options),)
        some = checked(inputs)
        if isinstance(target, torch.Tensor) and target.numel() == 1:
            target = int(target)
        chosen = {self.method: {**self.options, **options}}
        found = raw_maps(self.model, some, chosen, Wanted(as_rule(target, len(some))), self.layer)
        raw = found.raw[self.method]
        return raw if found.forms[self.method] == "rgb" else raw[:, None]


class LayerGradCam(Attribution):
    """Grad-CAM at a layer, `(N, 1, *spatial)`, signed unless `relu_attributions`."""

    def __init__(self, forward_func: nn.Module, layer: nn.Module | str, device_ids: Any = None):
        super().__init__("gradcam", forward_func, layer)

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
        """Arguments that heatproof does not support must keep their defaults."""
        _defaults(additional_forward_args=additional_forward_args, attribute_to_layer_input=attribute_to_layer_input,
                  attr_dim_summation=not attr_dim_summation, grad_kwargs=grad_kwargs)  # fmt: skip
        found = super().attribute(inputs, target)
        if not relu_attributions:
            return found
        return tuple(one.relu() for one in found) if isinstance(found, tuple) else found.relu()


class Saliency(Attribution):
    """The gradient by the input, `(N, C, *size)`, its magnitude unless `abs=False`."""

    def __init__(self, forward_func: nn.Module):
        super().__init__("gradient", forward_func)

    def attribute(self, inputs: Any, target: Any = None, abs: bool = True, additional_forward_args: Any = None) -> Any:  # type: ignore[override]
        """The gradient or its magnitude."""
        _defaults(additional_forward_args=additional_forward_args)
        found = super().attribute(inputs, target)
        if not abs:
            return found
        return tuple(one.abs() for one in found) if isinstance(found, tuple) else found.abs()


class InputXGradient(Attribution):
    """Input times gradient, `(N, C, *size)`."""

    def __init__(self, forward_func: nn.Module):
        super().__init__("input-x-gradient", forward_func)


class GuidedBackprop(Attribution):
    """Guided backpropagation, `(N, C, *size)`; also through functional ReLUs and ReLU6, which Captum ignores."""

    def __init__(self, model: nn.Module):
        super().__init__("guided-backprop", model)


class Deconvolution(Attribution):
    """The deconvolution network, `(N, C, *size)`; also through functional ReLUs."""

    def __init__(self, model: nn.Module):
        super().__init__("deconvnet", model)


class IntegratedGradients(Attribution):
    """Integrated gradients from zero, `(N, C, *size)`, by Gauss–Legendre quadrature."""

    def __init__(self, forward_func: nn.Module, multiply_by_inputs: bool = True):
        _defaults(multiply_by_inputs=not multiply_by_inputs)
        super().__init__("integrated-gradients", forward_func)

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
    ) -> Any:
        """`baselines` must be None or 0; see `Attribution("integrated-gradients", model, baseline=…)`."""
        _defaults(baselines=baselines, additional_forward_args=additional_forward_args,
                  return_convergence_delta=return_convergence_delta)  # fmt: skip
        if method != "gausslegendre":
            raise NotApplicable(f"`method` must be 'gausslegendre'. Got {method!r}.")
        return super().attribute(inputs, target, steps=n_steps)


def _defaults(**given: Any) -> None:
    """Raises NotApplicable for an unsupported argument that is not at its default."""
    for name, value in given.items():
        if isinstance(value, torch.Tensor) or value:
            raise NotApplicable(f"`{name}` is not served by heatproof. Leave it at its default.")
