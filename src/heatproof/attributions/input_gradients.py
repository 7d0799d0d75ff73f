"""Gradients of the explained output by the image: plain, averaged over noise, and along a path from a baseline.

All are `(N, C, *spatial)`, signed, in the network's own input `z`. Methods that need many gradients of an image send
images and draws through the network together, as many rows at a time as `rows_per_pass` says: memory does not grow
with the number of draws.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch

from heatproof.attributions.asking import no_gradient
from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.errors import InvalidInput, NotApplicable, warn
from heatproof.masking import ground
from heatproof.passes import check_int, rows_per_pass
from heatproof.transfers import on_device

Tensor = torch.Tensor

#: The baselines, as fills of `heatproof.masking`; "zero" (0 in z, the mean colour) is its "mean".
BASELINES = {"zero": "mean", "black": "black", "blur": "blur"}

#: The share of `y(z) − y(b)` by which integrated gradients may miss it without a warning; and the least difference that
#: counts, as a share of the sum of magnitudes.
COMPLETE, COMPLETE_FLOOR = 0.05, 1e-3

#: Other devices hold the activations of a backward pass beside the rows, so `rows_per_pass` is divided by this.
GRADIENT_SHARE = 4


def gradient_at(network, z: Tensor, target: Tensor) -> Tensor:
    """∂ output of each row's target / ∂ z, `(N, C, *spatial)`; differentiable where `z` already has a graph."""
    twice = torch.is_grad_enabled() and z.requires_grad
    with torch.enable_grad():
        at = z if twice else z.detach().requires_grad_()
        # Not the leaf itself: a network may write into what it is given.
        outputs = network(at * 1.0).gather(1, target[:, None])
        if not outputs.requires_grad:
            raise NotApplicable("No gradient reaches the image from the network's output.")
        return torch.autograd.grad(outputs.sum(), at, create_graph=twice)[0]


def baseline_of(baseline: str, x: Tensor, z: Tensor) -> Tensor:
    """The baseline of every image, in `z`: `(N, C, *spatial)`."""
    return ground(BASELINES[check_choice("baseline", baseline, BASELINES)], x, z)


#: One evaluation: where the gradient is taken `(C, *spatial)`, and what it is multiplied by.
Draw = tuple[Tensor, "Tensor | float"]


