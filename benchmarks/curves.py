"""Insertion and deletion, one row of pixels a step as RISE has it, beside that many plain forwards."""

from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import partial
from io import StringIO

import torch
from torch import nn

import heatproof
from benchmarks.family import network
from benchmarks.floor import Work, forward_pass, interleaved
from benchmarks.networks import photographs
from benchmarks.result import Part, Peer, Result, compared
from benchmarks.settings import Settings

AIM = 1.1
STEPS = 224
#: Rows of one plain pass: as many as ours take on a CPU.
ROWS = 8
#: Single channels that Quantus flips at a step; it must divide the number of pixels, so no whole number of pixels can.
FEATURES = 224 * 28


def results(settings: Settings) -> Iterator[Result]:
    """One image on ResNet-18, 224²: the two curves of 224 steps, and Quantus' pixel flipping."""
    net = network("resnet18")
    model, x = heatproof.wrap(net, 0.5, 0.5), photographs(1)
    z, maps = model.normalise(x), torch.rand(1, *x.shape[2:], generator=torch.Generator().manual_seed(0))
    metrics = [f"deletion[steps={STEPS}]", f"insertion[steps={STEPS}]"]
    peer = peer_work(net, z, maps)
    works: dict[str, Work] = {
        "floor": plain_forwards(net, z, 2 * STEPS),
        "ours": partial(heatproof.score, model, x, {"random": maps}, metrics),
        **({"peer": peer} if peer else {}),
    }
    times = interleaved(works, settings.repeats(3), warmups=1, seldom={"peer": 1})
    ours, peers = times["ours"], []
    if peer:
        flips = 3 * maps[0].numel() // FEATURES
        seconds = times["peer"].median * 2 * STEPS / flips
        peers = [Peer("Quantus PixelFlipping", seconds, seconds / ours.median,
                      f"{flips} steps, scaled to {2 * STEPS}; one image at a time")]  # fmt: skip
    yield compared(
        "curves-resnet18", f"insertion + deletion, resnet18, {STEPS} steps", ours, [times["floor"]], AIM,
        n=1, threads=settings.threads, batch=1, parts=[Part(f"{2 * STEPS} forwards", times["floor"].median)],
        peers=peers,
        notes=["the image itself, blank and blurred ones included: 449 images go through the network"],
    )  # fmt: skip


def plain_forwards(net: nn.Module, z: torch.Tensor, count: int) -> Work:
    """`count` plain forwards, `ROWS` at a time, written nowhere."""
    batch = z[:1].expand(ROWS, *z.shape[1:]).contiguous()

    def work() -> None:
        for start in range(0, count, ROWS):
            forward_pass(net, batch[: min(ROWS, count - start)])

    return work


def peer_work(net: nn.Module, z: torch.Tensor, maps: torch.Tensor) -> Work | None:
    """One curve of Quantus, on the fill of what is 0 to the network; None where it is not installed."""
    try:
        import quantus
    except ImportError:
        return None
    metric = quantus.PixelFlipping(
        features_in_step=FEATURES, perturb_baseline=0.0, normalise=False, disable_warnings=True
    )
    target = forward_pass(net, z).argmax(1).numpy()

    def work() -> None:
        with redirect_stderr(StringIO()):
            metric(model=net, x_batch=z.numpy(), y_batch=target, a_batch=maps[:, None].numpy(), device="cpu")

    return work
