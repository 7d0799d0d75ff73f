"""The preprocessing of images for a network: mean, std, size; checked once, wherever they come from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.geometry import Geometry
from heatproof.registry import unknown

#: Crop size / resized side, where nothing else is known: 224 / 256, as usual for ImageNet.
CROP_SHARE = 0.875

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """Mean and std per channel of `x` in [0, 1], and the geometry that makes `x` of an image."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    geometry: Geometry = Geometry((224, 224), 256)  # noqa: RUF009 - frozen
    classes: tuple[str, ...] | None = None

    def overridden(
        self,
        mean: Any = None,
        std: Any = None,
        size: Any = None,
        resize: Any = "auto",
        interpolation: Any = None,
        classes: Any = None,
    ) -> "Preprocessing":
        """A copy with the values that the user gave; a new size without `resize` keeps the crop's share."""
        geometry = self.geometry
        if size is not None:
            new = height_width(size)
            geometry = replace(geometry, size=new, resize=_rescaled_side(geometry, new))
        if resize != "auto":
            geometry = replace(geometry, resize=_shorter_side(resize))
        if interpolation is not None:
            geometry = replace(geometry, interpolation=checked_interpolation(interpolation))
        return replace(
            self,
            mean=self.mean if mean is None else per_channel("mean", mean),
            std=self.std if std is None else per_channel("std", std),
            geometry=geometry,
            classes=tuple(map(str, classes)) if classes else self.classes,
        )


def per_channel(name: str, values: Any) -> tuple[float, float, float]:
    """One number for all three channels, or three."""
    listed = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    try:
        numbers = [float(v) for v in listed]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise InvalidInput(f"`{name}` must be one number or three (red, green, blue). Got {values!r}.")
    if name == "std" and min(numbers) <= 0:
        raise InvalidInput(f"`std` must be above 0. Got {values!r}.")
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def height_width(size: Any) -> tuple[int, int]:
    """One side of a square, or (height, width), in pixels."""
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) else []
    if len(sides) == 1:
        sides *= 2
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sides):
        raise InvalidInput(f"`size` must be a whole number of pixels, or (height, width). Got {size!r}.")
    return sides[0], sides[1]


def default_resize(size: tuple[int, int], share: float = CROP_SHARE) -> int:
    """The shorter side before the crop: 256 for 224. For a rectangle its longer side counts, so that the crop fits."""
    return math.floor(max(size) / share)


def checked_interpolation(name: str) -> str:
    """One of the four filters, in lower case."""
    if str(name).lower() not in INTERPOLATIONS:
        raise unknown("interpolation", str(name), INTERPOLATIONS)
    return str(name).lower()


def _shorter_side(resize: Any) -> int | None:
    if resize is None:
        return None
    if not isinstance(resize, int) or isinstance(resize, bool) or resize < 1:
        raise InvalidInput(f"`resize` must be a whole number of pixels, or None to squash. Got {resize!r}.")
    return resize


def _rescaled_side(geometry: Geometry, new: tuple[int, int]) -> int | None:
    if geometry.resize is None:
        return None
    return default_resize(new, min(1.0, max(geometry.size) / geometry.resize))
