"""How an image becomes the network's input: resize, crop, [0, 1]; masks get the same resize and crop."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

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
    """Shorter side to `resize` (None: squash straight to `size`), then a centre crop of `size` (height, width)."""

    size: tuple[int, int]
    resize: int | None = None
    interpolation: str = "bilinear"

    def image(self, image: Image.Image) -> torch.Tensor:
        """An RGB PIL image → `(3, h, w)` float32 in [0, 1]."""
        moved = self._moved(image, _FILTERS[self.interpolation])
        pixels = torch.from_numpy(np.asarray(moved, dtype=np.uint8).copy())
        return pixels.permute(2, 0, 1).float().div_(255)

    def mask(self, mask: np.ndarray) -> torch.Tensor:
        """A boolean `(H, W)` mask → boolean `(h, w)` through the same resize and crop (bilinear, cut at one half)."""
        moved = self._moved(Image.fromarray(mask.astype(np.uint8) * 255), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(moved).copy()) >= 128

    def map(self, values: np.ndarray) -> torch.Tensor:
        """A map `(H, W)` of a whole image, on any scale → float32 `(h, w)` through the same resize and crop."""
        moved = self._moved(Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)), Image.Resampling.BILINEAR)
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
        """torchvision's rule: the shorter side exactly, the longer one cut to an integer; never below the crop."""
        assert self.resize is not None
        shorter = min(width, height)
        wide, high = self.resize * width // shorter, self.resize * height // shorter
        return max(wide, self.size[1]), max(high, self.size[0])
