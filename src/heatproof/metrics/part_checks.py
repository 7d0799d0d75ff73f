"""The checks of FunnyBirds: does a map weigh the parts of an object as the network does (protocols §9)?

The images are made of parts that can be removed (`data.part_images`). The weight of a part is the share of the map that
lies on it, its mask dilated by 5 × 5; a part is important at a threshold t where its weight exceeds t. The checks that
depend on t are curves over 80 thresholds, and their value is the mean of the curve. Which threshold counts is decided
on a validation set, in `statistics.part_scores`. Hesse et al. 2023, section 4.

The published code sums signed attributions, and masks of the two eyes, wings and feet one by one; here it is the
display map, and the union of both.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.coherency import pearson
from heatproof.rounding import ANSWER_STEP, largest, rounded, top_class

if TYPE_CHECKING:
    from heatproof.data.part_images import Contrast, Parts

#: The thresholds: linspace(.01, .5, 80).
THRESHOLDS = tuple(np.linspace(0.01, 0.5, 80).tolist())
#: A part is irrelevant where its removal moves the output by less than this share of it, or raises it.
IRRELEVANT = 0.05

part_metric = partial(metric, family="parts", better="high", range=(0, 1), degenerate=0, values="it compares classes")


@part_metric(
    "part-sufficiency",
    passes="none",
    undefined="the image is misclassified",
    aliases=["csdc", "controlled-synthetic-data-check"],
    source="Hesse et al. 2023 (FunnyBirds), section 4.1",
)
def part_sufficiency(maps: torch.Tensor, logits: torch.Tensor, parts: Any) -> Curve:
    """Controlled synthetic data check: the share of a minimal sufficient part set that the map calls important.

    `max over sets S of |S ∩ important| / |S|`, where no class but the image's own has the parts of S, and no smaller
    set in S is enough. In [0, 1], higher is better; the mean over 80 thresholds, the curve has each. NaN where the
    image is misclassified. A constant map scores 0. Hesse et al. 2023, section 4.1. No pass.
    """
    important = _important(maps, parts, len(parts.table.parts))
    points = torch.full(important.shape[:2], torch.nan, dtype=torch.float64, device=maps.device)
    for row, label in enumerate(parts.labels):
        sets = [[part in chosen for part in parts.table.parts] for chosen in parts.table.minimal_sets(label)]
        inside = torch.tensor(sets, dtype=torch.float64, device=maps.device)
        points[row] = (important[row].double() @ inside.T / inside.sum(1)).amax(1)
    right = top_class(logits) == _outputs(parts, parts.labels, logits)
    return _curve(torch.where((right & parts.readable)[:, None], points, torch.nan))


@part_metric(
    "part-preservation",
    passes="one for each distinct set of parts",
    undefined="an image without some parts is missing",
    aliases=["preservation-check"],
    source="Hesse et al. 2023 (FunnyBirds), section 4.1",
)
def part_preservation(maps: torch.Tensor, logits: torch.Tensor, parts: Any) -> Curve:
    """Preservation check: whether the prediction stays when the parts that the map calls unimportant are removed.

    0 or 1 at each of 80 thresholds, the value is their mean. In [0, 1], higher is better. A constant map scores 0.
    Hesse et al. 2023, section 4.1. One pass for each distinct set of parts, shared by all methods.
    """
    kept = _important(maps, parts, len(parts.table.parts))
    return _curve(_same_prediction(logits, parts, ~kept))


@part_metric(
    "part-deletion",
    passes="one for each distinct set of parts",
    undefined="an image without some parts is missing",
    aliases=["deletion-check"],
    source="Hesse et al. 2023 (FunnyBirds), section 4.1",
)
def part_deletion(maps: torch.Tensor, logits: torch.Tensor, parts: Any) -> Curve:
    """Deletion check: whether the prediction changes when the parts that the map calls important are removed.

    0 or 1 at each of 80 thresholds, the value is their mean. In [0, 1], higher is better. A constant map scores 0.
    Hesse et al. 2023, section 4.1. One pass for each distinct set of parts, shared by all methods.
    """
    removed = _important(maps, parts, len(parts.table.parts))
    return _curve(1 - _same_prediction(logits, parts, removed))


@part_metric(
    "part-distractibility",
    passes="one for each part and distractor",
    undefined="nothing in the image is irrelevant, or an image without a part is missing",
    aliases=["distractibility"],
    source="Hesse et al. 2023 (FunnyBirds), section 4.1",
)
def part_distractibility(maps: torch.Tensor, logits: torch.Tensor, target: torch.Tensor, parts: Any) -> Curve:
    """Distractibility: one minus the share of the irrelevant parts and distractors that the map calls important.

    Irrelevant is what moves the target's logit by less than 5 % when it is removed, or raises it. In [0, 1], higher is
    better; the mean over 80 thresholds, the curve has each. NaN where nothing is irrelevant. A constant map scores 0.
    Hesse et al. 2023, section 4.1. One pass for each part and each distractor, shared by all methods.
    """
    important = _important(maps, parts)
    points = torch.full(important.shape[:2], torch.nan, dtype=torch.float64, device=maps.device)
    for row, (drops, whole) in enumerate(_drops(logits, target, parts)):
        irrelevant = _irrelevant(drops, whole, logits[row]).double()
        if not drops.isnan().any() and irrelevant.any():
            points[row] = 1 - important[row, :, : len(drops)].double() @ irrelevant / irrelevant.sum()
    return _curve(torch.where(parts.readable[:, None], points, torch.nan))


@part_metric(
    "part-correctness",
    passes="one for each part",
    degenerate=0.5,
    undefined="all parts matter equally to the network, or an image without a part is missing",
    aliases=["single-deletion"],
    source="Hesse et al. 2023 (FunnyBirds), section 4.2",
)
def part_correctness(maps: torch.Tensor, logits: torch.Tensor, target: torch.Tensor, parts: Any) -> torch.Tensor:
    """Single deletion: whether a part with more weight in the map matters more to the network, `(ρ + 1) / 2`.

    ρ is Spearman's correlation, over the parts, of their weights with the drop of the target's logit when the part is
    removed; ties have their mean rank. In [0, 1], higher is better; .5 is chance, and stated where all parts have one
    weight or the map is constant (the published code leaves such images out). NaN where all drops are equal. Hesse et
    al. 2023, section 4.2. One pass for each part, shared by all methods.
    """
    count = len(parts.table.parts)
    weights = rounded(part_weights(maps, parts.regions)[:, :count])
    drops = torch.stack([found[:count] for found, _ in _drops(logits, target, parts, count)])
    found = (pearson(_ranks(drops), _ranks(weights)) + 1) / 2
    return torch.where(drops.isnan().any(1) | ~parts.readable, torch.nan, found)


@part_metric(
    "part-contrastivity",
    passes="2, and 2 explanations",
    undefined="no two classes share disjoint pairs of parts with the image, or its logits do not follow them",
    aliases=["target-sensitivity"],
    source="Hesse et al. 2023 (FunnyBirds), section 4.3",
)
def part_contrastivity(
    x: torch.Tensor, maps: torch.Tensor, logits: torch.Tensor, explain: Callable, parts: Any
) -> torch.Tensor:
    """Target sensitivity: whether the maps of two other classes A and B follow the parts they share with the image.

    A and B each share two parts with the image's class, none of them the same. Half a point where A's parts weigh more
    in A's map than in B's, half where B's weigh more in B's map. 0, .5 or 1, higher is better; a map that ignores the
    class scores 0. NaN without such classes, and where the logits of A and B do not each drop more when their own parts
    are removed. A constant map scores 0. Hesse et al. 2023, section 4.3. Two passes, shared, and two explanations.
    """
    values = torch.full((len(maps),), torch.nan, dtype=torch.float64, device=maps.device)
    found = [(row, parts.table.contrast(label)) for row, label in enumerate(parts.labels)]
    pairs = _followed([(row, one) for row, one in found if one is not None], logits, parts)
    pairs = [(row, one) for row, one in pairs if bool(parts.readable[row])]
    if not pairs:
        return values
    regions, rows = parts.regions, torch.tensor([row for row, _ in pairs], device=maps.device)
    weights = []
    for labels in ([one.first for _, one in pairs], [one.second for _, one in pairs]):
        again = explain(x[rows], rows=rows, target=_outputs(parts, labels, logits))
        weights.append(part_weights(again, regions[rows]))
    for at, (row, one) in enumerate(pairs):
        gains = [_sum(weights[k][at], chosen, parts) - _sum(weights[1 - k][at], chosen, parts)
                 for k, chosen in enumerate((one.first_parts, one.second_parts))]  # fmt: skip
        values[row] = (rounded(torch.stack(gains)) > 0).double().mean()
    return values


def background_independence(logits: torch.Tensor, target: torch.Tensor, parts: Any) -> torch.Tensor:
    """The share of an image's distractors that are irrelevant to the network, `(N,)` float64; it needs no map.

    Irrelevant as for `part-distractibility`. NaN without a distractor, and where an image without one is missing.
    """
    count, found = len(parts.table.parts), []
    for row, (drops, whole) in enumerate(_drops(logits, target, parts)):
        irrelevant = _irrelevant(drops, whole, logits[row])[count:].double()
        fine = len(irrelevant) and not drops[count:].isnan().any()
        found.append(irrelevant.mean() if fine else torch.full_like(whole, torch.nan))
    return torch.stack(found)


def part_weights(maps: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """The share of each map `(N, H, W)` in each region `(N, M, H, W)`, `(N, M)` float64; 0 for a map of zeros."""
    flat, inside = maps.flatten(1).double(), regions.flatten(2).double()
    total = flat.sum(1, keepdim=True)
    found = (inside @ flat[..., None])[..., 0] / total
    return torch.where(total > 0, found, 0)


def _important(maps: torch.Tensor, parts: Any, count: int | None = None) -> torch.Tensor:
    """`(N, thresholds, M)` bool: whether each of the first `count` things is important at each threshold."""
    weights = part_weights(maps, parts.regions)[:, :count]
    at = torch.tensor(THRESHOLDS, dtype=torch.float64, device=maps.device)
    return rounded(weights[:, None, :] - at[None, :, None]) > 0


def _same_prediction(logits: torch.Tensor, parts: Any, removed: torch.Tensor) -> torch.Tensor:
    """`(N, thresholds)`: 1 where the prediction is the image's without the parts `removed` `(N, thresholds, P)`."""
    names, which = parts.table.parts, removed.tolist()
    chosen = [[frozenset(n for n, gone in zip(names, at, strict=True) if gone) for at in one] for one in which]
    rows = [row for row, one in enumerate(chosen) for _ in one]
    answers = parts.logits(rows, [gone for one in chosen for gone in one])
    same = (top_class(answers) == top_class(logits.double())[torch.tensor(rows, device=answers.device)]).double()
    same = torch.where(answers.isnan().any(1), torch.nan, same).view(removed.shape[:2])
    return torch.where(parts.readable[:, None], same, torch.nan)


