"""Gradients along the way from a baseline: integrated gradients, and GradientSHAP at random points of it."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from heatproof.compat.captum.base import GradientAttribution
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensors,
    alike,
    baselines_of,
    extra_of,
    floating,
    inputs_of,
    repeated,
    repeated_target,
    tupled,
)
from heatproof.passes import check_int, parts, rows_per_pass

#: The rules by which the integral is approximated.
RULES = ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid")


def nodes_and_weights(method: str, steps: int) -> list[tuple[float, float]]:
    """The points in [0, 1] and their weights, which sum to 1."""
    count = check_int("n_steps", steps)
    if method not in RULES:
        raise InvalidArgument(f"`method` must be one of {', '.join(RULES)}. Got {method!r}.")
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(count)
        nodes, weights = (nodes + 1) / 2, weights / 2
    elif method == "riemann_trapezoid":
        nodes, weights = np.linspace(0, 1, max(count, 2)), np.ones(max(count, 2))
        weights[[0, -1]] = 0.5
        weights /= weights.sum()
    else:
        start = {"riemann_left": 0, "riemann_middle": 0.5, "riemann_right": 1}[method]
        nodes, weights = (np.arange(count) + start) / count, np.full(count, 1 / count)
    return [(float(node), float(weight)) for node, weight in zip(nodes, weights, strict=True)]


def integrated(
    gradients_at: Callable[[Tensors, int], Tensors],
    starts: Tensors,
    ends: Tensors,
    path: list[tuple[float, float]],
    batch: int | None,
) -> Tensors:
    """`Σ weight · gradient` over the points `start + node (end − start)`, of the shapes of `ends`.

    `gradients_at(points, times)` gets the rows of `times` nodes, all rows of one node after those of another.
    `batch` is the most rows of a pass, at least one node's.
    """
    count = len(ends[0])
    found = tuple(torch.zeros_like(end) for end in ends)
    for some in parts(len(path), max(1, (batch or rows_per_pass(ends[0])) // max(1, count))):
        nodes, weights = zip(*path[some], strict=True)
        points = tuple(
            torch.cat([start + node * (end - start) for node in nodes]) for start, end in zip(starts, ends, strict=True)
        )
        for total, gradient in zip(found, gradients_at(points, len(nodes)), strict=True):
            factors = torch.tensor(weights, dtype=gradient.dtype, device=gradient.device)
            total += torch.tensordot(factors, gradient.unflatten(0, (len(nodes), count)), 1)
    return found


class IntegratedGradients(GradientAttribution):
    """`(x − b) ∫ ∂y/∂x (b + α (x − b)) dα`, without the factor where `multiply_by_inputs` is False."""

    def __init__(self, forward_func: Callable, multiply_by_inputs: bool = True):
        super().__init__(forward_func)
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
    ) -> Any:
        """Of the inputs' shapes, and with `return_convergence_delta` also the delta `(N,)`.

        Args:
            baselines: of the inputs' shapes, of one row, or a number; None: zero.
            method: the quadrature, one of `gausslegendre` and `riemann_left`, `_middle`, `_right`, `_trapezoid`.
            internal_batch_size: the most rows of one pass; None: what `heatproof.passes` says.
        """
        ends = floating(inputs_of(inputs))
        starts, extra, count = baselines_of(baselines, ends), extra_of(additional_forward_args), len(ends[0])

        def gradients_at(points: Tensors, times: int) -> Tensors:
            more = repeated(extra, times, count, each=False)
            goals = repeated_target(target, times, count, each=False)
            return self.gradient_func(self.forward_func, points, goals, more)

        found = integrated(gradients_at, starts, ends, nodes_and_weights(method, n_steps), internal_batch_size)
        if self.multiplies_by_inputs:
            found = tuple(one * (end - start) for one, start, end in zip(found, starts, ends, strict=True))
        if not return_convergence_delta:
            return alike(inputs, found)
        return alike(inputs, found), self.compute_convergence_delta(
            found, starts, ends, target, additional_forward_args
        )


class GradientShap(GradientAttribution):
    """GradientSHAP: `(x + ε − b) · ∂y/∂x (b + α (x + ε − b))`, the mean over random b, α ~ U[0, 1] and ε.

    Draws come from torch's global generator: `torch.manual_seed` repeats them. (Captum's come from NumPy's too.)
    """

    def __init__(self, forward_func: Callable, multiply_by_inputs: bool = True):
        super().__init__(forward_func)
        self._multiply_by_inputs = multiply_by_inputs

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        baselines: Any,
        n_samples: int = 5,
        stdevs: Any = 0.0,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Of the inputs' shapes, and with `return_convergence_delta` also the delta of every draw, `(N · n_samples,)`.

        Args:
            baselines: the distribution, `(M, …)` for each input, of which each draw takes one row; or a function that
                returns it, of the inputs or of nothing.
            n_samples: draws for each image.
            stdevs: the standard deviation of the noise, a number or one for each input.
        """
        some = floating(inputs_of(inputs))
        pools = distribution_of(baselines, inputs, some)
        count, times = len(some[0]), check_int("n_samples", n_samples)
        goals = repeated_target(target, times, count, each=True)
        more = repeated(extra_of(additional_forward_args), times, count, each=True)
        noise = one_for_each("stdevs", stdevs, some)
        ends = tuple(noisy(one.repeat_interleave(times, 0), float(std)) for one, std in zip(some, noise, strict=True))
        chosen = torch.randint(len(pools[0]), (count * times,), device=pools[0].device)
        starts = tuple(pool[chosen] for pool in pools)
        share = torch.rand(count * times, device=some[0].device)
        points = tuple(start + _column(share, end) * (end - start) for start, end in zip(starts, ends, strict=True))
        drawn = self.gradient_func(self.forward_func, points, goals, more)
        if self.multiplies_by_inputs:
            drawn = tuple(one * (end - start) for one, start, end in zip(drawn, starts, ends, strict=True))
        found = alike(inputs, tuple(one.unflatten(0, (count, times)).mean(1) for one in drawn))
        return (
            (found, self.compute_convergence_delta(drawn, starts, ends, goals, more))
            if return_convergence_delta
            else found
        )


