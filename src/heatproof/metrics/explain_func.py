"""`explain_func` for foreign metrics: maps of other images by the method under test."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.errors import InvalidInput
from heatproof.models import Model
from heatproof.transfers import on_device


def explainer(
    explain: Callable, classifier: Model, network: nn.Module, part: slice, name: str
) -> Callable[..., np.ndarray]:
    """The engine's `explain` in the style of Quantus: normalised inputs in, display maps `(M, 1, H, W)` out.

    Args:
        part: the images of the batch that the inputs are variants of, in their order; or the one they all belong to.
        name: the metric's name; with the number of the call it seeds the method's own random numbers.
    """
    calls, size = itertools.count(1), part.stop - part.start

    def explain_func(model: nn.Module | None, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        device = classifier.device
        z = torch.as_tensor(np.ascontiguousarray(inputs), dtype=torch.float32, device=device)
        if size not in (1, len(z)):
            raise InvalidInput(f"{name!r} must explain {size} images at a time, those it was given. Got {len(z)}.")
        rows = torch.arange(part.start, part.stop).expand(len(z))
        classes = torch.as_tensor(np.asarray(targets), dtype=torch.int64, device=device).reshape(-1).expand(len(z))
        other = None if model is None else _other(classifier, network, model)
        maps = explain(images(classifier, z), rows, f"{name} {next(calls)}", classes, other)
        return maps[:, None].cpu().numpy()

    return explain_func


def images(model: Model, z: torch.Tensor) -> torch.Tensor:
    """Normalised images → `x`, the inverse of `model.normalise`; need not lie in [0, 1]."""
    if not model.normalises:
        return z
    shape = (1, -1) + (1,) * (z.dim() - 2)
    mean, std = (on_device(torch.tensor(v, dtype=z.dtype), z.device).view(shape) for v in (model.mean, model.std))
    return z * std + mean


def _other(model: Model, network: nn.Module, module: nn.Module) -> Model | None:
    """The model around another module; None where it is the model's own."""
    if isinstance(module, type(network)):
        module = module.module  # type: ignore[assignment]
    return None if module is model.module else model.with_module(module)
