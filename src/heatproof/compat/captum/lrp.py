"""LRP with a rule for every module, and epsilon elsewhere.

A rule is a gradient times the inputs (Ancona et al. 2018, prop. 1): a module's output o is replaced by
`o' · o / (o' + ε sign o')`, which has the value o, where o' is the output with the rule's weights and the factor is a
constant. The gradient of that times the inputs is the rule's relevance.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from heatproof.attributions.relevance import lrp_answer
from heatproof.attributions.rules import refuse_hidden, ruled_gradients
from heatproof.compat.captum.base import Attribution, sums
from heatproof.compat.captum.calls import (
    Tensor,
    alike,
    extra_of,
    floating,
    inputs_of,
    one_number_a_row,
    output_of,
)
from heatproof.compat.captum.gradients import must_be_module
from heatproof.errors import InvalidInput
from heatproof.locks import of_this_thread

#: Captum's epsilon.
EPSILON = 1e-9


class InvalidRule(InvalidInput, TypeError):
    """A `.rule` that is none."""


class PropagationRule:
    """How a module passes relevance on: set it as the module's attribute `rule`."""

    epsilon = EPSILON

    def weights(self, values: Tensor, is_bias: bool) -> Tensor:
        """The weights, or the bias, that share out the relevance."""
        return values

    def passed(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The output's value, with the rule's gradient."""
        with torch.no_grad():
            other = copy.copy(module)
            other._forward_hooks, other._forward_pre_hooks = OrderedDict(), OrderedDict()
            other._parameters = {
                name: value if value is None else nn.Parameter(self.weights(value.detach(), name == "bias"), False)
                for name, value in module._parameters.items()
            }
        shared = other(*inputs)
        share = shared.detach()
        found = shared * (output.detach() / (share + self.epsilon * torch.where(share < 0, -1.0, 1.0)))
        return found + (output - found).detach()


class EpsilonRule(PropagationRule):
    """`R_i = Σ_j x_i w_ij R_j / (o_j + ε sign o_j)`."""

    def __init__(self, epsilon: float = EPSILON):
        self.epsilon = epsilon


class GammaRule(PropagationRule):
    """As epsilon, with `w + γ max(w, 0)` for the weights, which favours what speaks for the class."""

    def __init__(self, gamma: float = 0.25, set_bias_to_zero: bool = False):
        self.gamma, self.set_bias_to_zero = gamma, set_bias_to_zero

    def weights(self, values: Tensor, is_bias: bool) -> Tensor:
        """See the class."""
        return values * 0 if is_bias and self.set_bias_to_zero else values + self.gamma * values.clamp(min=0)


class Alpha1_Beta0_Rule(PropagationRule):
    """As epsilon, with `max(w, 0)` for the weights."""

    def __init__(self, set_bias_to_zero: bool = False):
        self.set_bias_to_zero = set_bias_to_zero

    def weights(self, values: Tensor, is_bias: bool) -> Tensor:
        """See the class."""
        return values * 0 if is_bias and self.set_bias_to_zero else values.clamp(min=0)


class IdentityRule(PropagationRule):
    """Every input has the relevance of the output at the same position; input and output have one shape."""

    def passed(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The output's value, with the rule's gradient."""
        (values,) = inputs
        if values.shape != output.shape:
            shapes = f"{tuple(values.shape)} and {tuple(output.shape)}"
            raise InvalidInput(f"IdentityRule needs an output of the input's shape. Got {shapes}.")
        at = values.detach()
        return output.detach() + (values - at) * torch.where(at == 0, 0, output.detach() / torch.where(at == 0, 1, at))


class LRP(Attribution):
    """Layer-wise relevance propagation: epsilon, or the rule that a module has as its attribute `rule`.

    Every call counts, also functional ones and modules used again, which Captum refuses.
    """

    _multiply_by_inputs = True

    def __init__(self, model: nn.Module):
        super().__init__(must_be_module(model))
        self.model = model
        self._ruled()

    def _ruled(self) -> dict[nn.Module, PropagationRule]:
        found: dict[nn.Module, PropagationRule] = {}
        for part in self.model.modules():
            rule = getattr(part, "rule", None)
            if rule is None:
                continue
            if not isinstance(rule, PropagationRule):
                raise InvalidRule(
                    f"The attribute `rule` of a {type(part).__name__} must be a rule of heatproof.compat.captum.attr, "
                    f"such as EpsilonRule(). Got {type(rule).__name__}."
                )
            found[part] = rule
        return found

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        """The relevance of every input value; with `return_convergence_delta` also the delta `(N,)`."""
        some, extra = floating(inputs_of(inputs)), extra_of(additional_forward_args)
        kept: list[Tensor] = []

        def output(*points: Tensor) -> Tensor:
            found = one_number_a_row(output_of(self.forward_func, points, target, extra))
            refuse_hidden("LRP", self.model, found)
            kept.append(found.detach())
            return found

        inside: list[nn.Module] = []
        plain = lrp_answer(EPSILON)

        def answer(function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return function(*args, **kwargs) if inside else plain(function, args, kwargs)

        with _rules_applied(self._ruled(), inside):
            found = ruled_gradients(some, output, answer)
        found = tuple(one * gradient for one, gradient in zip(some, found, strict=True))
        delta = self.compute_convergence_delta(found, kept[0])
        return (alike(inputs, found), delta) if return_convergence_delta else alike(inputs, found)

    def compute_convergence_delta(self, attributions: Any, output: Tensor) -> Tensor:  # type: ignore[override]
        """The output less the sum of the relevance, for each row: what biases and epsilon keep, `(N,)`."""
        return output.flatten() - sums(inputs_of(attributions))


@contextmanager
def _rules_applied(ruled: dict[nn.Module, PropagationRule], inside: list[nn.Module]) -> Iterator[None]:
    """Modules with a rule give its output; `inside` names the one that runs, whose functions have no other rule."""

    def begin(module: nn.Module, _inputs: Any) -> None:
        inside.append(module)

    def end(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        found = ruled[module].passed(module, inputs, output)
        inside.pop()
        return found

    with ExitStack() as handles:
        for module in ruled:
            handles.callback(module.register_forward_pre_hook(of_this_thread(begin)).remove)
            handles.callback(module.register_forward_hook(of_this_thread(end)).remove)
        yield
