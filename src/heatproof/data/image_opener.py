"""Reads one file as an upright RGB image, the values of a map, or a mask; raises InvalidImage with the reason.

Every image and array of the user's is opened here, so that its size is checked before its content is read.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from heatproof.data.image_paths import printable
from heatproof.errors import InvalidImage
from heatproof.quiet import ignored_warnings

T = TypeVar("T")

MAX_PIXELS = 100_000_000

#: How far the channels of a grey image may differ after JPEG compression.
_NEUTRAL = 8

#: Formats Pillow decodes by itself; the others are left out (EPS would start Ghostscript).
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in `path`, mode RGB, turned as its EXIF orientation says; the first frame of an animation.

    Grey becomes equal channels; 16-bit grey keeps its upper byte; transparent pixels are laid on
    white; CMYK is converted without colour profile, and embedded profiles are ignored. An orientation that
    cannot be read is taken as upright. Raises InvalidImage, with the file's name and a short reason, for
    anything that is not a whole image of at most `max_pixels` pixels; the size is checked before the pixels
    are decoded.
    """
    return _read(path, _upright_rgb, max_pixels)


def open_grey(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The grey values in `path` as they are stored, float32 `(height, width)`: 8 bits, 16 bits or floating point.

    Raises InvalidImage as `open_image`, and for an image in colour, which has no single value for each pixel.
    """
    return _read(path, _grey, max_pixels)


def open_mask(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels that are neither black nor transparent, bool `(height, width)`; in a JPEG, those above half the peak.

    Raises InvalidImage as `open_image`.
    """
    return _read(path, _upright_pixels, max_pixels)


def open_array(path: str | os.PathLike, max_values: int = MAX_PIXELS) -> np.ndarray:
    """The array of an `.npy` file; no code in it is run.

    Raises InvalidImage, with the file's name and a short reason, for what numpy cannot read, and for more than
    `max_values` values; the size is checked before the values are read.
    """
    path = Path(path)
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a broken file meets numpy with errors of many types
        raise InvalidImage(f"{printable(path.name)}: cannot be read ({error})") from error
    if not isinstance(found, np.ndarray):
        raise InvalidImage(f"{printable(path.name)}: is an archive of several arrays; save one with `numpy.save`")
    if found.size > max_values:
        raise InvalidImage(f"{printable(path.name)}: has {found.size:,} values, over the limit of {max_values:,}")
    return np.array(found)


def _read(path: str | os.PathLike, meant: Callable[[Image.Image], T], max_pixels: int) -> T:
    path = Path(path)
    try:
        # Pillow warns of large images before we can look at their size; ours is the limit that counts.
        with ignored_warnings(), path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            return meant(_decoded(image, max_pixels))
    except MemoryError:
        raise
    except Exception as error:  # decoders meet broken files with errors of nearly any type
        raise InvalidImage(f"{printable(path.name)}: {_reason(path, error)}") from error


def _decoded(image: Image.Image, max_pixels: int) -> Image.Image:
    if image.width * image.height > max_pixels:
        raise InvalidImage(
            f"has {image.width} × {image.height} pixels, over the limit of {max_pixels:,}; make it smaller"
        )
    image.load()
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = _UPRIGHT.get(_orientation(image))
    rgb = as_rgb(image)
    return rgb if upright is None else rgb.transpose(upright)


def _upright_pixels(image: Image.Image) -> np.ndarray:
    upright = _UPRIGHT.get(_orientation(image))
    lossy = image.format in ("JPEG", "MPO")
    image = image if upright is None else image.transpose(upright)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return np.asarray(image)[..., :3].any(-1) & (np.asarray(image)[..., 3] > 0)
    if image.mode not in ("1", "L", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    values = np.nan_to_num(np.asarray(image))
    values = values.max(-1) if values.ndim == 3 else values
    return values > values.max() / 2 if lossy else values != 0  # a JPEG's black is not quite black


def _grey(image: Image.Image) -> np.ndarray:
    upright = _UPRIGHT.get(_orientation(image))
    image = image if upright is None else image.transpose(upright)
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32)
    channels = np.asarray(as_rgb(image)).astype(np.float32)
    if np.ptp(channels, axis=2).max() > _NEUTRAL:
        raise InvalidImage("is in colour, and a map has one number for each pixel; save it in grey")
    return channels.mean(2)


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode Pillow reads → RGB, as in `open_image`; InvalidImage for numbers whose white is unknown."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(image))
    if image.mode == "I":  # 16-bit grey in some formats, 32-bit integers in others
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InvalidImage("holds 32-bit numbers, whose white is unknown; save it with 8 or 16 bits")
        return _from_16_bit(values)
    if image.mode == "F":
        raise InvalidImage("holds floating-point numbers, whose white is unknown; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    # A copy also where the mode is right: the caller gets a plain image, not one tied to its file.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _from_16_bit(values: np.ndarray) -> Image.Image:
    """Grey values in 0 … 65535 → their upper byte; `convert` would clip everything above 255 to white."""
    return Image.fromarray((values.astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF data in a sound image: viewers show it upright
        return 1


def _formats() -> list[str]:
    """Of `_FORMATS`, those this build of Pillow knows."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, InvalidImage):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "missing file"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, Image.DecompressionBombError):
        return "has far too many pixels (a decompression bomb?); make it smaller"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not an image in a known format"
    return f"is broken or cut off ({error})"
