"""The preprocessing that an image processor of transformers does."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from heatproof.errors import HeatproofWarning
from heatproof.geometry import Geometry, default_resize
from heatproof.models.preprocessing import CROP_SHARE, Preprocessing, per_channel

_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def processor_preprocessing(processor: Any) -> Preprocessing:
    """Mean, std and geometry as the processor applies them to an image in [0, 1]."""
    mean, std = [0.0], [1.0]
    if getattr(processor, "do_normalize", True):
        mean, std = list(processor.image_mean), list(processor.image_std)
    if getattr(processor, "include_top", False):  # EfficientNet's processor divides by std once more
        std = [value * value for value in std]
    factor = getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 1.0
    scale = factor * 255
    offset = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    return Preprocessing(
        per_channel("mean", [(value + offset) / scale for value in mean]),
        per_channel("std", [value / scale for value in std]),
        _geometry(processor),
    )


def _geometry(processor: Any) -> Geometry:
    filters = _PIL_FILTERS.get(int(getattr(processor, "resample", None) or 2), "bilinear")
    size, crop = getattr(processor, "size", None), getattr(processor, "crop_size", None)
    edge, exact = _side(size, "shortest_edge"), (_side(size, "height"), _side(size, "width"))
    cropped = (_side(crop, "height"), _side(crop, "width")) if getattr(processor, "do_center_crop", None) else None
    share = getattr(processor, "crop_pct", None)
    if edge and share and not cropped:  # ConvNeXt's processor: a crop below 384, a squash from there on
        return Geometry((edge, edge), math.floor(edge / share) if edge < 384 else None, filters)
    if edge:
        height, width = cropped if cropped and all(cropped) else (edge, edge)
        return Geometry((height or edge, width or edge), edge, filters)
    if not all(exact):
        return Geometry((224, 224), default_resize((224, 224), CROP_SHARE), filters)
    target = (exact[0] or 224, exact[1] or 224)
    if not cropped or not all(cropped) or cropped == exact:
        return Geometry(target, None, filters)
    warnings.warn(
        f"The image processor squashes to {target[0]} × {target[1]} and crops; the aspect is kept instead.",
        HeatproofWarning,
        stacklevel=5,
    )
    resize = target if target[0] != target[1] else target[0]
    return Geometry((cropped[0] or 224, cropped[1] or 224), resize, filters)


def _side(size: Any, key: str) -> int | None:
    value = size.get(key) if isinstance(size, Mapping) else getattr(size, key, None)
    return int(value) if value else None
