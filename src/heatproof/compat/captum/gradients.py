"""Gradients by the inputs: plain, times the inputs, and with a rule at every ReLU."""

from collections.abc import Callable
from typing import Any

from torch import nn

from heatproof.attributions.backprop import deconvnet_rule, guided_rule
from heatproof.attributions.rules import Answer, answered_by, ruled_gradients
from heatproof.compat.captum.base import GradientAttribution
from heatproof.compat.captum.calls import alike, extra_of, floating, inputs_of, one_number_a_row, output_of
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.models.operations import RELUS


class Saliency(GradientAttribution):
    """The gradient by the inputs, its magnitude unless `abs=False`."""

    def attribute(self, inputs: Any, target: Any = None, abs: bool = True, additional_forward_args: Any = None) -> Any:  # type: ignore[override]
        """The gradient or its magnitude, of the inputs' shapes."""
        found = self.gradient_func(self.forward_func, inputs_of(inputs), target, additional_forward_args)
        return alike(inputs, tuple(one.abs() if abs else one for one in found))


class InputXGradient(GradientAttribution):
    """Input times gradient."""

    _multiply_by_inputs = True

    def attribute(self, inputs: Any, target: Any = None, additional_forward_args: Any = None) -> Any:  # type: ignore[override]
        """Of the inputs' shapes."""
        some = inputs_of(inputs)
        found = self.gradient_func(self.forward_func, some, target, additional_forward_args)
        return alike(inputs, tuple(one * gradient for one, gradient in zip(some, found, strict=True)))


class _Ruled(GradientAttribution):
    """The gradient with a rule at every ReLU, also functional ones and ReLU6, which Captum ignores."""

    _rule: Answer

    def __init__(self, model: nn.Module):
        super().__init__(must_be_module(model))
        self.model = model

    def attribute(self, inputs: Any, target: Any = None, additional_forward_args: Any = None) -> Any:  # type: ignore[override]
        """Of the inputs' shapes."""
        extra = extra_of(additional_forward_args)

        met = 0

        def output(*points: Any) -> Any:
            return one_number_a_row(output_of(self.forward_func, points, target, extra))

        def rule(*call: Any) -> Any:
            nonlocal met
            met += 1
            return self._rule(*call)

        found = ruled_gradients(floating(inputs_of(inputs)), output, answered_by(rule, RELUS))
        if not met:
            raise NotApplicable(
                f"{type(self).__name__} needs a ReLU, and none was seen: elsewhere it is the plain gradient. "
                "Take Saliency. (What a scripted network computes with cannot be seen.)"
            )
        return alike(inputs, found)


class GuidedBackprop(_Ruled):
    """Guided backpropagation; also through functional ReLUs and ReLU6, which Captum ignores."""

    _rule = staticmethod(guided_rule)


class Deconvolution(_Ruled):
    """The deconvolution network; also through functional ReLUs and ReLU6, which Captum ignores."""

    _rule = staticmethod(deconvnet_rule)


def must_be_module(model: Callable) -> nn.Module:
    """The model, where it is a module: rules need to know what depends on its parameters only."""
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
    return model
