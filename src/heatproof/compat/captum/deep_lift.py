"""DeepLIFT with the rescale rule, from one baseline or the mean over several."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from heatproof.attributions.relevance import Reference
from heatproof.attributions.rules import refuse_hidden, ruled_gradients
from heatproof.compat.captum.base import GradientAttribution
from heatproof.compat.captum.calls import (
    Tensors,
    alike,
    baselines_of,
    extra_of,
    floating,
    inputs_of,
    one_number_a_row,
    output_of,
    repeated,
    repeated_target,
)
from heatproof.compat.captum.gradients import must_be_module
from heatproof.compat.captum.paths import distribution_of
from heatproof.models.operations import Watching


class DeepLift(GradientAttribution):
    """`(x − b) · m`, where m is the gradient with `Δf / Δa` for the derivative of every function f that is not linear.

    Every call counts, however it is written; what is neither linear nor elementwise nor a max pool is an error.
    """

    def __init__(self, model: nn.Module, multiply_by_inputs: bool = True, eps: float = 1e-10):
        super().__init__(must_be_module(model))
        self.model, self.eps, self._multiply_by_inputs = model, eps, multiply_by_inputs

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: Callable | None = None,
    ) -> Any:
        """Of the inputs' shapes, and with `return_convergence_delta` also the delta `(N,)`.

        Args:
            baselines: of the inputs' shapes, of one row, or a number; None: zero.
            custom_attribution_func: `(multipliers, inputs, baselines)` → attributions, or of the first ones of these.
        """
        ends = floating(inputs_of(inputs))
        starts = tuple(start.to(end.dtype) for start, end in zip(baselines_of(baselines, ends), ends, strict=True))
        found = self._shares(starts, ends, target, extra_of(additional_forward_args), custom_attribution_func)
        if not return_convergence_delta:
            return alike(inputs, found)
        return alike(inputs, found), self.compute_convergence_delta(
            found, starts, ends, target, additional_forward_args
        )

    def _shares(
        self, starts: Tensors, ends: Tensors, target: Any, extra: tuple[Any, ...], custom: Callable | None
    ) -> Tensors:
        reference = Reference(softmax=True)
        with torch.enable_grad(), Watching(reference.kept):  # with a graph: it shows what depends on the inputs
            given = tuple(one.detach().requires_grad_() * 1.0 for one in starts)
            refuse_hidden("DeepLIFT", self.model, output_of(self.forward_func, given, None, extra))

        def output(*points: torch.Tensor) -> torch.Tensor:
            return one_number_a_row(output_of(self.forward_func, points, target, extra))

        multipliers = ruled_gradients(ends, output, reference.compared)
        if custom is not None:
            wanted = len(inspect.signature(custom).parameters)
            return tuple(custom(*(multipliers, ends, starts)[:wanted]))
        if not self.multiplies_by_inputs:
            return multipliers
        return tuple(m * (end - start) for m, start, end in zip(multipliers, starts, ends, strict=True))


class DeepLiftShap(DeepLift):
    """The mean of DeepLIFT over a distribution of baselines, an estimate of SHAP values."""

    def __init__(self, model: nn.Module, multiply_by_inputs: bool = True):
        super().__init__(model, multiply_by_inputs)

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        baselines: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: Callable | None = None,
    ) -> Any:
        """Of the inputs' shapes; with `return_convergence_delta` also the delta of every pair, `(N · M,)`.

        `baselines` are `(M, …)` for each input, or a function that returns them, of the inputs or of nothing.
        """
        some = floating(inputs_of(inputs))
        pools = distribution_of(baselines, inputs, some)
        count, times = len(some[0]), len(pools[0])
        ends = tuple(one.repeat_interleave(times, 0) for one in some)
        starts = tuple(pool.repeat(count, *[1] * (pool.dim() - 1)) for pool in pools)
        goals = repeated_target(target, times, count, each=True)
        more = repeated(extra_of(additional_forward_args), times, count, each=True)
        pairs = self._shares(starts, ends, goals, more, custom_attribution_func)
        found = alike(inputs, tuple(one.unflatten(0, (count, times)).mean(1) for one in pairs))
        return (
            (found, self.compute_convergence_delta(pairs, starts, ends, goals, more))
            if return_convergence_delta
            else found
        )
