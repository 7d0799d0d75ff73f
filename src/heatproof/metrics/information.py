"""Performance information curves: how the prediction recovers while the image's information is restored.

The start is an image of which almost nothing is known. The most important pixels are restored; everything else is
filled in smoothly from known pixels. The information in such an image is its size under lossless compression.
"""

import io
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from heatproof.errors import InvalidInput, NotApplicable
from heatproof.imputation import imputed
from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.curves import area, shares
from heatproof.passes import parts, rows_per_pass
from heatproof.rounding import ANSWER_STEP, behind_largest, logit_scale, rounded
from heatproof.transfers import on_device

#: Shares of pixels restored, those of the public library.
THRESHOLDS = "0.005 0.01 0.02 0.03 0.04 0.05 0.07 0.1 0.13 0.21 0.34 0.5 0.75"
#: Share of pixels, drawn at random, that are known from the start; the corners are known too.
KNOWN = 0.01
#: Effort of WebP, 0 to 100: sizes are within 1 % of those at 100, in a quarter of the time.
EFFORT = 50
#: Points of the returned curve.
POINTS = 101
PIC = "Kapishnikov et al. 2019 (XRAI)"


class Information(NamedTuple):
    """Images while pixels are restored: `bytes` `(N, T + 2)` and `probabilities` `(N, T + 2, K)`.

    First the start, then one for each threshold, last the whole image.
    """

    bytes: torch.Tensor
    probabilities: torch.Tensor


#: What the metrics of this file share, unless they say otherwise.
information_metric = partial(
    metric,
    family="fidelity",
    better="high",
    range=(0, 1),
    passes="a forward for each threshold, 1 forward; one set for `sic` and `aic`",
)


@information_metric(
    "sic",
    undefined="what is known from the start says as much to the network as the image, or takes as much to store",
    values="it scales the target's probability and clips it to [0, 1]",
    aliases=["softmax-information-curve"],
    source=PIC,
)
def sic(
    target: torch.Tensor,
    information,
    *,
    thresholds: str = THRESHOLDS,
    ties: str = "jitter",
) -> Curve:
    """Area under the target's probability over the information restored, most important pixels first.

    Both are scaled so that the start is 0 and the whole image is 1, and clipped to [0, 1]. The curve joins the two,
    is made monotone by a running maximum, and is integrated by trapezoids. In [0, 1], higher is better. NaN where the
    probability or the size of the whole image is no larger than at the start. Kapishnikov et al. 2019, section 4, with
    the settings of the authors' library (PAIR-code/saliency, `pic`): its thresholds; 1 % of the pixels, drawn at
    random, and the corners are known from the start; the information is the size as lossless WebP, 8 bits. Deviations:
    unknown pixels are ROAD's weighted means (theirs: linear between the known ones, in triangles); the running maximum
    is taken along the information, and not the thresholds; an image of low confidence (theirs: below .8) is not left
    out. One forward for each threshold and one for the start.
    """
    found = information(_thresholds(thresholds), ties)
    own = found.probabilities[torch.arange(len(target), device=target.device), :, target]
    return _curve(found.bytes, _scale_to_unit(own, torch.maximum(logit_scale(own[:, :1]), logit_scale(own[:, -1:]))))


@information_metric(
    "aic",
    degenerate=0,
    undefined="the image holds no more information than what is known from the start",
    values="it asks for the predicted class",
    aliases=["accuracy-information-curve"],
    source=PIC,
)
def aic(
    target: torch.Tensor,
    information,
    *,
    thresholds: str = THRESHOLDS,
    ties: str = "jitter",
) -> Curve:
    """The share of the image's information that is not needed for the target to be the predicted class.

    Area under `1[f_target = max f]` over the information restored, most important pixels first; parameters and
    cost as in `sic`. In [0, 1], higher is better. An image whose target is predicted at the start scores 1 whatever
    the map; one whose target is not predicted on the whole image scores about 0. The paper's mean over images includes
    both (its library leaves them out). NaN where the whole image has no more bytes than the start. A constant
    map scores 0.
    """
    found = information(_thresholds(thresholds), ties)
    behind = behind_largest(found.probabilities.log())
    predicted = (behind.gather(2, target.view(-1, 1, 1).expand(-1, behind.shape[1], 1))[..., 0] >= 0).double()
    return _curve(found.bytes, torch.where(found.probabilities.sum(2).isnan(), torch.nan, predicted))


def _thresholds(text: str) -> list[float]:
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if not values or not all(0 < value < 1 for value in values) or values != sorted(set(values)):
        raise InvalidInput(f"`thresholds` must be rising shares between 0 and 1, such as '0.1 0.5'. Got {text!r}.")
    return values


