"""Sanity: does the map change with the network and with the class (protocols §8)?

A map that stays the same when the weights are randomised or another class is explained depends on neither; an edge
detector would do. A method's random numbers stay those of the original map, so that only the weights or the class can
change it: a map that ignores the network is identical, even the control `random`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from heatproof.errors import InvalidInput
from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.coherency import pearson
from heatproof.metrics.sensitivity import of_normalised
from heatproof.metrics.similarity import ssim
from heatproof.models import Model
from heatproof.models.randomisation import ORDERS, Randomised
from heatproof.passes import check_int
from heatproof.registry import unknown
from heatproof.rounding import rounded
from heatproof.transfers import on_device

Explain = Callable[..., torch.Tensor]

#: Bins of the histogram whose entropy `efficient-mprt` takes.
BINS = 100

#: What the metrics of this file share, unless they say otherwise.
sanity_metric = partial(
    metric,
    family="sanity",
    better="low",
    range=(-1, 1),
    degenerate=1,
    undefined="the map is constant, or too small for SSIM",
)


@sanity_metric(
    "mprt",
    passes="stages explanations",
    aliases=["model-parameter-randomisation", "parameter-randomisation"],
    source="Adebayo et al. 2018",
)
def mprt(
    x: torch.Tensor,
    maps: torch.Tensor,
    explain: Explain,
    model: Model,
    seed: int,
    *,
    order: str = "cascading",
    similarity: str = "spearman",
    stages: int = 10,
) -> Curve:
    """Similarity of the map to those of the network with randomised weights, averaged over the stages.

    The layers with weights are randomised in at most `stages` blocks (0: each layer by itself). `order`: `cascading`
    from the output to the input, `bottom-up` from the input to the output, each block on top of those before;
    `independent`, each block alone. `similarity`: `spearman` of all pixels or `ssim` (on 56²). The intact network is no
    stage. In [−1, 1], lower is better; 0 is expected of unrelated maps, and is the value of `spearman` where the new
    map is constant. A constant map scores 1. The curve has the stages, at the share of blocks done. Adebayo et al.
    2018, sections 3 and 4: there from the top layer down, one layer a stage. `stages` explanations.
    """
    like = _likeness(similarity, maps)
    points = [like(explain(x, model=drawn)) for drawn in _stages(model, seed, order, stages)]
    return _average_curve(points)


@sanity_metric(
    "smooth-mprt",
    passes="samples × (stages + 1) explanations",
    aliases=["smprt"],
    source="Hedström et al. 2023 (sMPRT)",
)
def smooth_mprt(
    x: torch.Tensor,
    z: torch.Tensor,
    explain: Explain,
    model: Model,
    seed: int,
    generator: Sequence[torch.Generator],
    *,
    order: str = "bottom-up",
    similarity: str = "spearman",
    stages: int = 10,
    samples: int = 10,
    noise: float = 0.1,
) -> Curve:
    """`mprt` of smoothed maps: each is the mean over `samples` images with Gaussian noise.

    The noise has `noise` times the range of the normalised image as std, and is the same for every stage and
    method. Hedström et al. 2023, section 4.1; their code takes 50 samples, of raw attributions, and the last of them
    without noise. In [−1, 1], lower is better. `samples` × (`stages` + 1) explanations.
    """
    samples, noise = check_int("samples", samples), _positive("noise", noise)
    images = _noisy(x, z, model, generator, samples, noise)
    like = _likeness(similarity, _mean_map(explain, images, model))
    points = [like(_mean_map(explain, images, drawn)) for drawn in _stages(model, seed, order, stages)]
    return _average_curve(points)


@sanity_metric(
    "efficient-mprt",
    better="high",
    range=(-1, None),
    passes="1 explanation",
    degenerate=-1,
    undefined="the map is constant",
    aliases=["emprt"],
    source="Hedström et al. 2023 (eMPRT)",
)
def efficient_mprt(
    x: torch.Tensor, maps: torch.Tensor, explain: Explain, model: Model, seed: int, *, bins: int = BINS
) -> torch.Tensor:
    """Relative rise of the map's entropy when all weights are randomised: `(H(S_random) − H(S)) / H(S)`.

    H is the entropy of the map's histogram, `bins` of equal width on [0, 1]. From −1 up, higher is better: the map of
    a random network should be less ordered. −1 for a constant map. Hedström et al. 2023, section 4.2; Quantus takes
    the bins from the whole batch. One explanation.
    """
    bins = check_int("bins", bins, least=2)
    before = histogram_entropy(maps, bins)
    (drawn,) = _stages(model, seed, "cascading", 1)
    after = histogram_entropy(explain(x, model=drawn), bins)
    return (after - before) / before


@sanity_metric(
    "random-logit",
    passes="1 explanation",
    values="it explains another class",
    aliases=["random-class"],
    source="Sixt et al. 2020",
)
def random_logit(
    x: torch.Tensor,
    maps: torch.Tensor,
    target: torch.Tensor,
    logits: torch.Tensor,
    explain: Explain,
    generator: Sequence[torch.Generator],
    *,
    similarity: str = "ssim",
) -> torch.Tensor:
    """Similarity of the target's map to that of another class, drawn by seed, the same one for every method.

    `similarity`: `ssim` (on 56²) or `spearman` of all pixels. In [−1, 1], lower is better; a map that does not
    depend on the class scores 1, and so does a constant one. Where the other map is constant: 0 (`spearman`). Sixt et
    al. 2020, section 4. One explanation.
    """
    like = _likeness(similarity, maps)
    return like(explain(x, target=other_classes(target, logits.shape[1], generator)))


def other_classes(target: torch.Tensor, classes: int, generator: Sequence[torch.Generator]) -> torch.Tensor:
    """A class for each image that is not its target, each of the others equally likely."""
    drawn = [int(torch.randint(classes - 1, (), generator=one)) for one in generator]
    found = on_device(torch.tensor(drawn, dtype=target.dtype), target.device)
    return found + (found >= target)


def histogram_entropy(maps: torch.Tensor, bins: int = BINS) -> torch.Tensor:
    """Entropy of the histogram of each map in [0, 1], `(N,)` float64, in nats."""
    # Rounded before it is cut off: a value on the border of two bins lies in the upper one.
    position = rounded(maps.flatten(1).double() * bins).long().clamp(0, bins - 1)
    count = torch.zeros(len(maps), bins, dtype=torch.float64, device=maps.device)
    count.scatter_add_(1, position, torch.ones_like(position, dtype=torch.float64))
    return torch.special.entr(count / count.sum(1, keepdim=True)).sum(1)


def mid_ranks(maps: torch.Tensor) -> torch.Tensor:
    """Ranks of the pixels of each map, ties at their mean rank; `(N, P)` float64 from 0, the lowest first.

    Maps in [0, 1] are rounded to six digits first (`heatproof.rounding`).
    """
    flat = rounded(maps.flatten(1))
    ordered, order = _sorted_with_indices(flat)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = fresh.cumsum(1) - 1
    ones = torch.ones_like(flat, dtype=torch.float64)
    size = torch.zeros_like(ones).scatter_add_(1, group, ones)
    middle = size.cumsum(1) - (size + 1) / 2
    return torch.empty_like(ones).scatter_(1, order, middle.gather(1, group))


def _sorted_with_indices(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted values, and their indices.

    On a CPU by their bits, in which floats that are not negative have the same order: torch sorts a row of integers
    by radix, in a sixth of the time.
    """
    if flat.device.type != "cpu" or flat.dtype != torch.float32 or not (flat >= 0).all():
        return flat.sort(dim=1)
    rows = [row.sort(stable=True) for row in (flat + 0.0).view(torch.int32)]  # + 0.0: there is a negative zero
    return torch.stack([row.values for row in rows]), torch.stack([row.indices for row in rows])


