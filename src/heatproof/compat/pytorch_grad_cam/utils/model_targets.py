"""Targets as functions of one image's output, by the names of pytorch-grad-cam 1.5.7.

Any callable on one output row is a target too. The engine knows those of this module that name a class, and explains
the whole batch at once; with any other it explains image by image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heatproof.compat.missing import missing_names

#: Targets that name a class → the engine's name for the output they take.
OUTPUTS = {
    "ClassifierOutputTarget": "logit",
    "ClassifierOutputSoftmaxTarget": "probability",
    "ClassifierOutputReST": "rest",
}


@dataclass(frozen=True)
class ClassifierOutputTarget:
    """A class's logit."""

    category: int

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return model_output[..., self.category]


@dataclass(frozen=True)
class ClassifierOutputSoftmaxTarget:
    """A class's probability."""

    category: int

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return model_output.softmax(-1)[..., self.category]


@dataclass(frozen=True)
class ClassifierOutputReST:
    """A class's logit plus the logarithm of its probability (Cai 2025)."""

    category: int

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return (model_output + model_output.log_softmax(-1))[..., self.category]


@dataclass(frozen=True)
class BinaryClassifierOutputTarget:
    """The only logit for class 1, its negative for class 0."""

    category: int

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return model_output if self.category == 1 else -model_output


@dataclass(frozen=True)
class SoftmaxOutputTarget:
    """The softmax of the whole output; a single number only where the output is one."""

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return model_output.softmax(-1)


@dataclass(frozen=True)
class RawScoresOutputTarget:
    """The output as it is, of a model with one number for each image."""

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return model_output


class SemanticSegmentationTarget:
    """The sum of a class's logits over the pixels of a mask; the model gives `(N, K, H, W)`."""

    def __init__(self, category: int, mask: np.ndarray | torch.Tensor):
        self.category, self.mask = category, torch.as_tensor(mask)

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        return (model_output[self.category] * self.mask.to(model_output.device)).sum()


class FasterRCNNBoxScoreTarget:
    """How well given boxes are found again: the sum of IoU + score of each box's best match.

    A box counts 0 where the detection that overlaps it most has an IoU up to `iou_threshold` or another label.
    The model gives a dict with `boxes` `(M, 4)`, `labels` and `scores` for each image. Returns `(1,)`.
    """

    def __init__(self, labels: Sequence[Any], bounding_boxes: Sequence[Any], iou_threshold: float = 0.5):
        self.labels, self.bounding_boxes, self.iou_threshold = labels, bounding_boxes, iou_threshold

    def __call__(self, model_outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from torchvision.ops import box_iou

        boxes = model_outputs["boxes"]
        total = boxes.new_zeros(1)
        for box, label in zip(self.bounding_boxes, self.labels, strict=True) if len(boxes) else ():
            overlaps = box_iou(torch.as_tensor(box, dtype=boxes.dtype, device=boxes.device)[None], boxes)[0]
            best = overlaps.argmax()
            if overlaps[best] > self.iou_threshold and model_outputs["labels"][best] == label:
                total = total + overlaps[best] + model_outputs["scores"][best]
        return total


@dataclass(frozen=True)
class FinerWeightedTarget:
    """A class's logit minus those of others, weighted: `Σ p_d (y_c − α y_d) / Σ p_d` (Zhang et al. 2025)."""

    main_category: int
    comparison_categories: Sequence[int]
    alpha: float

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        others = list(self.comparison_categories)
        weights = model_output.softmax(-1)[..., others]
        apart = model_output[..., [self.main_category]] - self.alpha * model_output[..., others]
        return (weights * apart).sum(-1) / (weights.sum(-1) + 1e-9)


def class_and_output(target: Any) -> tuple[int, str] | None:
    """Class and output of a target that names a class, ours or the original's; None for any other."""
    kind = type(target)
    home = kind.__module__.removeprefix("heatproof.compat.")
    if kind.__name__ not in OUTPUTS or not home.startswith("pytorch_grad_cam.utils"):
        return None
    return int(target.category), OUTPUTS[kind.__name__]


__getattr__ = missing_names(__name__, {})
