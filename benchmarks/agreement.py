"""Maps, metrics, perturbations and studies on another device beside the CPU's, item by item.

Both sides have the same float32 weights, images, targets and seeds. An item that fails is listed, and the rest go on.
"""

import copy
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, requested
from heatproof.data.shapes import DEMO, Shapes
from heatproof.engine import Batch, explanation, refusals, resolve_layers
from heatproof.metrics import METRICS
from heatproof.metrics.metric_request import parsed_metric
from heatproof.models import Model
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.studies.changed_images import loss_gradient
from heatproof.transformations import TRANSFORMATIONS, transformed

SOURCE = str(Path(heatproof.__file__).parent)
#: Options with which methods and metrics that run the network often take seconds.
QUICK: Mapping[str, dict[str, Any]] = {
    "rise": {"masks": 128},
    "sscam": {"samples": 2},
    "iscam": {"samples": 2},
    "lime": {"samples": 128, "alpha": 1e-3, "segmenter": "grid"},
    "kernelshap": {"samples": 128, "segmenter": "grid"},
    "occlusion": {"window": 64, "stride": 32},
    "smoothgrad": {"samples": 4},
    "gradientshap": {"samples": 4},
    "integrated-gradients": {"steps": 8},
    "opticam": {"steps": 6},
    "extremal-perturbation": {"steps": 6},
    "meaningful-perturbation": {"steps": 6, "start": "ones"},
    "iba": {"steps": 4, "samples": 4},
    "effective-complexity": {"steps": 20, "samples": 3},
    "faithfulness-correlation": {"samples": 20},
    "infidelity": {"samples": 20},
    "sensitivity-n": {"samples": 10, "steps": 4},
    **{name: {"steps": 24} for name in ("deletion", "deletion-mean", "insertion", "monotonicity")},
    **{name: {"stages": 3} for name in ("mprt", "smooth-mprt")},
}
#: The largest difference of raw maps, relative to their largest value; ten times that of maps in [0, 1].
TOLERANCE = 1e-4
#: For methods that take steps along a gradient, fit a model to answers, or look for an eigenvector.
LOOSE = {**dict.fromkeys(("opticam", "extremal-perturbation", "meaningful-perturbation", "iba"), 1e-2),
         **dict.fromkeys(("lime", "kernelshap", "eigencam", "eigengradcam", "kpcacam"), 1e-3)}  # fmt: skip
#: Of metrics: absolute, and relative to the value.
METRIC = 1e-3
#: What an attack or a rounding image format may change elsewhere: the share of the pixels beyond `TOLERANCE`.
FLIPPED = 2e-3
#: Of images larger than `LARGE` these get one.
COSTLY, LARGE = ("scorecam", "sscam", "iscam", "rise", "lime", "kernelshap", "iba"), 128
#: Further spellings, beside every registered method.
SPELLINGS = ("refine:layercam", "refine:gradcam")


@dataclass
class Log:
    """What was found: records, failures and skipped items; nothing begins after `until` on the monotonic clock."""

    until: float
    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def item(self, name: str, work: Callable[[], dict[str, Any] | None]) -> None:
        """Runs and records one item; `problem` in what it returns, or an error, makes it a failure."""
        begin = time.monotonic()
        if begin > self.until:
            self.skipped.append(name)
            return
        try:
            found = work()
        except Exception as error:
            found = {"problem": raised(error), "error": True}
        if found is None:
            return
        record = {"name": name, **found, "took": round(time.monotonic() - begin, 3)}
        self.records.append(record)
        if found.get("problem"):
            self.failures.append((name, found["problem"]))
        print(
            " ".join([f"{name:<46}", *(_shown(key, value) for key, value in record.items() if key != "name")]),
            flush=True,
        )


def _shown(key: str, value: Any) -> str:
    digits = 6 if key in ("ranks", "ratio") else 3
    return f"{key}={value:.{digits}g}" if isinstance(value, float) else f"{key}={value}"


def raised(error: BaseException) -> str:
    """The error in one line, with the last line of heatproof that it came through."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(SOURCE)]
    last = f"{frames[-1].filename[len(SOURCE) + 1 :]}:{frames[-1].lineno} {frames[-1].name}: " if frames else ""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{last}{type(error).__name__}: {first}"[:300]


@contextmanager
def exact() -> Iterator[None]:
    """While it lasts, products and convolutions are in full float32, and convolutions are deterministic."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


@dataclass(frozen=True)
class Subject:
    """A network with images `(N, 3, H, W)`: `make(device)` gives the model there."""

    name: str
    make: Callable[[str], Model]
    x: torch.Tensor


