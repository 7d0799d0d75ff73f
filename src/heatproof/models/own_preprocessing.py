"""What a module says of its own preprocessing: timm's models say all of it, those of transformers the size."""

import warnings
from typing import Any

from torch import nn

from heatproof.errors import HeatproofWarning
from heatproof.geometry import Geometry, default_resize
from heatproof.models.class_names import own_class_names
from heatproof.models.preprocessing import CROP_SHARE, INTERPOLATIONS, Preprocessing, height_width, per_channel


def own_preprocessing(module: nn.Module) -> Preprocessing:
    """What a module says of its preprocessing: all of timm's models, the size of transformers'. The rest is assumed."""
    if getattr(module, "pretrained_cfg", None):
        return timm_preprocessing(module)
    known = getattr(getattr(module, "config", None), "image_size", None)
    if not known:
        return Preprocessing(classes=own_class_names(module), assumed=("mean", "std", "size"))
    size = height_width(tuple(known) if isinstance(known, list | tuple) else known)
    geometry = Geometry(size, default_resize(size, CROP_SHARE))
    return Preprocessing(geometry=geometry, classes=own_class_names(module), assumed=("mean", "std"))


def timm_preprocessing(module: nn.Module, size: Any = None) -> Preprocessing:
    """What timm's own evaluation does: mean, std, interpolation, crop share; ImageNet's class names."""
    from timm.data.config import resolve_model_data_config

    config = resolve_model_data_config(module)
    height, width = height_width(config["input_size"][1:] if size is None else size)
    share, mode = float(config.get("crop_pct") or 1.0), config.get("crop_mode") or "center"
    if mode == "border" or (mode == "squash" and share < 1):
        _warn_of_approximation(f"timm's crop mode {mode!r} with crop share {share}")
    squash = mode == "squash" and share == 1
    interpolation = config["interpolation"] if config["interpolation"] in INTERPOLATIONS else "bicubic"
    return Preprocessing(
        per_channel("mean", config["mean"]),
        per_channel("std", config["std"]),
        Geometry((height, width), None if squash else default_resize((height, width), share), interpolation),
        own_class_names(module),
    )


def _warn_of_approximation(what: str) -> None:
    warnings.warn(
        f"{what} is replaced by: shorter side resized, centre crop. Give `size` and `resize` to decide.",
        HeatproofWarning,
        stacklevel=4,
    )
