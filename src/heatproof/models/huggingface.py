"""`hf:NAME_OR_PATH`: image classifiers of transformers, with the preprocessing of their image processor."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from heatproof.errors import HeatproofWarning, MissingExtra, ModelError
from heatproof.geometry import Geometry, default_resize
from heatproof.models.class_names import own_class_names
from heatproof.models.download import hub_cache, no_weights, reachable
from heatproof.models.model_sources import Found, ModelRequest
from heatproof.models.preprocessing import CROP_SHARE, Preprocessing, height_width, per_channel

_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def hugging_face_model(request: ModelRequest) -> Found:
    """An `AutoModelForImageClassification`; made from its config alone where no published weights are wanted."""
    transformers = _transformers()
    local = Path(request.name).expanduser().is_dir()
    where: dict[str, Any] = {"local_files_only": True} if local or not reachable("huggingface.co") else {}
    try:
        module = _build_network(transformers, request, where)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or local:
            raise ModelError(f"Expected an image classifier at {request.spec}. {_first_line(error)}") from error
        raise no_weights(request.spec, hub_cache(), error) from error
    config = module.config
    processor = _processor(transformers, request.name, where)
    base = processor_preprocessing(processor) if processor is not None else _defaults(request, config)
    return module.float(), Preprocessing(base.mean, base.std, base.geometry, own_class_names(module))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            "Models of the form hf:NAME_OR_PATH need transformers, which is not installed. "
            "Run: pip install 'heatproof[hf]'."
        ) from error
    return transformers


def _build_network(transformers: Any, request: ModelRequest, where: dict[str, Any]) -> nn.Module:
    auto = transformers.AutoModelForImageClassification
    name = str(Path(request.name).expanduser()) if where else request.name
    if not request.pretrained:
        return auto.from_config(transformers.AutoConfig.from_pretrained(name, **where, **request.args))
    module, info = auto.from_pretrained(name, output_loading_info=True, **where, **request.args)
    missing = sorted({*info.get("missing_keys", ()), *(str(key) for key in info.get("mismatched_keys", ()))})
    if missing:
        raise ModelError(
            f"Expected all weights of a trained classifier at {request.spec}. {len(missing)} are missing "
            f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}): is it a backbone without head? "
            "Give a fine-tuned classifier."
        )
    return module


def _processor(transformers: Any, name: str, where: dict[str, Any]) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, **where)
    except (
        OSError,
        ValueError,
        ImportError,
        KeyError,
    ):  # no processor saved, or of a kind this version lacks
        return None


def _defaults(request: ModelRequest, config: Any) -> Preprocessing:
    size = getattr(config, "image_size", None)
    size = height_width(tuple(size) if isinstance(size, list | tuple) else size) if size else (224, 224)
    guessed = [name for name in ("mean", "std") if name not in request.given]
    if guessed:
        warnings.warn(
            f"{request.spec} has no image processor; mean .5, std .5, size {size[0]} × {size[1]} are taken. "
            f"Set {', '.join(guessed)} to what it was trained with.",
            HeatproofWarning,
            stacklevel=4,
        )
    return Preprocessing(geometry=Geometry(size, default_resize(size, CROP_SHARE)))


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
