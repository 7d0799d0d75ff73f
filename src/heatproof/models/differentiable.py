"""Whether the outputs have a gradient by the image or a layer: found by one pass on noise, once for each."""

import torch

from heatproof.errors import LayerError
from heatproof.memo import PerModule
from heatproof.models.capture import INPUT, OF_QUANTISED, captured
from heatproof.models.model import Model

#: Why no gradient arrives (empty where one does), by layer; `INPUT` is the image.
_MISSING = PerModule[str]()


def gradient_missing(model: Model, layer: str = INPUT) -> str:
    """Why no gradient comes from the outputs to the image, or to a layer: one phrase; empty where one does."""
    return _MISSING.found(model.module, layer, lambda: _missing_gradient(model, layer))


def _missing_gradient(model: Model, layer: str) -> str:
    at_input, layers = layer == INPUT, [] if layer == INPUT else [layer]
    noise = torch.rand((1, *model.input_shape), generator=torch.Generator().manual_seed(0)).to(model.device)
    with model.evaluating(), torch.inference_mode(False):
        found = captured(model, noise, layers, gradients=True, at_input=at_input)
        try:
            found.gradients_of(found.logits[:, 0], [layer])
        except LayerError as error:
            said, _, rest = str(error).partition(". ")
            return said[0].lower() + said[1:] + (f" (it is quantised): {OF_QUANTISED}" if "quantised" in rest else "")
    return ""
