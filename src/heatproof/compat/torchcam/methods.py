"""Extractors in the call style of torchcam: they keep a model's last input and explain it when they are called."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import requested
from heatproof.compat.given_models import AsGiven, Wanted, as_rule, raw_maps
from heatproof.compat.missing import missing_names
from heatproof.errors import InvalidInput, InvalidTarget
from heatproof.locks import is_held
from heatproof.models import resolve_layer
from heatproof.models.model import bare
from heatproof.tensors import minmax, upsampled


class Extractor:
    """A method in the call style of torchcam: `extractor(class_idx, scores) → [(N, *spatial) for each layer]`.

    A forward pre-hook on the model keeps its last input while the extractor is open, one for each thread; the maps are
    made from that input in a pass of their own, in eval mode. Only the batch size of `scores` is used, so it may come
    from inference mode.
    """

    #: Our method, its options, and whether its map is rectified before it is scaled.
    method: ClassVar[str] = ""
    settings: ClassVar[dict[str, Any]] = {}
    rectified: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | Sequence[nn.Module | str] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        enable_hooks: bool = True,
        reshape_transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **options: Any,
    ):
        """
        Args:
            target_layer: a layer or several, by name or as modules; None: the last feature map before pooling.
            input_shape: the shape of one input, used to find that layer.
            reshape_transform: accepted and ignored: the grid of tokens is read from the tensors.
            options: of the method (`heatproof list methods`).
        """
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
        self.model = model
        self.options = {**self.settings, **options}
        requested({self.method: self.options})
        if target_layer is None:
            found: list[Any] = [AsGiven(model, input_shape).last_layer]
        else:
            found = [target_layer] if isinstance(target_layer, str | nn.Module) else list(target_layer)
        self.target_names = [resolve_layer(bare(model), layer) for layer in found]
        if not self.target_names or len(set(self.target_names)) < len(self.target_names):
            raise InvalidInput(
                f"`target_layer` must name every layer once. Got {', '.join(self.target_names) or 'none'}."
            )
        self._enabled = enable_hooks
        self._inputs: dict[int, torch.Tensor | None] = {}  # by thread
        self.hook_handles = [model.register_forward_pre_hook(self._remember, with_kwargs=True)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(target_layer={self.target_names})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_hooks()
        self.reset_hooks()

    def enable_hooks(self) -> None:
        """Keeps inputs again."""
        self._enabled = True

    def disable_hooks(self) -> None:
        """Keeps no further inputs, until `enable_hooks`."""
        self._enabled = False

    def reset_hooks(self) -> None:
        """Drops the input."""
        self._inputs.clear()

    def remove_hooks(self) -> None:
        """Removes the hook from the model."""
        for handle in self.hook_handles:
            handle.remove()
        self.hook_handles.clear()

    def _remember(self, _module: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
        if not self._enabled or is_held(bare(self.model)):  # heatproof's own passes are not the user's
            return
        tensors = (value for value in (*arguments, *named.values()) if isinstance(value, torch.Tensor))
        found = next(tensors, None)
        alive = {thread.ident for thread in threading.enumerate()}
        for thread in self._inputs.keys() - alive:
            self._inputs.pop(thread, None)
        self._inputs[threading.get_ident()] = None if found is None else found.detach().clone()

    @neutral()
    def __call__(
        self,
        class_idx: int | Sequence[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Callable[[Any], Any] | Sequence[Callable[[Any], Any]] | None = None,
        retain_graph: bool = False,
    ) -> list[torch.Tensor]:
        """Maps at the layers' resolutions, rectified (except `CAM`'s), each scaled to [0, 1] where `normalized`.

        Args:
            class_idx: a class for all images, or one for each.
            scores: the model's output; only its length is used.
            targets: in place of `class_idx`: a function of one image's output to a number, for all or one for each.

        Raises:
            InvalidInput: the model was not run yet, or `scores` of another length.
            InvalidTarget: too few or too many classes, or none, or both `class_idx` and `targets`.
        """
        inputs = self._inputs.get(threading.get_ident())
        if inputs is None:
            raise InvalidInput("Run the model on an input while the extractor is open, before it is called.")
        if isinstance(scores, torch.Tensor) and len(scores) != len(inputs):
            raise InvalidInput(f"`scores` must be of the last input, {len(inputs)} images. Got {len(scores)}.")
        if (class_idx is None) == (targets is None):
            raise InvalidTarget(
                "Expected either `class_idx` or `targets`. Got " + ("none." if targets is None else "both.")
            )
        wanted = Wanted(as_rule(class_idx, len(inputs))) if targets is None else _scores(targets, len(inputs))
        keys = [f"{self.method}@{name}" for name in self.target_names]
        found = raw_maps(self.model, inputs, dict.fromkeys(keys, self.options), wanted, self.target_names[0])
        maps = [found.raw[key].relu() if self.rectified else found.raw[key] for key in keys]
        return [minmax(one) for one in maps] if normalized else maps

    @classmethod
    def fuse_cams(cls, cams: list[torch.Tensor], target_shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Maps of several layers → one: the maximum at every position, at the largest resolution among them."""
        if not isinstance(cams, list) or not cams or not all(isinstance(cam, torch.Tensor) for cam in cams):
            raise InvalidInput(f"`cams` must be a list of at least one tensor. Got {type(cams).__name__}.")
        if len(cams) == 1:
            return cams[0]
        shape = target_shape or tuple(map(max, zip(*(cam.shape[1:] for cam in cams), strict=True)))
        return torch.stack([upsampled(cls._before_fusing(cam), shape) for cam in cams]).amax(0)

    @staticmethod
    def _before_fusing(cam: torch.Tensor) -> torch.Tensor:
        return cam


