"""Images of another size, and images that have lost what a smaller size cannot hold."""

import torch

from heatproof.errors import NotApplicable
from heatproof.passes import check_int
from heatproof.transformations.catalogue import IMAGES, transformation


@transformation("resize", form=IMAGES, source="Zhang et al. 2024 (F), section 4")
def resize(x: torch.Tensor, *, size: float = 128) -> torch.Tensor:
    """The image with a shorter side of `size` pixels, bilinear with antialiasing: the network sees that size.

    Its map and its mask have that size too. A network that takes one size alone has flagged rows in their place.
    """
    return resized(x, scaled(x, check_int("size", size)))


@transformation("resize-back", form=IMAGES, source="ours")
def resize_back(x: torch.Tensor, *, size: float = 128) -> torch.Tensor:
    """As `resize`, and resized back: the network sees its own size, and no more detail than `size` pixels hold."""
    return resized(resized(x, scaled(x, check_int("size", size))), (x.shape[2], x.shape[3]))


def scaled(x: torch.Tensor, side: int) -> tuple[int, int]:
    """Height and width with the aspect of the image and a shorter side of `side` pixels."""
    if x.dim() != 4:
        raise NotApplicable(f"Images (N, C, H, W) can be resized. Got {tuple(x.shape)}.")
    height, width = x.shape[2:]
    shorter = min(height, width)
    return max(1, round(height * side / shorter)), max(1, round(width * side / shorter))


def resized(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The image in another size; antialiasing counts where it becomes smaller."""
    return torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
