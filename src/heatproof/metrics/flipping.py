"""Parts of the image flipped, most relevant first: squares of a grid (Samek) or superpixels (IROF).

All pixels of a part have the rank of the part, so the curve engine does the rest.
"""

from functools import partial

import torch

from heatproof import masking
from heatproof.errors import NotApplicable
from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.curves import area, pixel_ranks, shares, threshold_scores
from heatproof.metrics.pairs import segment_means
from heatproof.passes import check_int
from heatproof.registry import unknown
from heatproof.rounding import largest, rounded
from heatproof.transfers import on_device, on_host

#: Points of IROF's curve, which images with different numbers of superpixels share.
POINTS = 101
FILLS = ("uniform", *masking.FILLS)

#: What the metrics of this file share, unless they say otherwise.
flipping_metric = partial(metric, family="fidelity", better="high")


@flipping_metric(
    "pixel-flipping",
    range=(-1, 1),
    passes="steps forwards",
    undefined="the network has no answer to a flipped image",
    values="units",
    aliases=["aopc", "region-perturbation"],
    source="Bach et al. 2015; Samek et al. 2017",
)
def pixel_flipping(
    x: torch.Tensor,
    z: torch.Tensor,
    p: torch.Tensor,
    maps: torch.Tensor,
    score,
    model,
    generator,
    *,
    region: int = 9,
    steps: int = 100,
    fill: str = "uniform",
) -> Curve:
    """Mean drop of the target's probability while squares of the image are flipped, most relevant first (AOPC).

    `1/(L+1) Σ_{k=0…L} (f(x₀) − f(x_k))` with one more square flipped at each of L = `steps` steps (as many as there
    are, if fewer). In (−1, 1), higher is better. Squares of `region` pixels a side on a fixed grid (smaller at the
    lower and right border), ranked by the sum of the map in them, ties by a seeded order. Samek et al. 2017, eq. 12
    and section IV: 9×9, 100 steps, uniform noise as `fill`, here one seeded field for each image, the same for all
    methods. Other fills: black, mean, blur. `region=1` is the pixel-flipping of Bach et al. 2015. f is the target's
    probability (theirs: the classifier's score). Any number of spatial dims. `steps` forwards.
    """
    side, steps = check_int("region", region), check_int("steps", steps)
    if fill not in FILLS:
        raise unknown("`fill`", str(fill), FILLS)
    labels = square_labels(tuple(maps.shape[1:]), side)
    pieces, labels = int(labels.max()) + 1, on_device(labels, maps.device)
    ranks = pixel_ranks(_sums(maps, labels, pieces), generator)
    background = model.normalise(_noise(x, generator)) if fill == "uniform" else masking.ground(fill, x, z)
    flipped = min(steps, ranks.shape[1])
    counts = torch.arange(1, flipped + 1).expand(len(z), -1)
    found = threshold_scores(z, background, ranks[:, labels], counts, score)
    points = torch.cat([p[:, None].to(found), found], 1)
    at = torch.arange(flipped + 1, dtype=torch.float64, device=z.device) / ranks.shape[1]
    return Curve((points[:, :1] - points).mean(1), at, points)


def square_labels(size: tuple[int, ...], side: int) -> torch.Tensor:
    """Which square (cube, stretch) of a fixed grid each position lies in, `(*size)` int64 from 0."""
    labels = torch.zeros((), dtype=torch.int64)
    for length in size:
        labels = labels[..., None] * -(-length // side) + torch.arange(length) // side
    return labels


def _sums(maps: torch.Tensor, labels: torch.Tensor, pieces: int) -> torch.Tensor:
    sums = maps.new_zeros(len(maps), pieces, dtype=torch.float64)
    sums = sums.index_add_(1, labels.flatten(), maps.flatten(1).double())
    return rounded(sums, largest(sums))


def _noise(x: torch.Tensor, generators) -> torch.Tensor:
    """Uniform in [0, 1], each image from its own generator."""
    fields = [torch.rand(x.shape[1:], generator=generator, dtype=x.dtype) for generator in generators]
    return on_device(torch.stack(fields), x.device)


@flipping_metric(
    "irof",
    range=(None, 1),
    passes="a forward for each superpixel",
    undefined="the probability of the target is 0",
    values="it is relative to the target's probability; `pixel-flipping` is in units",
    source="Rieger & Hansen 2020",
)
def irof(
    x: torch.Tensor,
    z: torch.Tensor,
    p: torch.Tensor,
    maps: torch.Tensor,
    segments,
    score,
    generator,
    *,
    segmenter: str = "slic",
    fill: str = "mean",
) -> Curve:
    """Area over the target's relative probability while superpixels are removed, highest mean attribution first.

    `1 − ∫ f(x_l) / f(x₀) d(l/L)`, l of the image's L superpixels removed, both ends included, by trapezoids. At most
    1 − 1/(2L), where the first superpixel takes all of the probability; below 0 where the probability grows; higher is
    better. NaN where f(x₀) is 0. Rieger & Hansen 2020, eq. 1 and 2 (IROF): superpixels of SLIC on the clean image,
    replaced by the mean colour of the data. Their area is in superpixels; this one is divided by L so that images can
    be averaged. Ties by a seeded order. L forwards for each image.
    """
    if maps.dim() != 3:
        raise NotApplicable(f"`irof` is for images, which have superpixels. Got {maps.dim() - 1} spatial dims.")
    labels = segments(segmenter)
    ranks, pieces = _piece_ranks(maps, labels, generator)
    counts = torch.arange(1, max(pieces) + 1).expand(len(z), -1)
    counts = torch.where(counts <= torch.tensor(pieces)[:, None], counts, -1)
    found = threshold_scores(z, masking.ground(masking.checked_fill(fill), x, z), ranks, counts, score)
    entire = torch.where(p > 0, p, torch.nan)[:, None].to(found)
    points = torch.cat([entire, found], 1) / entire
    own = [one[: count + 1] for one, count in zip(points, pieces, strict=True)]
    value = torch.stack([1 - area(one, shares(len(one) - 1)) for one in own])
    at = shares(POINTS - 1, z.device)
    return Curve(value, at, torch.stack([_between(one, at) for one in own]))


def _piece_ranks(maps: torch.Tensor, labels: torch.Tensor, generators) -> tuple[torch.Tensor, list[int]]:
    """Each pixel's rank, that of its superpixel by mean attribution, `(N, H, W)`; and each image's superpixels."""
    finite = torch.where(maps.isfinite(), maps, 0)
    ranks, pieces = [], []
    for one, of, known, generator in zip(finite, labels, on_host([labels])[0], generators, strict=True):
        means = segment_means(one, known)
        ranks.append(pixel_ranks(means[None], [generator])[0][of])
        pieces.append(len(means))
    return torch.stack(ranks), pieces


def _between(points: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """A curve of evenly spread points over [0, 1], read at other shares: straight lines."""
    position = at * (len(points) - 1)
    below = position.floor().long().clamp(max=len(points) - 2)
    return torch.lerp(points[below], points[below + 1], position - below)
