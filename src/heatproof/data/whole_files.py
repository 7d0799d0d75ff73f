"""Whether a file can hold the pixels that its header says, before they are decoded, and whether it does hold them.

Pillow fills rows that a file does not hold with black, and says nothing.
"""

import math
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from heatproof.errors import InvalidImage

#: The most pixels of a byte, in files of more pixels than open in a moment. Deflate packs 1,032 bytes into one, so a
#: PNG of one bit has 8,256 at most. WebP, JPEG 2000, AVIF and fax codes may pack any number of equal pixels into
#: nothing, and a blank page or an empty mask is such an image: A4 at 600 dots an inch has 35 million pixels.
DENSEST, SMALL = 10_000, 40_000_000

_SIGNATURE = 8
#: TIFF: the tags of the sides.
_WIDTH, _HEIGHT = 256, 257
#: PNG: samples of a pixel by colour type; where the passes of an interlaced image begin, and their steps.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class Bounds:
    """How large the image in a file may be.

    Attributes:
        pixels: the most.
        bytes: the size of the file.
    """

    pixels: int
    bytes: int

    def check(self, width: int, height: int) -> None:
        """InvalidImage for too many pixels, for none, and for more than a file of so few bytes can hold."""
        if width < 1 or height < 1:
            raise InvalidImage(f"has {width} × {height} pixels")
        if width * height > self.pixels:
            raise InvalidImage(f"has {width} × {height} pixels, over the limit of {self.pixels:,}; make it smaller")
        if width * height > max(SMALL, DENSEST * self.bytes):
            raise InvalidImage(
                f"says that it has {width} × {height} pixels, and holds {self.bytes:,} bytes (a decompression bomb?); "
                "make it smaller, or save it as PNG"
            )


def refuse_missing_parts(image: Image.Image) -> None:
    """InvalidImage for a TIFF file, not yet decoded, whose strips or tiles do not cover the image of its header."""
    if image.format != "TIFF":
        return
    tiles = [tile.extents for tile in image.tile if tile.extents is not None]  # type: ignore[attr-defined]
    covered = max((box[2] for box in tiles), default=0), max((box[3] for box in tiles), default=0)
    # Pillow turns the size of an image by its orientation, and not that of its tiles.
    width, height = (int(image.tag_v2[tag]) for tag in (_WIDTH, _HEIGHT))  # type: ignore[attr-defined]
    if covered[0] < width or covered[1] < height:
        raise InvalidImage(f"says that it has {width} × {height} pixels, and holds {covered[1]} rows")


def refuse_missing_rows(image: Image.Image, file: BinaryIO, ends_black: bool | None = None) -> None:
    """InvalidImage for a PNG whose file holds fewer rows than its header says.

    They are counted where the last row is black, or where the image is interlaced, whose rows come in another order.
    `ends_black`: whether it is, for what Pillow has not decoded.
    """
    if image.format != "PNG":
        return
    if not (image.info.get("interlace") or (_ends_black(image) if ends_black is None else ends_black)):
        return
    file.seek(_SIGNATURE)
    held, needed, stream = 0, 0, zlib.decompressobj()
    while len(head := file.read(8)) == 8 and not stream.eof:
        content, kind = file.read(int.from_bytes(head[:4], "big")), head[4:]
        file.read(4)
        needed = _png_bytes(content) if kind == b"IHDR" else needed
        while kind == b"IDAT" and content and held < needed:
            try:
                held += len(stream.decompress(content, 1 << 20))
            except zlib.error:  # Pillow has said what matters of it
                return
            content = stream.unconsumed_tail
    if held < needed:
        raise InvalidImage(f"is broken or cut off (it holds {100 * held / needed:.3g} % of its pixels)")


def _ends_black(image: Image.Image) -> bool:
    """Whether all values of the last row are 0, as they are in one that was not there."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return last.getbbox(alpha_only=False) is None


def _png_bytes(header: bytes) -> int:
    """The bytes of the rows of a PNG, each with its filter."""
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (0, 4))
    bits = header[8] * _SAMPLES[header[9]]
    passes = _PASSES if header[12] else ((0, 0, 1, 1),)
    sides = [(math.ceil((width - x) / dx), math.ceil((height - y) / dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + math.ceil(across * bits / 8)) for across, rows in sides if across > 0)
