"""Every path of the engine as a call on a device: methods, metrics, changed images, conditions of a study.

`call(path, device)` makes the network and gives the call; `waits(path)` is where the call waits for a pretended GPU
the second time, when what belongs to the network is known. `scripts/waits.py` writes them to `benchmarks/waits.json`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.metrics.metric_request import parsed_metric
from heatproof.models import Model, wrap
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.studies.changed_images import loss_gradient
from heatproof.studies.measurement import Measurement
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.transformations import TRANSFORMATIONS, transformed

from . import nets
from .accelerator import Waits, accelerator, waiting
from .contracts import test_attributions as methods
from .contracts import test_metrics as metrics

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "waits.json"
METHODS = [*ATTRIBUTIONS, "refine:layercam"]
CHANGES = [*PERTURBATIONS, *TRANSFORMATIONS]
PATHS = [f"{kind} {name}" for kind, names in
         (("method", METHODS), ("metric", metrics.NAMES), ("change", CHANGES)) for name in names]  # fmt: skip
#: A noise study of two images a job: five methods, five controls and six metrics under each condition.
NOISE = {
    "study": "noise-robustness", "models": ["shapes"], "datasets": ["shapes"], "limit": 2, "batch_size": 2,
    "methods": ["gradcam", "gradcam++", "layercam", "eigencam", "refine:layercam"], "segmenters": ["grid"],
    "perturbations": ["gaussian-noise", "jpeg", "fgsm"], "severities": [1, 3],
}  # fmt: skip

Call = Callable[[], Any]


def call(path: str, device: str) -> Call:
    """The path on a network on `device`."""
    kind, _, name = path.partition(" ")
    return {"method": method, "metric": metric, "change": change}[kind](name, device)


def method(name: str, device: str) -> Call:
    """Maps `(2, H, W)` of a method; `fullgrad` on a network without curved functions, as torch's own forward
    derivatives make tensors of the CPU here.
    """
    bare = name.rpartition(":")[2]
    model = methods.model_of(nets.Plain if bare == "fullgrad" else methods.network_for(bare), device)
    x, asked = nets.images(2, methods.SIDE, 12), {name: methods.QUICK.get(bare, {})}
    return lambda: heatproof.explain(model, x, asked)[name]


def model_on(device: str) -> Model:
    """The network on which metrics and changes are tried."""
    net = nets.told_apart(nets.seeded(nets.Signed), metrics.WIDTH)
    return wrap(net, size=(metrics.HEIGHT, metrics.WIDTH), layer="two", device=device)


def metric(name: str, device: str, where: str = "") -> Call:
    """The metric on two images by a model on `device`, with images, maps and masks `where` (by default there too)."""
    model, where = model_on(device), where or device
    x, maps, masks = (make(2).to(where) for make in (metrics.images, metrics.smooth_maps, metrics.masks))
    reference = dict.fromkeys(("gradcam", "given"), metrics.reference_maps(metrics.smooth_maps(2)).to(where))
    asked = {name: metrics.QUICK.get(name, {})}
    more: dict[str, Any] = {"masks": masks, **({"reference": reference} if parsed_metric(name).paired else {})}
    return lambda: heatproof.score(model, x, {"gradcam": None, "given": maps}, asked, **more)


def change(kind: str, device: str) -> Call:
    """Two images changed at severity 3."""
    x, ids = metrics.images(2), ["cat", "dog"]
    images = x.to(device)
    if kind in TRANSFORMATIONS:
        return lambda: transformed(kind, images, ids, partners=lambda ids, generators: x.flip(0))
    model = model_on(device)
    clean = model.logits(images).argmax(1).detach()
    gradient = lambda some: loss_gradient(model, some, clean)  # noqa: E731
    return lambda: Perturber(images, ids, 0, gradient, model.logits).apply(kind, 3)


def waits(path: str) -> Waits:
    """Where a path waits when it is called for the second time."""
    with accelerator():
        work = call(path, "cuda")
        work()
        with waiting() as found:
            work()
    return found


def condition_waits(settings: Mapping[str, Any]) -> dict[str, Waits]:
    """Where each condition of a study of one job waits, by name; the reference is `clean`."""
    found: dict[str, Waits] = {}
    measure = Measurement._of_condition

    def watched(self: Measurement, number: int, *arguments: Any) -> None:
        with waiting() as found[self.conditions[number].name or "clean"]:
            measure(self, number, *arguments)

    with accelerator(), patch.object(Measurement, "_of_condition", watched), TemporaryDirectory() as folder:
        run(checked_plan({**settings, "device": "cuda"}), Path(folder) / "study", workers=1)
    return found


def sites(found: Waits) -> dict[str, int]:
    """`file function: what for` → times."""
    counted: Counter[str] = Counter()
    for (file, function, _, kind), times in found.items():
        counted[f"{file} {function}: {kind}"] += times
    return dict(sorted(counted.items()))


def known() -> dict[str, Any]:
    """What `benchmarks/waits.json` holds."""
    return json.loads(FILE.read_text("utf-8"))


def problems(found: Waits, listed: Iterable[str], reasons: Mapping[str, str]) -> list[str]:
    """Waits that are not listed or have no reason, each with its line; and those listed that are gone."""
    lines = {f"{file} {function}: {kind}": f"src/heatproof/{file}:{line}" for file, function, line, kind in found}
    return [
        *(
            f"{lines[site]} waits for the device, which is not listed: {site}"
            for site in sorted(set(lines) - set(listed))
        ),
        *(f"listed, and it does not wait any more: {site}" for site in sorted(set(listed) - set(lines))),
        *(f"{lines[site]} has no reason: {site}" for site in sorted(set(lines) - set(reasons))),
    ]
