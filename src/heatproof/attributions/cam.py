"""Class-activation maps at one layer: weights on channels, or products at places, summed over the channels.

Everywhere `activations` A and `gradients` G = ∂ logit_c / ∂A are `(N, C, *spatial)`, and a raw map is `(N, *spatial)`:
signed, at layer resolution, higher = more important for the target. The formulas hold for any number of spatial
dimensions. A layer of zeros gives a constant map, which the engine flags.
"""

import torch

from heatproof.attributions.catalogue import attribution
from heatproof.errors import InvalidInput
from heatproof.tensors import per_image

#: Rows of a tail pass hold at most this many activation values (64 MB of float32), so that memory does not grow with C.
TAIL_VALUES = 2**24


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
    source="Chattopadhyay et al. 2018, eq. 19, divided by G²",
)
def gradcam_plus_plus(activations: torch.Tensor, gradients: torch.Tensor, *, compat: bool = False) -> torch.Tensor:
    """Grad-CAM++: `Σk (Σ α·relu(G)) A`, with α = 1 / (2 + relu(G ΣA)) where G > 0, else 0.

    Eq. 19 is `G² / (2G² + G³ ΣA)`; divided by G² it needs no epsilon and stays in (0, ½] for A ≥ 0; the relu keeps it
    there at signed layers. `compat=True` gives `G² / (2G² + G³ ΣA + 1e-6)`, which pytorch-grad-cam 1.5.7 computes and
    which papers N, R and F therefore ran: at small gradients its 1e-6 outweighs all the rest.
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
    """HiResCAM: gradient times activation at every place, `Σk G A`."""
    return (gradients * activations).sum(1)


@attribution("xgradcam", aliases=["xgrad-cam"], source="Fu et al. 2020, eq. 8")
def xgradcam(activations: torch.Tensor, gradients: torch.Tensor, *, eps: float = 1e-7) -> torch.Tensor:
    """XGrad-CAM: gradients averaged with the activation as weight, `w = Σ GA / (ΣA + eps)`, `Σk w A`."""
    return weighted(_over_places(gradients * activations) / (_over_places(activations) + eps), activations)


@attribution("layercam", aliases=["layer-cam"], source="Jiang et al. 2021, eq. 4–5")
def layercam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """LayerCAM: positive gradients as weights at every place, `Σk relu(G) A`."""
    return (gradients.relu() * activations).sum(1)


@attribution("eigencam", aliases=["eigen-cam"], source="Muhammad & Yeasin 2020, eq. 2–3")
def eigencam(activations: torch.Tensor, *, sign: str = "activation") -> torch.Tensor:
    """Eigen-CAM: the activations at each place projected on their first principal component; knows no target.

    The places × channels matrix is centred by channel. A principal component has no sign: `sign="activation"` turns
    it so that the projection correlates positively with the summed activation; `sign="raw"` leaves what the singular
    value decomposition gives, as pytorch-grad-cam does (the object can then vanish under the ReLU).
    """
    if sign not in ("activation", "raw"):
        raise InvalidInput(f"`sign` must be 'activation' or 'raw'. Got {sign!r}.")
    places = activations.flatten(2).transpose(1, 2)
    centred = places - places.mean(1, keepdim=True)
    if (
        not torch.isfinite(centred).flatten(1).all()
    ):  # eigensolvers raise on NaN; one bad picture must not cost the batch
        bad = ~torch.isfinite(centred).flatten(1).all(1)
        centred = torch.where(per_image(bad, centred), torch.zeros_like(centred), centred)
        projection = _projection(centred, sign).masked_fill(bad[:, None], float("nan"))
    else:
        projection = _projection(centred, sign)
    return projection.view(len(activations), *activations.shape[2:])


def _projection(centred: torch.Tensor, sign: str) -> torch.Tensor:
    """`(N, places, channels)`, centred → `(N, places)` projections on the first principal component."""
    if sign == "raw":
        left, values, _ = torch.linalg.svd(centred, full_matrices=False)
        return left[:, :, 0] * values[:, :1]
    wide = centred.double()  # a Gram matrix squares the condition number
    if wide.shape[1] <= wide.shape[2]:
        value, vector = _leading(wide @ wide.transpose(1, 2))
        projection = vector * value.clamp_min(0).sqrt()
    else:
        _, vector = _leading(wide.transpose(1, 2) @ wide)
        projection = (wide @ vector[:, :, None])[:, :, 0]
    agreement = (projection * wide.sum(2)).sum(1, keepdim=True)
    turned = torch.where(agreement < 0, -projection, projection)
    return turned.to(centred.dtype)


def _leading(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest eigenvalue `(N, 1)` and its eigenvector `(N, n)` of symmetric matrices `(N, n, n)`."""
    values, vectors = torch.linalg.eigh(matrix.detach())
    value, vector = values[:, -1:], vectors[:, :, -1]
    if not matrix.requires_grad:
        return value, vector
    # The derivative of eigh divides by the gaps between all eigenvalues, and dead channels have none between
    # them. Of one eigenvector only its own gaps count: dv = Σ u (uᵀ dM v) / (λ − μ) over the others (μ, u).
    moved = (matrix @ vector[:, :, None])[:, :, 0]
    others, gaps = vectors[:, :, :-1], value - values[:, :-1]
    pull = (others.transpose(1, 2) @ moved[:, :, None])[:, :, 0] / gaps
    return (vector * moved).sum(1, keepdim=True), vector + (others @ pull[:, :, None])[:, :, 0]


@attribution("ablationcam", aliases=["ablation-cam"], source="Desai & Ramaswamy 2020, eq. 3")
def ablationcam(activations, logits, target, head, tail, *, compat: bool = False) -> torch.Tensor:
    """Ablation-CAM: channels weighted by the share of the logit lost without them, `w_k = (y − y_k) / |y|`.

    `y_k` is the target's logit with channel k set to zero. Where the logits are a linear layer on average-pooled
    activations this is `W_ck ⟨A_k⟩ / |y|` in closed form; elsewhere only what follows the layer is run, C times.
    `compat=True` divides by `y`, as the paper and pytorch-grad-cam do: the map turns over where y < 0.
    """
    y = logits.gather(1, target[:, None])
    if head is not None:
        lost = head[target] * activations.flatten(2).mean(2)
    else:
        lost = y - torch.stack([_ablated(activations, i, int(c), tail) for i, c in enumerate(target.tolist())])
    scale = y if compat else y.abs()
    return weighted(lost / torch.where(scale == 0, 1, scale), activations)  # at y = 0 a share is not defined


def _ablated(activations: torch.Tensor, image: int, target: int, tail) -> torch.Tensor:
    """The target's logit of one image without each of its channels in turn, `(C,)`."""
    one = activations[image]
    rows = max(1, min(256, TAIL_VALUES // one.numel()))
    ablated = []
    for first in range(0, len(one), rows):
        channels = torch.arange(first, min(first + rows, len(one)), device=one.device)
        variants = one.repeat(len(channels), *[1] * one.dim())
        variants[torch.arange(len(channels), device=one.device), channels] = 0
        ablated.append(tail(variants, image)[:, target])
    return torch.cat(ablated)
