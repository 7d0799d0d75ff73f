"""Ablation-CAM: channels weighted by what the target loses without them."""

import torch

from heatproof.attributions.cam import weighted
from heatproof.attributions.catalogue import attribution

#: Rows of a tail pass hold at most this many activation values (64 MB of float32), so that memory does not grow with C.
TAIL_VALUES = 2**24


@attribution("ablationcam", aliases=["ablation-cam"], source="Desai & Ramaswamy 2020, eq. 3")
def ablationcam(activations, logits, target, head, tail, *, compat: bool = False) -> torch.Tensor:
    """Ablation-CAM: channels weighted by the share of the logit lost without them, `w_k = (y − y_k) / |y|`.

    `y_k` is the target's logit with channel k set to zero. Where the logits are a linear layer on average-pooled
    activations this is `W_ck ⟨A_k⟩ / |y|` in closed form; elsewhere only what follows the layer is run, C times.
    `compat=True` divides by `y`, as the paper and pytorch-grad-cam do: the map changes sign where y < 0.
    """
    return weighted(ablation_weights(activations, logits, target, head, tail, compat=compat), activations)


def ablation_weights(activations, logits, target, head, tail, *, compat: bool = False) -> torch.Tensor:
    """The weights of `ablationcam`, `(N, C)`."""
    y = logits.gather(1, target[:, None])
    if head is not None:
        lost = head[target] * activations.flatten(2).mean(2)
    else:
        lost = y - torch.stack(
            [_logits_without_channels(activations, i, int(c), tail) for i, c in enumerate(target.tolist())]
        )
    scale = y if compat else y.abs()
    return lost / torch.where(scale == 0, 1, scale)  # at y = 0 a share is not defined


def _logits_without_channels(activations: torch.Tensor, image: int, target: int, tail) -> torch.Tensor:
    """The target's logit of one image without each of its channels in turn, `(C,)`."""
    one = activations[image]
    rows = max(1, min(256, len(one), TAIL_VALUES // one.numel()))
    ablated, variants = [], one.repeat(rows, *[1] * one.dim())
    for first in range(0, len(one), rows):
        channels = torch.arange(first, min(first + rows, len(one)), device=one.device)
        each = torch.arange(len(channels), device=one.device)
        if one.requires_grad:  # a graph keeps its inputs, which must not change
            variants = one.repeat(rows, *[1] * one.dim())
        variants[each, channels] = 0
        ablated.append(tail(variants[: len(channels)], image)[:, target])
        if not one.requires_grad:
            variants[each, channels] = one[channels]
    return torch.cat(ablated)
