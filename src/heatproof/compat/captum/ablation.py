"""What the output loses when parts of the inputs are replaced: features by a mask, windows, or permuted features."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from heatproof.compat.captum.base import PerturbationAttribution
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensor,
    Tensors,
    alike,
    baselines_of,
    extra_of,
    inputs_of,
    output_of,
    repeated,
    repeated_target,
    reported,
    tupled,
)
from heatproof.passes import check_int

#: Where a feature lies: for each input a mask `(1 or N, …)`, or None where it has no part of it.
Masks = tuple["Tensor | None", ...]


def feature_masks(given: Any, inputs: Tensors) -> Tensors:
    """The number of the feature of every value, `(1 or N, …)` for each input; every value its own where None."""
    if given is None:
        ends = list(itertools.accumulate(one[:1].numel() for one in inputs))
        starts = [0, *ends[:-1]]
        return tuple(
            torch.arange(first, last, device=one.device).reshape(one[:1].shape)
            for first, last, one in zip(starts, ends, inputs, strict=True)
        )
    found = tupled(given)
    if len(found) != len(inputs):
        raise InvalidArgument(f"Expected one `feature_mask` for each of the {len(inputs)} inputs. Got {len(found)}.")
    found = tuple(
        mask.reshape(*[1] * (one.dim() - mask.dim()), *mask.shape) for mask, one in zip(found, inputs, strict=True)
    )
    for mask, one in zip(found, inputs, strict=True):
        if mask.dim() and one.dim() and len(mask) not in (1, len(one)):
            raise InvalidArgument(f"`feature_mask` must have 1 or {len(one)} rows. Got {tuple(mask.shape)}.")
    return tuple(mask.to(one.device).long() for mask, one in zip(found, inputs, strict=True))


class FeatureAblation(PerturbationAttribution):
    """The output less that without a feature, for every value of the feature; features may lie in several inputs."""

    use_weights = False

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """Of the inputs' shapes; one row for each output where the function does not give one for each row.

        Args:
            baselines: what replaces a feature: of the inputs' shapes, of one row, or a number; None: zero.
            feature_mask: the number of the feature of every value, `(1 or N, …)` for each input; None: all differ.
            perturbations_per_eval: how many features are replaced in copies of their own in one pass.
        """
        some = inputs_of(inputs)
        masks = feature_masks(feature_mask, some)
        numbers = torch.unique(torch.cat([mask.flatten() for mask in masks])).tolist()
        features = (tuple(mask == number if mask.numel() else None for mask in masks) for number in numbers)
        replaced = _replaced_by(baselines_of(baselines, some))
        found = self._losses(some, features, len(numbers), replaced, target, additional_forward_args,
                             perturbations_per_eval, show_progress)  # fmt: skip
        return alike(inputs, found)

    def _losses(
        self,
        inputs: Tensors,
        features: Iterator[Masks],
        total: int,
        replaced: Callable[[int, Tensor, Tensor], Tensor],
        target: Any,
        additional_forward_args: Any,
        at_once: int,
        show_progress: bool,
    ) -> Tensors:
        extra, count = extra_of(additional_forward_args), len(inputs[0])
        at_once, done = check_int("perturbations_per_eval", at_once), 0
        with torch.no_grad():
            before = output_of(self.forward_func, inputs, target, extra).flatten()
            by_row = len(before) == count
            if not by_row and at_once != 1:
                raise InvalidArgument(
                    f"Where the function gives {len(before)} numbers for {count} rows, `perturbations_per_eval` must "
                    f"be 1. Got {at_once}."
                )
            shapes = [(len(before), *one.shape[1:]) if one.dim() else one.shape for one in inputs]
            found = [
                torch.zeros(shape, dtype=before.dtype, device=one.device)
                for shape, one in zip(shapes, inputs, strict=True)
            ]
            weights = [torch.zeros_like(one) for one in found]
            reported(self.get_name(), 0, total, show_progress)
            while group := list(itertools.islice(features, at_once)):
                given = tuple(
                    torch.cat([one if masks[i] is None else replaced(i, one, masks[i]) for masks in group])  # type: ignore[arg-type]
                    for i, one in enumerate(inputs)
                )
                after = output_of(
                    self.forward_func,
                    given,
                    repeated_target(target, len(group), count, each=False),
                    repeated(extra, len(group), count, each=False),
                ).reshape(len(group), -1)
                if after.shape[1] != len(before):
                    raise InvalidArgument(
                        f"Expected the function to give {len(before)} numbers for each copy of the inputs, as for the "
                        f"inputs themselves. Got {after.numel()} for {len(group)}. Set `perturbations_per_eval` to 1."
                    )
                for masks, lost in zip(group, before - after, strict=True):
                    self._add(found, weights, masks, lost, by_row)
                done += len(group)
                reported(self.get_name(), done, total, show_progress)
        if not self.use_weights:
            return tuple(found)
        return tuple(one / torch.where(weight == 0, 1, weight) for one, weight in zip(found, weights, strict=True))

    @staticmethod
    def _add(found: list[Tensor], weights: list[Tensor], masks: Masks, lost: Tensor, by_row: bool) -> None:
        for total, weight, mask in zip(found, weights, masks, strict=True):
            if mask is None:
                continue
            if not by_row and len(mask) > 1:
                raise InvalidArgument(
                    "One mask for all rows is needed where the function gives no number for each row."
                )
            total += lost.reshape(-1, *[1] * (total.dim() - 1)) * mask
            weight += mask


def _replaced_by(baselines: Tensors) -> Callable[[int, Tensor, Tensor], Tensor]:
    return lambda i, one, mask: torch.where(mask, baselines[i], one)


class Occlusion(FeatureAblation):
    """The mean loss over all windows that cover a value. A window at the end may reach beyond it."""

    use_weights = True

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        sliding_window_shapes: Any,
        strides: Any = None,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """Of the inputs' shapes.

        Args:
            sliding_window_shapes: the window's size in every dimension but the first, such as `(3, 15, 15)`; for
                several inputs a tuple of them.
            strides: the window's steps, an integer or one for each dimension; for several inputs a tuple of them.
                None: 1.
            baselines: as in FeatureAblation.
        """
        some = inputs_of(inputs)
        windows = _by_input("sliding_window_shapes", sliding_window_shapes, some)
        steps = [1] * len(some) if strides is None else _by_input("strides", strides, some)
        places = [list(_windows(one, shape, step)) for one, shape, step in zip(some, windows, steps, strict=True)]
        features = (
            tuple(_window_mask(one, place) if i == at else None for i in range(len(some)))
            for at, one in enumerate(some)
            for place in places[at]
        )
        found = self._losses(some, features, sum(map(len, places)), _replaced_by(baselines_of(baselines, some)), target,
                             additional_forward_args, perturbations_per_eval, show_progress)  # fmt: skip
        return alike(inputs, found)


def _by_input(option: str, given: Any, inputs: Tensors) -> list[Any]:
    nested = isinstance(given, tuple | list) and (
        len(inputs) > 1 or any(isinstance(one, tuple | list) for one in given)
    )
    found = list(given) if nested else [given] * len(inputs)
    if len(found) != len(inputs):
        raise InvalidArgument(f"`{option}` must have one entry for each of the {len(inputs)} inputs. Got {len(found)}.")
    return found


def _windows(one: Tensor, shape: Any, step: Any) -> Iterator[tuple[slice, ...]]:
    sides = one.shape[1:]
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    steps = (step,) * len(sides) if isinstance(step, int) else tuple(step)
    if len(shape) != len(sides) or len(steps) != len(sides):
        raise InvalidArgument(
            f"Windows and strides must have {len(sides)} entries, as the input {tuple(one.shape)} without its rows. "
            f"Got {shape} and {steps}."
        )
    if any(not size > 0 or not 0 < by <= size for size, by in zip(shape, steps, strict=True) if by != 1 or size < 1):
        raise InvalidArgument(f"Strides must be above 0 and at most the window, {shape}. Got {steps}.")
    ranges = [
        [slice(k * by, min(k * by + size, side)) for k in range(max(0, math.ceil((side - size) / by)) + 1)]
        for side, size, by in zip(sides, shape, steps, strict=True)
    ]
    return itertools.product(*ranges)


def _window_mask(one: Tensor, place: tuple[slice, ...]) -> Tensor:
    mask = torch.zeros((1, *one.shape[1:]), dtype=torch.bool, device=one.device)
    mask[(0, *place)] = True
    return mask
