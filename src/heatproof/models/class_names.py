"""The class names that a network brings along: in the configuration of transformers, or in that of timm."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def own_class_names(module: nn.Module) -> tuple[str, ...] | None:
    """Names by index, from what the module holds; None where it holds none. Nothing is downloaded.

    None as well where no layer has as many outputs as there are names: the head was replaced, and the names are of old.
    """
    names = _of_transformers(module) or _of_timm(module)
    widths = {getattr(part, width, None) for part in module.modules() for width in ("out_features", "out_channels")}
    return names if names and len(names) in widths else None


def _of_transformers(module: Any) -> tuple[str, ...] | None:
    """`id2label` of the configuration, unless its names are the made-up ones (`LABEL_0`)."""
    config = getattr(module, "config", None)
    names = getattr(config, "id2label", None)
    if not isinstance(names, Mapping) or not names or not hasattr(config, "model_type"):
        return None
    by_index = {int(index): str(name) for index, name in names.items()}
    made_up = all(name == f"LABEL_{index}" for index, name in by_index.items())
    return None if made_up else tuple(by_index.get(index, "") for index in range(max(by_index) + 1))


def _of_timm(module: Any) -> tuple[str, ...] | None:
    """The label names of the pretrained configuration, else ImageNet's, where the classes are those of the weights."""
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or config.get("num_classes") != getattr(module, "num_classes", None):
        return None
    if given := config.get("label_names"):
        words = config.get("label_descriptions") or {}
        named = tuple(str(words.get(name, name)).partition(",")[0] for name in given)
        return named if len(named) == config["num_classes"] else None
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(i).partition(",")[0] for i in range(info.num_classes()))
