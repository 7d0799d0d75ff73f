"""A map laid over its image, which is grey by default, so that colour shows the map alone."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from heatproof.errors import InvalidInput
from heatproof.registry import unknown

#: The weights of red, green and blue in a pixel's brightness (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Look:
    """How maps are drawn: any colour map of matplotlib, and its share `alpha` in an overlay.

    The default is perceptually uniform and safe for colour-blind readers. It is dark at 0: the image fades where the
    map is low, and small bright regions stand out. Where a map is below `threshold` the grey image stays as it is.
    """

    colormap: str = "inferno"
    alpha: float = 0.5
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.colormap not in matplotlib.colormaps:
            raise unknown("colour map", str(self.colormap), list(matplotlib.colormaps))
        if not (isinstance(self.alpha, int | float) and 0 <= self.alpha <= 1):
            raise InvalidInput(f"`alpha` must lie in 0 … 1, the share of the map's colour. Got {self.alpha!r}.")
        if not (isinstance(self.threshold, int | float) and 0 <= self.threshold <= 1):
            raise InvalidInput(f"`threshold` must lie in 0 … 1, the range of a map. Got {self.threshold!r}.")

    @property
    def palette(self) -> np.ndarray:
        """`(256, 3)` uint8, low → high."""
        return np.rint(_colours(self.colormap)).astype(np.uint8)


@lru_cache(maxsize=8)
def _colours(name: str) -> np.ndarray:
    """`(256, 3)` in 0 … 255, low → high, not rounded."""
    return 255 * np.asarray(matplotlib.colormaps[name](np.linspace(0, 1, 256)))[:, :3]


def grey(image: np.ndarray) -> np.ndarray:
    """`(H, W, 3)` uint8 → its brightness, `(H, W, 1)` float in 0 … 255."""
    return (image @ LUMA)[..., None]


def overlay(image: np.ndarray, display: np.ndarray, look: Look, *, coloured: bool = False) -> np.ndarray:
    """`alpha · colour(map) + (1 − alpha) · grey(image)`, uint8 `(H, W, 3)`.

    `image` uint8 `(H, W, 3)`, `display` `(H, W)` in [0, 1]. The image is grey, so that no colour of its own can be
    taken for the map's; `coloured` keeps its colours. Where the map is below the threshold of `look`, the image stands
    alone.
    """
    values = np.clip(np.nan_to_num(display), 0, 1)
    levels = np.rint(255 * values).astype(np.uint8)
    below = image.astype(float) if coloured else grey(image)
    share = look.alpha if not look.threshold else look.alpha * (values >= look.threshold)[..., None]
    mixed = share * _colours(look.colormap)[levels] + (1 - share) * below
    return np.rint(mixed).astype(np.uint8)


def outlined(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The image with the outline of a mask: a white line on its edge, a black one around it, seen on any colour.

    `image` uint8 `(H, W, 3)`, `mask` bool of any size, which is stretched to the image's. A line is one pixel wide
    up to 240 pixels of the image's shorter side, and wider in proportion. Where the mask goes on to the image's border
    there is no edge. Without a mask, or with an empty one, the image is as it was.
    """
    if mask is None or not mask.any():
        return image
    from scipy.ndimage import binary_dilation, binary_erosion

    inside: Any = stretched(mask, image.shape[0], image.shape[1])
    width = max(1, round(min(image.shape[:2]) / 160))
    kept: Any = binary_erosion(inside, iterations=width, border_value=True)
    inner, outer = inside & ~kept, binary_dilation(inside, iterations=width) & ~inside
    drawn = image.copy()
    drawn[inner], drawn[outer] = 255, 0
    return drawn


def stretched(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A bool mask at another size, cut at one half; no mask becomes empty."""
    if mask.shape == (height, width):
        return mask
    small = Image.fromarray(mask.astype(np.uint8) * 255)
    found = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)) >= 128
    return found if found.any() else np.asarray(small.resize((width, height), Image.Resampling.BOX)) > 0