def _irrelevant(drops: torch.Tensor, whole: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Whether each removal moves the logit by less than 5 % of it, or raises it."""
    return (rounded(drops.abs() - IRRELEVANT * whole.abs(), largest(logits.double()), ANSWER_STEP) < 0) | (drops < 0)


def _drops(
    logits: torch.Tensor, target: torch.Tensor, parts: Any, count: int | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each image how much the target's logit drops without each of its first `count` things, and the logit."""
    things = [names[:count] for names in parts.things]
    rows = [row for row, names in enumerate(things) for _ in names]
    answers = parts.logits(rows, [frozenset([name]) for names in things for name in names])
    found, first = [], 0
    for row, names in enumerate(things):
        whole = logits[row, target[row]].double()
        drops = whole - answers[first : first + len(names), target[row]]
        found.append((rounded(drops, largest(logits[row].double()), ANSWER_STEP), whole))
        first += len(names)
    return found


def _followed(
    pairs: "Sequence[tuple[int, Contrast]]", logits: torch.Tensor, parts: Any
) -> "list[tuple[int, Contrast]]":
    """Those images where the logits of both classes drop more without their own parts than without the other's."""
    rows = [row for row, _ in pairs for _ in range(2)]
    removed: list[Parts] = [chosen for _, one in pairs for chosen in (one.first_parts, one.second_parts)]
    answers = parts.logits(rows, removed)
    found = []
    for at, (row, one) in enumerate(pairs):
        classes = _outputs(parts, [one.first, one.second], logits)
        # [without A's parts, without B's] × [logit of A, logit of B]; each class has its own parts on the diagonal
        pair = rounded(answers[2 * at : 2 * at + 2, classes], largest(logits[row].double()), ANSWER_STEP)
        if bool(pair[0, 0] < pair[1, 0]) and bool(pair[1, 1] < pair[0, 1]):
            found.append((row, one))
    return found


def _outputs(parts: Any, labels: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Classes of the table → outputs of the network."""
    return torch.tensor([parts.outputs[label] for label in labels], device=like.device)


def _sum(weights: torch.Tensor, chosen: "Parts", parts: Any) -> torch.Tensor:
    return sum((weights[parts.table.parts.index(name)] for name in sorted(chosen)), torch.zeros_like(weights[0]))


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks along the last dimension from 0, ties at their mean rank."""
    one, other = values[..., :, None], values[..., None, :]
    return (one > other).double().sum(-1) + ((one == other).double().sum(-1) - 1) / 2


def _curve(points: torch.Tensor) -> Curve:
    at = torch.tensor(THRESHOLDS, dtype=torch.float64, device=points.device)
    return Curve(points.mean(1), at, points)
