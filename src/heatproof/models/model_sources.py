"""Where models come from: timm, torchvision, a user's function, the bundled network; with preprocessing."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from heatproof.errors import ModelError, UnknownName
from heatproof.geometry import Geometry, default_resize
from heatproof.models.download import hub_cache, missing_folder, no_weights, reachable
from heatproof.models.own_preprocessing import own_preprocessing, timm_preprocessing
from heatproof.models.preprocessing import Preprocessing, height_width, per_channel
from heatproof.plugins import current_folder_importable, named_object
from heatproof.registry import nearest, unknown


@dataclass(frozen=True)
class ModelRequest:
    """A request to a source: the name after the prefix, constructor arguments, with weights or without."""

    spec: str
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = True


#: What a source finds: the module, its preprocessing, and what else a `Model` says of itself, by name.
Found = tuple[nn.Module, Preprocessing] | tuple[nn.Module, Preprocessing, Mapping[str, Any]]


# --- timm ---


def timm_model(request: ModelRequest) -> Found:
    """`timm:NAME[.TAG]`; preprocessing from its pretrained configuration."""
    import timm

    place, _, folder = request.name.partition(":")
    if place == "local-dir" and not Path(folder).expanduser().is_dir():
        raise missing_folder(request.spec, folder)
    if not request.name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(request.name):
        raise unknown_model("timm", request.name, timm.list_models())
    try:
        overlay = _cached_timm_weights(request) if request.pretrained else {}
        module = timm.create_model(request.name, pretrained=request.pretrained, **overlay, **request.args)
    except (TypeError, AssertionError) as error:
        raise _bad_arguments(request, error) from error
    except ModelError:
        raise
    except Exception as error:  # the hub's client, torch.hub and timm raise a dozen kinds
        raise _timm_problem(request, error) from error
    own = timm_preprocessing(module, request.args.get("img_size"))
    return module, own.overridden(channels=request.args.get("in_chans"))


def _timm_problem(request: ModelRequest, error: Exception) -> ModelError:
    import timm

    if "pretrained tag" in str(error):
        base = request.name.partition(".")[0]
        tags = ", ".join(f"timm:{name}" for name in timm.list_pretrained(f"{base}.*")) or "none"
        return ModelError(f"Expected a set of weights of {base}. Got {request.spec!r}. Known: {tags}.")
    return no_weights(request.spec, hub_cache(), error) if request.pretrained else _bad_arguments(request, error)


def _cached_timm_weights(request: ModelRequest) -> dict[str, Any]:
    """Offline: the file in the hub's cache, or the error at once. Connected: nothing, timm downloads it."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    hub, colon, repository = request.name.partition(":")
    config = None if colon else timm.get_pretrained_cfg(request.name)
    source = config.hf_hub_id if config is not None else repository if hub != "local-dir" else None
    if not source or reachable("huggingface.co"):
        return {}
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(source, file)
        if isinstance(found, str):
            return {} if colon else {"pretrained_cfg_overlay": {"file": found}}
    raise no_weights(request.spec, hub_cache(), "huggingface.co cannot be reached, and they are not in the cache")


# --- torchvision ---


def torchvision_model(request: ModelRequest) -> Found:
    """`torchvision:NAME`, and its weights' transforms (argument `weights=IMAGENET1K_V1`, else the best)."""
    import torch
    from torchvision import models

    names = models.list_models(module=models)
    if request.name not in names:
        raise unknown_model("torchvision", request.name, names)
    args = dict(request.args)
    weights = _torchvision_weights(request.name, args.pop("weights", None))
    try:
        module = models.get_model(request.name, weights=weights if request.pretrained else None, **args)
    except (OSError, RuntimeError) as error:
        if request.pretrained and not isinstance(error, RuntimeError):
            raise no_weights(request.spec, Path(torch.hub.get_dir()) / "checkpoints", error) from error
        raise _bad_arguments(request, error) from error
    except (TypeError, ValueError, AssertionError) as error:
        raise _bad_arguments(request, error) from error
    return module, _torchvision_preprocessing(weights, args)


