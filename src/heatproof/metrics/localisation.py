"""Localisation: does the map highlight the object, given a mask or a box (protocols §8)?

`mask` is true on the object. Where it is empty, the value is NaN. Where it covers the image, every map is right, and
only the area under the ROC curve, which needs pixels off the object, is NaN. Pixels of equal value count by their
expectation under a random order among them, so a plateau gains nothing from its position. No metric here needs a
network pass, and all of them work for signals and volumes too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from heatproof.errors import InvalidInput
from heatproof.flags import Flag
from heatproof.metrics.catalogue import metric
from heatproof.metrics.similarity import cosine
from heatproof.passes import check_int
from heatproof.rounding import rounded
from heatproof.tensors import upsampled
from heatproof.transfers import on_device, on_host

EMPTY = "the mask is empty"

Ranks = Callable[[str], torch.Tensor]

#: What the metrics of this file share, unless they say otherwise.
localisation_metric = partial(
    metric, family="localisation", better="high", range=(0, 1), passes="none", undefined=EMPTY
)


@localisation_metric(
    "pointing-game", degenerate=0, aliases=["pointing"], source="Zhang et al. 2018 (Excitation Backprop)"
)
def pointing_game(maps: torch.Tensor, mask: torch.Tensor, *, tolerance: int = 0) -> torch.Tensor:
    """Whether the highest pixel of the map is on the object.

    0 or 1; where several pixels share the maximum, the share of them that is on the object. `tolerance` in pixels: a
    pixel this near to the object is a hit as well (15 in Zhang et al. 2018, section 4.1; 0 by default, since a fixed
    distance means less in a larger image). Higher is better. NaN for an empty mask; a constant map scores 0.
    """
    tolerance = check_int("tolerance", tolerance, least=0)
    flat = maps.flatten(1)
    highest = rounded(flat - flat.amax(1, keepdim=True)) >= 0
    near = _grown(mask, tolerance).flatten(1)
    return _nan_without_object((highest & near).sum(1).double() / highest.sum(1), mask)


def peak_on_mask(maps: torch.Tensor, mask: torch.Tensor, flags: Sequence[Flag]) -> torch.Tensor:
    """`pointing_game` without tolerance, `(N,)` float64: 0 for a degenerate map, NaN for another flag.

    Args:
        maps: display maps `(N, *spatial)`; mask: bool of that shape; flags: one for each map.
    """
    values, objects = on_host([pointing_game(maps, on_device(mask, maps.device)), mask.flatten(1).any(1)])
    flat = torch.tensor([flag.degenerate for flag in flags], dtype=torch.bool)
    unusable = torch.tensor([bool(flag) for flag in flags], dtype=torch.bool) & ~flat
    values = torch.where(flat & objects, 0.0, values)
    return torch.where(unusable, torch.nan, values)


@localisation_metric(
    "energy",
    degenerate=0,
    aliases=["energy-pointing-game", "energy-inside", "relevance-mass", "relevance-mass-accuracy", "rma"],
    source="Wang et al. 2020 (Score-CAM), section 4.3; Arras et al. 2022 (relevance mass)",
)
def energy(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The share of the map that lies on the object: `Σ m inside / Σ m`.

    In [0, 1], higher is better. Of the display map, whose minimum is 0. NaN for an empty mask; a constant map scores 0.
    """
    return _nan_without_object(_share_inside(maps, mask), mask)


@localisation_metric(
    "relevance-rank", aliases=["relevance-rank-accuracy", "rra"], source="Arras et al. 2022 (CLEVR-XAI)"
)
def relevance_rank(ranks: Ranks, mask: torch.Tensor) -> torch.Tensor:
    """The share of the n highest pixels that is on the object, with n the number of its pixels.

    In [0, 1], higher is better; ties count by expectation, so a constant map scores the object's share of the
    image. NaN for an empty mask.
    """
    groups = Groups.of(ranks("block"), mask)
    return _nan_without_object(groups.inside_top(groups.positives) / groups.positives, mask)


@localisation_metric("top-k-intersection", aliases=["tki", "top-k"], source="Theiner et al. 2021")
def top_k_intersection(ranks: Ranks, mask: torch.Tensor, *, k: float = 0.02) -> torch.Tensor:
    """The share of the k highest pixels that is on the object: `|top-k ∩ object| / k`.

    `k` is a number of pixels, or below 1 a share of the image; .02 is about the 1000 pixels of Quantus at 224². At most
    `|object| / k`. In [0, 1], higher is better; ties count by expectation. NaN for an empty mask.
    """
    pixels = mask[0].numel() if len(mask) else 1
    count = min(_pixels(k, pixels), pixels)
    return _nan_without_object(Groups.of(ranks("block"), mask).inside_top(count) / count, mask)


@localisation_metric(
    "iou", degenerate=0, aliases=["intersection-over-union", "jaccard"], source="Zhou et al. 2016 (CAM), there of boxes"
)
def iou(maps: torch.Tensor, mask: torch.Tensor, *, threshold: float = 0.5) -> torch.Tensor:
    """Intersection over union of the object and of the map where it reaches `threshold` of its maximum.

    There is no common threshold: boxes are drawn at .2 (Zhou et al. 2016) or .15 (Grad-CAM), and Choe et al. 2020 show
    that the best one differs between methods. `average-precision` needs none. In [0, 1], higher is better. NaN for
    an empty mask; a constant map scores 0.
    """
    if not 0 < threshold <= 1:
        raise InvalidInput(f"`threshold` must be above 0 and at most 1. Got {threshold}.")
    flat, inside = maps.flatten(1), mask.flatten(1)
    shown = rounded(flat.double() - threshold) >= 0
    return _nan_without_object((shown & inside).sum(1).double() / (shown | inside).sum(1), mask)


