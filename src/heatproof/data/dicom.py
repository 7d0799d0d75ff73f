"""DICOM files through pydicom: rescaled values, and the window that the file itself names (PS3.3, C.11.2)."""

import io
import zlib
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from heatproof.data.image_paths import printable
from heatproof.data.whole_files import Bounds
from heatproof.errors import InvalidImage, MissingExtra
from heatproof.pixels import Pixels

#: The endings of DICOM files; the content of a file without one tells too.
ENDINGS = (".dcm", ".dicom")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
#: The most bytes of a pixel, in all its samples.
_BYTES = 8
_GREY = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(head: bytes, path: Path) -> bool:
    """Whether a file that begins so is DICOM."""
    return head[128:132] == b"DICM" or path.suffix.lower() in ENDINGS


def refuse_without_pydicom(what: str) -> None:
    """MissingExtra, with the line that installs it, where pydicom is not there."""
    if find_spec("pydicom") is None:
        raise MissingExtra(f"{what} is DICOM, and pydicom is not installed. Run: pip install 'heatproof[dicom]'.")


def read(path: Path, bounds: Bounds) -> Pixels:
    """The image of a DICOM file, in the units that its rescale slope and intercept give.

    Without a window of the user's the file's own (the first) says what is black and white, else its look-up table, else
    the range of its bits.

    Raises:
        MissingExtra: pydicom is not installed.
        InvalidImage: no image, several frames, too large, or a kind that is not read.
    """
    refuse_without_pydicom(printable(path.name))
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with _Opened(path, _BYTES * bounds.pixels) as file:
            about = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise InvalidImage(f"is not DICOM ({error})") from error
    kind = str(about.get("PhotometricInterpretation", ""))
    if "Rows" not in about or "Columns" not in about or not kind:
        raise InvalidImage("holds no image")
    bounds.check(int(about.Columns), int(about.Rows))
    if (frames := int(about.get("NumberOfFrames") or 1)) > 1:
        raise InvalidImage(
            f"has {frames} frames, and one image is explained at a time. Save the frame you mean as a file of its own, "
            "such as `numpy.save('frame.npy', pydicom.dcmread(FILE).pixel_array[0])`"
        )
    if kind not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise InvalidImage(f"has the photometric interpretation {kind}, which is not read; save it in grey or RGB")
    found = pydicom.dcmread(path)
    stored = _stored(found)
    if stored.ndim != (3 if kind in _COLOUR else 2):
        raise InvalidImage(f"says that it is {kind}, and its pixels have the shape {tuple(stored.shape)}")
    name = printable(path.name)
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        colours = apply_color_lut(stored, found)
        return Pixels(colours, (0.0, float(np.iinfo(colours.dtype).max)), name=name)
    if kind in _COLOUR:
        return Pixels(stored, (0.0, float(2 ** int(found.BitsStored) - 1)), name=name)
    return _grey(found, stored, kind == "MONOCHROME1", name)


class _Opened(io.BufferedReader):
    """A file for pydicom, which inflates the rest of a deflated file at once, whatever it grows to.

    Raises InvalidImage on reading the rest of one that grows to more than `most` bytes.
    """

    def __init__(self, path: Path, most: int):
        super().__init__(io.FileIO(path))
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's; all is read of a deflated file only."""
        found = super().read(size)
        if size is None or size < 0:
            stream, inflated, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, found
            with suppress(zlib.error):  # pydicom says so
                while rest and not stream.eof:
                    inflated += len(stream.decompress(rest, 1 << 20))
                    rest = stream.unconsumed_tail
                    if inflated > self._most:
                        raise InvalidImage("inflates to far more than an image may hold (a decompression bomb?)")
        return found


def _stored(found: Any) -> np.ndarray:
    try:
        return found.pixel_array
    except Exception as error:  # each decoder of pydicom has its own
        raise InvalidImage(
            f"cannot be decoded ({error}). For compressed files: pip install pylibjpeg pylibjpeg-libjpeg "
            "pylibjpeg-openjpeg"
        ) from error


def _grey(found: Any, stored: np.ndarray, inverted: bool, name: str) -> Pixels:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(stored, found))
    white, shown = _range_of_bits(found), None
    centre, width = _first(found.get("WindowCenter")), _first(found.get("WindowWidth"))
    if centre is not None and width is not None:
        white, shown = _window(values, centre, width, str(found.get("VOILUTFunction", "LINEAR") or "LINEAR"))
    elif found.get("VOILUTSequence"):
        table = found.VOILUTSequence[0]
        looked_up = apply_voi(values.astype(np.int64), found).astype(np.float64)
        shown = (looked_up / (2 ** int(table.LUTDescriptor[2]) - 1)).clip(0, 1)[..., None]
    return Pixels(values[..., None], white, inverted=inverted, shown=shown, name=name)


def _window(
    values: np.ndarray, centre: float, width: float, function: str
) -> tuple[tuple[float, float] | None, np.ndarray | None]:
    """The values that are black and white by a window, or `(H, W, 1)` as shown where no range says it (C.11.2.1.3)."""
    if function == "SIGMOID" and width > 0:
        slope = np.clip(-4 * (values.astype(np.float64) - centre) / width, -500, 500)
        return (centre - width / 2, centre + width / 2), (1 / (1 + np.exp(slope)))[..., None]
    if function == "LINEAR_EXACT" and width > 0:
        return (centre - width / 2, centre + width / 2), None
    if function != "LINEAR" or width < 1:
        return None, None  # no window at all by the standard
    half = max(width - 1, 1e-6) / 2
    return (centre - 0.5 - half, centre - 0.5 + half), None


def _range_of_bits(found: Any) -> tuple[float, float]:
    """The least and the largest value that the stored bits can give, rescaled."""
    bits, signed = int(found.BitsStored), int(found.get("PixelRepresentation") or 0) == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if found.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(found.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope, intercept = float(found.get("RescaleSlope", 1) or 1), float(found.get("RescaleIntercept", 0) or 0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], ends[1]


def _first(value: Any) -> float | None:
    """The first of several values; None for none."""
    if value is None or value == "":
        return None
    try:
        return float(value[0]) if hasattr(value, "__len__") and not isinstance(value, str) else float(value)
    except (IndexError, ValueError):
        return None
