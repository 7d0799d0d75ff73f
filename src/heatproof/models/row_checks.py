"""Refusals of layers and networks whose rows are not images: found by the probe, once for each network and size."""

from collections.abc import Sequence

from torch import nn

from heatproof.errors import LayerError, ModelError
from heatproof.memo import PerModule
from heatproof.models.layer_names import module_and_call, several_calls
from heatproof.models.model import Model
from heatproof.models.probe import facts
from heatproof.models.rows import Rows

#: What the rows of a layer are, by its name and the shape of one image.
_LAYERS = PerModule[Rows]()


def check_layers(model: Model, layers: Sequence[str], shape: tuple[int, ...], count: int) -> None:
    """Raises LayerError for a layer whose rows are not images, one after the other.

    `shape` is that of one image, `count` how many are explained together: where the network mixes the images of a
    batch, one image by itself can be explained. A network that the probe cannot run is left to the capture's checks.

    Raises:
        LayerError: a layer that runs several times and has no number of a call, that does not depend on the image, or
            whose rows are not images.
    """
    for layer in layers:
        rows = _LAYERS.found(model.module, (layer, shape), lambda layer=layer: _rows_of(model, layer, shape))
        if rows is Rows.FIXED:
            raise LayerError(
                f"Layer {layer!r} must depend on the image. It gives the same for every image, and so would its maps. "
                "Choose a layer that the image passes through."
            )
        if rows is Rows.FOLDED:
            raise LayerError(
                f"Layer {layer!r} must give one row for each image. Its rows are something else (windows, views or "
                "positions). Choose the block around it, or the layer before."
            )
        if rows is Rows.MIXED and count > 1:
            raise LayerError(
                f"Layer {layer!r} must give a row for each image that depends on that image alone. The images of a "
                "batch are mixed there. Explain them one by one, with batch_size=1."
            )


def check_images(model: Model, shape: tuple[int, ...], count: int, variants: bool) -> None:
    """Raises ModelError where the logits of an image depend on the others of its batch, as with batch-wise attention.

    One image by itself can be explained, except by what asks the network about several variants of it together.
    """
    if count == 1 and not variants:
        return
    found = facts(model, shape)
    if found.logits is not Rows.MIXED:
        return
    mixed = (
        f"The logits of {model.name} for one image depend on the other images of the batch, from {found.mixing!r} on."
    )
    if count > 1:
        raise ModelError(f"{mixed} Explain images one by one, with batch_size=1.")
    raise ModelError(
        f"{mixed} This needs the logits of several variants of an image at once. Take a method that needs one pass, "
        "such as gradcam."
    )


def _rows_of(model: Model, layer: str, shape: tuple[int, ...]) -> Rows:
    found = facts(model, shape)
    module, call = module_and_call(model.module, layer)
    calls = found.calls.get(_first_name(model.module, module), ())
    if len(calls) > 1 if call is None else 0 < len(calls) <= call:
        raise LayerError(several_calls(layer, range(len(calls))))
    return calls[call or 0] if calls else Rows.IMAGES


def _first_name(root: nn.Module, module: nn.Module) -> str:
    return next((name for name, part in root.named_modules() if part is module), "")
