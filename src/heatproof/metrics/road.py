"""ROAD: the target's probability after pixels are removed and imputed from those around them (protocols §7).

Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML). Removed pixels are
imputed linearly from their neighbours, and a little noise in `z` hides that they are smooth.

The noise is part of the definition: with and without it ROAD of one photograph differs by up to .09. Which noise is
drawn hardly matters: over 12 draws the ROAD of Grad-CAM for MobileNetV2 has a standard deviation of .002 in the mean of
eight photographs, .003 at most. One field for all fractions, one for each, and fields of opposite signs have the same,
so one is drawn; `draws` averages several.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from heatproof.errors import InvalidInput, NotApplicable
from heatproof.imputation import imputed
from heatproof.metrics.catalogue import Curve, metric
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.transfers import on_device

SOURCE = "Rong et al. 2022 (ROAD)"
PASSES = "2 forwards for each of kept and each of draws, shared by all ROAD metrics"
NOTHING_LEFT = "tied pixels went together, and none was left to fill the others from"


class Removal(NamedTuple):
    """The target's score when pixels are imputed.

    morf, lerf: `(N, P)` float64, the score with the most and with the least relevant pixels removed.
    residual: `(N, P, 2)` float64, relative residual of the imputations, most relevant first and least relevant first.
    """

    morf: torch.Tensor
    lerf: torch.Tensor
    residual: torch.Tensor


#: What the metrics of this file share, unless they say otherwise.
road_metric = partial(
    metric, family="road", better="high", range=(0, 1), passes=PASSES, undefined=NOTHING_LEFT, values="units"
)


@road_metric("road", range=(-0.5, 0.5), source=SOURCE, aliases=["road-combined"])
def road(
    removal: Callable[..., Removal],
    *,
    kept: str = "20 40 60 80",
    ties: str = "jitter",
    noise: float = 0.01,
    draws: int = 1,
) -> Curve:
    """How much more the target loses with its most than with its least relevant pixels: `mean_P (p_LeRF − p_MoRF) / 2`.

    P percent of the pixels are kept, the others imputed (`removal_scores`). The curve has the term of every P, over
    the share removed. In [−.5, .5], higher is better, 0 for a random order on average. The probability of the image
    itself, which the reference implementation subtracts from both, cancels. NaN where `ties="block"` removes every
    pixel.

    Args:
        kept: percentages of pixels that stay.
        ties: `jitter` removes exactly that many; `block` all of a tie group, as the reference implementation.
        noise: standard deviation of what is added to imputed pixels, in `z`.
        draws: fields of noise over which the probabilities are averaged; each costs as many passes as the first.

    Raises:
        InvalidInput: a percentage that is not between 0 and 100, noise below 0, or no draw.
        NotApplicable: signals and volumes.
    """
    percents, found = _removal(removal, kept, ties, noise, draws)
    return _curve((found.lerf - found.morf) / 2, percents)


@road_metric("road-morf", better="low", source=SOURCE, aliases=["road-most-relevant-first"])
def road_morf(
    removal: Callable[..., Removal],
    *,
    kept: str = "20 40 60 80",
    ties: str = "jitter",
    noise: float = 0.01,
    draws: int = 1,
) -> Curve:
    """The target's probability when its most relevant pixels are imputed, `mean_P p_MoRF`.

    In [0, 1], lower is better. The reference implementation subtracts the image's own probability. Options, NaN and
    errors as in `road`.
    """
    percents, found = _removal(removal, kept, ties, noise, draws)
    return _curve(found.morf, percents)


@road_metric("road-lerf", source=SOURCE, aliases=["road-least-relevant-first"])
def road_lerf(
    removal: Callable[..., Removal],
    *,
    kept: str = "20 40 60 80",
    ties: str = "jitter",
    noise: float = 0.01,
    draws: int = 1,
) -> Curve:
    """The target's probability when its least relevant pixels are imputed, `mean_P p_LeRF`.

    In [0, 1], higher is better. The reference implementation subtracts the image's own probability. Options, NaN and
    errors as in `road`.
    """
    percents, found = _removal(removal, kept, ties, noise, draws)
    return _curve(found.lerf, percents)


def removal_scores(
    z: torch.Tensor,
    ranks: torch.Tensor,
    score: Callable[..., torch.Tensor],
    generator: Sequence[torch.Generator],
    *,
    kept: Sequence[float] = (20, 40, 60, 80),
    noise: float = 0.01,
    draws: int = 1,
) -> Removal:
    """The target's score on images with the top, and with the bottom, (100 − P) % of their pixels imputed.

    Of n pixels `⌈(n − 1) P / 100⌉` stay, which is how many lie below NumPy's percentile in the reference
    implementation. Pixels of one rank (`ties="block"`) are removed together. The noise is one field for each image,
    so that fractions, both directions and all methods share it; kept pixels get none. Scores are averaged over `draws`
    of them. Two network passes for each image, P and draw.

    Args:
        z: images `(N, C, H, W)`, normalised.
        ranks: `(N, H, W)`, 0 the most important; tied pixels have the first rank of their group.
        score: `score(images, rows)`, the target's score of variants of the images `rows`.
        generator: one for each image.
        kept: percentages P. noise: standard deviation. draws: fields of noise for each image.
    """
    if z.dim() != 4:
        raise NotApplicable(
            f"ROAD imputes the pixels of images (N, C, H, W). Got {tuple(z.shape)}. Take `deletion` or `insertion`."
        )
    fields = _noise(z, generator, noise, check_int("draws", draws))
    flat, count = ranks.flatten(1), 2 * len(kept)
    goes = [_masks_to_remove(flat, percent) for percent in kept]
    masks = torch.stack([mask for pair in goes for mask in pair], 1).view(len(z), count, *z.shape[2:])
    values, residual = [], []
    for part in parts(len(z) * count, rows_per_pass(z)):
        positions = torch.arange(part.start, part.stop, device=z.device)
        rows, removed = positions // count, masks.flatten(0, 1)[part]
        filled, where = imputed(z[rows], removed), removed[:, None].to(z.dtype)
        noisy = (filled.images if field is None else filled.images.addcmul(field[rows], where) for field in fields)
        values.append(sum(score(images, rows) for images in noisy) / len(fields))
        residual.append(filled.residual)
    found, rest = (torch.cat(each).view(len(z), len(kept), 2) for each in (values, residual))
    return Removal(found[..., 0], found[..., 1], rest)


def _masks_to_remove(ranks: torch.Tensor, percent: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The most, and the least, important pixels of `(N, n)` ranks to remove, so that about `percent` stay."""
    count = ranks.shape[1]
    stay = math.ceil((count - 1) * percent / 100 - 1e-9)
    # The group that holds the first rank of the bottom is removed whole; its rank is the largest up to that one.
    first = torch.where(ranks <= stay, ranks, 0).amax(1, keepdim=True)
    return ranks < count - stay, ranks >= first


