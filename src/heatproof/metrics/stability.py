"""Stability: how similar is a map to its reference, the same method's map on the clean image? (protocols §5, paper N)

All six are symmetric, and equal maps have the best value, so a map that ignores the image has it too. Stability means
something only beside a measure of how the map responds when the prediction changes (responsiveness, RM₀), which
is computed from many rows (`heatproof.statistics`). The functions broadcast over leading dimensions; the engine passes
all methods of one image together.
"""

from collections.abc import Callable

import torch

from heatproof.metrics import rankings, similarity
from heatproof.metrics.catalogue import metric
from heatproof.metrics.rankings import Ranking, Ties

#: Segmenter → rankings of the segment means of the map and of its reference.
SegmentRanks = Callable[[str], tuple[Ranking, Ranking]]

UNRANKED = "one of the two maps is equal in all segments"
_STATED = {"family": "stability", "degenerate": float("nan"), "passes": "none"}


@metric(
    "rbo",
    better="high",
    range=(0, 1),
    undefined=UNRANKED,
    source="Webber et al. 2010; ties: Corsi & Urbano 2024; paper N",
    **_STATED,
)
def rbo(
    segment_ranks: SegmentRanks, *, segmenter: str = "quickshift", ties: Ties = "b", p: float = 0.9
) -> torch.Tensor:
    """Rank-biased overlap of the map with its reference, over the segments of the clean image.

    `(1−p) Σ_d p^(d−1) A_d + p^n`, A_d the agreement of the two rankings down to depth d. In [0, 1], higher is more
    alike; unrelated maps have a value that depends on the number of segments and on ties, see `kappa`. NaN where a map
    is equal in all segments.

    Args:
        segmenter: `quickshift`, `slic`, `felzenszwalb`, `grid`, `split` or, with masks, `split-object`; with options in
            brackets or not.
        ties: `b` (symmetric), `a`, or `stable` (by index, probably the paper's).
        p: lower is more top-weighted; at .9 the first ten segments hold 86 % of the weight.
    """
    ranks, reference = segment_ranks(segmenter)
    return rankings.rbo(reference, ranks, p, ties)


@metric("kappa", better="high", range=(None, 1), undefined=UNRANKED, source="ours", **_STATED)
def kappa(
    segment_ranks: SegmentRanks, *, segmenter: str = "quickshift", ties: Ties = "b", p: float = 0.9
) -> torch.Tensor:
    """RBO corrected for chance: `(RBO − E) / (1 − E)`, E the mean RBO of shuffled rankings with the same ties.

    At most 1 (equal rankings), about 0 for unrelated maps whatever their ties, negative for opposed ones; higher is
    more alike. NaN where a map is equal in all segments, or where chance alone reaches 1. Options as in `rbo`.
    """
    ranks, reference = segment_ranks(segmenter)
    chance = rankings.rbo_expectation(reference, ranks, p, ties)
    return rankings.kappa(rankings.rbo(reference, ranks, p, ties), chance)


@metric("l1", better="low", range=(0, 1), undefined="a map is degenerate", source="paper N", **_STATED)
def l1(maps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Normalised L1: mean absolute difference of the map and its reference, in [0, 1], lower is more alike."""
    return similarity.l1(reference, maps)


@metric("spearman", better="high", range=(-1, 1), undefined=UNRANKED, source="paper N", **_STATED)
def spearman(segment_ranks: SegmentRanks, *, segmenter: str = "quickshift") -> torch.Tensor:
    """Spearman correlation of the segment means, ties at their mean rank, in [−1, 1], higher is more alike."""
    ranks, reference = segment_ranks(segmenter)
    return rankings.spearman(reference, ranks)


@metric(
    "ssim", better="high", range=(-1, 1), undefined="the map has no 7 × 7 window", source="Wang et al. 2004", **_STATED
)
def ssim(reduced) -> torch.Tensor:
    """Structural similarity of the maps reduced to 56² by area, in [−1, 1], 1 for equal maps.

    7 × 7 uniform window, range 1, sample covariance, mean over the windows that fit. NaN below 7 pixels a side.
    """
    one, other = reduced
    return similarity.ssim_of(other, one)


@metric("cosine", better="high", range=(0, 1), undefined="a map is degenerate", source="paper N", **_STATED)
def cosine(maps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle between the map and its reference, in [0, 1], higher is more alike."""
    return similarity.cosine(reference, maps)
