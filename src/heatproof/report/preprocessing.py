"""The preprocessing of a model in words, from the facts that a study records."""

from collections.abc import Mapping, Sequence
from typing import Any


def preprocessing_text(facts: Mapping[str, Any]) -> str:
    """What the network sees of an image: size, resize, crop, interpolation, mean, std, window, transparency."""
    high, wide = facts["size"]
    resize = facts["resize"]
    if resize == "none":
        how = f"squashed to {high} × {wide}"
    elif isinstance(resize, Sequence):
        how = f"resized to cover {resize[0]} × {resize[1]}, centre crop {high} × {wide}"
    else:
        how = f"shorter side {resize}, centre crop {high} × {wide}"
    window = facts["window"]
    if window is None:
        black = "of the file's type"
    else:
        black = "percentiles .5 and 99.5 of each image" if window == "auto" else _numbers(window)
    parts = (
        f"{how} (height × width), {facts['interpolation']}",
        f"RGB, mean {_numbers(facts['mean'])}, std {_numbers(facts['std'])}",
        f"black and white {black}",
        f"transparency on {facts['alpha_background']}",
    )
    return "; ".join(parts)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