def summed_gradients(network, z: Tensor, target: Tensor, draws: Callable[[int], Iterator[Draw]]) -> Tensor:
    """`Σ_s weight_s · gradient(point_s)` for every image; `draws(n)` gives those of image n, one after the other.

    As many forward and backward rows as there are draws, in chunks that may hold several images or part of one.
    """
    rows = rows_per_pass(z) if z.device.type == "cpu" else max(1, rows_per_pass(z) // GRADIENT_SHARE)
    total = [torch.zeros_like(one) for one in z]
    stream = ((n, *draw) for n in range(len(z)) for draw in draws(n))
    while chunk := list(islice(stream, rows)):
        owners, points, weights = zip(*chunk, strict=True)
        found = gradient_at(network, torch.stack(points), target[on_device(torch.tensor(owners), target.device)])
        for n, weight, gradient in zip(owners, weights, found, strict=True):
            total[n] = total[n] + weight * gradient
    return torch.stack(total) if total else torch.zeros_like(z)


@attribution("gradient", form="rgb", aliases=["saliency", "vanilla-gradient"], source="Simonyan et al. 2014, eq. 4")
def gradient(input_gradients: Tensor) -> Tensor:
    """The gradient of the output by the image, `∂y/∂z`. One forward and one backward pass, shared with all CAMs."""
    return input_gradients


@attribution(
    "input-x-gradient",
    form="rgb",
    aliases=["gradient-x-input", "grad-x-input"],
    source="Shrikumar et al. 2016, §2.3",
)
def input_x_gradient(z: Tensor, input_gradients: Tensor) -> Tensor:
    """The image times its gradient, `z · ∂y/∂z`: the output's first-order term. Passes as for `gradient`."""
    return z * input_gradients


@attribution("smoothgrad", form="rgb", source="Smilkov et al. 2017, §3", applies=no_gradient)
def smoothgrad(z: Tensor, network, target: Tensor, generator, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """SmoothGrad: the mean gradient over noisy copies, `1/S Σ ∂y/∂z (z + ε)`, with `ε ~ N(0, σ²)`.

    `σ = noise · (max z − min z)` of each image: the paper finds 10–20 % noise and 50 samples enough (§3.1, 3.2).
    Noise is added to the normalised image. `samples` forward and backward passes.
    """
    samples = check_int("samples", samples)
    spread = _not_negative("noise", noise) * (z.flatten(1).amax(1) - z.flatten(1).amin(1))

    def draws(n: int) -> Iterator[Draw]:
        for _ in range(samples):
            yield z[n] + spread[n] * _normal(z[n], generator[n]), 1 / samples

    return summed_gradients(network, z, target, draws)


@attribution(
    "integrated-gradients",
    form="rgb",
    aliases=["ig"],
    source="Sundararajan et al. 2017, eq. 1, 3",
    applies=no_gradient,
)
def integrated_gradients(
    x: Tensor, z: Tensor, network, target: Tensor, logits: Tensor, *, steps: int = 50, baseline: str = "zero"
) -> Tensor:
    """Integrated gradients: `(z − b) ∫ ∂y/∂z (b + α (z − b)) dα`, α from 0 to 1.

    The integral is the Gauss–Legendre quadrature with `steps` nodes, as in Captum (eq. 3 is a Riemann sum, which needs
    several times as many). Completeness: the map sums to `y(z) − y(b)`, to the error of the quadrature; a warning says
    where it misses that by more than 5 %, as it does on networks with many kinks. `baseline`: `zero` (in z: the mean
    colour), `black`, or `blur` (the image blurred). `steps` forward and backward passes, and a forward pass of the
    baseline.
    """
    nodes, weights = np.polynomial.legendre.leggauss(check_int("steps", steps))
    path = list(zip((nodes + 1) / 2, weights / 2, strict=True))
    start = baseline_of(baseline, x, z)

    def draws(n: int) -> Iterator[Draw]:
        for alpha, weight in path:
            yield start[n] + float(alpha) * (z[n] - start[n]), float(weight)

    found = (z - start) * summed_gradients(network, z, target, draws)
    with torch.no_grad():
        of_baseline = torch.cat([network(part) for part in start.split(rows_per_pass(z))])
        difference = (logits.detach() - of_baseline).gather(1, target[:, None])[:, 0]
    _warn_of_gap(found.detach(), difference, steps)
    return found


def _warn_of_gap(found: Tensor, difference: Tensor, steps: int) -> None:
    """Warns where maps `(N, C, *spatial)` do not sum to the `difference` of the outputs, `(N,)`.

    Where the outputs hardly differ, the gap is measured against the sum of magnitudes, of which it is a rounding error.
    """
    each = found.double().flatten(1)
    scale = difference.abs().double().maximum(COMPLETE_FLOOR * each.abs().sum(1))
    if bool(((each.sum(1) - difference).abs() > COMPLETE * scale).any()):
        warn(
            f"The maps of integrated-gradients with {steps} steps miss completeness by more than {COMPLETE:.0%} on "
            f"some images: they do not sum to y(z) − y(b). `integrated-gradients[steps={4 * steps}]` comes nearer; the "
            "metric `completeness` measures the gap of each image."
        )


@attribution(
    "gradientshap",
    form="rgb",
    aliases=["gradient-shap"],
    source="Lundberg & Lee 2017; Erion et al. 2021, eq. 3",
    applies=no_gradient,
)
def gradientshap(
    x: Tensor,
    z: Tensor,
    network,
    target: Tensor,
    generator,
    *,
    samples: int = 50,
    noise: float = 0.0,
    baseline: str = "zero",
) -> Tensor:
    """GradientSHAP: `1/S Σ (z' − b) · ∂y/∂z (b + α (z' − b))` at random α ~ U[0, 1], as Captum has it.

    `z' = z + ε` as in `smoothgrad` where `noise` is above 0. `baseline` as in `integrated-gradients`, or `normal`: a
    new one at every draw, N(0, 1) in z (there images have mean 0 and std 1). Captum's default is 5 samples; with 50
    the error of the mean is a third. Without noise the map sums to `y(z) − y(b)` on average. `samples` forward
    and backward passes.
    """
    samples = check_int("samples", samples)
    spread = _not_negative("noise", noise) * (z.flatten(1).amax(1) - z.flatten(1).amin(1))
    check_choice("baseline", baseline, (*BASELINES, "normal"))
    fixed = None if baseline == "normal" else baseline_of(baseline, x, z)

    def draws(n: int) -> Iterator[Draw]:
        for _ in range(samples):
            alpha = float(torch.rand((), generator=generator[n]))
            noisy = z[n] + spread[n] * _normal(z[n], generator[n]) if noise else z[n]
            start = _normal(z[n], generator[n]) if fixed is None else fixed[n]
            yield start + alpha * (noisy - start), (noisy - start) / samples

    return summed_gradients(network, z, target, draws)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """One draw at a time, so that the numbers do not depend on how many go through the network together."""
    return on_device(torch.randn(like.shape, generator=generator), like.device, like.dtype)


def _not_negative(option: str, value: float) -> float:
    if not value >= 0:
        raise InvalidInput(f"`{option}` must be at least 0. Got {value!r}.")
    return float(value)