def image_information(
    x: torch.Tensor,
    ranks: torch.Tensor,
    generators: Sequence[torch.Generator],
    model,
    probabilities,
    thresholds: Sequence[float],
    logits: torch.Tensor,
) -> Information:
    """Size and probabilities of the images at every threshold, `rows_per_pass` at a time."""
    if x.dim() != 4:
        raise NotApplicable(f"Information is that of an image (N, C, H, W). Got {tuple(x.shape)}.")
    if not model.normalises and (float(x.nan_to_num().amin()) < 0 or float(x.nan_to_num().amax()) > 1):
        raise NotApplicable(
            "Information is that of an image of 8 bits, and these are not in [0, 1]. Give mean and std to the model, "
            "and images in [0, 1]."
        )
    n = ranks[0].numel()
    known = _known_from_start(x, generators)
    counts = on_device(torch.tensor([0, *(round(share * n) for share in thresholds)]), x.device)
    images = torch.arange(len(x), device=x.device).repeat_interleave(len(counts))
    limits = counts.repeat(len(x))
    sizes, answers = [], []
    for part in parts(len(images), rows_per_pass(x)):
        which = images[part]
        kept = known[which] | (ranks[which] < limits[part].view(-1, 1, 1))
        filled = imputed(x[which].nan_to_num(), ~kept).images.clamp(0, 1)
        sizes.append(stored_bytes(filled))
        answers.append(probabilities(model.normalise(filled)))
    shape = (len(x), len(counts))
    whole = on_device(stored_bytes(x)[:, None], x.device)
    return Information(
        torch.cat([on_device(torch.cat(sizes).view(shape), x.device), whole], 1),
        torch.cat([torch.cat(answers).view(*shape, -1), model.probabilities(logits)[:, None]], 1),
    )


def _known_from_start(x: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The pixels known from the start, `(N, H, W)`: the same for every method."""
    height, width = x.shape[2:]
    known = torch.zeros(len(x), height * width, dtype=torch.bool)
    for one, generator in zip(known, generators, strict=True):
        one[torch.randperm(len(one), generator=generator)[: int(KNOWN * len(one))]] = True
    known = known.view(-1, height, width)
    known[:, :: max(1, height - 1), :: max(1, width - 1)] = True
    return on_device(known, x.device)


def stored_bytes(x: torch.Tensor) -> torch.Tensor:
    """The size of images in [0, 1] as lossless WebP of 8 bits, `(N,)` float64; one at a time, on the CPU.

    The format has three channels: another number of channels is stored as so many grey images.
    """
    images = (x.nan_to_num().clamp(0, 1) * 255).round().byte().cpu()
    if x.shape[1] == 3:
        return torch.tensor([_webp_bytes(one) for one in images], dtype=torch.float64)
    return torch.tensor([sum(_webp_bytes(channel[None]) for channel in one) for one in images], dtype=torch.float64)


def _webp_bytes(image: torch.Tensor) -> int:
    """The size of an image `(1 or 3, H, W)` of bytes."""
    from PIL import Image

    file = io.BytesIO()
    opened = Image.fromarray(image.movedim(0, -1).expand(-1, -1, 3).contiguous().numpy())
    opened.save(file, format="webp", lossless=True, quality=EFFORT)
    return len(file.getvalue())


def _curve(information: torch.Tensor, performance: torch.Tensor) -> Curve:
    """From the start (first column) to the whole image (last): a rising curve over shares of the information."""
    given = _scale_to_unit(information)
    undefined = performance.isnan().any(1) | given.isnan().any(1)
    at, order = given.nan_to_num().sort(dim=1, stable=True)
    points = performance.nan_to_num().gather(1, order).cummax(1).values
    # A curve of ones has an area of one: the sum of the shares is rounded.
    value = torch.stack([area(one, where) for one, where in zip(points, at, strict=True)]).round(decimals=12)
    grid = shares(POINTS - 1, points.device)
    drawn = torch.stack([_between(one, where, grid) for one, where in zip(points, at, strict=True)])
    return Curve(value.masked_fill(undefined, torch.nan), grid, drawn.masked_fill(undefined[:, None], torch.nan))


def _scale_to_unit(values: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """First column 0, last column 1, clipped; NaN where the last is not above the first to the digits of `scale`."""
    first, last = values[:, :1], values[:, -1:]
    room = last - first
    room = torch.where(rounded(room, scale, ANSWER_STEP) > 0, room, torch.nan)
    return ((values - first) / room).clamp(0, 1)


def _between(points: torch.Tensor, at: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Straight lines between `(at, points)`, `at` rising from 0 to 1, read at the shares of `grid`."""
    above = torch.searchsorted(at, grid, right=True).clamp(1, len(at) - 1)
    low, high = at[above - 1], at[above]
    share = torch.where(high > low, (grid - low) / (high - low), 1.0)
    return torch.lerp(points[above - 1], points[above], share)
