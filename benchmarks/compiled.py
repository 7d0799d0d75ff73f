"""Passes for logits alone on a compiled copy of the network, beside the same passes as they are."""

from collections.abc import Iterator
from functools import partial

import timm
import torch
from torch import nn

import heatproof
from benchmarks.curves import STEPS, plain_forwards
from benchmarks.family import network
from benchmarks.floor import Work, forward_pass, head_pass, interleaved
from benchmarks.networks import photographs
from benchmarks.result import Part, Result, compared
from benchmarks.scores import METHODS, METRICS, ROWS, counted
from benchmarks.settings import Settings
from heatproof.metrics.metric_request import requested_metrics
from heatproof.models.compiled import with_compiled

AIM = 0.85
#: Masks of RISE; the share of its passes is that of 8,000.
MASKS = 448


def results(settings: Settings) -> Iterator[Result]:
    """Insertion and deletion, RISE, and all metrics of six CAMs, on one photograph; the network is warm."""
    for name, net in (("resnet18", network("resnet18")), ("efficientnet-lite0", efficientnet())):
        model = with_compiled(heatproof.wrap(net, 0.5, 0.5))
        yield _curves(settings, name, net, model)
        yield _rise(settings, name, net, model)
    yield _union(settings)


def efficientnet() -> nn.Module:
    """timm's EfficientNet-Lite0 with random weights."""
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0", pretrained=False).eval().requires_grad_(False)


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


def _union(settings: Settings) -> Result:
    net = network("resnet18")
    plain, x = heatproof.wrap(net, 0.5, 0.5), photographs(1)
    model = with_compiled(plain)
    z = plain.normalise(x).expand(ROWS, -1, -1, -1).contiguous()
    made = counted(net, partial(heatproof.score, plain, x, METHODS, METRICS, layer="layer4"))
    trunk, head = nn.Sequential(*list(net.children())[:-2]), nn.Sequential(net.avgpool, nn.Flatten(), net.fc)
    works: dict[str, Work] = {
        "eight": lambda: forward_pass(net, z),
        "head": lambda: head_pass(trunk, head, z[:1]),
        "ours": partial(heatproof.score, model, x, METHODS, METRICS, layer="layer4"),
    }
    times = interleaved(works, settings.repeats(3), warmups=1)
    for timing, count in ((times["eight"], made.forward / ROWS), (times["head"], made.head)):
        timing.seconds[:] = [seconds * count for seconds in timing.seconds]
        timing.processor[:] = [seconds * count for seconds in timing.processor]
    return compared(
        "compiled-scores-resnet18", f"{len(requested_metrics(METRICS))} metrics of six CAMs, resnet18, compiled",
        times["ours"], [times["eight"], times["head"]], AIM, n=1, threads=settings.threads, batch=1,
        parts=[Part("eager forwards", times["eight"].median, made.forward),
               Part("to layer4 and back", times["head"].median, made.head)],
    )  # fmt: skip
