"""Fidelity: does the prediction survive on what the map shows, and how fast does it change as pixels are removed?

`p` is the probability of the target, `q` the same on the masked image `x ⊙ m + fill ⊙ (1 − m)`, so the first five
metrics here share one forward pass. Black is paper F's fill (protocols, section 6). A degenerate map gets the worst
value of these five, since the target may be more probable on the blank image than on the real one.
"""

from functools import partial

import torch

from heatproof.masking import checked_fill
from heatproof.metrics.catalogue import Curve, metric
from heatproof.metrics.curves import area, shares
from heatproof.passes import check_int
from heatproof.rounding import ANSWER_STEP, answer_scale, behind_largest, rounded, top_class

F_TEXT = "Zhang, Torres & Hermanns 2024"

#: What the metrics of this file share, unless they say otherwise.
fidelity_metric = partial(metric, family="fidelity", range=(0, 1))
#: And those that look at the masked image.
masked_metric = partial(fidelity_metric, passes="1 forward")


@masked_metric(
    "average-drop",
    better="low",
    degenerate=1,
    undefined="the probability of the target is 0",
    values="it is a share of the target's probability; `local-accuracy` is the change in units",
    aliases=["ad"],
    source="Chattopadhay et al. 2018",
)
def average_drop(p: torch.Tensor, q, *, fill: str = "black") -> torch.Tensor:
    """The share of its probability that the target loses on the masked image: `relu(p − q) / p`.

    In [0, 1], lower is better. NaN where p is 0. A constant map scores 1. Chattopadhay et al. 2018, section 4.1, there
    in percent. The control `ones` fools it: a map of ones loses nothing.
    """
    return (p - q(checked_fill(fill))).relu() / p


@masked_metric(
    "average-increase",
    better="high",
    degenerate=0,
    undefined="there is no probability",
    aliases=["ai", "increase-in-confidence"],
    source="Chattopadhay et al. 2018",
)
def average_increase(p: torch.Tensor, q, values, *, fill: str = "black") -> torch.Tensor:
    """Whether the target's probability rises on the masked image: `1[q > p]`.

    0 or 1 for each image, the mean is the paper's rate; higher is better. A rise that five digits of a logit (of a
    network of values: of the value) cannot show counts as none. A constant map scores 0. Chattopadhay et al. 2018,
    section 4.1.
    """
    masked = q(checked_fill(fill))
    scale = torch.maximum(answer_scale(masked, values), answer_scale(p, values))
    return _yes(rounded(masked - p, scale, ANSWER_STEP) > 0, masked - p)


@masked_metric(
    "average-gain",
    better="high",
    degenerate=0,
    undefined="the probability of the target is 1: there is nothing to gain",
    values="it is a share of what the target's probability lacks of 1; `local-accuracy` is the change in units",
    aliases=["ag"],
    source="Zhang et al. 2023 (Opti-CAM)",
)
def average_gain(p: torch.Tensor, q, *, fill: str = "black") -> torch.Tensor:
    """The share of the missing probability that the target gains on the masked image: `relu(q − p) / (1 − p)`.

    In [0, 1], higher is better. NaN where p is exactly 1. A constant map scores 0. Zhang et al. 2023
    (Opti-CAM), section 4.2; there in percent.
    """
    return (q(checked_fill(fill)) - p).relu() / (1 - p)


@masked_metric(
    "local-accuracy", better="low", degenerate=1, undefined="there is no probability", values="units", aliases=["la"],
    source=F_TEXT,
)  # fmt: skip
def local_accuracy(p: torch.Tensor, q, *, fill: str = "black") -> torch.Tensor:
    """Absolute change of the target's probability on the masked image: `|p − q|`.

    In [0, 1], lower is better. A constant map scores 1 (of a network of values nothing: no change is the largest). A
    property of Lundberg & Lee 2017, as used by Zhang, Torres &
    Hermanns 2024, section 2.
    """
    return (p - q(checked_fill(fill))).abs()


@masked_metric(
    "sufficiency", better="high", degenerate=0, undefined="the network has no answer to the masked image",
    values="it asks for the predicted class", source=F_TEXT,
)  # fmt: skip
def sufficiency(logits: torch.Tensor, masked_probabilities, *, fill: str = "black") -> torch.Tensor:
    """Whether the predicted class stays the same on the masked image: `1[argmax f(x ⊙ m) = argmax f(x)]`.

    0 or 1 for each image, higher is better. The class is the predicted one, whatever the target. A constant map
    scores 0. Zhang, Torres & Hermanns 2024, section 2.
    """
    masked = masked_probabilities(checked_fill(fill))
    own = top_class(logits)[:, None]
    return _yes(behind_largest(masked.log()).gather(1, own)[:, 0] >= 0, masked.sum(1) + logits.double().sum(1))


def _yes(condition: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """1 or 0; NaN where `seen` is NaN (a comparison with NaN would be false)."""
    return torch.where(seen.isnan(), torch.nan, condition.double())


@fidelity_metric(
    "deletion",
    better="low",
    passes="steps forwards",
    undefined="the network has no answer to a masked image",
    values="units",
    source="Petsiuk et al. 2018 (RISE)",
)
def deletion(curve, *, fill: str = "black", steps: int = 28, ties: str = "jitter") -> Curve:
    """Area under the target's probability while pixels are removed, most important first; they become black.

    Over the share of removed pixels from 0 to 1, by trapezoids. In [0, 1], lower is better. The pixels of a constant
    map have no order and are removed at random (`ties="block"`: all at once, which flatters it). Petsiuk et al. 2018
    remove 224 pixels a step, `steps=224` at 224²; 28 steps as in the code of Zhang, Torres & Hermanns 2024. The control
    `random` fools it: scattered holes destroy a prediction quickly. steps − 1 forwards, and one of the fill for all
    methods.
    """
    return _area(curve, fill, steps, ties, restore=False)


@fidelity_metric(
    "deletion-mean",
    better="low",
    passes="steps forwards",
    undefined="the network has no answer to a masked image",
    values="units",
    source="Petsiuk et al. 2018 (RISE)",
)
def deletion_mean(curve, *, steps: int = 28, ties: str = "jitter") -> Curve:
    """Area under the target's probability while pixels are removed, most important first; they become the mean colour.

    As `deletion`, with the fill of the published codes: 0 after normalising. In [0, 1], lower is better.
    """
    return _area(curve, "mean", steps, ties, restore=False)


@fidelity_metric(
    "insertion",
    better="high",
    passes="steps forwards",
    undefined="the network has no answer to a masked image",
    values="units",
    source="Petsiuk et al. 2018 (RISE)",
)
def insertion(curve, *, fill: str = "blur", steps: int = 28, ties: str = "jitter") -> Curve:
    """Area under the target's probability while pixels are restored on the blurred image, most important first.

    Over the share of restored pixels from 0 to 1, by trapezoids. In [0, 1], higher is better. The blur has 11 taps and
    σ 5 (RISE's code, and Domeniconi et al. 2026). Steps and ties as in `deletion`. steps − 1 forwards, and one of the
    blurred image for all methods. Petsiuk et al. 2018, section 4.1.
    """
    return _area(curve, fill, steps, ties, restore=True)


def _area(curve, fill: str, steps: int, ties: str, restore: bool) -> Curve:
    steps = check_int("steps", steps)
    points = curve(fill=checked_fill(fill), steps=steps, first="most", restore=restore, ties=ties)
    at = shares(steps, points.device)
    return Curve(area(points, at), at, points)
