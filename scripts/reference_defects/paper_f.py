"""Defects of the code of paper F (Zhang, Torres & Hermanns 2024): train mode, transposed maps, the wrong explainer."""

from collections.abc import Iterator, Sequence

import torch

from heatproof import seeds
from heatproof.attributions import display_maps
from heatproof.metrics.sensitivity import relative_shifts
from heatproof.models import Model
from heatproof.transformations import transformed
from reference_defects.arms import Arms, defect
from reference_defects.lab import Lab, agreement

F = "paper F's code"
GRADIENTS = ("gradient", "guided-backprop", "integrated-gradients")
FIDELITY = ("insertion", "deletion-mean", "average-drop")


@defect("train-mode", F, "gradients, guided backpropagation and integrated gradients are made in training mode")
def train_mode(lab: Lab) -> Iterator[Arms]:
    off = lab.explain(GRADIENTS)
    on = train_mode_maps(lab, GRADIENTS)
    note = "one image at a time, on a copy; maps are scored on the network in eval mode"
    yield from map_arms(lab, {m: off[m] for m in GRADIENTS}, on, (*FIDELITY, "mask-cosine"), note)


def train_mode_maps(lab: Lab, methods: Sequence[str]) -> dict[str, torch.Tensor]:
    """Maps of the network whose normalisation and dropout behave as in training."""
    maps = lab.explain(methods, model=in_training(lab.model), batch_size=1)
    return {method: maps[method] for method in methods}


def in_training(model: Model) -> Model:
    """A copy of the classifier that goes to training mode at every forward pass, as code without `.eval()` does.

    Running statistics stay as they are, so that no image depends on those before it.
    """
    copied = model.copied()

    def train(module: torch.nn.Module, _args: object) -> None:
        for part in module.modules():
            part.training = True
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.momentum = 0.0

    copied.module.register_forward_pre_hook(train)
    return copied


def map_arms(
    lab: Lab,
    off: dict[str, torch.Tensor],
    on: dict[str, torch.Tensor],
    metrics: Sequence[str],
    note: str = "",
    likeness: bool = True,
) -> Iterator[Arms]:
    """The scores of maps without and with a defect, and how alike the maps are."""
    scores = [lab.score({f"map {m}": maps for m, maps in arm.items()}, metrics) for arm in (off, on)]
    for method in off:
        if likeness:
            yield Arms(f"cosine with the right map of {method}", agreement(off[method], off[method]),
                       agreement(off[method], on[method]), note=note)  # fmt: skip
        for metric in metrics:
            yield Arms(f"{metric} of {method}", *(one.values(f"map {method}", metric) for one in scores), note=note)


@defect("transposed-maps", F, "augmented gradient maps are scored transposed")
def transposed_maps(lab: Lab) -> Iterator[Arms]:
    methods = ("gradient", "integrated-gradients", "gradcam")
    maps = lab.explain(methods)
    off = {method: maps[method] for method in methods}
    on = {method: turned(one) for method, one in off.items()}
    yield from map_arms(lab, off, on, (*FIDELITY, "mask-cosine"), "gradcam stands beside them for comparison")


def turned(maps: torch.Tensor) -> torch.Tensor:
    """`(N, H, W)`, rows and columns exchanged."""
    return maps.transpose(1, 2).contiguous()


@defect("sensitivity-wrong-explainer", F, "max and average sensitivity compare a method with another method")
def sensitivity_wrong_explainer(lab: Lab) -> Iterator[Arms]:
    few, methods = lab.few(lab.slow), ("gradcam", "layercam", "guided-backprop")
    names = {"max-sensitivity": "amax", "average-sensitivity": "mean"}
    scores = few.score(methods, [f"{name}[samples=5]" for name in names])
    for method in methods:
        on = shifts(few, method)
        for name, over in names.items():
            yield Arms(f"{name} of {method}", few_values(scores, method, name), getattr(torch, over)(on, 1),
                       note="5 draws; the other method is `gradient`")  # fmt: skip


def few_values(scores, method: str, metric: str) -> torch.Tensor:
    """Values of the metric, whatever its options are in its name."""
    key = next(key for key in scores.metrics if key.partition("[")[0] == metric)
    return scores.values(method, key)


def shifts(lab: Lab, method: str, samples: int = 5) -> torch.Tensor:
    """`‖S₂(x') − S(x)‖ / ‖S(x)‖` for each draw, S₂ the gradient whatever S is; `(N, samples)`."""
    maps = lab.explain(method)

    def explain(moved: torch.Tensor, condition: str = "") -> torch.Tensor:
        return gradient_maps(lab, moved)

    drawn = seeds.generators(lab.seed, maps.ids, "max-sensitivity")
    return relative_shifts(lab.x, lab.model, maps[method], explain, drawn, samples=samples, radius=0.2)


def gradient_maps(lab: Lab, x: torch.Tensor) -> torch.Tensor:
    """Display maps of `gradient` for images that noise may have taken out of [0, 1]."""
    with lab.model.evaluating():
        z = lab.model.normalise(x).requires_grad_()
        lab.model.of_normalised(z).gather(1, lab.target[:, None]).sum().backward()
    assert z.grad is not None
    return display_maps(z.grad, "rgb", tuple(x.shape[2:]))


@defect("exact-completeness", F, "completeness asks for equality of two floating-point numbers")
def exact_completeness(lab: Lab) -> Iterator[Arms]:
    few, method = lab.few(lab.slow), "integrated-gradients"
    for steps in (50, 200):
        name = f"{method}[steps={steps}]"
        off = few.score(name, "completeness-holds").values(name, "completeness-holds")
        yield Arms(f"completeness-holds of {name}", off, equal_floats(few, name))


def equal_floats(lab: Lab, method: str) -> torch.Tensor:
    """Whether the map's sum and the change of the logit are the same float32, `(N,)`."""
    found = lab.explain(method, raw=True)
    blank = lab.model.logits(torch.as_tensor(lab.model.mean).view(1, -1, 1, 1).expand_as(lab.x[:1])).detach()
    at = lab.target[:, None]
    change = found.logits.gather(1, at)[:, 0] - blank.expand(lab.n, -1).gather(1, at)[:, 0]
    return (found[method].flatten(1).sum(1) == change).double()


@defect("augmentations-unseeded", F, "every method sees its own random crops")
def augmentations_unseeded(lab: Lab) -> Iterator[Arms]:
    methods, metrics = ("gradcam", "gradient"), ("insertion", "deletion-mean", "average-drop")
    crops = [cropped(lab, lab.seed + draw) for draw in (1, 2)]
    first = lab.score(methods, metrics, crops[0], masks=None)
    second = lab.score(methods[1], metrics, crops[1], masks=None)
    for metric in metrics:
        off = first.values(methods[0], metric) - first.values(methods[1], metric)
        on = first.values(methods[0], metric) - second.values(methods[1], metric)
        yield Arms(f"{metric} of gradcam minus that of gradient", off, on, note="random resized crops")
        spread = [(one - one.nanmean()).abs() for one in (off, on)]
        yield Arms(f"mean absolute deviation of that difference, {metric}", *spread, note="random resized crops")


def cropped(lab: Lab, seed: int) -> torch.Tensor:
    """The images, each under its own random resized crop, drawn by this seed."""
    return transformed("crop", lab.x, [str(i) for i in range(lab.n)], seed)
