"""Time on a device beside the network passes that each piece of work makes, and where the host waits for it.

The passes are counted while the work runs (`floor.counting`); a plain pass of each kind is timed at two batch sizes.
The ratio is the time divided by that of the passes. Work is synchronised before the clock stops.
"""

import contextlib
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import heatproof
from benchmarks.agreement import METRIC, SOURCE, Log, exact, smooth, study_result, study_rows
from benchmarks.family import network, stage_pass
from benchmarks.floor import Made, Work, counting, forward_pass, full_pass, interleaved
from benchmarks.networks import frozen
from heatproof.models import Model

#: Method → options, by the batch size at which it is timed. What runs the network often gets few images.
CHEAP: Mapping[str, dict[str, Any]] = {
    name: {} for name in ("gradcam", "layercam", "eigencam", "ablationcam", "finercam", "refine:layercam", "fullgrad",
                          "guided-backprop", "lrp")
}  # fmt: skip
COSTLY: Mapping[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 16}, "scorecam": {}, "rise": {"masks": 512}, "lime": {"samples": 256},
}  # fmt: skip
ATTENTION: Mapping[str, dict[str, Any]] = {"attention-rollout": {}, "chefer": {}, "gradcam": {}}
METRICS: Mapping[str, dict[str, Any]] = {
    "road": {}, "insertion": {"steps": 224}, "deletion-mean": {"steps": 224}, "mprt": {}, "irof": {},
}  # fmt: skip
#: All CAMs of a condition together.
NOISE_METHODS = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam")
#: Of the network's passes; and images of methods and metrics that run the network often.
BATCH, FEW = 64, 4
#: Seconds that compiling a network may take.
COMPILING = 60
#: Calls whose waits are counted.
WAITS = ("gradcam", "eigencam", "layercam", "refine:layercam", "scorecam", "insertion", "road")


def synchronised(work: Work, device: str) -> Work:
    """The work, and the wait until the device has done it."""

    def run() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def median(work: Work, device: str, seconds: float = 1.5) -> float:
    """Median seconds of a piece of work, after two warm-ups: at most fifteen repetitions, in about `seconds`."""
    run = synchronised(work, device)
    run()
    begin = time.perf_counter()
    run()
    once = time.perf_counter() - begin
    return interleaved({"it": run}, max(3, min(15, int(seconds / max(once, 1e-6)))), warmups=0)["it"].median


