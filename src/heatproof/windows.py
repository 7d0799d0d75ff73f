"""Which stored values are black and white, and what is behind transparency: what a user may say of it, checked."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from heatproof.errors import InvalidInput

#: The values that are black and white: a pair in the file's own units, `auto` (percentiles of each image), or None.
Window = tuple[float, float] | Literal["auto"] | None

#: `auto` takes these percentiles of an image's values, over all channels, as black and white.
PERCENTILES = (0.5, 99.5)

#: In place of a colour behind transparency: the stored colours as they are, as `Image.convert("RGB")` gives them.
IGNORED = "ignore"


def checked_window(window: Any) -> Window:
    """A window as given: None, `auto`, a pair, or the text `low,high`.

    Raises:
        InvalidInput: anything else, or a pair that is not in order.
    """
    if window is None or window == "auto":
        return window
    parts = window.split(",") if isinstance(window, str) else list(window) if isinstance(window, Sequence) else []
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInput(
            f"`window` must be two numbers, the values that are black and white, lower one first, or `auto`. "
            f"Got {window!r}."
        )
    return float(low), float(high)


def checked_background(background: Any) -> str:
    """The name of a colour, as Pillow knows them (`black`, `#808080`, `rgb(0, 128, 255)`), or `ignore`.

    Raises:
        InvalidInput: no such colour.
    """
    try:
        if background != IGNORED:
            colour(background)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(
            f"`alpha_background` must be an opaque colour such as white, black or #808080, or `ignore`. "
            f"Got {background!r}."
        ) from None
    return str(background)


def colour(name: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour, 0 to 255; ValueError for none, and for a transparent one."""
    from PIL import ImageColor

    found = ImageColor.getcolor(name, "RGBA")
    if not isinstance(found, tuple) or found[3] != 255:
        raise ValueError(name)
    red, green, blue, _ = found
    return red, green, blue
