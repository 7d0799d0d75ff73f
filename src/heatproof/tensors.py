"""Small tensor arithmetic that every room shares: upsampling, min-max, channels, ranges."""

import torch
import torch.nn.functional as F

from heatproof.errors import InvalidInput

#: A map whose range is below this share of its largest magnitude is constant (float32 rounding is 6e-8).
CONSTANT = 1e-6


#: Ways to bring a map to the input's size, by spatial dims; the bilinear of a signal is linear, of a volume trilinear.
UPSAMPLING = {
    "bilinear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "bicubic": {2: "bicubic"},
    "nearest": {1: "nearest-exact", 2: "nearest-exact", 3: "nearest-exact"},
}


def upsampled(maps: torch.Tensor, size: tuple[int, ...], how: str = "bilinear") -> torch.Tensor:
    """`(N, *small)` → `(N, *size)` by one of `UPSAMPLING`, `align_corners=False`; 1, 2 or 3 spatial dims."""
    if maps.shape[1:] == tuple(size):
        return maps
    mode = UPSAMPLING[how].get(len(size))
    if mode is None:
        raise InvalidInput(f"`upsample` {how!r} is for images. Got {len(size)} spatial dims. Take 'bilinear'.")
    aligned = {} if how == "nearest" else {"align_corners": False}
    return F.interpolate(maps[:, None], size=tuple(size), mode=mode, **aligned)[:, 0]


def minmax(maps: torch.Tensor) -> torch.Tensor:
    """Each map of `(N, *spatial)` scaled to [0, 1] by itself; a constant or non-finite one becomes zeros."""
    flat = maps.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    shape = (-1,) + (1,) * (maps.dim() - 1)
    bad = _degenerate(low, high)
    span = torch.where(bad, torch.ones_like(high), high - low)
    scaled = (maps - low.view(shape)) / span.view(shape)
    return torch.where(bad.view(shape), torch.zeros_like(maps), scaled)


def degenerate(maps: torch.Tensor) -> torch.Tensor:
    """`(N,)` bool: the map is constant (to float32 rounding) or holds a non-finite value."""
    flat = maps.flatten(1)
    return _degenerate(flat.amin(1), flat.amax(1))


def _degenerate(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """From the extremes alone: `amin` and `amax` propagate NaN, and an infinity is an extreme."""
    scale = torch.maximum(low.abs(), high.abs())
    return ~(torch.isfinite(low) & torch.isfinite(high)) | (high - low <= CONSTANT * scale)


#: How three channels become one.
CHANNELS = {
    "abs-max": "the largest magnitude over the channels (paper F)",
    "sum-abs": "the magnitude of their sum (paper R)",
}


def one_channel(maps: torch.Tensor, order: str = "abs-max") -> torch.Tensor:
    """Three-channel attributions `(N, C, *spatial)` → `(N, *spatial)`: `abs-max` (paper F) or `sum-abs` (paper R)."""
    if order == "abs-max":
        return maps.abs().amax(1)
    return maps.sum(1).abs()


def within_unit(x: torch.Tensor) -> torch.Tensor:
    """Images `(N, C, *spatial)` as they can be shown and segmented: each that leaves [0, 1] is scaled to it."""
    flat = x.flatten(1)
    inside = (flat.amin(1) >= 0) & (flat.amax(1) <= 1)
    return torch.where(per_image(inside, x), x, minmax(x))


def as_seen(x: torch.Tensor) -> torch.Tensor:
    """An image `(C, H, W)` as people see it, uint8 `(H, W, 3)`.

    One channel is grey, two are their mean, and of more than three the first three are red, green and blue; an image
    that leaves [0, 1] is scaled to it.
    """
    x = within_unit(x.detach()[None].float().nan_to_num())[0]
    x = x[:3] if len(x) >= 3 else x.mean(0, keepdim=True).expand(3, -1, -1)
    return (x.permute(1, 2, 0) * 255).round().byte()


#: An image whose contrast is below this is nearly one colour: 12-bit values in the range of 16 bits have no more.
NEARLY_ONE_COLOUR = 1 / 16


def contrast(x: torch.Tensor) -> torch.Tensor:
    """`(N, C, *spatial)` images in [0, 1] → `(N,)`: the 99th minus the 1st percentile of a channel, the largest.

    Rounded to six decimals, so that a comparison with `NEARLY_ONE_COLOUR` does not depend on the processor.
    """
    flat = x.detach().flatten(2)
    count = flat.shape[2]
    low, high = (flat.kthvalue(max(1, round(share * count)), dim=2).values for share in (0.01, 0.99))
    return ((high - low).amax(1) * 10**6).round() / 10**6


def per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`(N,)` shaped so that it broadcasts over `like` `(N, …)`."""
    return values.view(-1, *([1] * (like.dim() - 1)))
