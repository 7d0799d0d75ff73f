"""Reads one file as an upright image, the values of a map, or a mask; raises InvalidImage with the reason.

Every image and array of the user's is opened here, so that its size is checked before its content is read. The content
decides the format: Pillow reads files of 8 bits, `deep_files` 16-bit colour PNG and TIFF, `dicom` DICOM.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from heatproof.data import deep_files, dicom
from heatproof.data.image_paths import printable
from heatproof.data.whole_files import Bounds, refuse_missing_parts, refuse_missing_rows
from heatproof.errors import InvalidImage, MissingExtra
from heatproof.files import refuse_unusual
from heatproof.pixels import FILE, Pixels, as_bytes, channels_last, from_array, plain, rgb
from heatproof.quiet import ignored_warnings
from heatproof.windows import Window

T = TypeVar("T")

MAX_PIXELS = 100_000_000

#: How far the channels of a grey image may differ after JPEG compression, of 255.
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


def open_pixels(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Image.Image | Pixels:
    """The image in `path` at its full precision, turned as its orientation says; the first frame of several.

    Files of 8 bits give an RGB image of PIL, RGBA where they are transparent; others give `Pixels`. CMYK is converted
    without colour profile, and embedded profiles are ignored. An orientation that cannot be read is taken as upright.
    Colour with over 8 bits in PPM, JPEG 2000 and AVIF is read with 8 bits.

    Raises:
        InvalidImage: with the file's name and a short reason, for anything that is not a whole image of at most
            `max_pixels` pixels; the size is checked before the pixels are decoded.
        MissingExtra: a DICOM file without pydicom.
    """
    found = _read(path, _upright, max_pixels)
    if isinstance(found, Image.Image):
        found.info[FILE] = printable(Path(path).name)
    return found


def open_image(
    path: str | os.PathLike, max_pixels: int = MAX_PIXELS, window: Window = None, background: str = "white"
) -> Image.Image:
    """The image in `path` as `open_pixels` reads it, mode RGB with 8 bits, transparent pixels on `background`.

    `window`: the stored values that are black and white; see `heatproof.windows.Window`. Raises as `open_pixels`, and
    InvalidImage for numbers whose black and white are unknown.
    """
    return as_bytes(rgb(open_pixels(path, max_pixels), window, background))


def header_size(path: str | os.PathLike) -> tuple[int, int] | None:
    """Width and height from the head of an image file that Pillow knows, else None; nothing is decoded."""
    try:
        refuse_unusual(Path(path))
        with Image.open(path) as image:
            return image.size if min(image.size) > 0 else None
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None


def open_grey(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The grey values in `path` as they are stored, float32 `(height, width)`: 8 bits, 16 bits or floating point.

    Raises InvalidImage as `open_pixels`, and for an image in colour, which has no single value for each pixel.
    """
    return _read(path, _grey, max_pixels)