def _torchvision_weights(name: str, wanted: Any) -> Any:
    from torchvision import models

    known: Any = models.get_model_weights(name)
    if wanted is None:
        return known.DEFAULT
    tag = str(wanted).rpartition(".")[2].upper()
    if tag not in known.__members__:
        raise unknown(f"set of weights of torchvision:{name}", str(wanted), known.__members__)
    return known[tag]


def _torchvision_preprocessing(weights: Any, args: Mapping[str, Any]) -> Preprocessing:
    steps = weights.transforms()
    size = args.get("image_size")
    height, width = height_width(list(steps.crop_size) if size is None else size)
    share = max(steps.crop_size) / max(steps.resize_size)
    classes = tuple(weights.meta.get("categories", ()))
    return Preprocessing(
        per_channel("mean", steps.mean),
        per_channel("std", steps.std),
        Geometry((height, width), default_resize((height, width), share), steps.interpolation.value),
        classes if classes and args.get("num_classes", len(classes)) == len(classes) else None,
    )


# --- a function of the user's ---


def python_model(request: ModelRequest) -> Found:
    """`python:package.module:factory`, looked for from the current folder too; called with the arguments."""
    from heatproof.models.model import Model

    made = factory = named_object(request.spec, ModelError, "factory")
    if not isinstance(factory, nn.Module | Model):
        with current_folder_importable():
            try:
                made = factory(**request.args)
            except TypeError as error:
                raise _bad_arguments(request, error) from error
            except Exception as error:  # whatever a user's own code raises
                raise ModelError(
                    f"{request.spec} must return a torch.nn.Module. It raised {type(error).__name__}: {error}. "
                    "`--debug` shows where."
                ) from error
    if isinstance(made, Model):
        return made.module, made.preprocessing, made.own_settings
    if not isinstance(made, nn.Module):
        raise ModelError(f"Expected {request.spec} to return a torch.nn.Module. Got {type(made).__name__}.")
    return made, own_preprocessing(made)


# --- the bundled networks ---


#: Bundled network → the files that hold it in `models/weights`, its function in `models.shapesnet`, its classes.
BUNDLED = {
    "shapes": ("shapesnet", "shapesnet", 6),
    "shapes-vit": ("shapes_vit", "small_vit", 6),
    "creatures": ("creatures", "shapesnet", 12),
}


def bundled_model(request: ModelRequest) -> Found:
    """A small network that comes with heatproof."""
    from heatproof.models import shapesnet
    from heatproof.models.checkpoint import load_weights

    folder = resources.files("heatproof.models") / "weights"
    file, network, classes = BUNDLED[request.spec]
    settings = folder / f"{file}.json"
    if not settings.is_file():
        raise ModelError("Expected the bundled network's files. They are not installed; reinstall heatproof.")
    config = json.loads(settings.read_text(encoding="utf-8"))
    try:
        module = getattr(shapesnet, network)(**{"classes": classes, **request.args})
    except TypeError as error:
        raise _bad_arguments(request, error) from error
    if request.pretrained:
        with resources.as_file(folder / f"{file}.safetensors") as weights:
            load_weights(module, weights, request.spec)
    size = height_width(config["size"])
    return module, Preprocessing(
        per_channel("mean", config["mean"]),
        per_channel("std", config["std"]),
        Geometry(size, config.get("resize"), config.get("interpolation", "bilinear")),
        tuple(config["classes"]),
    )


# --- shared ---


def unknown_model(prefix: str, name: str, names: Iterable[str]) -> UnknownName:
    """The error for an unknown name; it prints the exact strings to use."""
    names = list(names)
    near = nearest(name, names) or nearest(name.partition(".")[0], names)
    return unknown("model", f"{prefix}:{name}", [f"{prefix}:{known}" for known in near or names])


def _bad_arguments(request: ModelRequest, error: Exception) -> ModelError:
    given = ", ".join(f"{key}={value!r}" for key, value in request.args.items()) or "none"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ModelError(
        f"Expected to build {request.spec} with the model arguments given ({given}). It answered: {reason}. "
        "Change `model_args` (--model-arg name=value)."
    )


Source = Callable[[ModelRequest], Found]