def _likeness(similarity: str, maps: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Maps → their similarity to `maps`, whose part of the work is done once."""
    if similarity == "spearman":
        ranks = mid_ranks(maps)
        return lambda others: pearson(ranks, mid_ranks(others))
    if similarity == "ssim":
        return lambda others: torch.where(maps.flatten(1).any(1), _structural(maps, others), torch.nan)
    raise unknown("`similarity`", str(similarity), ("spearman", "ssim"))


def _structural(maps: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """SSIM of images; of a volume the mean over its slices, of a signal NaN: it has no window."""
    one, other = (part[:, None] if part.dim() == 2 else part for part in (maps, others))
    return ssim(one, other).reshape(len(maps), -1).mean(1)


def _stages(model: Model, seed: int, order: str, stages: int):
    """The classifier at each stage of the randomisation; all are one copy, so use each before taking the next."""
    if order not in ORDERS:
        raise unknown("`order`", str(order), ORDERS)
    drawn = Randomised(model, seed)
    blocks = drawn.blocks(check_int("stages", stages, least=0))
    for block in blocks if order == "bottom-up" else blocks[::-1]:
        drawn.redraw(block)
        yield drawn.model
        if order == "independent":
            drawn.put_back(block)


def _average_curve(points: list[torch.Tensor]) -> Curve:
    together = torch.stack(points, 1)
    at = torch.arange(1, len(points) + 1, dtype=torch.float64, device=together.device) / len(points)
    return Curve(together.mean(1), at, together)


def _noisy(
    x: torch.Tensor, z: torch.Tensor, model: Model, generator: Sequence[torch.Generator], samples: int, noise: float
) -> list[torch.Tensor]:
    """The images with noise, once for each draw."""
    flat = z.flatten(1)
    std = (noise * (flat.amax(1) - flat.amin(1))).view(-1, *[1] * (z.dim() - 1))
    found = []
    for _ in range(samples):
        drawn = torch.stack([torch.randn(z.shape[1:], generator=one) for one in generator])
        drawn = on_device(drawn, x.device, x.dtype)
        found.append(x + of_normalised(model, std * drawn))
    return found


def _mean_map(explain: Explain, images: list[torch.Tensor], model: Model) -> torch.Tensor:
    total: torch.Tensor | None = None
    for draw, noisy in enumerate(images):
        found = explain(noisy, condition=f"smooth-{draw}", model=model)
        total = found if total is None else total + found
    assert total is not None
    return total / len(images)


def _positive(option: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InvalidInput(f"`{option}` must be above 0. Got {value}.")
    return value
