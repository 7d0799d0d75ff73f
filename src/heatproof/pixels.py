"""Stored pixel values → an image on [0, 1]: which values are black and white, and what lies behind transparency."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from heatproof.errors import InvalidImage, warn
from heatproof.windows import IGNORED, PERCENTILES, Window, colour

#: How far floating-point values may lie outside [0, 1] by rounding.
_ROUNDING = 1e-5
#: The weights of red, green and blue in a grey value (ITU-R BT.601, as Pillow's mode L).
LUMA = (0.299, 0.587, 0.114)
#: What `info` of a PIL image says here: the file's name for errors, and whether it was grey before it became RGB.
FILE, GREY = "heatproof file", "heatproof grey"
#: How near to a whole number of 255ths a value lies that was one before rounding to float32.
_MULTIPLE = 1e-4


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image with more than 8 bits, or with another number of channels than 1 or 3, upright.

    Attributes:
        values: `(H, W, C)` numbers as stored.
        white: the values that are black and white where no window is given; None where nothing says so.
        alpha: `(H, W)` in [0, 1], None where the image is opaque.
        inverted: low values are bright.
        shown: `(H, W, C)` in [0, 1], where the file says by another rule than a range how its values are shown.
        name: the file's name for errors.
        further: `(H, W, K)` numbers as stored beside the colours, which an image in colour leaves out.
    """

    values: np.ndarray
    white: tuple[float, float] | None = None
    alpha: np.ndarray | None = None
    inverted: bool = False
    shown: np.ndarray | None = None
    name: str = ""
    further: np.ndarray | None = None

    @property
    def height(self) -> int:
        """In pixels."""
        return self.values.shape[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.values.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as of a PIL image."""
        return self.width, self.height

    def tobytes(self) -> bytes:
        """The content, for hashes."""
        return b"".join(part.tobytes() for part in (self.values, self.alpha, self.further) if part is not None)

    def unit(self, window: Window) -> np.ndarray:
        """`(H, W, C)` float32 in [0, 1]: 0 is black, 1 is white.

        Raises:
            InvalidImage: values that are not finite, or whose black and white are unknown.
        """
        self._refuse_non_finite()
        if window is None and self.shown is not None:
            found = self.shown.astype(np.float32)
        else:
            low, high = self._limits(window)
            exact = np.float64 if self.values.dtype.itemsize > 2 else np.float32
            found = np.subtract(self.values, low, dtype=exact)
            found /= high - low
            found = found.clip(0, 1).astype(np.float32, copy=False)
        return 1 - found if self.inverted else found

    def _limits(self, window: Window) -> tuple[float, float]:
        if isinstance(window, tuple):
            return window
        if window == "auto":
            seen = self.values if self.alpha is None or not self.alpha.any() else self.values[self.alpha > 0]
            low, high = map(float, np.percentile(seen.astype(np.float64), PERCENTILES))
            return low, high if high > low else low + 1  # one value alone becomes black
        if self.white is not None:
            self._warn_of_doubt(self.white)
            return self.white
        raise self._error(
            f"holds {self.values.dtype} numbers from {self.values.min():.6g} to {self.values.max():.6g}, and nothing "
            "says which are black and white. Set `window=(low, high)` (--window low,high), or `auto` for percentiles "
            f"{PERCENTILES[0]:g} and {PERCENTILES[1]:g} of each image"
        )

    def _refuse_non_finite(self) -> None:
        if self.values.dtype.kind != "f":
            return
        bad = self.values.size - int(np.count_nonzero(np.isfinite(self.values)))
        if bad:
            raise self._error(
                f"holds {bad:,} values that are NaN or infinite. Replace them, for instance with `numpy.nan_to_num`"
            )

    def _warn_of_doubt(self, white: tuple[float, float]) -> None:
        """Warns where the range of the type is likely not that of the image. The text names no file: it comes once."""
        kind, bits = self.values.dtype.kind, 8 * self.values.dtype.itemsize
        if bits != 16 or kind not in "ui" or white != dtype_range(self.values.dtype):
            return
        advice = "Set `window=(low, high)` (--window low,high), or `auto`, if that is wrong"
        if kind == "i":
            warn(f"Signed 16-bit numbers are read with {white[0]:g} as black and {white[1]:g} as white. {advice}.")
            return
        used = int(self.values.max()).bit_length()
        if used <= 14:
            warn(f"A 16-bit image uses {used} bits only, and 65535 is taken as white, so it is dark. {advice}.")

    def of_channels(self, wanted: int) -> InvalidImage:
        """The error for an image that has not the number of channels that a network takes."""
        has = self.values.shape[2] + (self.alpha is not None)
        kinds = "1 or 3" if wanted == 3 else str(wanted)
        hint = " Four channels may be transparency or a band: save RGB, or a PNG" if wanted == 3 and has == 4 else ""
        hint += hint and ", or set `input_shape` (--input-shape) for a network of 4 channels"
        return self._error(
            f"has {has} {'channel' if has == 1 else 'channels'}, and the network takes images of {kinds}."
            f"{hint or ' Save the channels that it takes, or set `input_shape` (--input-shape) to what it takes'}"
        )

    def _error(self, reason: str) -> InvalidImage:
        return InvalidImage(f"{self.name}: {reason}" if self.name else f"An image {reason}.")


def rgb(image: "Image.Image | Pixels", window: Window = None, background: str = "white") -> Image.Image | np.ndarray:
    """An image on an opaque ground: RGB of PIL where 8 bits hold it and there is no window, else float32
    `(H, W, 1 or 3)` in [0, 1].

    Args:
        image: a PIL image of any mode, or `Pixels`.
        window: see `Window`; the values are the image's own, so 0 to 255 for 8 bits.
        background: the colour behind transparent pixels; `ignore` takes the stored colours as they are.

    Raises:
        InvalidImage: see `Pixels.unit`; another number of channels than 1 or 3.
    """
    opened = plain(image)
    if isinstance(opened, Image.Image):
        if window is None:
            return _opaque(opened, background)
        opened = _as_pixels(opened)
    if opened.values.shape[2] not in (1, 3):
        raise opened.of_channels(3)
    found = opened.unit(window)
    if opened.alpha is None or background == IGNORED:
        return _as_bytes_if_exact(found)
    behind = np.asarray(colour(background), dtype=np.float32) / 255
    behind = behind[:1] if found.shape[2] == 1 and len(set(behind.tolist())) == 1 else behind
    alpha = opened.alpha[..., None].astype(np.float32)
    return found * alpha + behind * (1 - alpha)


def grey(image: "Image.Image | Pixels", window: Window = None, background: str = "white") -> Image.Image | np.ndarray:
    """An image for a network of one channel: mode L of PIL where 8 bits hold it, else float32 `(H, W, 1)` in [0, 1].

    Colours become their luma, `.299 R + .587 G + .114 B`. Arguments and errors as of `rgb`.
    """
    found = rgb(image, window, background)
    if isinstance(found, Image.Image):
        return found.convert("L")
    return found if found.shape[2] == 1 else (found @ np.asarray(LUMA, dtype=np.float32))[..., None]


def stored(image: "Image.Image | Pixels", count: int, window: Window = None) -> np.ndarray:
    """The channels of an image as they are stored, float32 `(H, W, count)` in [0, 1]: for networks of 2 or of 4 and
    more channels. Transparency is the fourth channel of an image in colour, and the second of a grey one.

    Raises:
        InvalidImage: another number of channels; else as `Pixels.unit`.
    """
    opened = plain(image)
    opened = _as_pixels(opened, as_stored=True) if isinstance(opened, Image.Image) else opened
    colours = opened.values.shape[2]
    if opened.alpha is not None and colours + 1 == count:
        return np.concatenate([opened.unit(window), opened.alpha[..., None].astype(np.float32)], 2)
    if opened.further is not None and colours + opened.further.shape[2] == count:
        whole = replace(opened, values=np.concatenate([opened.values, opened.further], 2), further=None)
        return whole.unit(window)
    if colours != count or opened.alpha is not None:
        raise opened.of_channels(count)
    return opened.unit(window)


def plain(image: "Image.Image | Pixels") -> "Image.Image | Pixels":
    """A PIL image of any mode → mode RGB, or RGBA where it is transparent; `Pixels` where it has more than 8 bits."""
    if isinstance(image, Pixels):
        return image
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16, copy=False)
        return pixels(values, alpha=_keyed(values[..., None], image.info.get("transparency")))
    if image.mode == "I":  # 16-bit grey in some formats, 32-bit integers in others
        values = np.asarray(image)
        fits = values.min() >= 0 and values.max() <= 65535
        return pixels(values.astype(np.uint16) if fits else values)
    if image.mode == "F":
        return pixels(np.asarray(image))
    if image.has_transparency_data or image.mode in ("La", "RGBa"):
        found = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    else:  # a copy also where the mode is right: the caller gets a plain image, not one tied to its file
        found = image.convert("RGB") if image.mode != "RGB" else image.copy()
    if image.mode in ("1", "L", "LA", "La"):
        found.info[GREY] = True
    return found


def pixels(array: np.ndarray, name: str = "", *, ordered: bool = False, **more: Any) -> Pixels:
    """An array `(H, W)`, `(H, W, C)` or `(C, H, W)` of numbers with the range of its type.

    Where the channels are is said by `channels_last`; `ordered`: they are last. Integers of 8 and 16 bits have the
    range of their type; bool and floating-point values lie in [0, 1]; for others nothing says what is white.

    Raises:
        InvalidImage: no image, or no numbers.
    """
    values = array if ordered else channels_last(array, name)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    values = values.astype(np.uint8) if values.dtype == bool else values
    white = (0.0, 1.0) if array.dtype == bool else dtype_range(values.dtype)
    if values.dtype.kind == "f" and not (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        white = None
    return Pixels(values, **{"white": white, "name": name, **more})


def from_array(array: np.ndarray, name: str = "") -> Image.Image | Pixels:
    """An array of numbers as an image: bytes as RGB of PIL, others as `pixels`.

    Raises:
        InvalidImage: see `pixels`.
    """
    found = pixels(array, name)
    if array.dtype != np.uint8 or found.values.shape[2] not in (1, 3):
        return found
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(found.values, (*found.values.shape[:2], 3))))


def channels_last(array: np.ndarray, name: str = "") -> np.ndarray:
    """`(H, W, C)`. The channels are last where the last side is 1 or 3, else first where the first one is, else in the
    shorter of the two.

    Raises:
        InvalidImage: another shape, no pixel, or no numbers.
    """
    said = f"{name}: " if name else ""
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InvalidImage(f"{said}An array must hold numbers: integers, or floating point. Got {array.dtype}.")
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[2] not in (1, 3):
        first, last = array.shape[0], array.shape[2]
        array = array.transpose(1, 2, 0) if first in (1, 3) or first < last else array
    if array.ndim != 3:
        raise InvalidImage(f"{said}An array must be (H, W), (H, W, channels) or (channels, H, W). Got {array.shape}.")
    if not array.size:
        raise InvalidImage(f"{said}An array must hold an image. Got {array.shape}: no pixel at all.")
    return array


def dtype_range(dtype: np.dtype) -> tuple[float, float] | None:
    """The values of a type that are black and white; None where the type says nothing."""
    if dtype.kind == "f":
        return 0.0, 1.0
    if dtype.kind in "ui" and dtype.itemsize <= 2:
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return None


def as_bytes(image: Image.Image | np.ndarray) -> Image.Image:
    """What `rgb` returns, with 8 bits: an RGB image of PIL."""
    if isinstance(image, Image.Image):
        return image
    values = (image * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3))))


def _opaque(image: Image.Image, background: str) -> Image.Image:
    if image.mode != "RGBA" or background == IGNORED:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*colour(background), 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _as_bytes_if_exact(unit: np.ndarray) -> Image.Image | np.ndarray:
    """RGB of PIL for values that are all multiples of 1/255, so that one image is the same in every form."""
    scaled = unit * 255
    return as_bytes(unit) if np.abs(scaled - scaled.round()).max() < _MULTIPLE else unit


def _as_pixels(image: Image.Image, as_stored: bool = False) -> Pixels:
    """8-bit RGB or RGBA as values; `as_stored`: with one channel of colour where it was grey."""
    values = np.asarray(image)
    alpha = values[..., 3].astype(np.float32) / 255 if image.mode == "RGBA" else None
    colours = 1 if as_stored and image.info.get(GREY) else 3
    return Pixels(values[..., :colours], (0.0, 255.0), alpha, name=image.info.get(FILE, ""))


def _keyed(values: np.ndarray, key: Any) -> np.ndarray | None:
    """The alpha of an image in which one colour is transparent; None without such a colour."""
    return None if key is None else (values != np.asarray(key)).any(-1).astype(np.float32)
