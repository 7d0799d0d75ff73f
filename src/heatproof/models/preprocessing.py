"""The preprocessing of images for a network: mean, std, size; checked once, wherever they come from."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatproof.class_names import checked_names
from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.geometry import Geometry, default_resize
from heatproof.registry import unknown
from heatproof.windows import checked_background, checked_window

#: Crop size / resized side, where nothing else is known: 224 / 256, as usual for ImageNet.
CROP_SHARE = 0.875

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
#: The orders of the channels in what a network takes.
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Preprocessing:
    """Mean and std per channel of `x` in [0, 1], and the geometry that makes `x` of an image.

    Attributes:
        mean, std: red, green, blue, whatever the order in which the network takes them.
        channel_order: `rgb`, or `bgr` for a network trained on images of OpenCV or Caffe; what goes into the module.
        assumed: those of mean, std and size that nobody gave.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    geometry: Geometry = Geometry((224, 224), 256)  # noqa: RUF009 - frozen
    classes: tuple[str, ...] | None = None
    channel_order: str = "rgb"
    assumed: tuple[str, ...] = ()

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
        channels: int | None = None,
        value_range: Any = None,
        channel_order: Any = None,
    ) -> "Preprocessing":
        """A copy with the values that the user gave; a new size without `resize` keeps the crop's share.

        `mean` and `std` are those of the network: in its channel order, and in units of `value_range`.
        """
        count = self.geometry.channels if channels is None else channels
        geometry = replace(self.geometry, channels=count)
        order = self.channel_order if channel_order is None else checked_channel_order(channel_order)
        if order == "bgr" and count != 3:
            raise InvalidInput(f"`channel_order` is for networks of three channels. This one has {count}.")
        if value_range is not None and mean is None and std is None:
            raise InvalidInput("`value_range` says the units of `mean` and `std`. Got neither of them.")
        given = [name for name, value in (("mean", mean), ("std", std), ("size", size)) if value is not None]
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
        means = for_channels(self.mean, count) if mean is None else _given("mean", mean, value_range, order, count)
        stds = for_channels(self.std, count) if std is None else _given("std", std, value_range, order, count)
        return replace(
            self,
            mean=means,
            std=stds,
            geometry=geometry,
            classes=self.classes if classes is None else checked_names(classes),
            channel_order=order,
            assumed=tuple(name for name in self.assumed if name not in given),
        )

    def warn_of_assumptions(self, name: str, stacklevel: int = 3) -> None:
        """Warns that preprocessing is assumed, where it is: a wrong guess lowers accuracy without any other sign."""
        if not self.assumed:
            return
        high, wide = self.geometry.size
        values = {"mean": _short(self.mean), "std": _short(self.std), "size": f"{high} × {wide}"}
        warnings.warn(
            f"{name} does not say how its images are normalised and resized: "
            f"{', '.join(f'{key} {values[key]}' for key in self.assumed)} {_is_or_are(self.assumed)} assumed. "
            f"Set {', '.join(self.assumed)} to what it was trained with. `heatproof check` shows what it sees and "
            "predicts.",
            HeatproofWarning,
            stacklevel=stacklevel,
        )


