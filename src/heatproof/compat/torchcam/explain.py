"""One image's prediction with its maps, in the call style of torchcam, and a folder that holds them."""

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from heatproof.attributions.cam import BASES
from heatproof.compat.missing import missing_names
from heatproof.compat.torchcam.methods import GradCAM
from heatproof.compat.torchcam.methods.core import Extractor
from heatproof.compat.torchcam.methods.wrappers import Wrapper
from heatproof.compat.torchcam.utils import overlay_mask
from heatproof.errors import InvalidInput, InvalidType


@dataclass(frozen=True)
class PredictionExplanation:
    """What a model answers for one image, with the maps of the predicted and of the expected class.

    Attributes:
        logits: `(1, K)`, on the CPU.
        cams: class → its maps, float32 `(h, w)` on the CPU, one for each layer.
        method, target_layers, model, input_shape, versions: how they were made.
    """

    logits: torch.Tensor
    predicted_class_idx: int
    expected_class_idx: int | None
    cams: Mapping[int, tuple[torch.Tensor, ...]]
    method: str
    target_layers: tuple[str, ...]
    model: str
    input_shape: tuple[int, ...]
    versions: Mapping[str, str]
    class_names: tuple[str, ...] | None = None

    def save(self, directory: str | Path, image: Image.Image, alpha: float = 0.5) -> Path:
        """Writes maps, heatmaps, overlays and `manifest.json` to a new folder, which it returns; all or nothing.

        Args:
            image: the image under the overlays.
            alpha: its share there.

        Raises:
            InvalidType: no PIL image. FileExistsError: the folder is there.
        """
        if not isinstance(image, Image.Image):
            raise InvalidType(f"`image` must be a PIL image. Got {type(image).__name__}.")
        folder = Path(directory)
        folder.mkdir(parents=True)
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder)
            classes = {str(index): self._written(folder, index, image, alpha) for index in sorted(self.cams)}
            manifest = {
                "schema_version": 1,
                "prediction": self._named(self.predicted_class_idx),
                "expected": None if self.expected_class_idx is None else self._named(self.expected_class_idx),
                "classes": classes,
                "method": self.method,
                "target_layers": list(self.target_layers),
                "model": self.model,
                "input_shape": list(self.input_shape),
                "versions": dict(self.versions),
                "image_size": list(image.size),
                "alpha": alpha,
            }
            text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
            (folder / "manifest.json").write_text(text, encoding="utf-8")
            undo.pop_all()
        return folder

    def _named(self, index: int) -> dict[str, int | str | None]:
        return {"class_idx": index, "class_name": None if self.class_names is None else self.class_names[index]}

    def _written(self, folder: Path, index: int, image: Image.Image, alpha: float) -> dict[str, Any]:
        """Writes the maps of one class; returns what the manifest says of it."""
        maps = self.cams[index]
        layers = [self.target_layers] if len(maps) == 1 else [(name,) for name in self.target_layers]
        artifacts = []
        for number, (names, cam) in enumerate(zip(layers, maps, strict=True)):
            stem, array = f"class-{index}-layer-{number}", cam.numpy()
            files = {"map": f"{stem}.npy", "heatmap": f"{stem}-heatmap.png", "overlay": f"{stem}-overlay.png"}
            np.save(folder / files["map"], array, allow_pickle=False)
            Image.fromarray((255 * array.clip(0, 1)).round().astype(np.uint8)).save(folder / files["heatmap"])
            overlay_mask(image, Image.fromarray(array), alpha=alpha).save(folder / files["overlay"])
            artifacts.append({"target_layers": list(names), **files})
        return {
            **self._named(index),
            "logit": self.logits[0, index].item(),
            "probability": self.logits.softmax(1)[0, index].item(),
            "artifacts": artifacts,
        }


