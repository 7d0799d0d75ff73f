"""FullGrad: the input's share of the output, and that of every bias in the network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.errors import LayerError
from heatproof.memo import PerModule
from heatproof.models import Model, layout_of
from heatproof.models.biases import Biases, Channels
from heatproof.models.differentiable import gradient_missing
from heatproof.models.observable import why_hidden
from heatproof.tensors import minmax, upsampled

#: The shares must sum to the output up to this part of the largest of them, or the decomposition is invalid.
COMPLETE = 1e-3


def _unfit(model: Model, _layer: str, _options: Mapping[str, Any]) -> str:
    """Why FullGrad cannot be used, found by one forward and one backward on noise, once for each module."""
    if reason := gradient_missing(model):
        return reason
    return _UNFIT.found(model.module, model.precision, lambda: _why_unfit(model))


#: Why a network cannot be decomposed, by precision; empty where it can.
_UNFIT = PerModule[str]()


def _why_unfit(model: Model) -> str:
    noise = torch.rand((1, *model.input_shape), generator=torch.Generator().manual_seed(0)).to(model.device)
    with model.evaluating(), torch.inference_mode(False):
        return _gap(model, model.normalise(noise))


def _gap(model: Model, z: torch.Tensor) -> str:
    """Why the shares on `z` do not sum to the output; empty where they do."""
    shares: list[torch.Tensor] = []
    drawn: list[bool] = []

    def visit(share: torch.Tensor, channels: Channels) -> None:
        shares.append(share.double().sum())
        drawn.append(_positions(share, channels, tuple(z.shape[2:])) is not None)

    output, gradient = _outputs_and_gradient(z, model.of_normalised, lambda logits: logits[:, 0], visit)
    if not any(drawn):
        return why_hidden(model.module) or "none of its layers with positions has a bias"
    shares.append((gradient * z).double().sum())
    gap = abs(float(torch.stack(shares).sum() - output.double().sum()))
    tolerance = COMPLETE if model.precision in (torch.float32, torch.float64) else 100 * COMPLETE
    if not gap <= tolerance * max(float(share.abs()) for share in shares):
        return why_hidden(model.module) or (
            "its output is not the sum of its input's and its biases' shares (attention, or constants in the code)"
        )
    return ""


def _outputs_and_gradient(
    z: torch.Tensor, forward: Any, of_target: Any, visit: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of the targets `(N,)` and gradient by `z`; on the way every bias's share goes to `visit`."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        with Biases(visit):
            outputs = forward(leaf)
        output = of_target(outputs)
        (gradient,) = torch.autograd.grad(output.sum(), leaf)
    return output.detach(), gradient


@attribution(
    "fullgrad", form="display", aliases=["full-grad", "full-gradient"], source="Srinivas & Fleuret 2019", applies=_unfit
)
def fullgrad(z: torch.Tensor, forward, of_target, *, rescale: str = "channel") -> torch.Tensor:
    """FullGrad: `ψ(∇x f ⊙ x) + Σ over layers and channels ψ(∇b f ⊙ b)`, ψ = upsampling of the min-max of |·|; ≥ 0.

    The biases b are those of convolutions, linear layers and norms, and the implicit ones of nonlinear functions
    (`heatproof.models.biases`), so that the shares under the ψ sum to the output. Biases without positions (the
    classifier's) have no share in the map. `rescale="channel"` is the paper's sum over channels, as in
    pytorch-grad-cam; `"layer"` takes the min-max over all channels of a layer, as the authors' code does. Reads no
    layer. One forward and one backward; each share is added in the backward pass and not kept.
    """
    total = torch.zeros((len(z), *z.shape[2:]), device=z.device)
    _each_share(z, forward, of_target, rescale, total.add_)
    return total


def fullgrad_shares(z: torch.Tensor, forward, of_target, *, rescale: str = "channel") -> torch.Tensor:
    """The terms of `fullgrad`, `(N, L, *size)`: of each layer with positions, and of each channel of the input."""
    found: list[torch.Tensor] = []
    _each_share(z, forward, of_target, rescale, found.append)
    return torch.stack(found, 1)


def _each_share(z: torch.Tensor, forward: Any, of_target: Any, rescale: str, take: Callable[[torch.Tensor], Any]):
    """Hands every term of `fullgrad` to `take`, `(N, *size)`."""
    check_choice("rescale", rescale, ("channel", "layer"))
    size = tuple(z.shape[2:])

    def visit(share: torch.Tensor, channels: Channels) -> None:
        positions = _positions(share, channels, size)
        if positions is not None and len(positions) == len(z):
            take(upsampled(_rescaled_magnitudes(positions.float(), rescale).sum(1), size))

    _, gradient = _outputs_and_gradient(z, forward, of_target, visit)
    for channel in _rescaled_magnitudes((gradient * z).float(), rescale).unbind(1):
        take(channel)


def _rescaled_magnitudes(positions: torch.Tensor, rescale: str) -> torch.Tensor:
    """|·| of `(N, C, *spatial)`, each channel or each layer of an image in [0, 1]."""
    if rescale == "layer":
        return minmax(positions.abs())
    return minmax(positions.abs().flatten(0, 1)).view_as(positions)


def _positions(share: torch.Tensor, channels: Channels, size: tuple[int, ...]) -> torch.Tensor | None:
    """`(N, C, *spatial)`, or None where a share has no positions."""
    if share.dim() == len(size) + 2 and channels:
        positions = share if channels == "first" else share.movedim(-1, 1)
    else:
        try:
            positions = layout_of(_UNKNOWN, share, size).to_grid(share)
        except LayerError:
            return None
    return positions if positions[0, 0].numel() > 1 else None


#: A module that does not tell where the channels are: the grid's aspect ratio decides.
_UNKNOWN = nn.Identity()
