"""Strengths for target flip rates, found once per model, dataset and perturbation and kept in the study's folder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from heatproof.data import Pictures
from heatproof.files import write_atomically
from heatproof.models import Model
from heatproof.perturbations import Perturber, calibrate
from heatproof.rounding import top_class
from heatproof.studies import jobs, noise
from heatproof.studies.plan import NoisePlan
from heatproof.studies.store import Store

#: Flip rates are shares of so many pictures at most: enough for the default targets, and attacks stay affordable.
PICTURES = 64


def calibrated(
    store: Store, plan: NoisePlan, pictures: Sequence[Pictures], device: str, progress: Any
) -> dict[str, list[float]]:
    """`model/dataset/perturbation` → a level for each target flip rate; empty unless the plan asks for it.

    What is found is written to `calibration.json` at once, so that a resumed study measures at the same strengths.
    """
    if not plan.calibrate:
        return {}
    path = store.folder / "calibration.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    keys = [
        (model, dataset, kind)
        for model in range(len(plan.models))
        for dataset in range(len(plan.datasets))
        for kind in plan.perturbations
    ]
    progress.stage("Calibrating strengths", len(keys))
    for model, dataset, kind in keys:
        name = f"{model}/{dataset}/{kind}"
        if name not in found:
            rate = flip_rate(jobs.load(plan, model, device), pictures[dataset], plan, kind)
            smallest = 0.5 / min(len(pictures[dataset].ids), PICTURES)  # rates are steps: nothing finer can be promised
            levels = calibrate(kind, rate, plan.calibrate, tolerance=max(0.02, smallest))
            found[name] = [asdict(level) for level in levels]
            text = json.dumps(found, indent=2, sort_keys=True) + "\n"
            write_atomically(path, lambda file, text=text: file.write(text.encode()))
        progress.advance(1)
    return {name: [level["level"] for level in levels] for name, levels in found.items()}


def flip_rate(model: Model, pictures: Pictures, plan: NoisePlan, kind: str) -> Callable[[float], float]:
    """Level → share of the predictions that change, on the first pictures that can be opened."""
    size = plan.batch_size or 8
    count = min(len(pictures.ids), PICTURES)
    blocks = [noise.open_block(pictures, range(i, min(i + size, count)), model, "predicted")
              for i in range(0, count, size)]  # fmt: skip
    blocks = [block for block in blocks if block.ids]
    perturbers = [_perturber(model, block, plan.seed) for block in blocks]

    def rate(level: float) -> float:
        flips = total = 0
        for perturber, clean in perturbers:
            with model.evaluating(), torch.no_grad():
                y = perturber.apply(kind, level, extrapolate=True)
                flips += int((top_class(model.logits(y)) != clean).sum())
            total += len(clean)
        return flips / max(1, total)

    return rate


def _perturber(model: Model, block: noise.Block, seed: int) -> tuple[Perturber, torch.Tensor]:
    x = block.x.to(model.device)
    with model.evaluating(), torch.no_grad():
        clean = top_class(model.logits(x))

    def gradient(images: torch.Tensor) -> torch.Tensor:
        return noise.loss_gradient(model, images, clean)

    return Perturber(x, block.ids, seed, gradient, model.logits), clean