def shapes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks of the bundled data, `(N, 3, 96, 96)` in [0, 1] and `(N, 96, 96)`."""
    made = Shapes("test", count, **DEMO)
    images = np.stack([np.asarray(made.open(i)) for i in range(count)])
    masks = np.stack([made.mask(i) for i in range(count)])
    return torch.from_numpy(images).movedim(-1, 1).float() / 255, torch.from_numpy(masks) > 0


def subjects(assets: Path | None, specs: list[str]) -> Iterator[Subject]:
    """The bundled network, networks with random weights, and those of `assets`; or the ones named."""
    if specs:
        for spec in specs:
            net = heatproof.load_model(spec, pretrained=False, device="cpu")
            yield _moving(spec, net.module, torch.rand(3, *net.input_shape, generator=_seeded()))
        return
    yield Subject("shapes", lambda device: heatproof.load_model("shapes", device=device), shapes(4)[0])
    yield _random("vit_tiny_patch16_224", 96, img_size=96)
    if assets:
        yield from _photographed(assets)
    yield _random("mobilenetv2_050", 96)
    yield _random("swin_tiny_patch4_window7_224", 224)


def _random(name: str, side: int, **more: Any) -> Subject:
    """One of timm's networks with random weights, drawn on the CPU."""
    import timm

    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=20, **more)
    return _moving(name, net, smooth(2, side))


def _photographed(assets: Path) -> Iterator[Subject]:
    from benchmarks.networks import opened

    x = opened(sorted((assets / "images").glob("*.JPEG"))[:2])
    networks = {
        "tf_efficientnet_lite0": {},
        "mobilenetv2_100": {"model_args": {"pad_type": "same"}, "mean": 0.5, "std": 0.5},
    }
    for name, more in networks.items():
        file = assets / "models" / f"{name}_imagenet.safetensors"
        make = lambda device, name=name, file=file, more=more: heatproof.load_model(  # noqa: E731
            f"timm:{name}", file, device=device, **more
        )
        yield Subject(name, make, x)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def smooth(count: int, side: int) -> torch.Tensor:
    """Random images with some structure."""
    coarse = torch.rand(count, 3, 9, 9, generator=_seeded())
    fine = torch.rand(count, 3, side, side, generator=_seeded())
    return 0.8 * nn.functional.interpolate(coarse, (side, side), mode="bilinear") + 0.2 * fine


def _moving(name: str, net: nn.Module, x: torch.Tensor) -> Subject:
    """Batch norms get the statistics of some images, so that random weights tell images apart."""
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        part.momentum = None
    with torch.no_grad():
        net.train()(smooth(16, x.shape[-1]) if norms else x)
    net.eval()
    side = x.shape[-1]
    settings = {"mean": 0.5, "std": 0.5, "size": side, "name": name}
    return Subject(name, lambda device: heatproof.wrap(copy.deepcopy(net), device=device, **settings), x)


def methods(log: Log, subject: Subject, device: str) -> None:
    """Every method that serves the network: raw maps, display maps, flags."""
    here, there = subject.make("cpu"), subject.make(device)
    with torch.no_grad(), here.evaluating():
        target = here.logits(subject.x).argmax(1)
    for name in (*ATTRIBUTIONS, *SPELLINGS):
        log.item(f"{subject.name} {name}", lambda name=name: _map(here, there, subject.x, target, name))


def rounded(log: Log, subject: Subject, device: str) -> None:
    """What the device's own settings, as torch has them (TF32 in convolutions), change in some maps; nothing fails."""
    here, there = subject.make("cpu"), subject.make(device)
    with torch.no_grad(), here.evaluating():
        target = here.logits(subject.x).argmax(1)
    for name in ("gradcam", "layercam", "eigencam", "refine:layercam", "lrp"):
        found = lambda name=name: [_explained(model, subject.x, target, name) for model in (here, there)]  # noqa: E731
        log.item(f"{subject.name} {name}, torch's settings", lambda found=found: _between(*found()))


def _map(here: Model, there: Model, x: torch.Tensor, target: torch.Tensor, name: str) -> dict[str, Any] | None:
    if name in COSTLY and x.shape[-1] > LARGE:
        x, target = x[:1], target[:1]
    ours = _explained(here, x, target, name)
    if ours is None:
        return None
    theirs = _explained(there, x, target, name)
    assert theirs is not None, "it applies on the CPU alone"
    limit = LOOSE.get(name.rpartition(":")[2], TOLERANCE)
    found = {**_between(ours, theirs), "flags": sum(a != b for a, b in zip(ours[2], theirs[2], strict=True))}
    if _beyond(found, limit) or found["flags"]:
        noise = 2.0**-20 * torch.rand(x.shape, generator=_seeded())
        again = _explained(here, (x * (1 - noise)).clamp(0, 1), target, name)
        own = _between(ours, again)  # what the last bits of the image change on the CPU
        found |= {"own_raw": own["raw"], "own_display": own["display"]}
        allowed = {"raw": max(limit, 10 * own["raw"]), "display": 10 * max(limit, own["display"])}
        if found["flags"] or not all(found[kind] <= most for kind, most in allowed.items()):
            found["problem"] = (
                f"raw {found['raw']:.1e} and display {found['display']:.1e}, allowed {allowed['raw']:.1e} and "
                f"{allowed['display']:.1e}; ranks {found['ranks']:.4f}; {found['flags']} flags differ"
            )
    return found


