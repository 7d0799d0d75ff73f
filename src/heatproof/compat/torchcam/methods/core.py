"""What the extractors share: the hook that keeps the model's last input, and the maps that are made from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions.cam import BASES
from heatproof.compat.given_models import AsGiven, Reshape, Wanted, as_rule, number, raw_maps, unscaled
from heatproof.compat.torchcam.methods.user_graph import Pass, PassKeeper, disconnected
from heatproof.errors import InvalidInput, InvalidTarget, InvalidType, NoGradient
from heatproof.models import resolve_layer
from heatproof.models.model import bare
from heatproof.tensors import minmax, upsampled

#: A function of one image's output to a number.
OutputTarget = Callable[[Any], torch.Tensor]


class NotRun(InvalidInput, AssertionError):
    """An extractor is called before its model was run, or a metric is read before it was updated."""


class Extractor:
    """A method in the call style of torchcam: `extractor(class_idx, scores) → [(N, *spatial) for each layer]`.

    Hooks on the model keep its last pass while the extractor is open, one for each thread. `scores` that have a graph
    of a pass in eval mode, or that are made from the model's output, are explained through that graph. Else the maps
    are made in a pass of their own, in eval mode: `scores` may come from inference mode. Methods that draw random
    numbers draw the same ones for the same image.
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
        reshape_transform: Reshape | None = None,
        **options: Any,
    ):
        """
        Args:
            target_layer: a layer or several, by name or as modules; None: the last feature map before pooling.
            input_shape: the shape of one input, used to find that layer.
            reshape_transform: used where a layer gives a dict or a tuple; the grid of tokens is read from a tensor.
            options: of the method (`heatproof list methods`).
        """
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
        if reshape_transform is not None and not callable(reshape_transform):
            raise InvalidType(f"`reshape_transform` must be a function. Got {type(reshape_transform).__name__}.")
        if reshape_transform is not None and target_layer is None:
            raise InvalidInput("`reshape_transform` needs the layers that it is for. Got no `target_layer`.")
        self.model, self.reshape_transform = model, reshape_transform
        self.options = {**self.settings, **options}
        if self.method:
            unscaled(self.method, self.options)
        self.target_names = _names_of(model, target_layer, input_shape)
        self._hooks_enabled = enable_hooks
        keeper = PassKeeper(model, self.target_names, self.method in BASES, lambda: self._hooks_enabled)
        self._passes, self.hook_handles = keeper, keeper.handles

    def __repr__(self) -> str:
        about = {"target_layer": self.target_names, **self._about()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in about.items())})"

    def _about(self) -> dict[str, Any]:
        """What the text of an extractor shows beside its layers."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_hooks()
        self.reset_hooks()

    def enable_hooks(self) -> None:
        """Keeps inputs again."""
        self._hooks_enabled = True

    def disable_hooks(self) -> None:
        """Keeps no further inputs, until `enable_hooks`."""
        self._hooks_enabled = False

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        """Keeps no inputs inside; torchcam's metrics ask extractors for this by its name."""
        before, self._hooks_enabled = self._hooks_enabled, False
        try:
            yield
        finally:
            self._hooks_enabled = before

    def reset_hooks(self) -> None:
        """Drops the input."""
        self._passes.clear()

    def remove_hooks(self) -> None:
        """Removes the hooks from the model."""
        for handle in self.hook_handles:
            handle.remove()
        self.hook_handles.clear()

    def last_pass(self, scores: Any = None) -> Pass:
        """The model's last pass, to whose input `scores` must fit.

        Raises:
            NotRun: there is none. InvalidInput: `scores` of another length.
        """
        found = self._passes.last()
        if found is None:
            raise NotRun("Run the model on an input while the extractor is open, before it is called.")
        if isinstance(scores, torch.Tensor) and len(scores) != len(found.inputs):
            raise InvalidInput(f"`scores` must be of the last input, {len(found.inputs)} images. Got {len(scores)}.")
        return found

    @neutral()
    def __call__(
        self,
        class_idx: int | Sequence[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: OutputTarget | Sequence[OutputTarget] | None = None,
        retain_graph: bool = False,
    ) -> list[torch.Tensor]:
        """Maps at the layers' resolutions, rectified (except `CAM`'s), each scaled to [0, 1] where `normalized`.

        Args:
            class_idx: a class for all images, or one for each.
            scores: the model's output, or what was made of it with gradients on.
            targets: in place of `class_idx`: a function of one image's output to a number, for all or one for each.

        Raises:
            NotRun: the model was not run yet.
            InvalidInput: `scores` of another length, or that are not the output and have no gradients.
            InvalidTarget: too few or too many classes, or none, or both `class_idx` and `targets`.
        """
        last = self.last_pass(scores)
        count = len(scores) if isinstance(scores, torch.Tensor) else len(last.inputs)
        if (class_idx is None) == (targets is None):
            raise InvalidTarget(
                "Expected exactly one of class_idx and targets. Got " + ("none." if targets is None else "both.")
            )
        wanted = Wanted(as_rule(class_idx, count)) if targets is None else as_scores(targets, count)
        return self.explained(last, scores, wanted, lambda: _chosen(scores, wanted), normalized)

    compute_cams = __call__

    def explained(
        self, last: Pass, scores: Any, wanted: Wanted, objective: Callable[[], torch.Tensor], normalized: bool
    ) -> list[torch.Tensor]:
        """The maps of `wanted`: of `objective()` through the graph of `scores`, or in a pass of their own."""
        formula = BASES.get(self.method)
        made = _made_of_the_output(scores, last.output)
        if formula is None or not (made or self._has_graph(last, scores, wanted)):
            return self.maps(last.inputs, wanted, normalized)
        try:
            with torch.enable_grad():
                found = last.gradients(objective(), self.model, self.target_names)
        except NoGradient:
            if made:
                raise
            return self.maps(last.inputs, wanted, normalized)  # equal scores of another pass
        return self._finished([formula(*pair, **self.options) for pair in found], normalized)

    def _has_graph(self, last: Pass, scores: Any, wanted: Wanted) -> bool:
        """Whether the graph of `scores` gives the maps: of a pass in eval mode, `(N, K)` where classes are wanted."""
        if self.reshape_transform is not None or not last.reaches(scores, self.target_names):
            return False
        in_eval = not any(module.training for module in self.model.modules())
        return in_eval and (bool(wanted.scores) or scores.dim() == 2)

    def maps(self, inputs: torch.Tensor, wanted: Wanted, normalized: bool = True) -> list[torch.Tensor]:
        """The maps of each layer, as a call gives them; float64 for a float64 input."""
        keys = [f"{self.method}@{name}" for name in self.target_names]
        asked = dict.fromkeys(keys, self.options)
        try:
            found = raw_maps(self.model, inputs, asked, wanted, self.target_names[0], self.reshape_transform)
        except NoGradient as error:
            raise NoGradient(f"{disconnected(', '.join(self.target_names))} {error}") from error
        return self._finished([found.raw[key] for key in keys], normalized)

    def _finished(self, raw: list[torch.Tensor], normalized: bool) -> list[torch.Tensor]:
        maps = [one.relu() for one in raw] if self.rectified else raw
        return [minmax(one) for one in maps] if normalized else maps

    @classmethod
    def fuse_cams(cls, cams: list[torch.Tensor], target_shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Maps of several layers → one: the maximum at every position, at the largest resolution among them."""
        shape = fused_shape(cams, target_shape)
        if len(cams) == 1:
            return cams[0]
        return torch.stack([upsampled(cls._before_fusing(cam), shape) for cam in cams]).amax(0)

    @staticmethod
    def _before_fusing(cam: torch.Tensor) -> torch.Tensor:
        return cam


def _made_of_the_output(scores: Any, output: torch.Tensor | None) -> bool:
    """Whether scores are given that are not the model's output."""
    if not isinstance(scores, torch.Tensor) or output is None:
        return False
    same = (
        scores.shape == output.shape and torch.isclose(scores.detach().to(output), output, 0, 0, equal_nan=True).all()
    )
    return not same


def _chosen(scores: torch.Tensor, wanted: Wanted) -> torch.Tensor:
    """The score of each image, `(N,)`, with its graph."""
    if wanted.scores:
        return torch.stack([number(target, row) for target, row in zip(wanted.scores, scores, strict=True)])
    target = torch.as_tensor(wanted.rule, device=scores.device).expand(len(scores))
    check_classes(target.tolist(), scores.shape[1])
    return scores.gather(1, target[:, None])[:, 0]


def check_classes(classes: Sequence[int], count: int) -> None:
    """Raises InvalidTarget for the first of `classes` that is none of `count`."""
    for index in classes:
        if not 0 <= index < count:
            raise InvalidTarget(f"`class_idx` must lie in 0 … {count - 1}. Got {index}, which is out-of-range.")


def fused_shape(cams: Any, target_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one map made of several: the one given, or the largest side among them in each dimension."""
    if not isinstance(cams, list) or not all(isinstance(cam, torch.Tensor) for cam in cams):
        raise InvalidType(f"`cams` must be a list of tensors. Got {type(cams).__name__}.")
    if not cams:
        raise InvalidInput("`cams` must hold at least one map. Got an empty list.")
    return target_shape or tuple(map(max, zip(*(cam.shape[1:] for cam in cams), strict=True)))


def as_scores(targets: Any, count: int) -> Wanted:
    """Functions of one image's output, one for all or one for each of `count` images."""
    found = [targets] * count if callable(targets) else list(targets)
    if not all(callable(target) for target in found):
        raise InvalidTarget(f"`targets` must be a callable, or a list of callables. Got {targets!r}.")
    if len(found) != count:
        raise InvalidTarget(f"`targets` must fit the batch size, {count} images. Got {len(found)}.")
    return Wanted(scores=tuple(found))


def _names_of(model: nn.Module, layers: Any, input_shape: tuple[int, ...]) -> list[str]:
    if layers is None:
        layers = [AsGiven(model, input_shape).last_layer]
    found: list[Any] = [layers] if isinstance(layers, str | nn.Module) else layers
    if not isinstance(found, list | tuple) or not all(isinstance(layer, str | nn.Module) for layer in found):
        raise InvalidType(f"`target_layer` must be a name, a module, or a list of those. Got {layers!r}.")
    names = [resolve_layer(bare(model), layer) for layer in found]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"`target_layer` must name every layer once. Got {', '.join(names) or 'none'}.")
    return names