def explain(
    model: nn.Module,
    input_tensor: torch.Tensor,
    *,
    expected_class_idx: int | None = None,
    class_names: Sequence[str] | None = None,
    method: type = GradCAM,
    target_layer: nn.Module | str | list[nn.Module | str] | None = None,
    method_kwargs: Mapping[str, Any] | None = None,
) -> PredictionExplanation:
    """Explains the predicted class of one image, and the expected one where that is another.

    Args:
        model: in eval mode.
        input_tensor: `(1, C, H, W)`, normalised.
        class_names: a name for each class.
        method: an extractor of `methods`.
        target_layer: a layer or several; None: the last feature map before pooling.
        method_kwargs: further arguments of the extractor.

    Raises:
        InvalidInput, InvalidType: arguments or outputs that cannot be used.
    """
    _check(model, input_tensor, expected_class_idx, method, method_kwargs)
    named = dict(method_kwargs or {})
    if "target_layer" in named:
        raise InvalidInput("Pass `target_layer` directly. Got it in `method_kwargs`.")
    if target_layer is not None:
        named["target_layer"] = target_layer
    elif method is GradCAM:
        named.setdefault("input_shape", tuple(input_tensor.shape[1:]))
    with method(model, **named) as extractor:
        with torch.set_grad_enabled(issubclass(method, Extractor) and method.method in BASES):
            logits = _checked_logits(model(input_tensor))
        predicted, names = int(logits[0].argmax()), _checked_classes(expected_class_idx, class_names, logits.shape[1])
        wanted = dict.fromkeys([predicted] if expected_class_idx is None else [predicted, expected_class_idx])
        cams = {index: _checked_maps(extractor(index, logits)) for index in wanted}
        return PredictionExplanation(
            logits=logits.detach().cpu(),
            predicted_class_idx=predicted,
            expected_class_idx=expected_class_idx,
            cams=MappingProxyType(cams),
            method=method.__name__,
            target_layers=tuple(extractor.target_names),
            model=f"{type(model).__module__}.{type(model).__qualname__}",
            input_shape=tuple(input_tensor.shape),
            versions=MappingProxyType(
                {
                    "python": platform.python_version(),
                    "torch": str(torch.__version__),
                    "heatproof": version("heatproof"),
                }
            ),
            class_names=names,
        )


def _check(model: Any, inputs: Any, expected: Any, method: Any, named: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidType(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
    if any(module.training for module in model.modules()):
        raise InvalidInput("`model` must be in evaluation mode. Call model.eval() first.")
    if not isinstance(inputs, torch.Tensor):
        raise InvalidType(f"`input_tensor` must be a torch.Tensor. Got {type(inputs).__name__}.")
    if inputs.dim() != 4 or len(inputs) != 1:
        raise InvalidInput(f"`input_tensor` must have the shape (1, C, H, W). Got {tuple(inputs.shape)}.")
    if not inputs.is_floating_point():
        raise InvalidInput(f"`input_tensor` must have a floating-point dtype. Got {inputs.dtype}.")
    if expected is not None and (not isinstance(expected, int) or isinstance(expected, bool)):
        raise InvalidType(f"`expected_class_idx` must be an integer or None. Got {expected!r}.")
    if not isinstance(method, type) or not issubclass(method, Extractor | Wrapper):
        raise InvalidType(f"`method` must be an extractor class of `methods`. Got {method!r}.")
    if named is not None and not isinstance(named, Mapping):
        raise InvalidType(f"`method_kwargs` must be a mapping or None. Got {named!r}.")


def _checked_logits(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise InvalidType(f"The model's output must be a tensor. Got {type(output).__name__}. Wrap it in a module.")
    if output.dim() != 2 or len(output) != 1 or output.shape[1] < 1:
        raise InvalidInput(f"The model's output must have the shape (1, K). Got {tuple(output.shape)}.")
    if not torch.isfinite(output).all():
        raise InvalidInput("The model's output holds non-finite logits.")
    return output


def _checked_classes(expected: int | None, names: Any, count: int) -> tuple[str, ...] | None:
    if expected is not None and not 0 <= expected < count:
        raise InvalidInput(f"`expected_class_idx` must lie in the output range, 0 … {count - 1}. Got {expected}.")
    if names is None:
        return None
    if isinstance(names, str) or len(names) != count:
        raise InvalidInput(f"`class_names` must be a name for each of {count} classes. Got {names!r}.")
    if any(not isinstance(name, str) for name in names):
        raise InvalidType(f"Every class name must be a string. Got {names!r}.")
    return tuple(names)


def _checked_maps(maps: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if any(not torch.isfinite(one).all() for one in maps):
        raise InvalidInput("A map holds non-finite values.")
    return tuple(one[0].detach().float().cpu().contiguous() for one in maps)


__getattr__ = missing_names(__name__, {})