def _explained(model: Model, x: torch.Tensor, target: torch.Tensor, name: str) -> tuple | None:
    """Raw maps, display maps, flags, on the CPU; None where the method does not apply."""
    known = requested({name: QUICK.get(name, {})})
    found = resolve_layers(model, known, model.last_layer)
    if refusals(model, found):
        return None
    ids = [str(i) for i in range(len(x))]
    made = explanation(Batch.of(model, found, x.to(model.device), target_rule=target, ids=ids), found)
    key = found[0].key
    if made.raw[key].device.type != model.device.type:
        raise RuntimeError(f"The maps are on {made.raw[key].device}, and the model is on {model.device}.")
    return made.raw[key].cpu(), made.display(key).cpu(), [str(flag) for flag in made.flags[key]]


def _between(ours: tuple, theirs: tuple) -> dict[str, float]:
    raw = (ours[0] - theirs[0]).abs().nan_to_num(0).max() / ours[0].abs().nan_to_num(0).max().clamp_min(1e-30)
    pairs = zip(ours[1].flatten(1).numpy(), theirs[1].flatten(1).numpy(), strict=True)
    ranks = [spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 1.0 for a, b in pairs]
    return {
        "raw": float(raw),
        "display": float((ours[1] - theirs[1]).abs().max()),
        "ranks": round(float(min(ranks)), 6),
    }


def _beyond(found: Mapping[str, float], limit: float) -> bool:
    return not (found["raw"] <= limit and found["display"] <= 10 * limit)


def metrics(log: Log, subject: Subject, device: str, masks: torch.Tensor) -> None:
    """Every metric, on Grad-CAM's maps and on maps given; masks, maps and images are where the model is."""
    here, there = subject.make("cpu"), subject.make(device)
    for name, entry in METRICS.items():
        if not entry.traits.get("foreign"):
            log.item(f"{subject.name} {name}", lambda name=name: _score(here, there, subject.x, masks, name))


def _score(here: Model, there: Model, x: torch.Tensor, masks: torch.Tensor, name: str) -> dict[str, Any]:
    ours, theirs = _scored(here, x, masks, name), _scored(there, x, masks, name)
    apart = [(abs(a.value - b.value), a, b) for a, b in zip(ours, theirs, strict=True) if a.value == a.value == b.value]
    flags = sum(a.flag != b.flag for a, b in zip(ours, theirs, strict=True))
    worst = max(apart, key=lambda one: one[0] / (1 + abs(one[1].value)), default=(0.0, ours[0], theirs[0]))
    found: dict[str, Any] = {"values": len(apart), "difference": worst[0], "flags": flags}
    if flags or any(gap > METRIC * (1 + abs(one.value)) for gap, one, _ in apart):
        found["problem"] = f"{worst[1].method} {worst[1].value:.6g} → {worst[2].value:.6g}, {flags} flags differ"
    return found


def _scored(model: Model, x: torch.Tensor, masks: torch.Tensor, name: str) -> list[Any]:
    maps, given = smooth(len(x), x.shape[-1])[:, 0], {}
    if parsed_metric(name).paired:
        given["reference"] = {"gradcam": maps.square().to(model.device), "given": maps.square().to(model.device)}
    where = {"gradcam": None, "given": maps.to(model.device)}
    asked = {name: QUICK.get(name, {})}
    return heatproof.score(model, x.to(model.device), where, asked, masks=masks.to(model.device), **given).rows


def perturbations(log: Log, subject: Subject, device: str) -> None:
    """Every perturbation at severity 3, and every transformation."""
    for kind in PERTURBATIONS:
        log.item(f"perturbation {kind}", lambda kind=kind: _changed(
            lambda model: _perturbed(model, subject.x, kind), subject, device))  # fmt: skip
    for kind in TRANSFORMATIONS:
        ids = [str(i) for i in range(len(subject.x))]
        log.item(f"transformation {kind}", lambda kind=kind, ids=ids: _changed(
            lambda model: transformed(kind, subject.x.to(model.device), ids,
                                      partners=lambda ids, generators: subject.x.flip(0)),
            subject, device))  # fmt: skip


def _perturbed(model: Model, x: torch.Tensor, kind: str) -> torch.Tensor:
    x = x.to(model.device)
    with torch.no_grad(), model.evaluating():
        clean = model.logits(x).argmax(1)
    given = lambda images: loss_gradient(model, images, clean)  # noqa: E731
    return Perturber(x, [str(i) for i in range(len(x))], 0, given, model.logits).apply(kind, 3)