def _scores(targets: Any, count: int) -> Wanted:
    found = [targets] * count if callable(targets) else list(targets)
    if len(found) != count or not all(callable(target) for target in found):
        raise InvalidTarget(f"`targets` must be a function, or one for each of {count} images. Got {targets!r}.")
    return Wanted(scores=tuple(found))


class GradCAM(Extractor):
    """`gradcam`."""

    method = "gradcam"


class GradCAMpp(Extractor):
    """`gradcam++`, whose weights are divided as in the paper; torchcam 0.5.0 leaves the division out."""

    method = "gradcam++"


class XGradCAM(Extractor):
    """`xgradcam`."""

    method, settings = "xgradcam", {"eps": 1e-8}


class LayerCAM(Extractor):
    """`layercam`; maps m become `tanh(2 m)` before they are fused."""

    method = "layercam"

    @staticmethod
    def _before_fusing(cam: torch.Tensor) -> torch.Tensor:
        return torch.tanh(2 * cam)


class ScoreCAM(Extractor):
    """`scorecam`; `batch_size` is accepted and ignored: memory is bounded."""

    method = "scorecam"

    def __init__(self, model: nn.Module, target_layer: Any = None, batch_size: int = 32, *arguments: Any, **named: Any):
        super().__init__(model, target_layer, *arguments, **named)
        self.bs = batch_size


class CAM(Extractor):
    """`cam`, not rectified, as in torchcam; `fc_layer` is accepted and ignored: the classifier is found."""

    method, rectified = "cam", False

    def __init__(self, model: nn.Module, target_layer: Any = None, fc_layer: Any = None, *arguments: Any, **named: Any):
        super().__init__(model, target_layer, *arguments, **named)
        self.fc_layer = fc_layer


class RefineCAM:
    """The product of the maps of several layers, at the largest resolution among them, of `base_method`.

    It multiplies at the layers' resolution; `refine:…` in `heatproof.explain` does so at the image's.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Sequence[nn.Module | str],
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[Extractor] = GradCAMpp,
        **options: Any,
    ):
        if isinstance(target_layer, str | nn.Module) or len(target_layer) < 2:
            raise InvalidInput("RefineCAM takes a list of at least two target layers. Got one.")
        self.base_cam = base_method(model, target_layer, input_shape, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.base_cam.__exit__()

    def __call__(
        self,
        class_idx: int | Sequence[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: tuple[int, ...] | None = None,
        **named: Any,
    ) -> list[torch.Tensor]:
        """A list with the one map, `(N, *shape)`."""
        return [self.fuse_cams(self.base_cam(class_idx, scores, **named), target_shape, normalized)]

    @staticmethod
    def fuse_cams(
        cams: list[torch.Tensor], target_shape: tuple[int, ...] | None = None, normalized: bool = True
    ) -> torch.Tensor:
        """Maps of several layers → one: each scaled and resized, then multiplied."""
        shape = target_shape or tuple(map(max, zip(*(cam.shape[1:] for cam in cams), strict=True)))
        product = torch.stack([upsampled(minmax(cam), shape) for cam in cams]).prod(0)
        return minmax(product) if normalized else product

    def __getattr__(self, name: str) -> Any:
        if name in ("target_names", "model", "remove_hooks", "reset_hooks", "enable_hooks", "disable_hooks"):
            return getattr(self.base_cam, name)
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")


#: Names of torchcam that heatproof does not have → what to use instead.
ABSENT = {
    "SmoothGradCAMpp": "take GradCAMpp",
    "SSCAM": "take ScoreCAM",
    "ISCAM": "take ScoreCAM",
    "LeGrad": "take the method 'chefer' of heatproof.explain",
    "FinerCAM": "take the method 'finercam' of heatproof.explain",
}


__getattr__ = missing_names(__name__, ABSENT)

__all__ = ["CAM", "Extractor", "GradCAM", "GradCAMpp", "LayerCAM", "RefineCAM", "ScoreCAM", "XGradCAM"]