def _noise(
    z: torch.Tensor, generator: Sequence[torch.Generator], std: float, draws: int
) -> Sequence[torch.Tensor | None]:
    """Fields of the shape of `z`, one for each draw; without noise none, once."""
    if not std >= 0 or math.isinf(std):
        raise InvalidInput(f"`noise` must be at least 0 and finite. Got {std}.")
    if std == 0:
        return [None]
    return [
        on_device(
            torch.stack([torch.randn(z.shape[1:], generator=each) for each in generator]).mul_(std), z.device, z.dtype
        )
        for _ in range(draws)
    ]


def _removal(
    removal: Callable[..., Removal], kept: str, ties: str, noise: float, draws: int
) -> tuple[tuple[float, ...], Removal]:
    percents = _percents(kept)
    return percents, removal(kept=percents, ties=ties, noise=noise, draws=draws)


def _percents(kept: str) -> tuple[float, ...]:
    """`"20 40 60 80"` → the numbers, in order, each once."""
    try:
        numbers = sorted({float(word) for word in str(kept).replace(",", " ").split()})
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < 100 for number in numbers):
        raise InvalidInput(f"`kept` must be percents between 0 and 100, such as '20 40 60 80'. Got {kept!r}.")
    return tuple(numbers)


def _curve(points: torch.Tensor, percents: Sequence[float]) -> Curve:
    """Over the share removed, from few pixels to many."""
    at = 1 - on_device(torch.tensor(percents, dtype=torch.float64), points.device) / 100
    return Curve(points.mean(1), at.flip(0), points.flip(1))
