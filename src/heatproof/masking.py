"""Fills for masked pixels, and the mixing of an image with a fill (protocols §1).

A masked image is `x ⊙ m + fill ⊙ (1 − m)`. Everything here works in `z`, the normalised image. Normalising is affine,
so mixing in `x` and mixing in `z` are the same. Pure functions, any number of spatial dimensions.
"""

import torch
import torch.nn.functional as F

from heatproof.errors import InvalidInput
from heatproof.registry import unknown

#: The fills by name, and what each of them is.
FILLS = {
    "mean": "0 in z: the colour that normalising takes away",
    "black": "0 in x",
    "blur": "the image itself, blurred (Gaussian, 11 pixels, σ 5)",
}

#: Gaussian of papers R and F (and of RISE's insertion): taps and standard deviation, in pixels.
BLUR_TAPS, BLUR_SIGMA = 11, 5.0


def checked_fill(fill: str) -> str:
    """`fill`, or the error with near misses."""
    if fill not in FILLS:
        raise unknown("`fill`", str(fill), FILLS)
    return fill


def ground(fill: str, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The fill of each image as a whole image, in `z`: `(N, C, *spatial)`.

    Args:
        fill: one of `FILLS`.
        x, z: the images in [0, 1], and normalised.
    """
    checked_fill(fill)
    if x.shape != z.shape:
        raise InvalidInput(f"`x` and `z` must be the same images. Got {tuple(x.shape)} and {tuple(z.shape)}.")
    if fill == "mean":
        return torch.zeros_like(z)
    return blurred(z) if fill == "blur" else black(x, z).expand_as(z)


def masked(z: torch.Tensor, mask: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """`z ⊙ m + background ⊙ (1 − m)`: exactly `z` where m = 1, exactly the background where m = 0.

    `mask` is `(N, *spatial)`, one value for all channels of a pixel, a boolean or in [0, 1].
    """
    share = mask[:, None]
    if mask.dtype == torch.bool:
        return torch.where(share, z, background)
    return torch.lerp(background, z, share.to(z.dtype))


def black(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The value of 0 in `x` after normalising, `−mean / std` of every channel, found from the images: `(N, C, 1, …)`.

    `z` is affine in `x`, so a channel's lowest and highest value determine the line (error about 1e-7 / range of x, on
    the range of z). Each image is handled by itself, so the result does not depend on the batch. A channel of zeros is
    black already. A constant channel above zero does not determine the line and gives NaN.
    """
    flat, seen = x.flatten(2).double(), z.flatten(2).double()
    low, at_low = flat.min(2)
    high, at_high = flat.max(2)
    lowest, highest = (seen.gather(2, at[..., None])[..., 0] for at in (at_low, at_high))
    slope = (highest - lowest) / (high - low)  # 0 / 0, NaN, where the channel is constant
    value = torch.where(low == 0, lowest, lowest - low * slope)
    return value.to(z.dtype).view(*value.shape, *[1] * (z.dim() - 2))


def blurred(images: torch.Tensor, taps: int = BLUR_TAPS, sigma: float = BLUR_SIGMA) -> torch.Tensor:
    """Gaussian blur of `(N, C, *spatial)`, one spatial dimension after the other; the border is mirrored.

    Equal to torchvision's `gaussian_blur`. A side of no more than half the taps is too short to mirror: its border is
    repeated instead.
    """
    if taps < 1 or taps % 2 == 0 or not sigma > 0:
        raise InvalidInput(f"`taps` must be odd, and `sigma` above 0. Got {taps} and {sigma}.")
    reach = taps // 2
    positions = torch.arange(-reach, reach + 1, dtype=torch.float64)
    bell = torch.exp(-0.5 * (positions / sigma).square())
    weights = (bell / bell.sum()).tolist()
    for dim in range(2, images.dim()):
        lines = images.movedim(dim, -1)
        mode = "reflect" if lines.shape[-1] > reach else "replicate"
        padded = F.pad(lines.flatten(0, -2)[:, None], (reach, reach), mode=mode)[:, 0]
        # By slices: a convolution with one channel takes several times as long on a CPU.
        width = lines.shape[-1]
        total = weights[0] * padded[:, :width]
        for tap in range(1, taps):
            total = torch.add(total, padded[:, tap : tap + width], alpha=weights[tap])
        images = total.view(lines.shape).movedim(-1, dim)
    return images.contiguous()
