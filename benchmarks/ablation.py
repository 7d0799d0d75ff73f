"""Ablation-CAM at the last layer: in closed form on pooling and a linear layer, by tails elsewhere."""

from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO

import torch

import heatproof
from benchmarks.floor import Timing, Work, forward_pass, head_pass, interleaved
from benchmarks.networks import Split, photographs, resnet, vgg11
from benchmarks.result import Part, Peer, Result, compared
from benchmarks.settings import Settings

CLOSED, TAILS = 1.3, 1.2
#: Variants in one tail pass, as in `heatproof.attributions.cam`.
CHUNK = 256


def results(settings: Settings) -> Iterator[Result]:
    """The closed form on ResNet-18, tails on the same with a two-layer head, and on VGG-11's three-layer head."""
    yield _closed_form(settings)
    yield _tails("resnet18, two-layer head with GELU", resnet("resnet18", mlp=True), 8, settings, 9)
    yield _tails("vgg11, last pooling", vgg11(), 2, settings, 3)


def _closed_form(settings: Settings) -> Result:
    split, batch = resnet("resnet18"), 8
    model, x = heatproof.wrap(split.network, 0.5, 0.5), photographs(batch)
    z = model.normalise(x)
    peer = peer_work(split, z[:1])
    works = {
        "floor": lambda: head_pass(split.trunk, split.head, z),
        "ours": lambda: heatproof.explain(model, x, ["ablationcam"], layer=split.layer, raw=True),
    }
    times = interleaved(works, settings.repeats(12))
    ours = times["ours"]
    peers = [_per_image(peer, ours, batch)] if peer else []
    return compared(
        "ablation-closed", "ablationcam, resnet18, last layer (closed form)", ours, [times["floor"]], CLOSED,
        n=batch, threads=settings.threads, batch=batch, peers=peers,
        parts=[Part("forward + head backward", times["floor"].median)],
    )  # fmt: skip


def _tails(what: str, split: Split, batch: int, settings: Settings, repeats: int) -> Result:
    model, x = heatproof.wrap(split.network, 0.5, 0.5), photographs(batch)
    z = model.normalise(x)
    activations = forward_pass(split.trunk, z)
    prepared = chunks(activations[0])
    works = {
        "forward": lambda: forward_pass(split.network, z),
        "tails": lambda: [tails(split, prepared) for _ in range(batch)],
        "variants": lambda: [chunks(one) for one in activations],
        "ours": lambda: heatproof.explain(model, x, ["ablationcam"], layer=split.layer, raw=True),
    }
    times = interleaved(works, settings.repeats(repeats), warmups=1)
    return compared(
        f"ablation-tails-{what.partition(',')[0]}", f"ablationcam, {what} (C = {activations.shape[1]} tails an image)",
        times["ours"], [times["forward"], times["tails"]], TAILS,
        n=batch, threads=settings.threads, batch=batch,
        parts=[
            Part("forward", times["forward"].median),
            Part("tail passes", times["tails"].median, batch * len(prepared)),
        ],
        details={"writing_the_variants": times["variants"].median, "chunk": CHUNK},
        notes=["writing the ablated activations is in our time and not in the floor"],
    )  # fmt: skip


def chunks(one: torch.Tensor) -> list[torch.Tensor]:
    """The activations `(C, h, w)` of one image without each channel in turn, `CHUNK` variants at a time."""
    parts = []
    for first in range(0, len(one), CHUNK):
        count = min(CHUNK, len(one) - first)
        variants = one.repeat(count, 1, 1, 1)
        variants[torch.arange(count), torch.arange(first, first + count)] = 0
        parts.append(variants)
    return parts


def tails(split: Split, prepared: list[torch.Tensor]) -> torch.Tensor:
    """What follows the layer, as a plain function, on prepared variants."""
    with torch.no_grad():
        return torch.cat([split.head(variants) for variants in prepared])


def _per_image(peer: Work, ours: Timing, batch: int) -> Peer:
    """One repetition on one image: the peer runs C whole forwards."""
    seconds = interleaved({"peer": peer}, 1, warmups=0)["peer"].median
    return Peer("pytorch-grad-cam", seconds, seconds / (ours.median / batch), "one image, once; ours an image")


def peer_work(split: Split, z: torch.Tensor) -> Work | None:
    """pytorch-grad-cam's AblationCAM at its default batch of 32; None where it is not installed."""
    try:
        from pytorch_grad_cam import AblationCAM
    except ImportError:
        return None
    trainable = split.trainable()

    def work() -> None:
        with AblationCAM(trainable, [trainable.get_submodule(split.layer)]) as cam, redirect_stderr(StringIO()):
            cam(z, None)

    return work
