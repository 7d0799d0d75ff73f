"""The preprocessing of images for a network: mean, std, size; checked once, wherever they come from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatproof.class_names import checked_names
from heatproof.errors import InvalidInput
from heatproof.geometry import Geometry, default_resize
from heatproof.registry import unknown
from heatproof.windows import checked_background, checked_window

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
        *,
        crop: Any = None,
        window: Any = None,
        alpha_background: Any = None,
    ) -> "Preprocessing":
        """A copy with the values that the user gave; a new size without `resize` keeps the crop's share."""
        geometry = self.geometry
        if size is not None:
            new = height_width(size)
            geometry = replace(geometry, size=new, resize=_rescaled_side(geometry, new))
        if resize != "auto" and crop is not None:
            raise InvalidInput(f"`resize` and `crop` say the same in two ways. Give one. Got {resize!r} and {crop!r}.")
        if resize != "auto":
            geometry = replace(geometry, resize=checked_resize(resize))
        if crop is not None:
            geometry = replace(geometry, resize=default_resize(geometry.size, checked_crop(crop)))
        if interpolation is not None:
            geometry = replace(geometry, interpolation=checked_interpolation(interpolation))
        if window is not None:
            geometry = replace(geometry, window=checked_window(window))
        if alpha_background is not None:
            geometry = replace(geometry, background=checked_background(alpha_background))
        return replace(
            self,
            mean=self.mean if mean is None else per_channel("mean", mean),
            std=self.std if std is None else per_channel("std", std),
            geometry=geometry,
            classes=self.classes if classes is None else checked_names(classes),
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


def checked_interpolation(name: str) -> str:
    """One of the four filters, in lower case."""
    if str(name).lower() not in INTERPOLATIONS:
        raise unknown("interpolation", str(name), INTERPOLATIONS)
    return str(name).lower()


def checked_resize(resize: Any) -> int | tuple[int, int] | None:
    """A length of the shorter side, a box (height, width) to cover, or None to squash, which is also spelt `none`."""
    if resize is None or (isinstance(resize, str) and resize.strip().lower() == "none"):
        return None
    sides = [resize] if isinstance(resize, int) else list(resize) if isinstance(resize, list | tuple) else []
    if len(sides) not in (1, 2) or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sides):
        raise InvalidInput(
            "`resize` must be a whole number of pixels for the shorter side, (height, width) to be covered, or none to "
            f"squash. Got {resize!r}."
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def checked_crop(crop: Any) -> float:
    """The share of each side that the centre crop keeps, above 0 and at most 1."""
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
        raise InvalidInput(f"`crop` must be a share above 0 and at most 1, such as .875 or 1. Got {crop!r}.")
    return float(crop)


def preprocessing_facts(mean: Sequence[float], std: Sequence[float], geometry: Geometry) -> Mapping[str, Any]:
    """Everything that decides what the network sees of an image, as plain values for records and pages."""
    listed = lambda value: list(value) if isinstance(value, tuple) else value  # noqa: E731
    return {
        "size": list(geometry.size),
        "resize": listed(geometry.resize) if geometry.resize is not None else "none",
        "interpolation": geometry.interpolation,
        "mean": list(mean),
        "std": list(std),
        "window": listed(geometry.window),
        "alpha_background": geometry.background,
    }


def _rescaled_side(geometry: Geometry, new: tuple[int, int]) -> int | tuple[int, int] | None:
    if geometry.resize is None:
        return None
    before = min(geometry.resize) if isinstance(geometry.resize, tuple) else geometry.resize
    return default_resize(new, min(1.0, min(geometry.size) / before))
