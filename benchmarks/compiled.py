"""Passes for logits alone on a compiled copy of the network, beside the same passes as they are."""

from collections.abc import Iterator
from functools import partial

import timm
import torch
from torch import nn

import heatproof
from benchmarks.curves import STEPS, plain_forwards
from benchmarks.family import network, stage_pass
from benchmarks.floor import Work, counting, forward_pass, interleaved
from benchmarks.networks import ASSETS, photographs
from benchmarks.result import Part, Result, compared
from benchmarks.scores import METHODS, METRICS
from benchmarks.settings import Settings
from heatproof.data import load_images
from heatproof.metrics.metric_request import requested_metrics
from heatproof.models.checkpoint import load_weights
from heatproof.models.compiled import pass_shape, with_compiled
from heatproof.studies.cost import counted

AIM = 0.85
#: Masks of RISE; the share of its passes is that of 8,000.
MASKS = 448
#: Plain passes in one timing of the floor of all metrics.
EACH = 20
#: The weights of EfficientNet-Lite0, where they are at hand.
CHECKPOINT = ASSETS / "models" / "tf_efficientnet_lite0_imagenet.safetensors"


def results(settings: Settings) -> Iterator[Result]:
    """Insertion and deletion, RISE, and all metrics of six CAMs, on one photograph; the network is warm."""
    for name, net in (("resnet18", network("resnet18")), ("efficientnet-lite0", efficientnet())):
        plain = heatproof.wrap(net, 0.5, 0.5, size=224)
        model = with_compiled(plain)
        yield _curves(settings, name, net, model)
        yield _rise(settings, name, net, model)
        yield _union(settings, name, plain, photographs(1))
    shapes = heatproof.load_model("shapes")
    yield _union(settings, "shapes", shapes, shapes.geometry.image(load_images("shapes").open(0))[None])


def efficientnet() -> nn.Module:
    """timm's EfficientNet-Lite0, with random weights where those of ImageNet are not at hand."""
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if CHECKPOINT.exists():
        load_weights(net, CHECKPOINT, "tf_efficientnet_lite0")
    return net.eval().requires_grad_(False)


def _curves(settings: Settings, name: str, net: nn.Module, model: heatproof.Model) -> Result:
    x = photographs(1)
    maps = torch.rand(1, *x.shape[2:], generator=torch.Generator().manual_seed(0))
    metrics = [f"deletion[steps={STEPS}]", f"insertion[steps={STEPS}]"]
    work = partial(heatproof.score, model, x, {"random": maps}, metrics)
    return _beside(settings, f"compiled-curves-{name}", f"insertion + deletion, {name}, compiled", work, net,
                   2 * STEPS)  # fmt: skip


def _rise(settings: Settings, name: str, net: nn.Module, model: heatproof.Model) -> Result:
    work = partial(heatproof.explain, model, photographs(1), f"rise[masks={MASKS}]")
    return _beside(settings, f"compiled-rise-{name}", f"RISE, {MASKS} masks, {name}, compiled", work, net, MASKS)


def _beside(settings: Settings, key: str, text: str, work: Work, net: nn.Module, forwards: int) -> Result:
    z = heatproof.wrap(net, 0.5, 0.5).normalise(photographs(1))
    works: dict[str, Work] = {"floor": plain_forwards(net, z, forwards), "ours": work}
    times = interleaved(works, settings.repeats(3), warmups=1)
    return compared(
        key, text, times["ours"], [times["floor"]], AIM, n=1, threads=settings.threads, batch=1,
        parts=[Part(f"{forwards} eager forwards", times["floor"].median)],
    )  # fmt: skip


def _union(settings: Settings, name: str, plain: heatproof.Model, x: torch.Tensor) -> Result:
    """All metrics; the floor is the passes that were made, as many in one as the engine puts there, run eagerly."""
    model, layer, net = with_compiled(plain), plain.last_layer, plain.module
    rows = pass_shape(plain)[0]
    z = plain.normalise(x).expand(rows, -1, -1, -1).contiguous()
    work = partial(heatproof.score, model, x, METHODS, METRICS)
    with counting(net) as made, counted(model.compiled) as compiled:
        work()  # the warm-up
    forward = made.images.forward + int(compiled.forward)
    times = interleaved(
        {"full": lambda: [forward_pass(net, z) for _ in range(EACH)],
         "layer": lambda: [stage_pass(net, layer, z[:1]) for _ in range(EACH)], "ours": work},
        settings.repeats(3), warmups=0,
    )  # fmt: skip
    for timing, count in ((times["full"], forward / rows / EACH), (times["layer"], made.images.head / EACH)):
        timing.seconds[:] = [seconds * count for seconds in timing.seconds]
        timing.processor[:] = [seconds * count for seconds in timing.processor]
    return compared(
        f"compiled-scores-{name}", f"{len(requested_metrics(METRICS))} metrics of six CAMs, {name}, compiled",
        times["ours"], [times["full"], times["layer"]], AIM, n=1, threads=settings.threads, batch=1,
        parts=[Part("eager forwards", times["full"].median, forward),
               Part("forward, and back to the layer", times["layer"].median, made.images.head)],
        details={"share of the forwards that ran compiled": compiled.forward / forward},
    )  # fmt: skip
