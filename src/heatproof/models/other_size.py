"""Whether a network takes images of another size than its own."""

import torch

from heatproof.memo import PerModule
from heatproof.models.model import Model

#: Why a network does not take images of a shape, by the shape.
_REFUSALS = PerModule[str]()


def size_refusal(model: Model, shape: tuple[int, ...]) -> str:
    """Why the network does not take an image of that shape `(C, H, W)`; empty where it does, which is tried once."""
    return _REFUSALS.found(model.module, shape, lambda: _tried(model, shape))


def _tried(model: Model, shape: tuple[int, ...]) -> str:
    x = torch.full((1, *shape), 0.5, device=model.device)
    try:
        with model.evaluating(), torch.inference_mode():
            model.logits(x)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a network may raise anything
        error = error.__cause__ or error  # `Model.output` says what else would run
        first = (f"{error}".strip().splitlines() or [type(error).__name__])[0]
        return f"the network takes no images of {shape[-2]} × {shape[-1]} pixels: {first.rstrip('.')}"
    return ""
