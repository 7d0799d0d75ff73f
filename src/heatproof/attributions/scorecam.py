"""Score-CAM: channels weighted by the target's score of the image seen through each of them.

The C masked images are never together in memory: a few at a time are made, scored and dropped.
"""

import torch

from heatproof.attributions.asking import checked_score
from heatproof.attributions.cam import weighted
from heatproof.attributions.catalogue import attribution
from heatproof.masking import ground, masked
from heatproof.passes import parts, rows_per_pass
from heatproof.tensors import degenerate, minmax, upsampled


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
    background = ground(fill, x, z)
    scores = _channel_scores(activations, z, background, score, checked_score(of))
    return weighted(torch.softmax(scores, 1).to(activations), activations)


def _channel_scores(
    activations: torch.Tensor, z: torch.Tensor, background: torch.Tensor, score, of: str
) -> torch.Tensor:
    """The target's score for every image through every channel, `(N, C)`; constant channels share one pass."""
    count, channels = activations.shape[:2]
    flat = activations.flatten(0, 1)
    dead = degenerate(flat).view(count, channels)
    first_dead = dead & (dead.cumsum(1) == 1)
    wanted = (~dead | first_dead).flatten().nonzero()[:, 0]
    found = []
    for part in parts(len(wanted), rows_per_pass(z)):
        rows = torch.div(wanted[part], channels, rounding_mode="floor")
        masks = minmax(upsampled(flat[wanted[part]], tuple(z.shape[2:])))
        found.append(score(masked(z[rows], masks, background[rows]), rows, of=of))
    scores = torch.cat(found)
    scores = scores.new_zeros(count * channels).index_put((wanted,), scores).view(count, channels)
    nothing_seen = scores.masked_fill(~first_dead, 0).sum(1, keepdim=True)  # not a product: a NaN stays its image's
    return torch.where(dead, nothing_seen, scores)
