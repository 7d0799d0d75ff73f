"""DeepLIFT and LRP: shares of the output propagated back to the image, with a rule at every nonlinear function.

Both are a gradient times a difference, in which the derivative of an elementwise function `f` is the slope of a secant
(Ancona et al. 2018, prop. 1–2): from its value at a baseline for DeepLIFT, from zero for LRP. So one backward pass is
enough. Every call of `f` counts, however it is written: modules, `F.relu`, ReLU6, one module used again. (Captum 0.9
knows some kinds of module, each used once; it silently takes other functions for linear, and overlapping max
pools and residual sums come out wrong.) What is neither linear nor has a rule (softmax, layer norm, one activation
times another) is refused by its name, before any work.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from heatproof.attributions.catalogue import attribution
from heatproof.attributions.functions import (
    ELEMENTWISE,
    LINEAR_IN_ONE,
    POOLS,
    PROPORTIONAL,
    THROUGH_ZERO,
    WEIGHTED,
    linear,
)
from heatproof.attributions.input_gradients import BASELINES, baseline_of
from heatproof.attributions.rules import (
    Answer,
    Back,
    Function,
    depends,
    first_and_rest,
    routed,
    ruled,
    ruled_gradient,
    slope,
)
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.models import Model
from heatproof.models.differentiable import gradient_missing
from heatproof.models.observable import unseen
from heatproof.models.operations import Operation, Watching, operation_name, operations, tensors_in

Tensor = torch.Tensor


def _refusal_of(model: Model, method: str, served: frozenset[str]) -> str:
    found = operations(model)
    if found.hidden:
        return unseen(found.hidden[0])
    refused: dict[str, Operation] = {}
    for call in found.calls:
        if call.name not in served and not linear(call.name, call.operands):
            refused.setdefault(_call_name(call.name, len(call.operands)), call)
    if not refused:
        return gradient_missing(model)
    listing = [f"{said} (in {call.module or call.kind})" for said, call in list(refused.items())[:3]]
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    return f"{method} has no rule for {', '.join(listing)}{more}"


def _call_name(name: str, operands: int) -> str:
    return f"{name} of two activations" if name in LINEAR_IN_ONE and operands > 1 else name


def _without_rule(method: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a call without a rule: linear ones run, others are an error (those that `applies` could not see)."""
    operands = tuple(i for i, tensor in enumerate(tensors_in([args, kwargs])) if tensor.requires_grad)
    name = operation_name(function, args, kwargs)
    output = function(*args, **kwargs)
    if operands and not linear(name, operands) and depends(output):
        raise NotApplicable(
            f"{method} has no rule for {_call_name(name, len(operands))}. "
            "Where the output explained is a probability, take the logit."
        )
    return output


def deeplift_refuses(model: Model, layer: str, options: Mapping[str, Any]) -> str:
    """Why DeepLIFT cannot be used for a network: its functions that are neither linear, elementwise nor max pooling."""
    return _refusal_of(model, "DeepLIFT", ELEMENTWISE | POOLS)


def lrp_refuses(model: Model, layer: str, options: Mapping[str, Any]) -> str:
    """Why LRP cannot be used for a network: its functions that have no rule."""
    return _refusal_of(model, "LRP", THROUGH_ZERO | POOLS)


@attribution(
    "deeplift",
    form="rgb",
    logit_only=True,
    source="Shrikumar et al. 2017, §3.5.1 (rescale rule)",
    applies=deeplift_refuses,
)
def deeplift(x: Tensor, z: Tensor, network, forward, of_target, *, baseline: str = "zero") -> Tensor:
    """DeepLIFT with the rescale rule: `(z − b) · m`, m by the chain rule with `Δf / Δa` for every derivative `f'(a)`.

    Δ is the difference from the same value when the network sees the baseline b (as in `integrated-gradients`). Where
    Δa vanishes the derivative is used. A max pool's Δ goes to its maxima on the image and on the baseline (as in
    SHAP), overlapping windows added. The map sums to `y(z) − y(b)`. One forward and one backward pass, and a forward
    pass of the baseline: one row for the baseline `zero`.
    """
    same = baseline in BASELINES and BASELINES[baseline] == "mean"
    start = baseline_of(baseline, x[:1], z[:1]) if same else baseline_of(baseline, x, z)
    reference = Reference()
    with torch.enable_grad(), Watching(reference.kept):  # with a graph: it shows what depends on the image
        network(start.detach().requires_grad_() * 1.0)
    return (z - start) * ruled_gradient(z, forward, of_target, reference.compared)


