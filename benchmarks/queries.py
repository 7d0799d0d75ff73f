"""Methods that ask the network many times: Score-CAM, RISE, ShapleyCAM, integrated gradients."""

from collections.abc import Iterator

import torch
from torch import nn

import heatproof
from benchmarks.family import network, stage_pass
from benchmarks.floor import Timing, Work, forward_pass, interleaved
from benchmarks.networks import photographs
from benchmarks.result import Part, Peer, Result, compared
from benchmarks.settings import Settings

SCORECAM, RISE, SHAPLEY, GRADIENTS = 1.1, 1.1, 1.3, 1.0
MASKS = 512
#: Images in one pass: as many as our methods take on a CPU.
ROWS = 8


def results(settings: Settings) -> Iterator[Result]:
    """One image each on ResNet-18; ShapleyCAM also where the Hessian is not zero."""
    yield _scorecam(settings)
    yield _rise(settings)
    yield _shapleycam("resnet18", settings)
    yield _shapleycam("convnext_tiny", settings)
    yield _integrated_gradients(settings)


def _forwards(net: nn.Module, z: torch.Tensor, count: int) -> Work:
    """`count` plain forwards, `ROWS` at a time, written nowhere."""
    batch = z[:1].expand(ROWS, *z.shape[1:]).contiguous()

    def work() -> None:
        for start in range(0, count, ROWS):
            forward_pass(net, batch[: min(ROWS, count - start)])

    return work


def _scorecam(settings: Settings) -> Result:
    net = network("resnet18")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(1)
    z = model.normalise(x)
    works: dict[str, Work] = {
        "floor": _forwards(net, z, 512),
        "ours": lambda: heatproof.explain(model, x, ["scorecam"], layer="layer4"),
    }
    times = interleaved(works, settings.repeats(3), warmups=1)
    return compared(
        "scorecam-resnet18", "scorecam, resnet18, layer4 (512 channels)", times["ours"], [times["floor"]], SCORECAM,
        n=1, threads=settings.threads, batch=1, parts=[Part("512 forwards", times["floor"].median)],
        notes=["channels that are constant after the ReLU need no forward of their own, so less than 1 can be"],
    )  # fmt: skip


def _rise(settings: Settings) -> Result:
    net = network("resnet18")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(1)
    z = model.normalise(x)
    works: dict[str, Work] = {
        "floor": _forwards(net, z, MASKS),
        "ours": lambda: heatproof.explain(model, x, {"rise": {"masks": MASKS}}),
    }
    times = interleaved(works, settings.repeats(3), warmups=1)
    return compared(
        "rise-resnet18", f"rise, resnet18, {MASKS} masks", times["ours"], [times["floor"]], RISE,
        n=1, threads=settings.threads, batch=1, parts=[Part(f"{MASKS} forwards", times["floor"].median)],
    )  # fmt: skip


def _shapleycam(name: str, settings: Settings) -> Result:
    """Floor: a pass to the last stage and its backward once more; a second derivative cannot cost less than a first."""
    net = network(name)
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(8)
    z, layer = model.normalise(x), model.layers.stages[-1]
    works: dict[str, Work] = {
        "pass": lambda: stage_pass(net, layer, z),
        "forward": lambda: forward_pass(net, z),
        "ours": lambda: heatproof.explain(model, x, ["shapleycam"], layer=layer),
    }
    times = interleaved(works, settings.repeats(9))
    again = _difference(times["pass"], times["forward"])
    return compared(
        f"shapleycam-{name}", f"shapleycam, {name}, {layer}", times["ours"], [times["pass"], again], SHAPLEY,
        n=8, threads=settings.threads, batch=8,
        parts=[Part("forward + backward", times["pass"].median), Part("backward again", again.median)],
    )  # fmt: skip


def _difference(whole: Timing, part: Timing) -> Timing:
    """What is left of a work's time without one of its parts, repetition by repetition."""
    left = [[max(0.0, a - b) for a, b in zip(*pair, strict=True)]
            for pair in ((whole.seconds, part.seconds), (whole.processor, part.processor))]  # fmt: skip
    return Timing(*left)


def _integrated_gradients(settings: Settings) -> Result:
    """Captum, with its own way to bound memory, is the floor here: fifty steps each."""
    from captum.attr import IntegratedGradients

    net = network("resnet18")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(2)
    z = model.normalise(x)
    target = forward_pass(net, z).argmax(1)
    peer = IntegratedGradients(net)
    works: dict[str, Work] = {
        "captum": lambda: peer.attribute(z, target=target, n_steps=50),
        "captum, bounded": lambda: peer.attribute(z, target=target, n_steps=50, internal_batch_size=ROWS),
        "ours": lambda: heatproof.explain(model, x, ["integrated-gradients"], target=target),
    }
    times = interleaved(works, settings.repeats(5), warmups=1)
    ours, bounded = times["ours"], times["captum, bounded"]
    return compared(
        "integrated-gradients-resnet18", "integrated-gradients, resnet18, 50 steps", ours, [times["captum"]], GRADIENTS,
        n=2, threads=settings.threads, batch=2, parts=[Part("Captum, all steps at once", times["captum"].median)],
        peers=[Peer(f"Captum, {ROWS} rows at a time", bounded.median, bounded.median / ours.median, "bounded memory")],
        notes=["the floor is Captum without a bound on memory; ours has one"],
    )  # fmt: skip