def distribution_of(baselines: Any, given: Any, inputs: Tensors) -> Tensors:
    """Several baselines `(M, …)` for each input, given as tensors or by a function."""
    if callable(baselines):
        baselines = baselines(given) if inspect.signature(baselines).parameters else baselines()
    found = tupled(baselines)
    if len(found) != len(inputs) or not all(isinstance(one, torch.Tensor) for one in found):
        kinds = ", ".join(type(one).__name__ for one in found)
        raise InvalidArgument(
            f"Expected a tensor of baselines (M, …) for each of the {len(inputs)} inputs. Got {kinds}."
        )
    for pool, one in zip(found, inputs, strict=True):
        if pool.shape[1:] != one.shape[1:] or len(pool) != len(found[0]):
            raise InvalidArgument(
                f"Baselines must be (M, {', '.join(map(str, one.shape[1:]))}). Got {tuple(pool.shape)}."
            )
    return tuple(pool.detach().to(one) for pool, one in zip(found, inputs, strict=True))


def one_for_each(option: str, given: Any, inputs: Tensors) -> tuple[Any, ...]:
    """A value for each input: a tuple of them, or one for all."""
    found = given if isinstance(given, tuple) else (given,) * len(inputs)
    if len(found) != len(inputs):
        raise InvalidArgument(f"`{option}` must have one value for each of the {len(inputs)} inputs. Got {len(found)}.")
    return found


def noisy(values: torch.Tensor, std: float) -> torch.Tensor:
    """The values with normal noise of torch's global generator."""
    return values + std * torch.randn(values.shape, dtype=values.dtype).to(values.device) if std else values


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))
