"""The call style of pytorch-grad-cam, and its combination of the maps of several layers."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import display_maps, parsed, requested
from heatproof.attributions.cam import BASES
from heatproof.attributions.eigen import eigencam
from heatproof.compat.given_models import AsGiven, Wanted, by_images, checked, raw_maps
from heatproof.compat.pytorch_grad_cam.utils.model_targets import class_and_output
from heatproof.engine import Batch, ResolvedMethod
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget, NotApplicable
from heatproof.explained_output import Output
from heatproof.locks import held
from heatproof.models import resolve_layer
from heatproof.models.layer_names import module_and_call
from heatproof.models.model import bare
from heatproof.tensors import minmax, upsampled

#: Methods that ignore `eigen_smooth`, as in pytorch-grad-cam.
UNSMOOTHED = ("eigencam", "eigengradcam", "kpcacam", "fem")
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
            reshape_transform: not used: the grid of tokens is read from the tensors. A HeatproofWarning
                is given where it gives another grid.
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
        (self._request,) = requested({self.method: self.options})
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
            raw = self._smoothed(inputs, wanted)
            return combined(raw, tuple(inputs.shape[2:])).cpu().numpy()
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
            found = raw_maps(self.model, inputs, dict.fromkeys(keys, options), wanted, layer)
        self.outputs = None if wanted.scores else found.logits
        for i, grid in grids.items():
            self._compare(i, grid, tuple(found.raw[keys[i if len(keys) > 1 else 0]].shape[1:]))
        for key in dict.fromkeys(keys):
            _say(type(self).__name__, found.flags[key])
        if found.forms[keys[0]] == "cam":
            return combined([found.raw[key] for key in keys], size).cpu().numpy()
        return display_maps(found.raw[keys[0]], found.forms[keys[0]], size).cpu().numpy()

    def _smoothed(self, inputs: torch.Tensor, wanted: Wanted) -> list[torch.Tensor]:
        """For each layer, the first principal component of the channels' weighted activations."""
        formula = BASES.get(self.method)
        if formula is None:
            raise NotApplicable(
                f"`eigen_smooth` is for {', '.join(BASES)}. Got {self.method!r}. Take EigenCAM or EigenGradCAM."
            )
        methods = [ResolvedMethod(parsed("gradcam"), (name,)) for name in self._layers]  # activations and gradients

        def work(model: AsGiven, some: torch.Tensor, rule: Any, output: Output) -> list[torch.Tensor]:
            batch = Batch.of(model, methods, some.to(model.device).float(), target_rule=rule, output=output)
            with model.evaluating(), torch.no_grad():
                (at_target,) = batch.by_target
                return [smooth(batch.activations(name), at_target.gradients[name].float()) for name in self._layers]

        def smooth(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
            # These formulas are sums over channels, so one channel alone gives its part of the sum.
            one_by_one = [tensor.flatten(0, 1)[:, None] for tensor in (activations, gradients)]
            parts = formula(*one_by_one, **self._request.options)
            return eigencam(parts.view_as(activations))

        parts = by_images(self.model, inputs, wanted, work)
        return [torch.cat(rows) for rows in zip(*parts, strict=True)]

    def _compare(self, layer: int, grid: tuple[int, ...] | str, ours: tuple[int, ...]) -> None:
        if grid != ours:
            said = grid if isinstance(grid, str) else "×".join(map(str, grid))
            warnings.warn(
                f"`reshape_transform` is not used: {self._layers[layer]!r} is read as {'×'.join(map(str, ours))}, from "
                f"the tensors; it would give {said}.",
                HeatproofWarning,
                stacklevel=4,
            )


def as_wanted(targets: Any, count: int) -> Wanted:
    """Targets of pytorch-grad-cam as `Wanted`."""
    if targets is None:
        return Wanted()
    found = list(targets) if isinstance(targets, Sequence) else None
    if found is None or not all(callable(target) for target in found):
        raise InvalidTarget(
            "`targets` must be a list with one target for each image, such as ClassifierOutputTarget(281), or None. "
            f"Got {targets!r}."
        )
    if len(found) != count:
        raise InvalidTarget(f"Expected one target for each of the {count} images. Got {len(found)}.")
    named = [class_and_output(target) for target in found]
    known = [pair for pair in named if pair is not None]
    if len(known) == count and len({output for _, output in known}) == 1:
        return Wanted(torch.tensor([category for category, _ in known]), known[0][1])
    return Wanted(scores=tuple(found))


def combined(raw: Sequence[torch.Tensor], size: tuple[int, ...]) -> torch.Tensor:
    """Raw maps of several layers → `(N, *size)` in [0, 1], as pytorch-grad-cam averages them."""
    scaled = torch.stack([upsampled(minmax(one.relu()), size) for one in raw])
    return minmax(scaled.mean(0))


@contextmanager
def observed(
    module: nn.Module,
    layers: Sequence[tuple[nn.Module, int | None]],
    transform: Callable[[torch.Tensor], torch.Tensor] | None,
) -> Iterator[dict[int, tuple[int, ...] | str]]:
    """For each layer, at its call, the grid that a `reshape_transform` makes of its output, or the error it raises."""
    seen: dict[int, tuple[int, ...] | str] = {}

    def keeper(index: int, reshaped: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        calls = itertools.count()

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if next(calls) == (layers[index][1] or 0):
                try:
                    seen[index] = tuple(reshaped(output.detach()).shape[2:])
                except Exception as error:  # whatever a user's function raises on a grid it was not made for
                    seen[index] = f"{type(error).__name__}: {error}"

        return keep

    if transform is None:
        yield seen
        return
    with held(module), ExitStack() as handles:
        for i, (layer, _) in enumerate(layers):
            handles.callback(layer.register_forward_hook(keeper(i, transform)).remove)
        yield seen


def _say(name: str, flags: Sequence[str]) -> None:
    """Warns of degenerate maps, which are zeros."""
    for reason in dict.fromkeys(filter(None, flags)):
        which = ", ".join(str(i) for i, flag in enumerate(flags) if flag == reason)
        warnings.warn(f"{name}: zeros for image {which}: {reason}.", HeatproofWarning, stacklevel=5)
