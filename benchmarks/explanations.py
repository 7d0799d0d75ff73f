"""Metrics that explain again: both sensitivities, and weights drawn anew, beside the explanations they need."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

import heatproof
from benchmarks.family import network
from benchmarks.floor import Work, counting, head_pass, interleaved
from benchmarks.networks import photographs
from benchmarks.result import Part, Result, compared
from benchmarks.settings import Settings

AIM = 1.2
#: Images of a batch: as many as go through a CPU at a time; and explanations of each beside the first.
BATCH, AGAIN = 8, 10

#: Name in the table → what it says there, and the metrics.
WORKS: Mapping[str, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    "sensitivity": (
        f"max and average sensitivity, {AGAIN} draws",
        {"max-sensitivity": {"samples": AGAIN}, "average-sensitivity": {"samples": AGAIN}},
    ),
    "mprt": (f"mprt, {AGAIN} stages", {"mprt": {"stages": AGAIN}}),
}


def results(settings: Settings) -> Iterator[Result]:
    """Grad-CAM at the last stage of ResNet-18."""
    for name, (said, metrics) in WORKS.items():
        yield _again(name, said, metrics, settings)


def _again(name: str, said: str, metrics: Mapping[str, Mapping[str, Any]], settings: Settings) -> Result:
    """Floor: for the map and for each explanation a forward and the gradient back to the layer, plain, once a batch."""
    net = network("resnet18")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(BATCH)
    z = model.normalise(x)
    trunk = nn.Sequential(*list(net.children())[:-2])
    head = nn.Sequential(net.avgpool, nn.Flatten(), net.fc)
    work = partial(heatproof.score, model, x, ["gradcam"], metrics, layer="layer4", batch_size=BATCH)
    with counting(net) as made:  # copies of the network keep its hooks, so their passes count too
        work()
    works: dict[str, Work] = {
        "plain": lambda: head_pass(trunk, head, z),
        "explained": lambda: heatproof.explain(model, x, ["gradcam"], layer="layer4", batch_size=BATCH),
        "ours": work,
    }
    times = interleaved(works, settings.repeats(5), warmups=1)
    plain, explained = times["plain"], times["explained"]
    for timing in (plain, explained):
        timing.seconds[:] = [seconds * (1 + AGAIN) for seconds in timing.seconds]
        timing.processor[:] = [seconds * (1 + AGAIN) for seconds in timing.processor]
    return compared(
        f"{name}-resnet18", f"{said}, gradcam, resnet18", times["ours"], [plain], AIM,
        n=BATCH, threads=settings.threads, batch=BATCH,
        parts=[Part("forward, and back to layer4", plain.median, 1 + AGAIN)],
        details={"passes": made.passes.head + made.passes.forward, "by_explain": explained.median},
    )  # fmt: skip
