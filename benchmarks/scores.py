"""All metrics of six methods on one image, beside the passes that their union needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import nn

import heatproof
from benchmarks.family import network
from benchmarks.floor import Work, counting, forward_pass, head_pass, interleaved
from benchmarks.networks import photographs
from benchmarks.result import Part, Result, compared
from benchmarks.settings import Settings
from heatproof.metrics.metric_request import requested_metrics

AIM = 1.2
METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam")
METRICS = ("fidelity", "family:complexity", "arcc", "adcc")
#: Rows of one plain pass: as many as ours take on a CPU.
ROWS = 8


def results(settings: Settings) -> Iterator[Result]:
    """ResNet-18, 224²."""
    yield _union(settings)


@dataclass(frozen=True)
class Counted:
    """Rows that went through the network without a graph, and with one from the last stage on."""

    forward: int
    head: int


def counted(net: nn.Module, work: Work) -> Counted:
    """What a piece of work really asks of the network."""
    with counting(net) as made:
        work()
    return Counted(made.images.forward, made.images.head)


def _union(settings: Settings) -> Result:
    net = network("resnet18")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(1)
    z = model.normalise(x).expand(ROWS, -1, -1, -1).contiguous()
    work = partial(heatproof.score, model, x, METHODS, METRICS, layer="layer4")
    made = counted(net, work)
    trunk = nn.Sequential(*list(net.children())[:-2])
    head = nn.Sequential(net.avgpool, nn.Flatten(), net.fc)
    works: dict[str, Work] = {
        "eight": lambda: forward_pass(net, z),
        "head": lambda: head_pass(trunk, head, z[:1]),
        "ours": work,
    }
    times = interleaved(works, settings.repeats(3), warmups=1)
    for timing, count in ((times["eight"], made.forward / ROWS), (times["head"], made.head)):
        timing.seconds[:] = [seconds * count for seconds in timing.seconds]
        timing.processor[:] = [seconds * count for seconds in timing.processor]
    metrics = len(requested_metrics(METRICS))
    return compared(
        "scores-resnet18", f"{metrics} metrics of six CAMs, resnet18", times["ours"], [times["eight"], times["head"]],
        AIM, n=1, threads=settings.threads, batch=1,
        parts=[Part("forwards", times["eight"].median, made.forward), Part("to layer4 and back", times["head"].median,
                                                                           made.head)],
        notes=["the passes are those that were made; that they are no more than needed is a test"],
    )  # fmt: skip