@localisation_metric(
    "roc-auc", undefined="the mask is empty or covers the image", aliases=["localisation-auc"], source="Fawcett 2006"
)
def roc_auc(ranks: Ranks, mask: torch.Tensor) -> torch.Tensor:
    """The chance that a pixel of the object is higher in the map than one off it (ties count one half).

    Area under the ROC curve of pixels. In [0, 1], higher is better, .5 by chance and for a constant map. NaN where the
    mask is empty or covers the image.
    """
    groups = Groups.of(ranks("block"), mask)
    negatives = groups.size - groups.hits
    below = negatives.flip(1).cumsum(1).flip(1) - negatives
    won = (groups.hits * (below + negatives / 2)).sum(1)
    return _nan_without_object(won / (groups.positives * negatives.sum(1)), mask)


@localisation_metric(
    "average-precision", aliases=["ap", "pxap"], source="Choe et al. 2020 (PxAP), of each image by itself"
)
def average_precision(ranks: Ranks, mask: torch.Tensor) -> torch.Tensor:
    """Precision of the pixels above a threshold, averaged over the object's pixels: `Σ (R_i − R_(i−1)) P_i`.

    Thresholds are the values of the map, as in scikit-learn. In [0, 1], higher is better; a constant map scores the
    object's share of the image. NaN for an empty mask.
    """
    groups = Groups.of(ranks("block"), mask)
    precision = groups.hits.cumsum(1) / groups.size.cumsum(1).clamp(min=1)
    return _nan_without_object((groups.hits * precision).sum(1) / groups.positives, mask)


@localisation_metric("mask-cosine", degenerate=0, source="Domeniconi et al. 2026, section 3.4")
def mask_cosine(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of the map and the mask.

    In [0, 1], higher is better; a perfect map scores 1. NaN for an empty mask; a degenerate map scores 0 (the function
    alone gives NaN for a map of zeros). Domeniconi et al. 2026, section 3.4.
    """
    one, other = (part.unflatten(1, (1, -1)) if part.dim() == 2 else part.flatten(2) for part in (maps, mask))
    return cosine(one, other.to(one.dtype))


@localisation_metric(
    "grid-pointing-game",
    mosaics=True,
    degenerate=0,
    undefined="the mask is empty, or nothing in the map is positive",
    aliases=["gridpg", "localisation-metric"],
    source="Böhle et al. 2021 (CoDA-Nets), section 4.2",
)
def grid_pointing_game(raw: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The share of the positive attribution that lies in the mask: `Σ relu(a) inside / Σ relu(a)`.

    It is played on mosaics of images of different classes, with the cell of the target as mask
    (`heatproof.data.mosaics` makes both): 1 / cells by chance. On other images it is `energy` once more, so families
    and studies leave it out there. It reads the raw map, in which 0 is neutral: channels
    are summed, maps at a layer's resolution upsampled after the ReLU. In [0, 1], higher is better. NaN for an empty
    mask and where nothing is positive; a constant map scores 0.
    """
    signed = raw.sum(1) if raw.dim() > mask.dim() else raw
    return _nan_without_object(_share_inside(upsampled(signed.relu(), tuple(mask.shape[1:])), mask), mask)


@dataclass(frozen=True)
class Groups:
    """The pixels of each map by groups of equal value, each kept at the rank of its first pixel.

    first `(P,)`: that rank. size, hits `(N, P)` float64: how many pixels the group has, and how many of them are on the
    object; 0 at ranks where no group begins. positives `(N,)`: pixels of the object.
    """

    first: torch.Tensor
    size: torch.Tensor
    hits: torch.Tensor
    positives: torch.Tensor

    @classmethod
    def of(cls, blocks: torch.Tensor, mask: torch.Tensor) -> "Groups":
        """From ranks with ties as blocks."""
        ranks, inside = blocks.flatten(1), mask.flatten(1).double()
        zeros = torch.zeros_like(inside)
        first = torch.arange(ranks.shape[1], dtype=torch.float64, device=ranks.device)
        size = zeros.scatter_add(1, ranks, torch.ones_like(inside))
        return cls(first, size, zeros.scatter_add(1, ranks, inside), inside.sum(1))

    def inside_top(self, count: torch.Tensor | int) -> torch.Tensor:
        """How many of the `count` highest pixels are on the object, by expectation where a group is cut."""
        count = count[:, None] if isinstance(count, torch.Tensor) else count
        taken = ((count - self.first) / self.size.clamp(min=1)).clamp(0, 1)
        return (self.hits * taken).sum(1)


def _share_inside(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    flat = values.flatten(1).double()
    return torch.where(mask.flatten(1), flat, 0).sum(1) / flat.sum(1)


def _nan_without_object(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """NaN where there is no object."""
    return torch.where(mask.flatten(1).any(1), values, torch.nan)


def _pixels(k: float, pixels: int) -> int:
    """A number of pixels, or a share of all: at least one."""
    if not (math.isfinite(k) and k > 0):
        raise InvalidInput(f"`k` must be above 0: a number of pixels, or below 1 a share of the image. Got {k}.")
    return max(1, round(k * pixels)) if k < 1 else check_int("k", k)


def _grown(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """The mask and all pixels within `reach` of it."""
    if reach == 0:
        return mask
    dims = mask.dim() - 1
    steps = torch.arange(-reach, reach + 1, device=mask.device)
    squares = sum(axis.square() for axis in torch.meshgrid(*[steps] * dims, indexing="ij"))
    ball = (squares <= reach**2).float()  # type: ignore[union-attr]
    spread = (F.conv1d, F.conv2d, F.conv3d)[dims - 1](mask[:, None].float(), ball[None, None], padding=reach)
    return spread[:, 0] > 0.5