def open_mask(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels that are neither black nor transparent, bool `(height, width)`; in a JPEG, those above half the peak.

    Raises InvalidImage as `open_pixels`.
    """
    return _read(path, _covered, max_pixels)


def open_array(path: str | os.PathLike, max_values: int = MAX_PIXELS) -> np.ndarray:
    """The array of an `.npy` file; no code in it is run.

    Raises InvalidImage, with the file's name and a short reason, for what numpy cannot read, and for more than
    `max_values` values; the size is checked before the values are read.
    """
    path = Path(path)
    found = mapped_array(path)
    if found.size > max_values:
        raise InvalidImage(f"{printable(path.name)}: has {found.size:,} values, over the limit of {max_values:,}")
    return np.array(found)


def mapped_array(path: Path) -> np.ndarray:
    """The array of an `.npy` file, of which only the header is read. InvalidImage for what is none."""
    try:
        refuse_unusual(path)
        found = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a broken file meets numpy with errors of many types
        raise InvalidImage(f"{printable(path.name)}: cannot be read ({error})") from error
    if not isinstance(found, np.ndarray):
        raise InvalidImage(f"{printable(path.name)}: is an archive of several arrays; save one with `numpy.save`")
    return found


def _of_array(path: Path, bounds: Bounds) -> Image.Image | Pixels:
    mapped = channels_last(mapped_array(path), name := printable(path.name))
    bounds.check(mapped.shape[1], mapped.shape[0])
    return from_array(np.array(mapped), name)


def _read(path: str | os.PathLike, meant: Callable[[Any], T], max_pixels: int) -> T:
    path = Path(path)
    try:
        refuse_unusual(path)
        bounds = Bounds(max_pixels, path.stat().st_size)
        # Pillow warns of large images before we can look at their size; ours is the limit that counts.
        with ignored_warnings(), path.open("rb") as file:
            head = file.read(deep_files.HEAD)
            if head.startswith(deep_files.NUMPY):
                return meant(_of_array(path, bounds))
            if dicom.is_dicom(head, path):
                return meant(dicom.read(path, bounds))
            file.seek(0)
            if head[:4] in deep_files.TIFF:
                found = deep_files.read_tiff(file, printable(path.name), bounds, lambda: _tiff(file, bounds))
                if found is not None:
                    return meant(found)
                file.seek(0)
            with _opened(file) as image:
                if deep_files.is_deep_png(head):
                    bounds.check(*image.size)
                    found = deep_files.read_png(image, printable(path.name), lambda: Image.open(path, formats=["PNG"]))
                    refuse_missing_rows(image, file, not found.values[-1].any())
                    return meant(deep_files.turned(found, _orientation(image)))
                return meant(_decoded(image, file, bounds))
    except (MemoryError, MissingExtra):
        raise
    except Exception as error:  # decoders meet broken files with errors of nearly any type
        reason = _reason(path, error)
        raise InvalidImage(
            reason if reason.startswith(name := f"{printable(path.name)}: ") else name + reason
        ) from error


def _opened(file: BinaryIO) -> Image.Image:
    """The image in a file, its header read. A header that asks for more memory than there is is broken."""
    try:
        return Image.open(file, formats=_formats())
    except MemoryError as error:
        raise InvalidImage("is broken or cut off (a part of it says that it is larger than the memory)") from error


def _tiff(file: BinaryIO, bounds: Bounds) -> Image.Image:
    file.seek(0)
    return _decoded(Image.open(file, formats=["TIFF"]), file, bounds)


def _decoded(image: Image.Image, file: BinaryIO, bounds: Bounds) -> Image.Image:
    bounds.check(*image.size)
    refuse_missing_parts(image)
    image.load()
    refuse_missing_rows(image, file)
    return image


def _upright(image: Image.Image | Pixels) -> Image.Image | Pixels:
    if isinstance(image, Pixels):
        return image
    if (turn := _orientation(image)) not in _UPRIGHT:
        return plain(image)
    found = plain(image)
    return deep_files.turned(found, turn) if isinstance(found, Pixels) else found.transpose(_UPRIGHT[turn])


def _covered(image: Image.Image | Pixels) -> np.ndarray:
    if isinstance(image, Pixels):
        there = (np.nan_to_num(image.values) != 0).any(-1)
        return there if image.alpha is None else there & (image.alpha > 0)
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


def _grey(image: Image.Image | Pixels) -> np.ndarray:
    if isinstance(image, Pixels):
        return _one_value(image.values.astype(np.float32), (image.white or (0, 1))[1] * _NEUTRAL / 255)
    upright = _UPRIGHT.get(_orientation(image))
    image = image if upright is None else image.transpose(upright)
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32)
    return _one_value(np.asarray(rgb(image)).astype(np.float32), _NEUTRAL)


def _one_value(channels: np.ndarray, neutral: float) -> np.ndarray:
    """The mean over the channels; InvalidImage where they differ by more than `neutral`."""
    if np.ptp(channels, axis=2).max() > neutral:
        raise InvalidImage("is in colour, and a map has one number for each pixel; save it in grey")
    return channels.mean(2)


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
