"""How an image becomes the network's input: black and white, resize, crop; masks get the same resize and crop."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from heatproof.pixels import Pixels, grey, rgb, stored
from heatproof.windows import Window

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

#: Most pixels of a resized image: one of 2 × 20,000 pixels would become 2.6 million pixels wide before the crop to 224.
_ROOM = 50_000_000


@dataclass(frozen=True)
class Geometry:
    """A resize that keeps the aspect, then a centre crop of `size` (height, width).

    Attributes:
        resize: the length of the image's shorter side; or a box (height, width) that the resized image just covers, for
            rectangles; None squashes straight to `size`. A resized image is never smaller than the crop.
        interpolation: nearest, bilinear, bicubic or lanczos.
        window: the stored values that are black and white; see `windows.Window`.
        background: the colour behind transparent pixels, or `ignore` for their stored colours.
        channels: of the network's input. For 3 grey becomes RGB, for 1 colour becomes grey; for another number an image
            must hold as many.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    window: Window = None
    background: str = "white"
    channels: int = 3

    def image(self, image: Image.Image | Pixels) -> torch.Tensor:
        """A PIL image of any mode, or `Pixels` → `(channels, h, w)` float32 in [0, 1].

        Raises:
            InvalidImage: values that are not finite, or whose black and white are unknown; another number of channels.
        """
        found, filters = self._opaque(image), _FILTERS[self.interpolation]
        if isinstance(found, Image.Image):
            pixels = torch.from_numpy(np.asarray(self._moved(found, filters), dtype=np.uint8).copy())
            return (pixels.permute(2, 0, 1) if pixels.dim() == 3 else pixels[None]).float().div_(255)
        channels = [self._moved(_floating(found[..., c]), filters) for c in range(found.shape[2])]
        stacked = torch.from_numpy(np.stack([np.asarray(one) for one in channels])).clamp_(0, 1)
        return stacked.expand(self.channels, -1, -1).clone() if len(stacked) == 1 else stacked

    def _opaque(self, image: Image.Image | Pixels) -> Image.Image | np.ndarray:
        """The image with the network's number of channels, or with one where they are equal."""
        if self.channels == 3:
            return rgb(image, self.window, self.background)
        if self.channels == 1:
            return grey(image, self.window, self.background)
        return stored(image, self.channels, self.window)

    def mask(self, mask: np.ndarray) -> torch.Tensor:
        """A boolean `(H, W)` mask → boolean `(h, w)` through the same resize and crop (bilinear, cut at one half)."""
        moved = self._moved(Image.fromarray(mask.astype(np.uint8) * 255), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(moved).copy()) >= 128

    def map(self, values: np.ndarray) -> torch.Tensor:
        """A map `(H, W)` of a whole image, on any scale → float32 `(h, w)` through the same resize and crop."""
        moved = self._moved(_floating(values), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(moved, dtype=np.float32).copy())

    def _moved(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        height, width = self.size
        if self.resize is None:
            return image if image.size == (width, height) else image.resize((width, height), resample)
        wide, high = self._scaled(image.width, image.height)
        left, top = round((wide - width) / 2), round((high - height) / 2)
        if wide * high > _ROOM:  # a long strip: only the part that the crop keeps is resized, equal to one grey level
            across, down = image.width / wide, image.height / high
            box = (left * across, top * down, (left + width) * across, (top + height) * down)
            return image.resize((width, height), resample, box)
        return image.resize((wide, high), resample).crop((left, top, left + width, top + height))

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the resized image.

        With one length torchvision's rule: the shorter side exactly, the longer one cut to an integer. With a box
        timm's: the smallest image of that aspect that covers it, rounded. Where the crop would not fit, the smallest
        that covers the crop.
        """
        assert self.resize is not None
        if isinstance(self.resize, tuple):
            return _covering(width, height, self.resize)
        shorter = min(width, height)
        wide, high = self.resize * width // shorter, self.resize * height // shorter
        fits = wide >= self.size[1] and high >= self.size[0]
        return (wide, high) if fits else _covering(width, height, self.size)


def default_resize(size: tuple[int, int], share: float) -> int | tuple[int, int]:
    """The resize after which a crop of `size` keeps `share` of each side, of an image of the same aspect.

    For a square one length, 256 for 224 and a share of .875; for a rectangle a box.
    """
    high, wide = (math.floor(side / share) for side in size)
    return high if size[0] == size[1] else (high, wide)


def _covering(width: int, height: int, box: tuple[int, int]) -> tuple[int, int]:
    """The smallest width and height of the same aspect that cover a box (height, width).

    Each side is divided by a ratio, as timm divides, not multiplied by its inverse: where a side falls on one half
    exactly (34 × 51 for a box 37 wide: 55.5), the two round to different integers.
    """
    ratio = min(width / box[1], height / box[0])
    return max(round(width / ratio), box[1]), max(round(height / ratio), box[0])


def _floating(values: np.ndarray) -> Image.Image:
    """`(H, W)` as a floating-point image of PIL."""
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
