"""Attacks on the clean prediction, batched: `(N, 3, H, W)` in [0, 1] → the same.

They use the network through the quantities they name: `loss_gradient` (images → gradient of the cross-entropy
to each image's clean prediction), the same at the clean images (`clean_gradient`), or DeepFool's `minimal_step`.
Rows never mix, parameters' `.grad` is never touched, arguments are never changed. ε is in units of the range
[0, 1] of `x`.
"""

import warnings
from collections.abc import Callable

import torch

from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.perturbations.draws import Generators, normal, uniform
from heatproof.perturbations.ladder import perturbation, within
from heatproof.rounding import top_class
from heatproof.tensors import per_image

MADRY = "Madry et al. 2018, arXiv 1706.06083"

#: In /255, for FGSM and PGD-L∞ (protocols, section 3).
SMALL_STEPS = tuple(step / 255 for step in (0.125, 0.25, 0.5, 1, 2))

ImageFunction = Callable[[torch.Tensor], torch.Tensor]


@perturbation(
    "fgsm",
    ladder={"epsilon": SMALL_STEPS},
    unit="ε (L∞) in 1/255",
    unit_size=1 / 255,
    attack=True,
    default=True,
    aliases=("fast-gradient-sign", "fast-gradient-sign-method"),
    source="Goodfellow et al. 2015, arXiv 1412.6572, section 4",
)
def fgsm(x: torch.Tensor, clean_gradient: torch.Tensor, *, epsilon: float = 0.5 / 255) -> torch.Tensor:
    """One step along the gradient's sign: `x + ε sign(∇ loss)`; one gradient serves all strengths.

    `epsilon` ≥ 0, the largest change of a value, of the range [0, 1]; higher is stronger.
    """
    within("epsilon", epsilon, 0)
    return (x + epsilon * clean_gradient.sign()).clamp(0, 1)


@perturbation(
    "pgd-linf",
    ladder={"epsilon": SMALL_STEPS},
    unit="ε (L∞) in 1/255",
    unit_size=1 / 255,
    attack=True,
    default=True,
    aliases=("pgd", "pgd-inf"),
    source=MADRY,
)
def pgd_linf(
    x: torch.Tensor,
    loss_gradient: ImageFunction,
    generator: Generators,
    *,
    epsilon: float = 0.5 / 255,
    steps: int = 10,
) -> torch.Tensor:
    """Repeated sign steps of 2.5 ε / steps from a random start, held in the L∞ ball and in [0, 1].

    The start is `ε U(−1, 1)` per value, the same field for every ε. `epsilon` ≥ 0, the largest change of a
    value, of the range [0, 1]; higher is stronger. `steps` ≥ 1.
    """
    within("epsilon", epsilon, 0)
    start = 2 * uniform(generator, tuple(x.shape[1:]), x) - 1
    attacked = (x + epsilon * start).clamp(0, 1)
    for _ in range(_whole(steps)):
        moved = torch.add(attacked, loss_gradient(attacked).sign(), alpha=2.5 * epsilon / steps)
        attacked = moved.sub_(x).clamp_(-epsilon, epsilon).add_(x).clamp_(0, 1)
    return attacked


@perturbation(
    "pgd-l2",
    ladder={"epsilon": (0.0625, 0.125, 0.25, 0.5, 1)},
    unit="ε (L2) of the range 0–1",
    attack=True,
    default=True,
    source=MADRY,
)
def pgd_l2(
    x: torch.Tensor,
    loss_gradient: ImageFunction,
    generator: Generators,
    *,
    epsilon: float = 0.25,
    steps: int = 10,
) -> torch.Tensor:
    """Repeated steps of 2.5 ε / steps along the gradient from a random start, held in the L2 ball and [0, 1].

    The start is uniform in the ball: a normal direction times `ε u^(1/d)`, d values, the same for every ε.
    `epsilon` ≥ 0, the largest Euclidean length of the change of one image over all its values, for the range
    [0, 1]; higher is stronger. `steps` ≥ 1. A zero gradient gives no step.
    """
    within("epsilon", epsilon, 0)
    radius = uniform(generator, (), x) ** (1 / x[0].numel())
    direction = _unit(normal(generator, tuple(x.shape[1:]), x))
    attacked = (x + epsilon * per_image(radius, x) * direction).clamp(0, 1)
    for _ in range(_whole(steps)):
        moved = torch.add(attacked, _unit(loss_gradient(attacked)), alpha=2.5 * epsilon / steps)
        attacked = _clip_length(moved.sub_(x), epsilon).add_(x).clamp_(0, 1)
    return attacked


