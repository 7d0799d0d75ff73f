"""Finer-CAM with torchcam's objective: a class against the mean of those most like it."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.compat.given_models import Wanted, as_rule
from heatproof.compat.torchcam.methods.core import Extractor, check_classes
from heatproof.compat.torchcam.methods.gradient_cams import GradCAM, GradCAMpp, LayerCAM
from heatproof.compat.torchcam.methods.wrappers import Wrapper, checked_base
from heatproof.errors import InvalidInput, InvalidTarget, InvalidType
from heatproof.rounding import ANSWER_STEP, largest, rounded


class FinerCAM(Wrapper):
    """A CAM of `y_c − gamma · mean over d of y_d`, the d being the `num_references` classes nearest to y_c.

    The published method, `finercam` in `heatproof.explain`, weights the classes by their probabilities.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | Sequence[nn.Module | str] | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[Extractor] = GradCAM,
        gamma: float = 0.6,
        num_references: int = 3,
        **options: Any,
    ):
        base = checked_base(base_method, (GradCAM, GradCAMpp, LayerCAM))
        if isinstance(gamma, bool) or not isinstance(gamma, int | float):
            raise InvalidType(f"`gamma` must be a real number. Got {gamma!r}.")
        if not (math.isfinite(gamma) and gamma >= 0):
            raise InvalidInput(f"`gamma` must be finite and non-negative. Got {gamma}.")
        if isinstance(num_references, bool) or not isinstance(num_references, int):
            raise InvalidType(f"`num_references` must be an integer. Got {num_references!r}.")
        if num_references < 1:
            raise InvalidInput(f"`num_references` must be positive. Got {num_references}.")
        self.gamma, self.num_references = float(gamma), num_references
        super().__init__(base(model, target_layer, input_shape=input_shape, **options))

    def __repr__(self) -> str:
        return (
            f"FinerCAM(base_method={type(self.base_cam).__name__}, target_layer={self.target_names}, "
            f"gamma={self.gamma}, num_references={self.num_references})"
        )

    @neutral()
    def __call__(
        self,
        class_idx: int | Sequence[int],
        scores: Any = None,
        comparison_idx: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
        normalized: bool = True,
        *,
        targets: Any = None,
        retain_graph: bool = False,
    ) -> list[torch.Tensor]:
        """Maps as `Extractor` gives them.

        Args:
            class_idx: a class for all images, or one for each.
            scores: the model's output, or what was made of it with gradients on.
            comparison_idx: the classes compared with, for all images or a list for each; None: the nearest ones.

        Raises:
            InvalidInput, InvalidTarget, InvalidType: classes that cannot be compared, or `targets`.
        """
        if targets is not None:
            raise InvalidInput("FinerCAM compares classes and does not support `targets`. Got some.")
        if scores is None:
            raise InvalidInput("FinerCAM compares classes: scores is required, the model's output (N, K). Got None.")
        if not isinstance(scores, torch.Tensor):
            raise InvalidType(f"FinerCAM's scores must be a tensor (N, K). Got {type(scores).__name__}.")
        if scores.dim() != 2 or scores.shape[1] < 2:
            raise InvalidInput(
                f"`scores` must have the shape (N, K), with at least one comparison class. Got {tuple(scores.shape)}."
            )
        last, count = self.base_cam.last_pass(scores), len(scores)
        classes = _integers("class_idx", class_idx, count)
        check_classes(classes, scores.shape[1])
        if comparison_idx is None:
            near = partial(_against_nearest, gamma=self.gamma, count=self.num_references)
            wanted, target = Wanted(as_rule(classes, count), near), torch.tensor(classes)
            return self.base_cam.explained(
                last, scores, wanted, lambda: near(scores, target.to(scores.device)), normalized
            )
        pairs = zip(classes, _rows(comparison_idx, classes), strict=True)
        against = [partial(_against, own=own, others=others, gamma=self.gamma) for own, others in pairs]
        wanted = Wanted(scores=tuple(against))
        return self.base_cam.explained(
            last,
            scores,
            wanted,
            lambda: torch.stack([one(row) for one, row in zip(against, scores, strict=True)]),
            normalized,
        )

    compute_cams = __call__

    def fuse_cams(self, cams: list[torch.Tensor], target_shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """As that of the extractor it is based on."""
        return self.base_cam.fuse_cams(cams, target_shape)


def _against_nearest(logits: torch.Tensor, target: torch.Tensor, *, gamma: float, count: int) -> torch.Tensor:
    """The utility of each image, `(N,)`, against the classes whose logits are nearest."""
    own = logits.gather(1, target[:, None])
    distance = rounded((logits - own).detach().abs(), largest(logits.detach()), ANSWER_STEP)
    distance = distance.scatter(1, target[:, None], torch.inf)
    near = distance.sort(dim=1, stable=True).indices[:, : min(count, logits.shape[1] - 1)]
    return own[:, 0] - gamma * logits.gather(1, near).mean(1)


def _against(row: torch.Tensor, *, own: int, others: Sequence[int], gamma: float) -> torch.Tensor:
    """The utility of one image against given classes."""
    for index in (own, *others):
        if not 0 <= index < len(row):
            raise InvalidTarget(f"A class must lie in 0 … {len(row) - 1}; {index} is out-of-range.")
    return row[own] - gamma * row[list(others)].mean()


def _integers(name: str, given: Any, count: int) -> list[int]:
    """One integer for all of `count` images, or one for each."""
    if isinstance(given, bool) or not isinstance(given, int | list | tuple):
        raise InvalidType(f"`{name}` must be an integer or a list of integers. Got {given!r}.")
    found = [given] * count if isinstance(given, int) else list(given)
    if any(isinstance(one, bool) or not isinstance(one, int) for one in found):
        raise InvalidType(f"`{name}` must contain integers. Got {given!r}.")
    if len(found) != count:
        raise InvalidTarget(f"`{name}` must fit the batch size, {count} images. Got {len(found)}.")
    return found


def _rows(given: Any, classes: Sequence[int]) -> list[list[int]]:
    """The classes compared with, a list of equal length for each image."""
    if isinstance(given, bool) or not isinstance(given, int | list):
        raise InvalidType(f"`comparison_idx` must be an integer, a list, or a nested list. Got {given!r}.")
    listed = [given] if isinstance(given, int) else given
    nested = any(isinstance(row, list) for row in listed)
    if nested and not all(isinstance(row, list) for row in listed):
        raise InvalidType(f"`comparison_idx` must hold integers or lists, not both. Got {given!r}.")
    rows: list[Any] = listed if nested else [listed] * len(classes)
    if len(rows) != len(classes):
        raise InvalidTarget(f"`comparison_idx` must fit the batch size, {len(classes)} images. Got {len(rows)} rows.")
    if not all(rows):
        raise InvalidTarget(f"`comparison_idx` rows cannot be empty. Got {given!r}.")
    if len({len(row) for row in rows}) > 1:
        raise InvalidTarget(f"`comparison_idx` rows must have equal lengths. Got {given!r}.")
    for own, row in zip(classes, rows, strict=True):
        _integers("comparison_idx", row, len(row))
        if len(set(row)) < len(row):
            raise InvalidTarget(f"`comparison_idx` must not contain duplicates. Got {row}.")
        if own in row:
            raise InvalidTarget(f"`comparison_idx` must not contain the target class, {own}. Got {row}.")
    return rows
