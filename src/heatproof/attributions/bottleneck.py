"""Information bottleneck attribution: noise at a layer, as much as the prediction allows, and the bits that remain."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from heatproof.attributions.catalogue import attribution
from heatproof.attributions.optimising import Adam, gradient, positive
from heatproof.errors import InvalidInput
from heatproof.masking import blurred
from heatproof.models import Model
from heatproof.models.differentiable import gradient_missing
from heatproof.passes import check_int
from heatproof.transfers import on_device

#: The authors' lower bound of the std; without it, activations that hardly vary would dominate the map.
LEAST_DEVIATION = 0.01


def _unfit(model: Model, layer: str, options: Mapping[str, Any]) -> str:
    if model.of_values:
        return "it minimises a cross-entropy, and a network of values has no classes"
    if (model.normalises and model.geometry.channels in (1, 3)) or options["source"] != "dead-leaves":
        return gradient_missing(model, layer)
    return (
        "its inputs are no images in colour or grey, and `source` is 'dead-leaves'; give a file that "
        "heatproof.calibrate wrote"
    )


@attribution(
    "iba",
    aliases=["information-bottleneck", "per-sample-bottleneck"],
    source="Schulz et al. 2020 (ICLR), §3, per-sample bottleneck",
    applies=_unfit,
)
def iba(
    activations: torch.Tensor,
    target: torch.Tensor,
    tail,
    calibration,
    generator,
    *,
    beta: float = 10.0,
    steps: int = 10,
    lr: float = 1.0,
    samples: int = 10,
    sigma: float = 1.0,
    alpha: float = 5.0,
    source: str = "dead-leaves",
) -> torch.Tensor:
    """IBA: the bits that pass each position of a noisy layer, `Σk KL(p(Z | A) ‖ q(Z)) / ln 2`; never below 0.

    `Z = λ A + (1 − λ) ε`, ε from N(μ, σ²) of the layer over other images, q(Z) that same Gaussian; λ is the sigmoid
    of one parameter for each activation (at first `alpha`), blurred by `sigma` positions. The parameters minimise
    `cross-entropy of the target + beta · mean KL` by Adam, with `samples` draws of ε at each step from the image's own
    generator. Passes: `steps` · `samples` forwards and backwards of what follows the layer.

    μ and σ come from `source`: `dead-leaves` (procedural images, computed once and cached), a folder of images, or
    a file that `heatproof.calibrate` wrote; never from the images explained. Photographs are the better source: on
    dead leaves a quarter of MobileNetV2's last layer never varies, and such activations carry no bits. (The
    authors require activity in 1 % of 10,000 images.)

    The defaults are those of the authors' code, but its map is that of the step before the last. The cross-entropy is
    that of the softmax of the explained outputs.
    """
    steps, samples = check_int("steps", steps), check_int("samples", samples)
    lr, beta, sigma = positive("lr", lr), positive("beta", beta, zero=True), positive("sigma", sigma, zero=True)
    mean, std = (on_device(values, activations.device, activations.dtype) for values in calibration(source))
    if mean.shape != activations.shape[1:]:
        raise InvalidInput(
            f"`source` must be calibrated for activations of {tuple(activations.shape[1:])}. Got {tuple(mean.shape)}. "
            "Calibrate with images of the size that is explained."
        )
    found = []
    for i, one in enumerate(activations.detach()):
        bottleneck = _Bottleneck(one, mean, std, sigma)
        parameters, adam = torch.full_like(one, alpha), Adam(lr)
        for _ in range(steps):
            noise = on_device(torch.randn(samples, *one.shape, generator=generator[i]), one.device, one.dtype)
            with torch.enable_grad():
                kept, lost = bottleneck.shares(parameters.requires_grad_())
                logits = tail(bottleneck.through(kept, lost, noise), i)
                wrong = F.cross_entropy(logits, target[i].expand(samples))
                total = wrong + beta * bottleneck.capacity(kept, lost).mean()
            parameters = parameters.detach() - adam.update(gradient(total, parameters))
        found.append(bottleneck.capacity(*bottleneck.shares(parameters)).sum(0) / math.log(2))
    return torch.stack(found)


class _Bottleneck:
    """One image's activations `(C, *spatial)`, normalised, and the noise that is mixed in."""

    def __init__(self, one: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, sigma: float):
        self.alive = std > 0
        self.mean, self.std, self.sigma = mean, std.clamp_min(LEAST_DEVIATION), sigma
        self.normal = (one - mean) / self.std

    def shares(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """λ and 1 − λ, computed separately so that 1 − λ stays above 0 where λ rounds to 1."""
        kept, lost = (self._smooth((sign * parameters).sigmoid()) for sign in (1, -1))
        return kept, lost

    def _smooth(self, values: torch.Tensor) -> torch.Tensor:
        taps = 2 * round(2 * self.sigma) + 1
        return blurred(values[None], taps, self.sigma)[0] if self.sigma > 0 else values

    def through(self, kept: torch.Tensor, lost: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Activations with noise `(samples, C, *spatial)`; those that never varied are at their mean."""
        noisy = (kept * self.normal + lost * noise) * self.std + self.mean
        return torch.where(self.alive, noisy, self.mean)

    def capacity(self, kept: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
        """`KL(N(λ a, (1 − λ)²) ‖ N(0, 1))` of every normalised activation a, in nats."""
        nats = 0.5 * ((kept * self.normal).square() + lost.square() - 1) - lost.log()
        return torch.where(self.alive, nats, 0)