@dataclass
class _Call:
    name: str
    values: Tensor
    output: Tensor


#: Functions of several values at once, of which the rescale rule takes each output for a function of its own input.
SOFTMAX = frozenset({"softmax", "log_softmax"})


class Reference:
    """Input and output of every nonlinear call when the network saw the baseline, in the order of the calls.

    `softmax`: whether softmax has the rule of an elementwise function, as in Captum, and is not refused.
    """

    def __init__(self, *, softmax: bool = False):
        self.calls: list[_Call] = []
        self.at = 0
        self.served = ELEMENTWISE | POOLS | (SOFTMAX if softmax else frozenset())

    def kept(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call on the baseline, and keeps its input and output."""
        name = operation_name(function, args, kwargs)
        if name not in self.served or not depends(args, kwargs):
            return _without_rule("DeepLIFT", function, args, kwargs)
        values = first_and_rest(args, kwargs)[0].detach().clone()
        output = function(*args, **kwargs)
        self.calls.append(_Call(name, values, next(tensors_in(output)).detach().clone()))
        return output

    def compared(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call; its backward pass uses the secant from the same call on the baseline."""
        name = operation_name(function, args, kwargs)
        if name not in self.served or not depends(args, kwargs):
            return _without_rule("DeepLIFT", function, args, kwargs)
        call = self._next(name, first_and_rest(args, kwargs)[0])
        if name in POOLS:
            return _cross_max(function, args, kwargs, name, call)

        def rule(values: Tensor, output: Tensor, plain: Callable[[Tensor], Tensor]) -> Back:
            secant = _secant_of_relu if name == "relu" else _secant
            return secant(values, output, call, plain).mul_  # there is one backward pass, so it may write in place

        return ruled(function, args, kwargs, rule)

    def _next(self, name: str, values: Tensor) -> _Call:
        call = self.calls[self.at] if self.at < len(self.calls) else None
        self.at += 1
        fits = call is not None and call.name == name and call.values.shape[1:] == values.shape[1:]
        if call is None or not fits or len(values) % len(call.values):
            raise NotApplicable("DeepLIFT needs a network that computes the same way on the image and the baseline.")
        times = len(values) // len(call.values)
        if times == 1 or len(call.values) == 1:
            return call
        repeats = (times, *[1] * (values.dim() - 1))
        return _Call(name, call.values.repeat(repeats), call.output.repeat(repeats))


def _stands_still(values: Tensor, reference: Tensor) -> Tensor:
    """Where the difference is too small for a secant: its rounding error would be larger than its distance from the
    derivative. The two are even at the root of the rounding, for any function. A ReLU's kink is never inside."""
    return (values - reference).abs() <= torch.finfo(values.dtype).eps ** 0.5 * (values.abs() + reference.abs())


def _secant(values: Tensor, output: Tensor, call: _Call, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """`Δf / Δa`, and the derivative where Δa vanishes."""
    still = _stands_still(values, call.values)
    step = torch.where(still, 1, values - call.values)
    return torch.where(still, slope(values, plain), (output - call.output) / step)


def _secant_of_relu(values: Tensor, output: Tensor, call: _Call, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """The same in fewer steps: `max(a, a₀) / |a − a₀|`, clamped to [0, 1]. 0 / 0 becomes the derivative at 0.

    Exact at any distance: where Δa is small, both ends are on one side of the kink.
    """
    at_zero = float(slope(torch.zeros(1), plain))
    share = torch.maximum(values, call.values).div_((values - call.values).abs_())
    return share.clamp_(0, 1).nan_to_num_(at_zero)


def _cross_max(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, call: _Call) -> Any:
    """Max pooling: what the maximum gained over the baseline's comes from the maximum on the image, what it lost from
    the maximum on the baseline, each divided by its own difference."""
    values, rest, named = first_and_rest(args, kwargs)
    if named.get("return_indices"):
        raise NotApplicable("DeepLIFT has no rule for max pooling that hands out its indices.")
    function = getattr(F, name)
    sides = values.dim() - int(name[-2])
    with torch.no_grad():
        output, winner = function(values.detach(), *rest, **{**named, "return_indices": True})
        _, before = function(call.values, *rest, **{**named, "return_indices": True})
        winner, before = (index.expand_as(output).flatten(sides) for index in (winner, before))
        now, then = output.flatten(sides), call.output.expand_as(output).flatten(sides)
        top = torch.maximum(now, then)
        elsewhere_then = call.values.expand_as(values).flatten(sides).gather(-1, winner)
        elsewhere_now = values.detach().flatten(sides).gather(-1, before)
        gained = _share(top - then, now, elsewhere_then, 1.0)
        lost = _share(now - top, elsewhere_now, then, 0.0)
    shape = values.shape

    def back(gradient: Tensor) -> Tensor:
        flat = gradient.flatten(sides)
        found = flat.new_zeros(shape).flatten(sides).scatter_add_(-1, winner, flat * gained)
        return found.scatter_add_(-1, before, flat * lost).view(shape)

    return routed(values, output, back)


def _share(change: Tensor, values: Tensor, reference: Tensor, at_rest: float) -> Tensor:
    """`change` of a maximum divided by the difference at its position; `at_rest` where that is too small."""
    still = _stands_still(values, reference)
    return torch.where(still, at_rest, change / torch.where(still, 1, values - reference))


@attribution(
    "lrp",
    form="signed",
    aliases=["lrp-epsilon"],
    logit_only=True,
    source="Bach et al. 2015, eq. 58",
    applies=lrp_refuses,
)
def lrp(z: Tensor, forward, of_target, *, epsilon: float = 1e-9) -> Tensor:
    """LRP, epsilon rule: `R_i = Σ_j z_i w_ij R_j / (o_j + ε sign o_j)` at layers with weights; channels summed.

    `o` includes the bias. Elementwise functions pass on what they get, max pools give it to the maximum, sums (residual
    connections too) split it by share. Computed as a gradient times `z` (Ancona et al. 2018, prop. 1), with `f(a) / a`
    for the derivative of every function and `o / (o + ε sign o)` at every layer. ε is Captum's. The map sums to
    the output minus the shares of biases (and of the shifts of batch norms): conserved in full only without them, and
    up to ε. One forward and one backward pass.
    """
    if not epsilon >= 0:
        raise InvalidInput(f"`epsilon` must be at least 0. Got {epsilon!r}.")

    return (z * ruled_gradient(z, forward, of_target, lrp_answer(epsilon))).sum(1)


def lrp_answer(epsilon: float) -> Answer:
    """What replaces every function, so that the gradient times the input is the relevance by the epsilon rule."""

    def answer(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = operation_name(function, args, kwargs)
        if name in POOLS or name in PROPORTIONAL:  # their derivative is the rule
            return function(*args, **kwargs)
        if name in THROUGH_ZERO and depends(args, kwargs):
            return ruled(function, args, kwargs, _from_zero)
        output = _without_rule("LRP", function, args, kwargs)
        return _damp(output, epsilon) if epsilon and name in WEIGHTED and depends(output) else output

    return answer


def _from_zero(values: Tensor, output: Tensor, plain: Callable[[Tensor], Tensor]) -> Back:
    """`f(a) / a`, and the derivative at zero, which is the same for all."""
    at_zero = slope(values.new_zeros(1), plain)
    return torch.where(values == 0, at_zero, output / values).mul_


def _damp(output: Tensor, epsilon: float) -> Tensor:
    size = output.detach().float().abs()  # an epsilon is zero in half precision
    share = size.div_(size + epsilon).to(output.dtype)
    output.register_hook(share.mul_)
    return output
