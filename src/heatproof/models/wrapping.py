"""`wrap`: any classifier of the user's own as a `Model`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from heatproof.errors import InvalidInput
from heatproof.models.model import Model, bare, module_device
from heatproof.models.preprocessing import channels_and_sides, image_shape


def wrap(
    module: Any,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | Sequence[int] | None = None,
    *,
    resize: int | str | Sequence[int] | None = "auto",
    crop: float | None = None,
    interpolation: str | None = None,
    window: Sequence[float] | str | None = None,
    alpha_background: str | None = None,
    value_range: float | None = None,
    channel_order: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | str | os.PathLike[str] | None = None,
    name: str | None = None,
    device: str | torch.device = "auto",
    layer: "str | nn.Module | None" = None,
    multi_label: bool = False,
    output: str = "logit",
    input_shape: Sequence[int] | None = None,
    processor: Any = None,
) -> Model:
    """Any classifier as a `Model`: an `nn.Module` that returns a tensor, tuple, dict or ModelOutput.

    An image-classification pipeline of Hugging Face is one too: its image processor gives mean, std, size, resize, crop
    and interpolation, its configuration the names of the classes. `processor` is the image processor of a module given
    by itself. What is given here replaces what they say.

    `mean` and `std` are one value or one for each channel, for images in [0, 1], and `size` is a side or (height,
    width). Where nobody gave them, they are those of a timm model's configuration; for any other module .5, .5 and 224
    are assumed, with a warning when images are explained. `value_range=255`: mean and std are those of bytes.
    `channel_order="bgr"`: the network takes blue first, as do mean and std. An image is resized, keeping its
    aspect, so that the centre crop of `size` keeps the share `crop` of each side (.875 by default) where the aspects
    are the same, and as much as it can elsewhere. In place of `crop`, `resize` is the length of the shorter side (256
    for 224), a box (height, width) that the resized image just covers, or None to resize to `size` without the aspect.
    `window`: the stored values that are black and white, such as (0, 4095), or `auto` for the percentiles .5 and 99.5
    of each image; by default the range of the file's type. `alpha_background`: the colour behind transparent pixels,
    or `ignore`.
    `device="auto"` leaves the module where it is, anything else moves it. `layer` replaces the target layer found by
    architecture. `classes`: names of the classes, a list, a mapping from index to name, or a file of either; by default
    those that the module's configuration holds (transformers, timm). `multi_label`: labels do not exclude each other.
    `output="value"`: the outputs are numbers in units of their own, as of a regression, and no logits. `input_shape` is
    `(channels, *spatial)` of what the network takes, where that is no image in colour: (1, 28, 28) for grey images,
    (4, 64, 64) for images of four bands, (1, 4096) for signals, (1, 32, 64, 64) for volumes. Images become grey for one
    channel; for two, or four and more, they must hold as many (`.npy`, TIFF). With `mean` and `std` such images lie in
    [0, 1], as others do; without them, and for signals and volumes, tensors are taken as they are, normalised by the
    caller.
    The module's train/eval mode, gradients and flags are left as they were after every call. `torch.compile` and
    `DataParallel` wrappers are removed, because hooks must see the layers.

    Examples:
        >>> import heatproof
        >>> import torch
        >>> layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        >>> network = torch.nn.Sequential(*layers, torch.nn.Linear(8, 2))
        >>> model = heatproof.wrap(network, mean=0.5, std=0.25, size=32, classes=["cat", "dog"])
        >>> heatproof.explain(model, torch.rand(4, 3, 32, 32), target="dog")["gradcam"].shape
        torch.Size([4, 32, 32])
    """
    from heatproof.models.pipelines import is_pipeline, parts_of, preprocessing_of

    if is_pipeline(module):
        module, own = parts_of(module)
        processor = own if processor is None else processor
    if not isinstance(module, nn.Module):
        raise InvalidInput(
            f"`module` must be a torch.nn.Module or an image-classification pipeline. Got {type(module).__name__}."
        )
    module = bare(module)
    known, several = preprocessing_of(module, processor)
    shape = None if input_shape is None else channels_and_sides(input_shape)
    channels, target = None, size
    if shape is not None and len(shape) == 3:
        channels, target = shape[0], image_shape(shape, size)[1:]
        if mean is None and std is None:
            mean, std = 0.0, 1.0
        else:
            shape = None
    chosen = known.overridden(
        mean, std, target, resize, interpolation, classes, crop=crop, window=window, alpha_background=alpha_background,
        channels=channels, value_range=value_range, channel_order=channel_order,
    )  # fmt: skip
    where = module_device(module) if device == "auto" else torch.device(device)
    if device != "auto":
        module.to(where)
    multi_label = multi_label or bool(several)
    return Model(
        module,
        chosen,
        name or type(module).__name__,
        where,
        layer,
        multi_label=multi_label,
        output=output,
        input_shape=shape,
    )
