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
    ground = facts.get("alpha_background")
    behind = "ignored" if ground == "ignore" else f"on {ground}"
    count = facts.get("channels", 3)
    order = facts.get("channel_order", "rgb").upper() if count == 3 else "grey" if count == 1 else f"{count} channels"
    assumed = facts.get("assumed") or ()
    units = " (red, green, blue, of images in 0 … 1)" if count == 3 and len({*facts["mean"], *facts["std"]}) > 2 else ""
    parts = (
        f"{how} (height × width), {facts['interpolation']}",
        f"{order}, mean {_numbers(facts['mean'])}, std {_numbers(facts['std'])}{units}",
        f"black and white {black}",
        *([f"transparency {behind}"] if count in (1, 3) else []),  # else it is a channel
    )
    guess = f"; assumed, because nobody gave it: {', '.join(assumed)}" if assumed else ""
    return "; ".join(parts) + guess


def _numbers(values: Sequence[float]) -> str:
    """The values, one of three that are equal."""
    return ", ".join(f"{value:.6g}" for value in (values if len(set(values)) > 1 else values[:1]))
