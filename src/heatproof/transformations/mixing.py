"""MixUp: an image mixed with another one of its set."""

from collections.abc import Sequence

import torch

from heatproof.transfers import on_device
from heatproof.transformations.catalogue import IMAGES, transformation


@transformation("mixup", form=IMAGES, moves=False, source="Zhang et al. 2018 (mixup); Zhang et al. 2024 (F), section 4")
def mixup(
    x: torch.Tensor, partner: torch.Tensor, generator: Sequence[torch.Generator], *, seed: float = 44
) -> torch.Tensor:
    """An image mixed with another one of its set: `λ x + (1 − λ) x'`, λ from Beta(1, 1), which is uniform on [0, 1].

    Every image has a λ and a partner of its own; another `seed` draws others. The class explained stays that of the
    image, whatever λ. Its mask stays too: the object is where it was, and what the partner shows is another class.
    """
    share = on_device(torch.stack([torch.rand(1, generator=one) for one in generator]), x.device, x.dtype)
    return torch.lerp(partner, x, share.view(-1, *[1] * (x.dim() - 1)))
