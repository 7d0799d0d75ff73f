"""Class-activation maps at one layer: weights on channels, or products at positions, summed over the channels.

Everywhere `activations` A and `gradients` G = ∂ logit_c / ∂A are `(N, C, *spatial)`, and a raw map is `(N, *spatial)`:
signed, at layer resolution, higher = more important for the target. The formulas hold for any number of spatial
dimensions. A layer of zeros gives a constant map, which the engine flags.
"""

from collections.abc import Mapping
from typing import Any

import torch

from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.memo import PerModule
from heatproof.models import Model
from heatproof.models.capture import captured
from heatproof.models.head import linear_head
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.tensors import per_image
from heatproof.transfers import on_device


def weighted(weights: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    """`Σk w_k A_k`: `(N, C)` and `(N, C, *spatial)` → `(N, *spatial)`."""
    return torch.einsum("nc,nc...->n...", weights, activations)


def _over_places(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(2).sum(2)


@attribution("gradcam", aliases=["grad-cam"], source="Selvaraju et al. 2017, eq. 1–2")
def gradcam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM: channels weighted by their mean gradient, `Σk ⟨G_k⟩ A_k`."""
    return weighted(gradients.flatten(2).mean(2), activations)


@attribution(
    "gradcam++",
    aliases=["gradcamplusplus", "gradcampp", "grad-cam++"],
    source="Chattopadhyay et al. 2018, eq. 19 for A ≥ 0, divided by G²",
)
def gradcam_plus_plus(activations: torch.Tensor, gradients: torch.Tensor, *, compat: bool = False) -> torch.Tensor:
    """Grad-CAM++: `Σk (Σ α·relu(G)) A`, with α = 1 / (2 + relu(G ΣA)) where G > 0, else 0.

    Eq. 19 is `G² / (2G² + G³ ΣA)`; divided by G² it needs no epsilon and stays in (0, ½] for A ≥ 0; the relu keeps it
    there at signed layers. `compat=True` gives `G² / (2G² + G³ ΣA + 1e-6)`, which pytorch-grad-cam 1.5.7 computes and
    which papers N, R and F therefore ran: at small gradients its 1e-6 dominates.
    """
    sums = _over_places(activations)
    sums = sums.view(*sums.shape, *[1] * (gradients.dim() - 2))
    if compat:
        squares = gradients.square()
        alpha = squares / (2 * squares + squares * gradients * sums + 1e-6)
        alpha = torch.where(gradients != 0, alpha, torch.zeros_like(alpha))
    else:
        alpha = 1 / (2 + (gradients * sums).relu())
    return weighted(_over_places(alpha * gradients.relu()), activations)


@attribution("hirescam", aliases=["hires-cam"], source="Draelos & Carin 2020, eq. 3")
def hirescam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """HiResCAM: gradient times activation at every position, `Σk G A`.

    Where a LayerNorm follows the layer (inner stages of ConvNeXt), scaling a position changes nothing, so the sum is
    zero in exact arithmetic. A map below 1e-5 of the largest sum of magnitudes is float32 rounding and is set to zero.
    """
    terms = gradients * activations
    total, size = terms.sum(1), terms.detach().abs().sum(1)
    cancelled = total.detach().abs().flatten(1).amax(1) <= 1e-5 * size.flatten(1).amax(1)
    return torch.where(per_image(cancelled, total), torch.zeros_like(total), total)


@attribution("xgradcam", aliases=["xgrad-cam"], source="Fu et al. 2020, eq. 8")
def xgradcam(activations: torch.Tensor, gradients: torch.Tensor, *, eps: float = 1e-7) -> torch.Tensor:
    """XGrad-CAM: gradients averaged with the activation as weight, `w = Σ GA / (ΣA + eps)`, `Σk w A`."""
    return weighted(_over_places(gradients * activations) / (_over_places(activations) + eps), activations)


@attribution("layercam", aliases=["layer-cam"], source="Jiang et al. 2021, eq. 4–5")
def layercam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """LayerCAM: positive gradients as weights at every position, `Σk relu(G) A`."""
    return (gradients.relu() * activations).sum(1)


@attribution(
    "gradcam-elementwise", aliases=["grad-cam-elementwise"], source="Gildenblat et al. 2021 (pytorch-grad-cam)"
)
def gradcam_elementwise(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM without the mean: the positive parts at every position and channel, `Σk relu(G A)`; never < 0."""
    return (gradients * activations).relu().sum(1)


def _rest_of_values(model: Model, _layer: str, options: Mapping[str, Any]) -> str:
    if model.of_values and options["utility"] == "rest":
        return "a network of values has no log p; set utility=logit, which takes the value"
    return ""


def _no_classes(model: Model, _layer: str, _options: Mapping[str, Any]) -> str:
    return "it compares classes by their logits, and a network of values has none" if model.of_values else ""


@attribution("shapleycam", aliases=["shapley-cam"], source="Cai 2025 (ShapleyCAM, ReST)", applies=_rest_of_values)
def shapleycam(activations: torch.Tensor, gradients_of, hvp, *, utility: str = "rest") -> torch.Tensor:
    """ShapleyCAM: channels weighted by a second-order Shapley value of the utility, `w = ⟨G − ½ H·A⟩`, `Σk w A`.

    G and H are gradient and Hessian of the utility by the activations; H·A takes a second backward. `utility="rest"`
    is the paper's, the residual softmax target `y_c + log p_c`; `utility="logit"` is `y_c` alone, the only one of a
    network of values. The logit of a ReLU network is piecewise linear in A, so its H·A is zero and the map is
    Grad-CAM's.
    """
    return weighted(shapley_weights(activations, gradients_of, hvp, utility=utility), activations)


def shapley_weights(_activations: torch.Tensor, gradients_of, hvp, *, utility: str = "rest") -> torch.Tensor:
    """The weights of `shapleycam`, `(N, C)`."""
    check_choice("utility", utility, ("rest", "logit"))
    return (gradients_of(utility) - 0.5 * hvp(utility)).flatten(2).mean(2)


#: The CAMs that Finer-CAM can be based on.
BASES = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "gradcam-elementwise": gradcam_elementwise,
}


@attribution("finercam", aliases=["finer-cam"], source="Zhang et al. 2025 (CVPR)", applies=_no_classes)
def finercam(
    activations: torch.Tensor,
    gradients_of,
    *,
    alpha: float = 0.6,
    comparisons: int = 3,
    base: str = "gradcam",
    compat: bool = False,
) -> torch.Tensor:
    """Finer-CAM: a CAM of what sets the target apart from its most similar classes, `u = y_c − α Σ_d p_d y_d`.

    The d are the `comparisons` classes whose logits are nearest to the target's (fewer where there are fewer), `p_d`
    their probabilities, scaled to sum to one. `alpha` (≥ 0) is the share of the common evidence removed; 0.6 and 3 are
    the authors' aggregate setting, 0 is the base itself. `base` is one of `BASES`. The `p_d` are weights, so they are
    held fixed; `compat=True` differentiates them too, as the authors' code and pytorch-grad-cam do.
    """
    if alpha < 0:
        raise InvalidInput(f"`alpha` must be at least 0. Got {alpha}.")
    if comparisons < 1 or comparisons != int(comparisons):
        raise InvalidInput(f"`comparisons` must be a whole number of at least 1. Got {comparisons}.")
    formula = BASES[check_choice("base", base, BASES)]

    def apart(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        own = logits.gather(1, target[:, None])
        distance = rounded((logits - own).detach().abs(), largest(logits.detach()), ANSWER_STEP)
        distance = distance.scatter(1, target[:, None], float("inf"))
        near = distance.sort(dim=1, stable=True).indices[:, : min(int(comparisons), logits.shape[1] - 1)]
        weights = logits.gather(1, near).softmax(1)  # probabilities over the compared classes alone
        others = (weights if compat else weights.detach()) * logits.gather(1, near)
        return own[:, 0] - alpha * others.sum(1)

    return formula(activations, gradients_of(apart))


@attribution("fem", aliases=["feature-explanation-method"], source="Fuad et al. 2020 (IPTA)")
def fem(activations: torch.Tensor, *, k: float = 2.0, compat: bool = False) -> torch.Tensor:
    """FEM: positions where a channel is unusually strong, weighted by the channel's mean; independent of the target.

    `Σk ⟨A_k⟩ [A_k > ⟨A_k⟩ + k σ_k]`, σ the std over the positions. `compat=True` is what pytorch-grad-cam
    1.5.7 computes, `Σk ⟨[A_k > ⟨A_k⟩ + k σ_k]⟩ A_k`: the masks' shares as weights of the activations themselves.
    """
    flat = activations.flatten(2)
    mean, std = flat.mean(2, keepdim=True), flat.std(2, keepdim=True, correction=0)
    strong = (flat > mean + k * std).to(flat.dtype)
    if compat:
        return weighted(strong.mean(2), activations)
    return weighted(mean[:, :, 0], strong.view_as(activations))


def _head_missing(model: Model, layer: str, _options: Mapping[str, Any]) -> str:
    """Why CAM cannot be used, found by one pass on noise, once for each module and layer; empty where it can."""
    key = (layer, model.precision)
    return "" if _HEADS.found(model.module, key, lambda: _has_head(model, layer)) else _NO_HEAD.format(layer)


def _has_head(model: Model, layer: str) -> bool:
    noise = torch.rand((2, *model.input_shape), generator=torch.Generator().manual_seed(0)).to(model.device)
    with model.evaluating(), torch.inference_mode(False), torch.no_grad():
        found = captured(model, noise, [layer], gradients=False)
    return linear_head(model.module, found.activations(layer), found.logits, model.precision) is not None


_NO_HEAD = "its logits are not a linear layer on the average of the activations at {!r}"

#: Whether the head is linear on the pooled activations, by layer and precision.
_HEADS = PerModule[bool]()


@attribution(
    "cam", aliases=["class-activation-map"], logit_only=True, source="Zhou et al. 2016, eq. 2", applies=_head_missing
)
def cam(activations: torch.Tensor, head, target: torch.Tensor) -> torch.Tensor:
    """CAM: channels weighted by the classifier's own weights, `Σk W_ck A_k`; no backward.

    Only where the logits are a linear layer on average-pooled activations; Grad-CAM is then the same map divided by the
    number of positions.
    """
    if head is None:
        raise NotApplicable(
            "CAM needs logits that are a linear layer on the average of the activations. Here they are not, or another "
            "output is explained. Take 'gradcam', which equals it where both exist."
        )
    return weighted(head[target].to(activations), activations)


@attribution("randomcam", aliases=["random-cam"], source="Gildenblat et al. 2021 (pytorch-grad-cam)")
def randomcam(activations: torch.Tensor, generator) -> torch.Tensor:
    """Channels weighted at random, `Σk w_k A_k` with w from U[−1, 1]: a baseline that knows the layer, not the target.

    The control `random` does not depend on the network at all.
    """
    draws = [torch.rand(activations.shape[1], generator=one) for one in generator]
    drawn = on_device(torch.stack(draws), activations.device, activations.dtype)
    return weighted(2 * drawn - 1, activations)
