"""Fidelity by correlation: does the network's output change as the map predicts for groups or subsets of pixels?

A map that gives all groups or subsets the same attribution, though the outputs differ, predicts nothing: 0, as for a
constant map. Where all outputs are alike there is nothing to predict, for any method: NaN.
"""

from collections.abc import Sequence
from functools import partial

import torch

from heatproof.errors import InvalidInput
from heatproof.masking import checked_fill, ground, masked
from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.rankings import ranking_of, spearman
from heatproof.metrics.sampling import random_images, signed, streamed
from heatproof.models import Model
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.rounding import ANSWER_STEP, STEP, answer_scale, largest, rounded
from heatproof.tensors import per_image
from heatproof.transfers import on_device

UNDEFINED = "the answers of the network do not vary"

#: What the metrics of this file share, unless they say otherwise.
correlation_metric = partial(
    metric, family="fidelity", better="high", range=(-1, 1), degenerate=0.0, undefined=UNDEFINED
)


@correlation_metric(
    "monotonicity-correlation",
    passes="groups · samples forwards",
    source="Nguyen & Martínez 2020; groups as in Zhang et al. 2024",
)
def monotonicity_correlation(
    z: torch.Tensor,
    p: torch.Tensor,
    maps: torch.Tensor,
    ranks,
    score,
    model: Model,
    values,
    generator,
    *,
    groups: int = 7,
    samples: int = 10,
) -> torch.Tensor:
    """Spearman correlation of a group's attribution with `E[(p(x') − p)²]`, x' having random pixels in the group.

    Pixels are split by rank into `groups` of equal size, and become U[0, 1] in x, each channel by itself. A
    group's attribution is the mean of its display map: a sum would depend on sizes, which may differ by a pixel.
    `(N,)`, in [−1, 1], higher is better; ties get their mean rank. Changes tie where five digits of a logit do not
    distinguish their `√E`. 0 where all groups have the same attribution and for a degenerate map, NaN where all changes
    are alike.

    Nguyen & Martínez 2020 use groups of one pixel. Seven groups, and ten draws, are paper F's: 7168 pixels each at
    224². Quantus 0.6.0 draws one value for a whole group, U[0, 1] in z, which is not the range of images; its division
    by p² changes no rank. One random image serves all groups here, as they share no pixel.

    Args:
        groups: number of groups, from the highest to the lowest pixels.
        samples: number of random images.
    """
    groups, samples, pixels = check_int("groups", groups, 2), check_int("samples", samples), maps[0].numel()
    if groups > pixels:
        raise InvalidInput(f"`groups` must be at most {pixels}, the pixels of an image. Got {groups}.")
    group = ranks() * groups // pixels
    means = torch.zeros(len(z), groups, dtype=torch.float64, device=z.device)
    means.scatter_reduce_(1, group.flatten(1), maps.flatten(1).double(), "mean", include_self=False)

    def change(rows: torch.Tensor, _turn: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
        drawn, found = random_images(owners, z, model, generator), []
        for part in parts(groups, rows_per_pass(z)):
            some = torch.arange(groups, device=z.device)[part]
            here = group[rows, None] == per_image(some, group)
            variants = torch.where(here[:, :, None], drawn[:, None], z[rows, None]).flatten(0, 1)
            found.append(score(variants, rows.repeat_interleave(len(some))).view(len(rows), -1))
        return (torch.cat(found, 1) - p[rows, None]).square()

    # Ranked by the root, which has the same order and the rounding error of p.
    changes = streamed(len(z), samples, z, change, group=groups).mean(1).sqrt()
    changes = rounded(changes, answer_scale(p[:, None], values), ANSWER_STEP)
    means = rounded(means)
    return _zero_where_constant(spearman(ranking_of(means), ranking_of(changes)), means, changes)


@correlation_metric(
    "faithfulness-correlation", passes="samples forwards, once for all methods", source="Bhatt et al. 2020"
)
def faithfulness_correlation(
    x: torch.Tensor,
    z: torch.Tensor,
    maps: torch.Tensor,
    raw: torch.Tensor,
    score,
    generator,
    shared,
    *,
    samples: int = 100,
    subset: int = 224,
    fill: str = "mean",
    of: str = "logit",
) -> torch.Tensor:
    """Pearson correlation of `Σ_{i∈S} a_i` with `f(x) − f(x without S)` over random subsets S of one size.

    a is the signed map at the image's size, channels summed; f is the logit of the target (the probability saturates,
    and then changes by rounding only). A subset holds pixels, all channels together. `(N,)`, in [−1, 1], higher is
    better. 0 where all sums are alike and for a degenerate map, NaN where all outputs are alike. f(x) is constant and
    cancels, so it needs no pass.

    100 subsets of 224 are the values of Quantus, whose subsets hold values of single channels and whose black is the
    image's own minimum.

    Args:
        samples: number of subsets; they are the same for every method.
        subset: pixels in each; on small images at most half of them.
        fill: what removed pixels become.
        of: `logit` or `probability`.
    """
    samples, subset, pixels = check_int("samples", samples, 3), check_int("subset", subset), maps[0].numel()
    subset = min(subset, pixels // 2)
    found = _removals(x, z, signed(raw, maps), score, generator, shared, samples, [subset], fill, of)
    sums, drops = (one[:, 0] for one in found)
    return _zero_where_constant(pearson(sums, drops), sums, drops)


@correlation_metric(
    "sensitivity-n", passes="steps · samples forwards, once for all methods", source="Ancona et al. 2018"
)
def sensitivity_n(
    x: torch.Tensor,
    z: torch.Tensor,
    maps: torch.Tensor,
    raw: torch.Tensor,
    score,
    generator,
    shared,
    *,
    samples: int = 100,
    steps: int = 10,
    largest: float = 0.8,
    fill: str = "mean",
    of: str = "logit",
) -> Curve:
    """Pearson correlation of `Σ_{i∈S} a_i` with `f(x) − f(x without S)` over subsets of n pixels, averaged over n.

    As `faithfulness-correlation`, for `steps` sizes n from 1 to `largest` of all pixels, on a log scale. The curve has
    the correlation at each n / pixels. In [−1, 1], higher is better: 1 at every n where the map is exactly additive, as
    input × gradient is on a linear network. A size at which all sums are alike counts as 0. A size at which all outputs
    are alike is left out, for every method; NaN where every size is. 0 for a degenerate map.

    Ancona et al. 2018: 100 subsets of each size, up to about 80 % of the pixels, zeros in z, logits. The metric that
    Quantus calls by this name removes the top pixels step by step and correlates over images.

    Args:
        samples: subsets of each size; they are the same for every method.
        steps: number of sizes; those that coincide on a small image are taken once.
        largest: the last size as a share of the pixels.
        fill: what removed pixels become.
        of: `logit` or `probability`.
    """
    samples = check_int("samples", samples, 3)
    sizes = _sizes(maps[0].numel(), check_int("steps", steps), largest)
    sums, drops = _removals(x, z, signed(raw, maps), score, generator, shared, samples, sizes, fill, of)
    points = _zero_where_constant(pearson(sums, drops), sums, drops)
    return Curve(points.nanmean(1), on_device(torch.tensor(sizes), z.device).double() / maps[0].numel(), points)


def _sizes(pixels: int, steps: int, largest: float) -> list[int]:
    """Sizes of subsets, from 1 to `largest` of the pixels on a log scale, each once."""
    if not 0 < largest < 1:
        raise InvalidInput(f"`largest` must be between 0 and 1. Got {largest!r}.")
    last = max(1.0, largest * pixels)
    return sorted({round(last ** (i / max(1, steps - 1))) for i in range(steps)})


def _removals(
    x: torch.Tensor,
    z: torch.Tensor,
    attributions: torch.Tensor,
    score,
    generator,
    shared,
    samples: int,
    sizes: list[int],
    fill: str,
    of: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of attributions over random subsets of each of `sizes`, and −f without these: both `(N, sizes, samples)`.

    The subsets of one sample are nested: the first n pixels of one shuffle. Subsets and outputs are the same for every
    map, so only the sums are computed anew.
    """
    background, key = ground(checked_fill(fill), x, z), (fill, of, samples, *sizes)
    last = on_device(torch.tensor(sizes) - 1, z.device)
    sums, answers = [], []
    for row, flat in enumerate(attributions.flatten(1)):
        drawn = [torch.randperm(len(flat), generator=generator[row])[: sizes[-1]] for _ in range(samples)]
        order = on_device(torch.stack(drawn), z.device)
        sums.append(flat[order].cumsum(1)[:, last].T)
        if key not in shared:
            answers.append(_without(z[row], background[row], order, sizes, partial(_ask, score, row, of)))
    if key not in shared:
        shared[key] = torch.stack(answers)
    return torch.stack(sums), -shared[key]


def _ask(score, row: int, of: str, variants: torch.Tensor) -> torch.Tensor:
    return score(variants, torch.full((len(variants),), row, device=variants.device), of=of)


def _without(z: torch.Tensor, background: torch.Tensor, order: torch.Tensor, sizes: list[int], ask) -> torch.Tensor:
    """The outputs for one image without the first n pixels of each row of `order`, `(sizes, samples)`."""
    pairs = [(one, size) for size in sizes for one in range(len(order))]
    found = []
    for part in parts(len(pairs), rows_per_pass(z[None])):
        gone = torch.zeros(len(pairs[part]), z[0].numel(), dtype=torch.bool, device=z.device)
        for mask, (one, size) in zip(gone, pairs[part], strict=True):
            mask[order[one, :size]] = True
        found.append(ask(masked(z, ~gone.view(-1, *z.shape[1:]), background)))
    return torch.cat(found).view(len(sizes), len(order))


def _zero_where_constant(value: torch.Tensor, attributed: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """The correlation; 0 where all attributions are alike and the outputs differ."""
    return torch.where(~_varies(attributed) & _varies(observed, ANSWER_STEP), 0.0, value)


def pearson(attributed: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Pearson correlation over the last dimension, in [−1, 1]; NaN where either is constant.

    Constant is meant to six digits of the attributions, `attributed`, and to five of the outputs, `observed`.
    """
    a, b = (values - values.mean(-1, keepdim=True) for values in (attributed, observed))
    value = (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return value.clamp(-1, 1).masked_fill(~(_varies(attributed) & _varies(observed, ANSWER_STEP)), torch.nan)


def _varies(values: torch.Tensor, step: float = STEP) -> torch.Tensor:
    """Whether they differ by more than rounding; false if one is not finite."""
    span = values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True)
    return ((rounded(span, largest(values), step) > 0) & span.isfinite())[..., 0]
