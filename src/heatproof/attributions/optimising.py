"""What the methods share that optimise something for each image: Adam, gradients, lengths scaled to the image.

All images of a batch go through the network together and are optimised each by itself: every update is elementwise,
and the objective is a sum over images, so that no image affects another's gradient.
"""

import math
from collections.abc import Sequence

import torch

from heatproof.errors import InvalidInput, NotApplicable
from heatproof.masking import blurred

#: The side for which the papers give lengths in pixels.
PAPER_SIDE = 224


class Adam:
    """Kingma & Ba 2015, algorithm 1: `lr · m̂ / (√v̂ + ε)`, elementwise, with their β and ε."""

    def __init__(self, lr: float):
        self.lr, self.count = lr, 0
        self.first = self.second = 0.0

    def update(self, gradient: torch.Tensor) -> torch.Tensor:
        """The step to subtract from the parameters."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        first = self.first / (1 - 0.9**self.count)
        return self.lr * first / ((self.second / (1 - 0.999**self.count)).sqrt() + 1e-8)


def gradient(total: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """∂ total / ∂ parameters; NotApplicable where the network gives none."""
    if not total.requires_grad:
        raise NotApplicable(
            "No gradient reaches the image from the output, so nothing can be optimised. Take a network that can be "
            "differentiated, or a method that needs no gradient, such as 'rise'."
        )
    return torch.autograd.grad(total, parameters)[0]


def positive(option: str, value: float, *, zero: bool = False) -> float:
    """`value`, or the error where it is not above 0 (`zero`: where it is below 0) or not finite."""
    if not ((value > 0 or (zero and value == 0)) and math.isfinite(value)):
        raise InvalidInput(f"`{option}` must be {'at least' if zero else 'above'} 0. Got {value!r}.")
    return value


def scale(size: Sequence[int]) -> float:
    """The image's longer side divided by the papers' 224 pixels."""
    return max(size) / PAPER_SIDE


def gaussian(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """`(N, C, *spatial)` blurred by a Gaussian of `sigma` pixels, cut at 4 σ; unchanged at σ = 0."""
    return blurred(images, 2 * math.ceil(4 * sigma) + 1, sigma) if sigma > 0 else images