@dataclass
class Plain:
    """A network's plain passes, and their seconds by kind and batch size."""

    model: Model
    x: torch.Tensor
    device: str
    seconds: dict[tuple[str, int, str], float] = field(default_factory=dict)

    def of(self, kind: str, count: int, layer: str) -> float:
        """Seconds of one pass of `count` images; a head pass goes back to `layer`."""
        key = (kind, count, layer)
        if key not in self.seconds:
            work = self._work(kind, self.model.normalise(self.x[:count]), layer)
            self.seconds[key] = median(work, self.device, 0.5)
        return self.seconds[key]

    def _work(self, kind: str, z: torch.Tensor, layer: str) -> Work:
        net = self.model.module
        target = forward_pass(net, z).argmax(1)
        works: dict[str, Work] = {
            "forward": lambda: forward_pass(net, z),
            "head": lambda: stage_pass(net, layer, z),
            "full": lambda: full_pass(net, z, target),
        }
        return works[kind]

    def floor(self, made: Made, count: int, layer: str) -> float:
        """Seconds of the passes made; those of more images than `count` at the price of an image in a large batch."""
        total = 0.0
        for kind, passes in made.passes.items():
            images = getattr(made.images, kind)
            if images > passes * count:
                total += images / len(self.x) * self.of(kind, len(self.x), layer)
            else:
                total += passes * self.of(kind, count, layer)
        return total

    def compared(self, work: Work, count: int, first: bool = False) -> dict[str, Any]:
        """Seconds of a piece of work on `count` images, its passes, the ratio of both, and the peak of memory.

        `first`: head passes go back to the first stage in place of the last.
        """
        work()  # the first call also finds layers and draws constants
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with counting(self.model.module) as made:
            work()
        layer = self.model.layers.stages[0 if first else -1]
        floor, seconds = self.floor(made, count, layer), median(work, self.device)
        passes = ", ".join(f"{number} {kind} of {getattr(made.images, kind)}" for kind, number in made.passes.items())
        found = {"ms": seconds * 1e3, "floor_ms": floor * 1e3, "passes": passes}
        if floor:
            found["ratio"] = round(seconds / floor, 3)
        if self.device == "cuda":
            found["gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        return found


def resnet(device: str, batch: int) -> Plain:
    """torchvision's ResNet-18 with random weights, in the channels-last format."""
    net = network("resnet18").to(device, memory_format=torch.channels_last)
    return Plain(heatproof.wrap(net, 0.5, 0.5), smooth(batch, 224).to(device), device)


def vit(device: str, batch: int) -> Plain:
    """timm's ViT-Tiny with random weights."""
    import timm

    torch.manual_seed(0)
    net = frozen(timm.create_model("vit_tiny_patch16_224", pretrained=False)).to(device)
    return Plain(heatproof.wrap(net, 0.5, 0.5), smooth(batch, 224).to(device), device)


def times(log: Log, device: str, batch: int = BATCH) -> None:
    """Methods on the CNN and the ViT at two batch sizes, metrics, and a noise study."""
    cnn = resnet(device, batch)
    for method, options in CHEAP.items():
        for count in (batch, 1):
            log.item(f"time resnet18 {method} × {count}", lambda m=method, o=options, c=count: explained(cnn, m, o, c))
    for metric, options in METRICS.items():
        log.item(f"time resnet18 {metric} × {FEW}", lambda m=metric, o=options: scored(cnn, m, o, FEW))
    for method, options in COSTLY.items():
        log.item(f"time resnet18 {method} × {FEW}", lambda m=method, o=options: explained(cnn, m, o, FEW))
    tokens = vit(device, batch)
    for method, options in ATTENTION.items():
        log.item(f"time vit_tiny {method} × {batch}", lambda m=method, o=options: explained(tokens, m, o, batch))


def explained(plain: Plain, method: str, options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A method through `heatproof.explain`."""
    x = plain.x[:count]
    work = lambda: heatproof.explain(plain.model, x, {method: options}, batch_size=count)  # noqa: E731
    return plain.compared(work, count, method.startswith("refine:"))


def scored(plain: Plain, metric: str, options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A metric of Grad-CAM through `heatproof.score`."""
    x = plain.x[:count]
    asked = {metric: options}
    return plain.compared(lambda: heatproof.score(plain.model, x, ["gradcam"], asked, batch_size=count), count)


def study(device: str, images: int, threads: int) -> dict[str, Any]:
    """Images a second of a noise study of the bundled network, from start to end, the second time."""
    settings = {"study": "noise-robustness", "models": ["shapes"], "datasets": ["shapes"], "limit": images,
                "segmenters": ["slic"], "device": device, "threads": threads}  # fmt: skip
    study_rows({**settings, "limit": 2})
    begin = time.perf_counter()
    rows = study_rows(settings)
    seconds = time.perf_counter() - begin
    maps = len(rows[["image", "method", "perturbation", "severity"]].drop_duplicates())
    return {"seconds": seconds, "images_a_second": images / seconds, "maps_a_second": maps / seconds, "rows": len(rows)}


def filled(log: Log, device: str, images: int, threads: int) -> None:
    """A noise study of small batches, one condition a pass and several, with and without autocast.

    Seconds are of the jobs alone. On a CPU nothing is found by itself: four conditions share a pass, and autocast is
    asked for.
    """
    by_itself = {"together": "auto", "autocast": "auto"} if device == "cuda" else {"together": 4, "autocast": "always"}
    base = {"study": "noise-robustness", "models": ["shapes"], "datasets": ["shapes"], "limit": images, "batch_size": 8,
            "methods": list(NOISE_METHODS), "controls": "none", "segmenters": ["grid"], "threads": threads,
            "perturbations": ["gaussian-noise", "motion-blur", "contrast"], "device": device}  # fmt: skip
    together = {"conditions_at_once": by_itself["together"]}
    settings = {"one condition a pass": {"conditions_at_once": 1}, "several conditions a pass": together,
                "several, autocast": {**together, "autocast": by_itself["autocast"]}}  # fmt: skip
    known: list[Any] = []
    for name, more in settings.items():
        log.item(f"study {name}", lambda more=more: _filled({**base, **more}, images, known))


def _filled(settings: dict[str, Any], images: int, known: list[Any]) -> dict[str, Any]:
    """Times and facts of a study, and how far its rows lie from those of the first, which are added to `known`."""
    study_result({**settings, "limit": 2})
    rows, facts, seconds = study_result(settings)
    known.append(rows)
    maps = len(rows[["image", "method", "perturbation", "severity"]].drop_duplicates())
    lower = facts.get("lower_precision", {}).get("shapes", {})
    gap = (rows["value"] - known[0]["value"]).abs()
    beyond = gap > METRIC * (1 + known[0]["value"].abs())
    found = {
        "seconds": seconds,
        "images_a_second": images / seconds,
        "maps_a_second": maps / seconds,
        "conditions_in_a_pass": facts.get("conditions_in_a_pass", {}).get("shapes", settings["conditions_at_once"]),
        "autocast": bool(lower.get("used")),
        "difference": float(gap.max()),
        "beyond": int(beyond.sum()),
    }
    if lower:
        found |= {"probability": lower.get("probability"), "beyond_tolerance": lower.get("beyond")}
    elif found["beyond"]:  # under autocast rows may differ
        found["problem"] = (
            f"of {len(rows)} rows {found['beyond']} differ from one condition a pass by up to {gap.max():.1e}"
        )
    return found


def variants(log: Log, device: str, batch: int = BATCH) -> None:
    """A forward pass of ResNet-18 in other formats, precisions and compilations, with the largest change of a logit."""
    net, x = network("resnet18").to(device), smooth(batch, 224).to(device)
    with exact():
        reference = forward_pass(net, x)
    last = x.contiguous(memory_format=torch.channels_last)
    channels = network("resnet18").to(device, memory_format=torch.channels_last)
    works: dict[str, Callable[[], Callable[[], torch.Tensor]]] = {
        "as torch is set": lambda: lambda: forward_pass(net, x),
        "channels-last": lambda: lambda: forward_pass(channels, last),
        "channels-last, bfloat16": lambda: lambda: _half(channels, last, device),
        "CUDA graph": lambda: _graph(net, x),
        "CUDA graph, channels-last": lambda: _graph(channels, last),
        "torch.compile": lambda: _compiled(net, x),
    }
    with exact():
        plain = lambda: lambda: forward_pass(net, x)  # noqa: E731
        log.item("forward full float32", lambda: _variant(plain, reference, device))
    for name, make in works.items():
        if name == "torch.compile" and time.monotonic() > log.until - COMPILING:
            log.skipped.append(f"forward {name}")
        elif device == "cuda" or "CUDA" not in name:
            log.item(f"forward {name}", lambda make=make: _variant(make, reference, device))
    for method in ("gradcam", "layercam", "eigencam", "refine:layercam"):
        log.item(f"maps {method}, bfloat16", lambda method=method: _rounded_maps(net, x[:FEW], method, device))


def _rounded_maps(net: nn.Module, x: torch.Tensor, method: str, device: str) -> dict[str, Any]:
    """How far maps under autocast lie from those in full float32: where autocast keeps them within a tolerance."""
    model = heatproof.wrap(net, 0.5, 0.5)
    with exact():
        ours = heatproof.explain(model, x, [method])[method]
    with torch.autocast(device, torch.bfloat16):
        theirs = heatproof.explain(model, x, [method])[method]
    return {"display": float((ours - theirs).abs().max()), "mean": float((ours - theirs).abs().mean())}


def _variant(make: Callable[[], Callable[[], torch.Tensor]], reference: torch.Tensor, device: str) -> dict[str, Any]:
    work = make()
    change = float((work().float() - reference).abs().max() / reference.abs().max())
    seconds = median(work, device)
    return {"ms": 1e3 * seconds, "images_a_second": len(reference) / seconds, "logit_change": change}


def _half(net: nn.Module, x: torch.Tensor, device: str) -> torch.Tensor:
    with torch.autocast(device, torch.bfloat16):
        return forward_pass(net, x)


def _compiled(net: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    compiled = torch.compile(net)
    return lambda: forward_pass(compiled, x)


def _graph(net: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A replayed graph of the pass; its output is always the same tensor."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward_pass(net, x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = forward_pass(net, x)

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


@contextlib.contextmanager
def waits() -> Iterator[Counter]:
    """Counts the lines of heatproof at which the host waits for the device."""
    found: Counter = Counter()

    def seen(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message) and "prototype" not in str(message):
            frames = [one for one in traceback.extract_stack() if one.filename.startswith(SOURCE)]
            frames = [one for one in frames if not one.filename.endswith("transfers.py")]  # the line that asked
            last = frames[-1] if frames else None
            found[f"{last.filename[len(SOURCE) + 1 :]}:{last.lineno} {last.name}" if last else "elsewhere"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = seen
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def synchronisations(log: Log, device: str, batch: int = BATCH) -> None:
    """Where hot paths wait; nothing to count on a CPU."""
    if device != "cuda":
        log.skipped.append("waits: the device is no GPU")
        return
    cnn = resnet(device, batch)
    for name in WAITS:
        call = _call(cnn, name)
        log.item(f"waits {name}", lambda call=call: _counted(call))
    log.item("waits of a condition", lambda: condition_waits(device))


def condition_waits(device: str) -> dict[str, Any]:
    """Waits under each condition of the noise study of `benchmarks/waits.json`, where a pretended GPU counts them."""
    from heatproof.studies.measurement import Measurement

    found: dict[str, int] = {}
    measure = Measurement._of_condition

    def watched(self: Measurement, number: int, *arguments: Any) -> None:
        with waits() as seen:
            measure(self, number, *arguments)
        found[self.conditions[number].name or "clean"] = sum(seen.values())

    settings = {"study": "noise-robustness", "models": ["shapes"], "datasets": ["shapes"], "limit": 2, "batch_size": 2,
                "methods": ["gradcam", "gradcam++", "layercam", "eigencam", "refine:layercam"], "segmenters": ["grid"],
                "perturbations": ["gaussian-noise", "jpeg", "fgsm"], "severities": [1, 3],
                "device": device}  # fmt: skip
    Measurement._of_condition = watched  # type: ignore[method-assign]
    try:
        study_rows(settings)
    finally:
        Measurement._of_condition = measure  # type: ignore[method-assign]
    return {"waits": sum(found.values()), "at": found}


def _call(plain: Plain, name: str) -> Work:
    x = plain.x[:FEW]
    if name in METRICS:
        return lambda: heatproof.score(plain.model, x, ["gradcam"], {name: METRICS[name]})
    return lambda: heatproof.explain(plain.model, x, [name])


def _counted(call: Work) -> dict[str, Any]:
    call()
    with waits() as found:
        call()
    return {"waits": sum(found.values()), "at": dict(found.most_common(12))}
