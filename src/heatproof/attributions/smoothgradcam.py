"""Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the image."""

import torch

from heatproof.attributions.cam import weighted
from heatproof.attributions.catalogue import attribution
from heatproof.errors import InvalidInput
from heatproof.passes import check_int
from heatproof.transfers import on_device


@attribution(
    "smoothgradcam++",
    aliases=["smooth-grad-cam++", "smoothgradcamplusplus"],
    source="Omeiza et al. 2019, with eq. 19 of Chattopadhyay et al. 2018 for α",
)
def smoothgradcam_plus_plus(
    activations: torch.Tensor, z: torch.Tensor, generator, noisy_gradients, *, samples: int = 4, std: float = 0.3
) -> torch.Tensor:
    """Smooth Grad-CAM++: `Σk (Σ α·relu(⟨G⟩)) A`, with `α = ⟨G²⟩ / (2⟨G²⟩ + relu(⟨G³⟩ ΣA))`, 0 where ⟨G²⟩ = 0.

    ⟨·⟩ is the mean over `samples` copies of the image with N(0, std²) noise in `z`, A the activations of the image
    itself. One forward and one backward for each copy. Without noise it is `gradcam++`. (The paper prints ⟨G⟩ as the
    numerator of α, with which α would not be that of Grad-CAM++ for a single copy.)
    """
    if not std >= 0:
        raise InvalidInput(f"`std` must be at least 0. Got {std}.")
    count = check_int("samples", samples)
    first = second = third = torch.zeros_like(activations)
    for _ in range(count):
        drawn = torch.stack([torch.randn(z.shape[1:], generator=one) for one in generator])
        noise = on_device(drawn, z.device, z.dtype)
        gradients = noisy_gradients(std * noise)
        first, second, third = first + gradients, second + gradients**2, third + gradients**3
    sums = activations.flatten(2).sum(2).view(*activations.shape[:2], *[1] * (activations.dim() - 2))
    below = 2 * second + (third * sums).relu()
    alpha = torch.where(second > 0, second / torch.where(second > 0, below, 1), 0)
    return weighted((alpha * (first / count).relu()).flatten(2).sum(2), activations)
