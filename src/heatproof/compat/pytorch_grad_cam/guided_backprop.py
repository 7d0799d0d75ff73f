"""Guided backpropagation, by the name of pytorch-grad-cam."""

from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.compat.given_models import Wanted, as_rule, checked, raw_maps


class GuidedBackpropReLUModel:
    """Guided backpropagation of one image, `(H, W, C)`, signed."""

    def __init__(self, model: nn.Module, device: Any = None):
        self.model = model if device is None else model.to(device)

    @neutral()
    def __call__(self, input_img: torch.Tensor, target_category: int | None = None) -> np.ndarray:
        inputs = checked(input_img)[:1]
        found = raw_maps(self.model, inputs, {"guided-backprop": {}}, Wanted(as_rule(target_category, 1)))
        return found.raw["guided-backprop"][0].movedim(0, -1).cpu().numpy()
