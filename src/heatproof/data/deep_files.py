"""PNG and TIFF files with more than 8 bits at their full precision; only `image_opener` reads files with these.

Pillow keeps 16 bits of grey images, and 8 of colour ones.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from heatproof.data.whole_files import Bounds
from heatproof.errors import InvalidImage
from heatproof.pixels import Pixels, pixels

#: How many bytes tell the format of a file; DICOM's mark ends with the last of them.
HEAD = 132
NUMPY = b"\x93NUMPY"
PNG = b"\x89PNG\r\n\x1a\n"
#: The beginnings of TIFF and BigTIFF, little- and big-endian.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: Numbers of TIFF 6.0: compressions that tifffile decodes by itself, photometric interpretations, tags.
_NONE, _DEFLATE, _PACKBITS = 1, (8, 32946), 32773
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ORIENTATION, _EXTRA_SAMPLES, _PREMULTIPLIED, _ALPHA = 274, 338, 1, (1, 2)

_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def turned(image: Pixels, orientation: int) -> Pixels:
    """The image as its EXIF or TIFF orientation says; upright for one that makes no sense."""
    if orientation not in _TURNS:
        return image
    turn = _TURNS[orientation]
    alpha = None if image.alpha is None else turn(image.alpha)
    further = None if image.further is None else turn(image.further)
    return Pixels(turn(image.values), image.white, alpha, image.inverted, image.shown, image.name, further)


def is_deep_png(head: bytes) -> bool:
    """Whether a file that begins so is a PNG of 16 bits with colour or alpha, of which Pillow keeps 8."""
    return head.startswith(PNG) and len(head) > 25 and head[24] == 16 and head[25] in (2, 4, 6)


def read_png(image: Image.Image, name: str, again: Callable[[], Image.Image]) -> Pixels:
    """Such a file; `image` is the one that Pillow has opened, whose size was checked; `again` opens it once more.

    Raises:
        OSError, ValueError …: a broken file.
    """
    raw = image.tile[0].args  # type: ignore[attr-defined]
    if raw == "LA;16B":  # four bytes a pixel, as an image of 8 bits with four channels
        both = _unpacked(again(), "RGBA")
        channels = both[..., 0::2] << 8 | both[..., 1::2]
    else:
        channels = _unpacked(again(), raw) << 8 | _unpacked(again(), raw.replace("16B", "16L"))
    colours = channels.shape[2] - (channels.shape[2] + 1) % 2
    values, alpha = channels[..., :colours], None
    if channels.shape[2] > colours:
        alpha = channels[..., -1].astype(np.float32) / 65535
    elif (key := image.info.get("transparency")) is not None:
        alpha = (values != np.asarray(key)).any(-1).astype(np.float32)
    return pixels(values, name, alpha=alpha)


def _unpacked(image: Image.Image, raw: str) -> np.ndarray:
    """The bytes that a raw mode of Pillow takes of each pixel, `(H, W, C)` uint16.

    `RGB;16B` takes the first byte of each pair, the high one of a PNG, and `RGB;16L` the second. torchvision's decoder
    gives both at once, but some damaged files end the process there.
    """
    with image:
        image.tile = [tile._replace(args=raw) for tile in image.tile]  # type: ignore[attr-defined]
        return np.asarray(image).astype(np.uint16)


def read_tiff(file: BinaryIO, name: str, bounds: Bounds, by_pillow: Callable[[], Image.Image]) -> Pixels | None:
    """The first image of a TIFF file; None for one of 8 bits or fewer, which Pillow reads.

    `by_pillow` opens it with Pillow, which keeps the precision of one channel and knows more compressions.

    Raises:
        InvalidImage: too large, or a kind that cannot be read at its full precision.
    """
    import tifffile

    try:
        opened = tifffile.TiffFile(file)
        page: Any = opened.pages[0]
    except Exception:  # Pillow says what is wrong with it
        return None
    with opened:
        kind = page.dtype
        if kind is None or kind.kind not in "uif":
            return None
        extra = page.tags.valueof(_EXTRA_SAMPLES) or ()
        extra = tuple(extra) if isinstance(extra, tuple | list) else (extra,)
        if kind.kind == "u" and kind.itemsize == 1 and not _has_further(page, extra):
            return None
        bounds.check(page.imagewidth, page.imagelength)
        samples, grey = page.samplesperpixel, page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
        if not grey and page.photometric != _RGB:
            raise InvalidImage(
                f"is {getattr(page.photometric, 'name', page.photometric)} with {8 * kind.itemsize} bits; save it in "
                "grey or RGB"
            )
        colours = 1 if grey else 3
        colours = samples if samples > colours + 1 else colours  # the bands of a camera
        if samples < colours:
            raise InvalidImage(f"has {samples} channels, and an image in colour has 3 at least")
        stored = _samples(page, samples, by_pillow)
        return turned(
            _with_alpha(stored, colours, extra, name, page.photometric == _WHITE_IS_ZERO),
            page.tags.valueof(_ORIENTATION) or 1,
        )


def _has_further(page: Any, extra: tuple) -> bool:
    """Whether a pixel has more samples than grey or RGB and its transparency, such as the bands of a camera."""
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or page.bitspersample != 8:
        return False
    more = page.samplesperpixel - (3 if page.photometric == _RGB else 1)
    return more > 1 or (more == 1 and not any(int(kind) in _ALPHA for kind in extra))


def _samples(page: Any, samples: int, by_pillow: Callable[[], Image.Image]) -> np.ndarray:
    """The stored values `(H, W, C)`, bounded by what the header says."""
    if page.compression in (_NONE, _PACKBITS) or (page.compression in _DEFLATE and _inflates_as_said(page)):
        found = np.asarray(page.asarray()).reshape(*_shape(page, samples))
        return found.transpose(1, 2, 0) if page.planarconfig == 2 and samples > 1 else found
    if samples == 1:
        image = by_pillow()
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            values = np.asarray(image)
            wide = values.view(np.uint32) if page.dtype == np.uint32 and values.dtype == np.int32 else values
            return wide.astype(page.dtype)[..., None]
    name = getattr(page.compression, "name", page.compression)
    raise InvalidImage(f"is compressed by {name}, which cannot be read with these bits; save it without, or by deflate")


def _shape(page: Any, samples: int) -> tuple[int, ...]:
    size = page.imagelength, page.imagewidth
    return (samples, *size) if page.planarconfig == 2 and samples > 1 else (*size, samples)


def _inflates_as_said(page: Any) -> bool:
    """Whether no strip or tile inflates to more than the header says; read bit by bit, so that a bomb does no harm.

    Raises:
        InvalidImage: one does.
    """
    parts = page.chunks if page.is_tiled else (page.rowsperstrip, page.imagewidth, page.samplesperpixel)
    most = math.prod(parts) * page.dtype.itemsize + 1024
    handle = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        stream = zlib.decompressobj()
        stream.decompress(handle.read(count), most)
        if stream.unconsumed_tail:
            raise InvalidImage("holds more pixels than its header says (a decompression bomb?); save it again")
    return True


def _with_alpha(stored: np.ndarray, colours: int, extra: tuple, name: str, inverted: bool) -> Pixels:
    found = pixels(stored[..., :colours], name, ordered=True, inverted=inverted)
    if stored.shape[2] == colours:
        return found
    if extra[:1] == () or int(extra[0]) not in _ALPHA:
        return replace(found, further=stored[..., colours:])
    full = found.white[1] if found.white is not None else 1.0
    alpha = (stored[..., colours].astype(np.float32) / full).clip(0, 1)
    values = found.values
    if int(extra[0]) == _PREMULTIPLIED:
        lit = np.where(alpha > 0, alpha, 1)[..., None]
        values = (values / lit).clip(0, full).astype(values.dtype)
    return Pixels(values, found.white, alpha, inverted, None, name)
