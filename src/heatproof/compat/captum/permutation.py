"""What the output loses when a feature is exchanged among the images."""

from collections.abc import Callable
from typing import Any

import torch

from heatproof.compat.captum.ablation import FeatureAblation, feature_masks
from heatproof.compat.captum.calls import InvalidArgument, Tensor, alike, inputs_of


class FeaturePermutation(FeatureAblation):
    """The loss when a feature is exchanged among the rows, by `perm_func(input, mask)`; torch's global generator."""

    def __init__(self, forward_func: Callable, perm_func: Callable | None = None):
        super().__init__(forward_func)
        self.perm_func = perm_func or permuted

    def attribute(  # type: ignore[override]
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Any:
        """As FeatureAblation; a mask must have one row, and the inputs more than one."""
        some = inputs_of(inputs)
        masks = feature_masks(feature_mask, some)
        if any(len(mask) != 1 for mask in masks):
            raise InvalidArgument("`feature_mask` must have one row, since rows are exchanged. Got more.")
        numbers = torch.unique(torch.cat([mask.flatten() for mask in masks])).tolist()
        features = (tuple(mask == number for mask in masks) for number in numbers)
        found = self._losses(some, features, len(numbers), lambda _, one, mask: self.perm_func(one, mask), target,
                             additional_forward_args, perturbations_per_eval, show_progress)  # fmt: skip
        return alike(inputs, found)


def permuted(one: Tensor, mask: Tensor) -> Tensor:
    """The rows of an input exchanged at random where the mask is True; never all at their own place."""
    if len(one) < 2:
        raise InvalidArgument(f"Rows can be exchanged where there are at least 2. Got {len(one)}.")
    order = torch.randperm(len(one))
    while bool((order == torch.arange(len(one))).all()):
        order = torch.randperm(len(one))
    return torch.where(mask, one[order.to(one.device)], one)
