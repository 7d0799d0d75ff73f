"""Overlays, by the name of torchcam."""

from typing import Any

import numpy as np
from PIL import Image

from heatproof.compat.missing import missing_names
from heatproof.errors import InvalidInput, InvalidType


def overlay_mask(img: Image.Image, mask: Image.Image, colormap: Any = "jet", alpha: float = 0.7) -> Image.Image:
    """A map over its image: `alpha` × image + (1 − `alpha`) × colours of the squared map.

    Args:
        img: grey or RGB.
        mask: the map in [0, 1] (mode `F`) or in bytes, of any size.
        colormap: a colour map of Matplotlib's, or its name.
        alpha: at least 0, below 1.
    """
    from matplotlib import colormaps

    for name, given in (("img", img), ("mask", mask)):
        if not isinstance(given, Image.Image):
            raise InvalidType(f"`{name}` must be a PIL image. Got {type(given).__name__}.")
    if not isinstance(alpha, int | float) or not 0 <= alpha < 1:
        raise InvalidInput(f"`alpha` must be at least 0 and below 1. Got {alpha!r}.")
    if len(img.getbands()) not in (1, 3):
        raise InvalidInput(f"`img` must be grey or RGB. Got mode {img.mode}.")
    shares = np.asarray(mask.resize(img.size, resample=Image.Resampling.BICUBIC))
    shares = shares / 255 if shares.dtype == np.uint8 else shares
    heat = colormaps.get_cmap(colormap)(shares**2, bytes=True)[..., :3]
    return Image.blend(Image.fromarray(np.ascontiguousarray(heat)), img.convert("RGB"), alpha)


__getattr__ = missing_names(__name__, {})
