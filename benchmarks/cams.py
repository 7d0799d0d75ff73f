"""Five gradient and eigen CAMs together at the last layer of a ResNet, beside one forward and one head backward."""

from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO

import torch

import heatproof
from benchmarks.floor import Work, head_pass, interleaved
from benchmarks.networks import Split, photographs, resnet
from benchmarks.result import Part, Peer, Result, compared
from benchmarks.settings import Settings
from heatproof.models import Model

METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "eigencam")
AIM = 1.05
BATCH = 8


def results(settings: Settings) -> Iterator[Result]:
    """Raw maps (the aim) and display maps, on ResNet-18 and ResNet-50, with pytorch-grad-cam at the same work."""
    for name in ("resnet18", "resnet50"):
        yield from _measured(name, settings)


def _measured(name: str, settings: Settings) -> Iterator[Result]:
    split = resnet(name)
    model, x = heatproof.wrap(split.network, 0.5, 0.5), photographs(BATCH)
    z = model.normalise(x)
    peer = peer_work(split, z)
    works = {
        "floor": lambda: head_pass(split.trunk, split.head, z),
        "raw": lambda: explained(model, x, split.layer, raw=True),
        "display": lambda: explained(model, x, split.layer, raw=False),
        **({"peer": peer} if peer else {}),
    }
    times = interleaved(works, settings.repeats(9), seldom={"peer": settings.repeats(3)})
    for form, aim in (("raw", AIM), ("display", AIM)):
        ours = times[form]
        peers = [Peer("pytorch-grad-cam", times["peer"].median, times["peer"].median / ours.median,
                      "five objects, one after the other, display maps")] if peer else []  # fmt: skip
        yield compared(
            f"cams-{name}-{form}",
            f"five CAMs, {name}, last layer, {form} maps",
            ours,
            [times["floor"]],
            aim,
            n=BATCH,
            threads=settings.threads,
            batch=BATCH,
            parts=[Part("forward + head backward", times["floor"].median)],
            peers=peers,
        )


def explained(model: Model, x: torch.Tensor, layer: str, raw: bool) -> object:
    """Our work, by the public call."""
    return heatproof.explain(model, x, METHODS, layer=layer, raw=raw)


def peer_work(split: Split, z: torch.Tensor) -> Work | None:
    """pytorch-grad-cam's five objects on the same batch; None where it is not installed.

    It gets the network as users have it, with parameters that ask for gradients: it raises on a frozen one.
    """
    try:
        import pytorch_grad_cam as package
    except ImportError:
        return None
    trainable = split.trainable()
    classes = [package.GradCAM, package.GradCAMPlusPlus, package.HiResCAM, package.XGradCAM, package.EigenCAM]

    def work() -> None:
        for one in classes:
            with one(trainable, [trainable.get_submodule(split.layer)]) as cam, redirect_stderr(StringIO()):
                cam(z, None)

    return work