def _changed(change: Callable[[Model], torch.Tensor], subject: Subject, device: str) -> dict[str, Any]:
    ours, theirs = change(subject.make("cpu")), change(subject.make(device)).cpu()
    gap = (ours - theirs).abs()
    share = float((gap > TOLERANCE).double().mean())
    found: dict[str, Any] = {"difference": float(gap.max()), "share": share}
    return (
        {**found, "problem": f"{share:.2%} of the values differ by up to {gap.max():.1e}"} if share > FLIPPED else found
    )


def studies(log: Log, device: str, limit: int, threads: int) -> None:
    """A small noise study and a small score study of the bundled network: the rows of both devices joined."""
    for settings in studies_of(limit):
        log.item(
            f"study {settings['study']}",
            lambda settings=settings: _study({**settings, "threads": threads}, device),
        )


def studies_of(limit: int) -> list[dict[str, Any]]:
    """The settings of two small studies, one of noise and one of scores."""
    noise = {"study": "noise-robustness", "severities": [1, 3], "segmenters": ["slic"],
             "perturbations": ["gaussian-noise", "jpeg", "motion-blur", "fgsm", "pgd-linf"],
             "methods": ["gradcam", "gradcam++", "layercam", "eigencam", "refine:layercam"]}  # fmt: skip
    score = {"study": "score", "methods": ["gradcam", "layercam", "refine:layercam"],
             "metrics": ["arcc", "insertion", "deletion", "irof", "localisation"]}  # fmt: skip
    more = {"limit": limit, "models": ["shapes"], "datasets": ["shapes"]}
    return [{**noise, **more}, {**score, **more}]


def _study(settings: dict[str, Any], device: str) -> dict[str, Any]:
    begin = time.monotonic()
    ours = study_rows({**settings, "device": "cpu"})
    between = time.monotonic()
    theirs = study_rows({**settings, "device": device})
    seconds = {"cpu_s": round(between - begin, 2), "device_s": round(time.monotonic() - between, 2)}
    # The points of curves are left out: their areas are there.
    ours, theirs = (rows[~rows["metric"].str.endswith("-curve")] for rows in (ours, theirs))
    keys = ["image", "method", "perturbation", "severity", "segmenter", "metric"]
    both = ours.merge(theirs, on=keys, how="outer", suffixes=("", "_there"), indicator=True)
    gap = (both["value"] - both["value_there"]).abs()
    beyond = gap > METRIC * (1 + both["value"].abs())
    nan, flags = both["value"].isna() != both["value_there"].isna(), both["flag"] != both["flag_there"]
    changed = int((both["perturbed_class"].fillna(-1) != both["perturbed_class_there"].fillna(-1)).sum())
    found = {"rows": len(both), "unmatched": int((both["_merge"] != "both").sum()), "beyond": int(beyond.sum()),
             "difference": float(gap.max()), "nan": int(nan.sum()), "flags": int(flags.sum()), "classes": changed,
             **seconds}  # fmt: skip
    if any(found[key] for key in ("unmatched", "beyond", "nan", "flags", "classes")):
        worst = both[beyond | nan | flags].groupby(["perturbation", "severity", "method", "metric"]).size().nlargest(4)
        said = "; ".join(f"{' '.join(map(str, key))}: {count}" for key, count in worst.items())
        found["problem"] = (
            f"of {len(both)} rows {found['beyond']} beyond, {found['flags']} flags; largest {gap.max():.1e}; {said}"
        )
    return found


def study_rows(settings: dict[str, Any]) -> Any:
    """The rows of a study, as a data frame."""
    return study_result(settings)[0]


class Stages:
    """When each stage of a run began, on the monotonic clock."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """A stage begins."""
        self.began.append((name, time.monotonic()))

    def advance(self, units: float) -> None:
        """Progress within a stage is not kept."""

    @property
    def measuring(self) -> float:
        """Seconds of the jobs, without loading, gallery and page."""
        ends = [at for _, at in self.began[1:]] + [time.monotonic()]
        spans = zip(self.began, ends, strict=True)
        return sum(end - at for (name, at), end in spans if name.startswith("Measuring") and "costs" not in name)


def study_result(settings: dict[str, Any]) -> tuple[Any, dict[str, Any], float]:
    """The rows of a study as a data frame, what `study.json` holds, and the seconds of its jobs."""
    import pyarrow.parquet as pq

    from heatproof.studies.plan import checked_plan
    from heatproof.studies.run import run

    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "study"
        run(checked_plan(settings), where, workers=1, progress=stages)
        ended = stages.measuring
        return pq.read_table(where / "rows").to_pandas(), json.loads((where / "study.json").read_text("utf-8")), ended
