"""The call style of pytorch-grad-cam, and its combination of the maps of several layers."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import display_maps, flags, requested
from heatproof.compat.given_models import Wanted, checked, raw_maps, unscaled
from heatproof.compat.pytorch_grad_cam.observed_grids import observed
from heatproof.compat.pytorch_grad_cam.smoothing import smoothed
from heatproof.compat.pytorch_grad_cam.utils.model_targets import class_and_output
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget
from heatproof.flags import as_text
from heatproof.models import resolve_layer
from heatproof.models.layer_names import module_and_call
from heatproof.models.model import bare
from heatproof.tensors import minmax, upsampled

#: Methods that ignore `eigen_smooth`, as in pytorch-grad-cam.
UNSMOOTHED = ("eigencam", "eigengradcam", "kpcacam", "fem", "segeigencam")
#: The factors of `aug_smooth` on the input, each with and without a horizontal flip.
FACTORS = (0.9, 1.0, 1.1)


class BaseCAM:
    """A method in the call style of pytorch-grad-cam: `cam(input_tensor=, targets=) → (N, H, W)` in [0, 1].

    Maps of several layers are rectified and scaled one by one, resized to the input's size, averaged, and scaled.
    Nothing is left in the model between calls, so `with` is not needed, and errors in its block are not swallowed.
    """

    #: Our method and the options that give the original's numbers.
    method: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str],
        reshape_transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **options: Any,
    ):
        """
        Args:
            model: in any mode; it is explained in eval mode, and left as it was.
            target_layers: modules of the model, or their names; their maps are averaged. A call of a module that runs
                several times has a name alone, `encoder#0`.
            reshape_transform: a function of a layer's output that gives `(N, C, H, W)`. It is used where that output
                is a dict or a tuple. Of a tensor the grid is read without it, with a HeatproofWarning where it gives
                another one.
            options: of the method (`heatproof list methods`); they replace those that give the original's numbers.
        """
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
        if isinstance(target_layers, nn.Module | str):
            raise InvalidInput("`target_layers` must be a list of modules. Got one module; write [module].")
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform
        self.options = {**self.settings, **options}
        self.outputs: torch.Tensor | None = None
        self._request = unscaled(self.method, self.options)
        self._layers = [resolve_layer(bare(model), layer) for layer in self.target_layers]
        if self._request.spatial and not self._layers:
            raise InvalidInput("`target_layers` must name at least one module. Got none.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @neutral()
    def __call__(
        self,
        input_tensor: torch.Tensor,
        targets: Sequence[Callable[[Any], Any]] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """Explains normalised inputs.

        Args:
            input_tensor: `(N, C, H, W)`, or `(N, C, D, H, W)`, as the network takes it.
            targets: one for each image (`utils.model_targets`, or any function of one image's output to a number);
                None: the most probable class.
            aug_smooth: the mean over flipped and brightened inputs, six passes.
            eigen_smooth: the first principal component over the channels in place of their sum.

        Returns:
            float32 `(N, H, W)`; zeros where a map is constant, with a HeatproofWarning.

        Raises:
            InvalidTarget: too few or too many targets (the original gives zeros for the rest).
        """
        if not aug_smooth:
            return self.forward(input_tensor, targets, eigen_smooth)
        inputs = checked(input_tensor)
        if inputs.dim() != 4:
            raise InvalidInput(f"`aug_smooth` flips images (N, C, H, W). Got {tuple(inputs.shape)}.")
        plain = [self.forward(inputs * factor, targets, eigen_smooth) for factor in FACTORS]
        mirrored = [self.forward(inputs.flip(3) * factor, targets, eigen_smooth)[..., ::-1] for factor in FACTORS]
        return np.stack([*plain, *mirrored]).mean(0).astype(np.float32)

    @neutral()
    def forward(
        self, input_tensor: torch.Tensor, targets: Sequence[Callable[[Any], Any]] | None, eigen_smooth: bool = False
    ) -> np.ndarray:
        """As a call, without `aug_smooth`."""
        inputs = checked(input_tensor)
        wanted = self._wanted(targets, len(inputs))
        if eigen_smooth and self.method not in UNSMOOTHED:
            return self._smoothed(inputs, wanted)
        return self._mapped(inputs, wanted)

    def _keys(self) -> list[str]:
        """The method's spelling at each layer."""
        return [f"{self.method}@{layer}" for layer in self._layers] if self._request.spatial else [self.method]

    def _wanted(self, targets: Any, count: int) -> Wanted:
        return as_wanted(targets, count)

    @neutral()
    def _mapped(self, inputs: torch.Tensor, wanted: Wanted, **changed: Any) -> np.ndarray:
        keys, size = self._keys(), tuple(inputs.shape[2:])
        places = [module_and_call(bare(self.model), layer) for layer in self._layers]
        with observed(bare(self.model), places, self.reshape_transform) as grids:
            options, layer = {**self.options, **changed}, self._layers[0] if self._layers else "auto"
            asked = dict.fromkeys(keys, options)
            found = raw_maps(self.model, inputs, asked, wanted, layer, self.reshape_transform)
        self.outputs = None if wanted.scores else found.logits
        for i, grid in grids.items():
            self._compare(i, grid, tuple(found.raw[keys[i if len(keys) > 1 else 0]].shape[1:]))
        for key in dict.fromkeys(keys):
            _say(type(self).__name__, found.flags[key])
        if found.forms[keys[0]] == "cam":
            return combined([found.raw[key] for key in keys], size).cpu().numpy()
        return display_maps(found.raw[keys[0]], found.forms[keys[0]], size).cpu().numpy()

    def _smoothed(self, inputs: torch.Tensor, wanted: Wanted, **changed: Any) -> np.ndarray:
        """The map with `eigen_smooth`."""
        (request,) = requested({self.method: {**self.options, **changed}})
        raw = smoothed(self.model, inputs, wanted, request, self._layers, self.reshape_transform)
        for one in raw:
            _say(type(self).__name__, as_text(flags(one, "cam")))
        return self._combined(raw, tuple(inputs.shape[2:])).cpu().numpy()

    def _combined(self, raw: Sequence[torch.Tensor], size: tuple[int, ...]) -> torch.Tensor:
        return combined(raw, size)

    def _compare(self, layer: int, grid: tuple[int, ...] | str, ours: tuple[int, ...]) -> None:
        if grid != ours:
            said = grid if isinstance(grid, str) else "×".join(map(str, grid))
            warnings.warn(
                f"`reshape_transform` is not used: {self._layers[layer]!r} is read as {'×'.join(map(str, ours))}, from "
                f"the tensors; it would give {said}.",
                HeatproofWarning,
                stacklevel=4,
            )


def checked_targets(targets: Any, count: int) -> list[Callable[[Any], Any]]:
    """One target for each of `count` images."""
    found = list(targets) if isinstance(targets, Sequence) else None
    if found is None or not all(callable(target) for target in found):
        raise InvalidTarget(
            "`targets` must be a list with one target for each image, such as ClassifierOutputTarget(281), or None. "
            f"Got {targets!r}."
        )
    if len(found) != count:
        raise InvalidTarget(f"Expected one target for each of the {count} images. Got {len(found)}.")
    return found


def as_wanted(targets: Any, count: int) -> Wanted:
    """Targets of pytorch-grad-cam as `Wanted`."""
    if targets is None:
        return Wanted()
    found = checked_targets(targets, count)
    named = [class_and_output(target) for target in found]
    known = [pair for pair in named if pair is not None]
    if len(known) == count and len({output for _, output in known}) == 1:
        return Wanted(torch.tensor([category for category, _ in known]), known[0][1])
    return Wanted(scores=tuple(found))


def combined(raw: Sequence[torch.Tensor], size: tuple[int, ...]) -> torch.Tensor:
    """Raw maps of several layers → `(N, *size)` in [0, 1], as pytorch-grad-cam averages them."""
    scaled = torch.stack([upsampled(minmax(one.relu()), size) for one in raw])
    return minmax(scaled.mean(0))


def _say(name: str, flags: Sequence[str]) -> None:
    """Warns of degenerate maps, which are zeros."""
    for reason in dict.fromkeys(filter(None, flags)):
        which = ", ".join(str(i) for i, flag in enumerate(flags) if flag == reason)
        warnings.warn(f"{name}: zeros for image {which}: {reason}.", HeatproofWarning, stacklevel=5)
