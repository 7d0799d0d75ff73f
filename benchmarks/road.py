"""ROAD at four fractions beside the eight forwards it needs, and its imputation alone."""

import statistics
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

import heatproof
from benchmarks.family import network
from benchmarks.floor import Timing, Work, forward_pass, interleaved
from benchmarks.networks import photographs
from benchmarks.result import Part, Peer, Result, compared, quartiles
from benchmarks.settings import Settings
from heatproof.imputation import imputed
from heatproof.metrics.curves import pixel_ranks
from heatproof.metrics.road import removal_scores

#: Of eight forwards; seconds for one system of three channels at 224².
AIM, SYSTEM = 1.5, 0.02
KEPT = (20, 40, 60, 80)


def results(settings: Settings) -> Iterator[Result]:
    """One photograph on ResNet-18, with a smooth map and with noise; then systems by the share removed."""
    x, net = photographs(1), network("resnet18")
    for name, maps in _maps(net, x).items():
        yield _road(name, net, x, maps, settings)
    for name, maps in _maps(net, x).items():
        yield _imputation(name, net, x, maps, settings)


def _maps(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Display maps: Grad-CAM's blots, and white noise."""
    smooth = heatproof.explain(heatproof.wrap(net, 0.5, 0.5), x, ["gradcam"], layer="layer4")["gradcam"]
    return {"smooth": smooth, "noise": torch.rand(smooth.shape, generator=torch.Generator().manual_seed(0))}


def _generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(0)]


def _road(name: str, net: nn.Module, x: torch.Tensor, maps: torch.Tensor, settings: Settings) -> Result:
    """From the map to the two rows of probabilities, ranks and noise included."""
    z = heatproof.wrap(net, 0.5, 0.5).normalise(x)
    target = int(forward_pass(net, z).argmax())
    eight = z.expand(2 * len(KEPT), *z.shape[1:]).contiguous()

    def score(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return forward_pass(net, images).double().softmax(1)[:, target]

    works: dict[str, Work] = {
        "floor": lambda: forward_pass(net, eight),
        "ours": lambda: removal_scores(z, pixel_ranks(maps, _generators()), score, _generators(), kept=KEPT),
        "peer": _peer(net, z, maps, target),
    }
    times = interleaved(works, settings.repeats(15), seldom={"peer": 1})
    ours, peer = times["ours"], times["peer"]
    return compared(
        f"road-{name}", f"road, resnet18, four fractions, {name} map", ours, [times["floor"]], AIM,
        n=1, threads=settings.threads, batch=8, parts=[Part("forward of 8 images", times["floor"].median)],
        peers=[Peer("pytorch-grad-cam, ROADCombined", peer.median, peer.median / ours.median, "16 forwards, once")],
    )  # fmt: skip


def _peer(net: nn.Module, z: torch.Tensor, maps: torch.Tensor, target: int) -> Work:
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    combined, given = ROADCombined(list(KEPT)), np.asarray(maps)
    return lambda: combined(z, given, [ClassifierOutputSoftmaxTarget(target)], net)


def _imputation(name: str, net: nn.Module, x: torch.Tensor, maps: torch.Tensor, settings: Settings) -> Result:
    """The eight systems of one image together, as ROAD has them; the floor is the limit."""
    z, ranks = heatproof.wrap(net, 0.5, 0.5).normalise(x), pixel_ranks(maps, _generators())
    count = ranks.numel()
    pairs = {kept: (ranks < count * (100 - kept) // 100, ranks >= count * kept // 100) for kept in KEPT}
    works: dict[str, Work] = {"all": _solver(z, [mask for pair in pairs.values() for mask in pair])}
    works |= {f"{100 - kept} % removed": _solver(z, pair) for kept, pair in pairs.items()}
    works["forward"] = lambda: forward_pass(net, z)
    times = interleaved(works, settings.repeats(15))
    each = {
        what: [seconds / (8 if what == "all" else 2) for seconds in timing.seconds] for what, timing in times.items()
    }
    return _within(name, each.pop("all"), times["forward"], each, settings)


def _solver(z: torch.Tensor, masks: "list[torch.Tensor] | tuple[torch.Tensor, ...]") -> Work:
    removed = torch.cat(list(masks))
    images = z.expand(len(removed), *z.shape[1:]).contiguous()
    return lambda: imputed(images, removed)


def _within(
    name: str, seconds: list[float], forward: Timing, each: dict[str, list[float]], settings: Settings
) -> Result:
    ratios = [value / SYSTEM for value in seconds]
    forwards = forward.median
    details = {f"seconds a system, {what}": statistics.median(found) for what, found in each.items() if "%" in what}
    return Result(
        f"imputation-{name}", f"imputation, one system of 3 × 224², {name} mask", statistics.median(seconds), SYSTEM,
        statistics.median(ratios), quartiles(ratios), 1.0, n=8, repeats=len(ratios), threads=settings.threads, batch=8,
        parts=[Part("the limit", SYSTEM)],
        details={**details, "forwards of one image a system": statistics.median(seconds) / forwards},
        notes=["the floor column holds the limit"],
    )  # fmt: skip