@perturbation(
    "deepfool-scaled",
    ladder={"factor": (0.25, 0.5, 0.75, 1, 1.25)},
    unit="of the smallest step that flips",
    attack=True,
    aliases=("deepfool",),
    source="Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, algorithm 2",
)
def deepfool_scaled(x: torch.Tensor, minimal_step: torch.Tensor, *, factor: float = 1.0) -> torch.Tensor:
    """Adds a share of the smallest step that DeepFool found, `x + f δ`; at 1 the prediction has just changed.

    δ is computed once for all strengths (`deepfool_step`). `factor` ≥ 0; higher is stronger.
    """
    within("factor", factor, 0)
    return (x + factor * minimal_step).clamp(0, 1)


def deepfool_step(
    x: torch.Tensor,
    class_scores: ImageFunction,
    *,
    classes: int = 10,
    overshoot: float = 0.02,
    iterations: int = 50,
) -> torch.Tensor:
    """DeepFool's δ: a short step in L2 after which the predicted class has changed, `(N, 3, H, W)`.

    Repeatedly steps to the nearest of the linearised boundaries between the clean prediction and the next
    `classes` − 1 most likely classes at the clean image (Moosavi-Dezfooli et al. 2016, algorithm 2), and returns
    δ, the sum of the steps times `1 + overshoot`. The boundaries are linearised at `x + Σ steps`, as in the paper,
    which approaches a boundary; the overshoot crosses it. (The authors' code linearises beyond the overshoot,
    where the margin only shrinks towards 0, and needs a constant 1e-4 in the step to cross.) Where the paper
    lets images leave [0, 1], they are clamped here, so that `clamp(x + δ)` itself is known to flip.
    `class_scores` maps images to logits `(N, K)` and is differentiable; it is called only with the rows that
    have not changed yet, `classes` − 1 backward passes a round.

    Rows that do not change within `iterations` keep the step reached, with a HeatproofWarning that counts
    them. Raises InvalidInput for a network with one class, or scores without a gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone()
        ranked = _rank_classes(class_scores(x).detach(), classes)
        total = torch.zeros_like(x)
        left = torch.arange(len(x), device=x.device)
        for _ in range(iterations):
            here = (x[left] + total[left]).clamp(0, 1)
            total[left] += _boundary_step(here, ranked[left], class_scores)
            with torch.no_grad():
                predicted = class_scores((x[left] + (1 + overshoot) * total[left]).clamp(0, 1))
                predicted = top_class(predicted)
            left = left[predicted == ranked[left, 0]]
            if not len(left):
                break
        else:
            warnings.warn(
                f"DeepFool did not change the prediction of {len(left)} of {len(x)} images in {iterations} "
                "iterations; their step is the one reached.",
                HeatproofWarning,
                stacklevel=2,
            )
    return (1 + overshoot) * total


def _rank_classes(scores: torch.Tensor, classes: int) -> torch.Tensor:
    """`(N, T)` class numbers, the predicted one (`top_class`, as for flips) first."""
    if scores.shape[1] < 2:
        raise InvalidInput(f"DeepFool needs a network with at least two classes. Got {scores.shape[1]}.")
    first = top_class(scores)[:, None]
    lifted = scores.scatter(1, first, torch.inf)
    return lifted.sort(dim=1, descending=True, stable=True).indices[:, :classes]


def _boundary_step(here: torch.Tensor, ranked: torch.Tensor, class_scores: ImageFunction) -> torch.Tensor:
    """The shortest step to a linearised boundary of the first class in `ranked`: `|f| w / ‖w‖²`."""
    here.requires_grad_()
    scores = class_scores(here)
    if not scores.requires_grad:
        raise InvalidInput("`class_scores` must be differentiable by its images. Got scores without a gradient.")
    margins = scores.gather(1, ranked[:, 1:]) - scores.gather(1, ranked[:, :1])
    step = torch.zeros_like(here)
    nearest = torch.full_like(margins[:, 0], torch.inf)
    for margin in margins.unbind(1):
        # Rows do not mix, so the gradient of the sum is each image's own.
        (w,) = torch.autograd.grad(margin.sum(), here, retain_graph=True)
        length = w.flatten(1).norm(dim=1)
        distance = margin.detach().abs() / length
        nearer = distance < nearest  # false for a flat (infinite) or broken (NaN) margin
        nearest = torch.where(nearer, distance, nearest)
        step = torch.where(per_image(nearer, step), per_image(distance / length, w) * w, step)
    return step.detach()


def _unit(fields: torch.Tensor) -> torch.Tensor:
    """Each row at Euclidean length 1; a zero row stays zero."""
    length = fields.flatten(1).norm(dim=1)
    return fields / per_image(length.masked_fill(length == 0, 1), fields)


def _clip_length(steps: torch.Tensor, longest: float) -> torch.Tensor:
    """Each row at most `longest` in Euclidean length."""
    length = steps.flatten(1).norm(dim=1)
    factor = (longest / length.clamp(min=1e-30)).clamp(max=1)
    return steps * per_image(factor, steps)


def _whole(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInput(f"`steps` must be a whole number of at least 1. Got {steps!r}.")
    return steps
