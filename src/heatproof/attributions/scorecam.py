"""Score-CAM and its kin: channels weighted by the target's score of the image seen through each of them.

The C masked images are never together in memory: a few at a time are made, scored and dropped.
"""

from collections.abc import Callable, Iterator

import torch

from heatproof.attributions.asking import checked_score
from heatproof.attributions.cam import weighted
from heatproof.attributions.catalogue import attribution
from heatproof.errors import InvalidInput
from heatproof.masking import ground, masked
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.tensors import degenerate, minmax, upsampled
from heatproof.transfers import on_device

#: Masks `(M, *spatial)` and the numbers of their channels (image × C + channel) → masks whose scores are averaged.
Variants = Callable[[torch.Tensor, torch.Tensor], Iterator[torch.Tensor]]


@attribution("scorecam", aliases=["score-cam"], source="Wang et al. 2020, alg. 1")
def scorecam(
    activations: torch.Tensor, x: torch.Tensor, z: torch.Tensor, score, *, fill: str = "mean", of: str = "output"
) -> torch.Tensor:
    """Score-CAM: `Σk w_k A_k`, w = softmax over k of the target's score for `z ⊙ minmax(up(A_k))`.

    One pass for each channel that is not constant, and one more for all that are: their mask is zero everywhere, so
    the network's input is the fill alone. The paper's weight is the increase over a baseline image, `f(x ⊙ M_k) −
    f(x_b)`; the baseline is the same for all k and drops out of the softmax, so its pass is saved.

    The score is the logit, as in the paper and in pytorch-grad-cam and torchcam. With `of="probability"`, which lies in
    [0, 1], no channel can weigh more than e times another: the map is close to the mean activation. (The authors'
    published code has no softmax over channels: it weighs by the probability, and by 0 where a channel is constant.)
    """
    return weighted(score_weights(activations, x, z, score, fill=fill, of=of), activations)


@attribution("sscam", aliases=["ss-cam", "smoothed-scorecam"], source="Wang et al. 2020 (SS-CAM), noise on the masks")
def sscam(
    activations: torch.Tensor,
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    generator,
    *,
    samples: int = 35,
    std: float = 2.0,
    fill: str = "mean",
    of: str = "output",
) -> torch.Tensor:
    """SS-CAM: Score-CAM whose masks get noise, `w = softmax of the mean over draws of the score for z ⊙ (M_k + δ)`.

    δ is N(0, std²) at every pixel of every mask. `samples` passes for each channel: 35 times Score-CAM's by default.
    """
    count = check_int("samples", samples)
    if not std >= 0:
        raise InvalidInput(f"`std` must be at least 0. Got {std}.")
    seeds = torch.cat([torch.randint(2**62, (activations.shape[1],), generator=one) for one in generator]).tolist()

    def noisy(masks: torch.Tensor, channels: torch.Tensor) -> Iterator[torch.Tensor]:
        draws = [torch.Generator().manual_seed(seeds[channel]) for channel in channels.tolist()]
        for _ in range(count):
            drawn = torch.stack([torch.randn(masks.shape[1:], generator=one) for one in draws])
            yield masks + std * on_device(drawn, masks.device, masks.dtype)

    weights = score_weights(activations, x, z, score, fill=fill, of=of, variants=noisy, alike=False)
    return weighted(weights, activations)


@attribution("iscam", aliases=["is-cam", "integrated-scorecam"], source="Naidu et al. 2020 (IS-CAM)")
def iscam(
    activations: torch.Tensor,
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    *,
    samples: int = 10,
    fill: str = "mean",
    of: str = "output",
    compat: bool = False,
) -> torch.Tensor:
    """IS-CAM: Score-CAM integrated from no mask to the whole, with the mean score over i for `z ⊙ (i/n M_k)`.

    i runs from 1 to n = `samples`, so it takes n times Score-CAM's passes. `compat=True` is what torchcam 0.5.0
    computes, where the shares i/n are summed up to each i: the last mask reaches (n + 1) / 2 and not 1.
    """
    count = check_int("samples", samples)
    shares = [i * (i + 1) / (2 * count) if compat else i / count for i in range(1, count + 1)]

    def path(masks: torch.Tensor, _channels: torch.Tensor) -> Iterator[torch.Tensor]:
        return (share * masks for share in shares)

    return weighted(score_weights(activations, x, z, score, fill=fill, of=of, variants=path), activations)


def _as_it_is(masks: torch.Tensor, _channels: torch.Tensor) -> Iterator[torch.Tensor]:
    yield masks


def score_weights(
    activations: torch.Tensor,
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    *,
    fill: str = "mean",
    of: str = "output",
    variants: Variants = _as_it_is,
    alike: bool = True,
) -> torch.Tensor:
    """`(N, C)`: the softmax over the channels of the target's mean score under the variants of each channel's mask.

    `alike`: all constant channels, whose mask is zero everywhere, have one score and share a pass.
    """
    background, of = ground(fill, x, z), checked_score(of)
    count, channels = activations.shape[:2]
    flat = activations.flatten(0, 1)
    dead = degenerate(flat).view(count, channels) & alike
    first_dead = dead & (dead.cumsum(1) == 1)
    wanted = (~dead | first_dead).flatten().nonzero()[:, 0]
    found = []
    for part in parts(len(wanted), rows_per_pass(z)):
        rows = torch.div(wanted[part], channels, rounding_mode="floor")
        masks = minmax(upsampled(flat[wanted[part]], tuple(z.shape[2:])))
        total, number = torch.zeros(()), 0
        for mask in variants(masks, wanted[part]):
            total, number = total + score(masked(z[rows], mask, background[rows]), rows, of=of), number + 1
        found.append(total / number)
    scores = torch.cat(found)
    scores = scores.new_zeros(count * channels).index_put((wanted,), scores).view(count, channels)
    nothing_seen = scores.masked_fill(~first_dead, 0).sum(1, keepdim=True)  # not a product: a NaN stays its image's
    return torch.softmax(torch.where(dead, nothing_seen, scores), 1).to(activations)