def for_channels(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Mean or std for another number of channels: the mean of those that are known, for each."""
    return values if len(values) == count else (sum(values) / len(values),) * count


def per_channel(name: str, values: Any, count: int = 3) -> tuple[float, ...]:
    """One number for all `count` channels, or as many."""
    listed = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    try:
        numbers = [float(v) for v in listed]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, count) or not all(map(math.isfinite, numbers)):
        several = "three (red, green, blue)" if count == 3 else f"{count}, one for each channel"
        several = "one number" if count == 1 else f"one number or {several}"
        raise InvalidInput(f"`{name}` must be {several}. Got {values!r}.")
    if name == "std" and min(numbers) <= 0:
        raise InvalidInput(f"`std` must be above 0. Got {values!r}.")
    return tuple(numbers * count if len(numbers) == 1 else numbers)


def channels_and_sides(shape: Any) -> tuple[int, ...]:
    """`input_shape`: (channels, length), (channels, height, width) or (channels, depth, height, width)."""
    sides = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sides) not in (2, 3, 4) or not all(isinstance(s, int) and s >= 1 for s in sides):
        raise InvalidInput(
            f"`input_shape` must be (channels, length), (channels, height, width) or (channels, depth, height, width). "
            f"Got {shape!r}."
        )
    return sides


def image_shape(shape: Any, size: Any) -> tuple[int, int, int]:
    """`input_shape` of images, (channels, height, width); `size`, where given too, must agree."""
    sides = channels_and_sides(shape)
    if len(sides) != 3:
        raise InvalidInput(f"`input_shape` must be (channels, height, width) for images. Got {shape!r}.")
    if size is not None and height_width(size) != sides[1:]:
        raise InvalidInput(f"`size` and `input_shape` must agree. Give one of them. Got {size!r} and {shape!r}.")
    return sides[0], sides[1], sides[2]


def _given(name: str, values: Any, value_range: Any, order: str, count: int) -> tuple[float, ...]:
    """A mean or std as the user gave it → one value for each channel, red first, for images in [0, 1].

    Raises:
        InvalidInput: values that images in [0, 1] cannot have, such as means of 0 … 255, without a `value_range`.
    """
    found = per_channel(name, values, count)
    scale = 1.0 if value_range is None else checked_value_range(value_range)
    if value_range is None and (max(found) > 1 or (name == "mean" and min(found) < 0)):
        wanted = "lie in 0 … 1, as images do" if name == "mean" else "be at most 1, because images lie in 0 … 1"
        raise InvalidInput(
            f"`{name}` must {wanted}. Got {_short(found)}. Where mean and std are in units of 0 … 255, set "
            "`value_range=255` (--value-range 255); `value_range=1` takes them as they are."
        )
    if scale > 1 and (0 < max(map(abs, found)) <= 1 if name == "mean" else max(found) < 1):
        raise InvalidInput(
            f"`value_range={scale:g}` says that mean and std are those of values up to {scale:g}. Got `{name}` "
            f"{_short(found)}, which is one of images in 0 … 1. Leave `value_range` out, or set it to 1."
        )
    return tuple(value / scale for value in (reversed(found) if order == "bgr" else found))


def checked_value_range(value: Any) -> float:
    """The largest value of an image in the units of mean and std: 1, or 255."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    if not fits:
        raise InvalidInput(f"`value_range` must be the largest value of an image, 1 or 255. Got {value!r}.")
    return float(value)


def checked_channel_order(order: Any) -> str:
    """`rgb` or `bgr`, in lower case."""
    if str(order).lower() not in CHANNEL_ORDERS:
        raise unknown("channel order", str(order), CHANNEL_ORDERS)
    return str(order).lower()


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


def preprocessing_facts(preprocessing: Preprocessing) -> Mapping[str, Any]:
    """Everything that decides what the network sees of an image, as plain values for records and pages.

    `mean` and `std` are red, green, blue, for images in [0, 1]; `assumed` names what nobody gave.
    """
    geometry, mean, std = preprocessing.geometry, preprocessing.mean, preprocessing.std
    listed = lambda value: list(value) if isinstance(value, tuple) else value  # noqa: E731
    return {
        "size": list(geometry.size),
        "resize": listed(geometry.resize) if geometry.resize is not None else "none",
        "interpolation": geometry.interpolation,
        "mean": list(mean),
        "std": list(std),
        "channels": geometry.channels,
        "channel_order": preprocessing.channel_order,
        "assumed": list(preprocessing.assumed),
        "window": listed(geometry.window),
        "alpha_background": geometry.background,
    }


def _rescaled_side(geometry: Geometry, new: tuple[int, int]) -> int | tuple[int, int] | None:
    if geometry.resize is None:
        return None
    before = min(geometry.resize) if isinstance(geometry.resize, tuple) else geometry.resize
    return default_resize(new, min(1.0, min(geometry.size) / before))


def _short(values: Sequence[float]) -> str:
    """The values of all channels, or one where they are equal."""
    return ", ".join(f"{value:.4g}" for value in (values if len(set(values)) > 1 else values[:1]))


def _is_or_are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
