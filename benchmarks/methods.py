"""Every method by itself beside the passes that its mathematics needs: one line each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import heatproof
from benchmarks.family import network, stage_pass
from benchmarks.floor import Timing, Work, forward_pass, full_pass, interleaved
from benchmarks.networks import frozen, photographs
from benchmarks.result import Part, Result, compared
from benchmarks.settings import Settings
from heatproof.attributions import ATTRIBUTIONS
from heatproof.models import Model

AIM = 1.3
BATCH = 8


@dataclass(frozen=True)
class Needs:
    """Passes a batch: forwards, forwards with a backward to the last stage, forwards with one to the image."""

    forward: float = 0
    head: float = 0
    full: float = 0
    options: Mapping[str, Any] = field(default_factory=dict)


SAMPLES, STEPS, MASKS = 8, 8, 64
HEAD, FULL, FORWARD = Needs(head=1), Needs(full=1), Needs(forward=1)
#: By method, on ResNet-18 with batches of eight; a tail after its last stage costs next to nothing.
NEEDS = {
    **dict.fromkeys(
        ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "gradcam-elementwise", "finercam", "eigengradcam",
         "ablationcam", "shapleycam", "segeigencam"), HEAD),
    **dict.fromkeys(("eigencam", "kpcacam", "fem", "cam", "iba", "randomcam"), FORWARD),
    "smoothgradcam++": Needs(forward=1, head=4, options={"samples": 4}),
    **dict.fromkeys(("fullgrad", "gradient", "input-x-gradient", "guided-backprop", "deconvnet", "lrp"), FULL),
    "guided-gradcam": Needs(head=1, full=1),
    "deeplift": Needs(forward=1 / BATCH, full=1),
    "smoothgrad": Needs(full=SAMPLES, options={"samples": SAMPLES}),
    "gradientshap": Needs(full=SAMPLES, options={"samples": SAMPLES}),
    "integrated-gradients": Needs(full=STEPS, options={"steps": STEPS}),
    "opticam": Needs(forward=1, full=STEPS, options={"steps": STEPS}),
    "extremal-perturbation": Needs(full=STEPS, options={"steps": STEPS}),
    "meaningful-perturbation": Needs(full=STEPS, options={"steps": STEPS, "start": "ones"}),
    "rise": Needs(forward=MASKS, options={"masks": MASKS}),
    "lime": Needs(forward=MASKS, options={"samples": MASKS}),
    "kernelshap": Needs(forward=MASKS, options={"samples": MASKS}),
    "occlusion": Needs(forward=37, options={"window": 64, "stride": 32}),  # 1 + 6 × 6 squares
}  # fmt: skip
#: On a ViT-Tiny instead. Score-CAM has a benchmark of its own (`queries`), for the methods made of it as well.
ATTENTION = {"attention-rollout": FORWARD, "chefer": FULL}


def results(settings: Settings) -> Iterator[Result]:
    """Those of ResNet-18, then those that need attention."""
    net = network("resnet18")
    yield from _measured(heatproof.wrap(net, 0.5, 0.5), "resnet18", NEEDS, settings)
    import timm

    torch.manual_seed(0)
    vit = frozen(timm.create_model("vit_tiny_patch16_224", pretrained=False))
    yield from _measured(heatproof.wrap(vit, 0.5, 0.5), "vit_tiny", ATTENTION, settings)


def uncounted() -> set[str]:
    """Methods without a line here; a test holds that there are none."""
    real = {name for name, entry in ATTRIBUTIONS.items() if not entry.traits["control"]}
    return real - set(NEEDS) - set(ATTENTION) - {"scorecam", "sscam", "iscam"}


def _measured(model: Model, name: str, methods: Mapping[str, Needs], settings: Settings) -> Iterator[Result]:
    x = photographs(BATCH)
    z, last = model.normalise(x), model.layers.stages[-1]
    for method, needs in methods.items():
        yield _one(model, model.module, name, method, needs, x, z, last, settings)


def _one(
    model: Model, net: nn.Module, name: str, method: str, needs: Needs, x: torch.Tensor, z: torch.Tensor, last: str,
    settings: Settings,
) -> Result:  # fmt: skip
    target = forward_pass(net, z).argmax(1)
    plain: dict[str, Work] = {
        "forward": lambda: forward_pass(net, z),
        "head": lambda: stage_pass(net, last, z),
        "full": lambda: full_pass(net, z, target),
    }
    counts = {kind: getattr(needs, kind) for kind in plain if getattr(needs, kind)}
    asked = {method: dict(needs.options)}
    works = {kind: plain[kind] for kind in counts}
    works["ours"] = lambda: heatproof.explain(model, x, asked, layer=last)
    cheap = sum(counts.values()) <= 2
    times = interleaved(works, settings.repeats(9 if cheap else 3), warmups=1)
    floor = [_times(times[kind], count) for kind, count in counts.items()]
    parts = [Part(f"{count:g} × {kind} pass", times[kind].median * count) for kind, count in counts.items()]
    return compared(
        f"method-{method}", f"{method}, {name}", times["ours"], floor, AIM,
        n=BATCH, threads=settings.threads, batch=BATCH, parts=parts,
        notes=[", ".join(f"{k}={v}" for k, v in needs.options.items())] if needs.options else [],
    )  # fmt: skip


def _times(timing: Timing, count: float) -> Timing:
    """A pass run `count` times."""
    return Timing([count * value for value in timing.seconds], [count * value for value in timing.processor])
