"""Strengths for target flip rates, found once per model, dataset and perturbation and stored in the study's folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from heatproof.addresses import Place
from heatproof.data import Images
from heatproof.data.sampling import sampled
from heatproof.errors import warn
from heatproof.files import write_atomically
from heatproof.models import Model
from heatproof.perturbations import Perturber, calibrate
from heatproof.rounding import top_class
from heatproof.studies.answers import changed
from heatproof.studies.changed_images import loss_gradient
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import Dataset, ImageBlock, open_block, target_rule
from heatproof.studies.loading import StudyModels
from heatproof.studies.settings import Plan
from heatproof.studies.store import Store
from heatproof.targets import resolved

#: The most images on which a flip rate is measured: enough for the default targets, and few enough for attacks.
IMAGES = 64


def calibrated(
    store: Store,
    plan: Plan,
    conditions: Sequence[Condition],
    datasets: Sequence[Dataset],
    models: StudyModels,
    progress: Any,
) -> Mapping[tuple[int, int, str], Sequence[float]]:
    """(model, dataset, perturbation) → a level for each flip rate of the conditions; empty without flip rates.

    The levels are written to `calibration.json` at once, so that a resumed study uses the same ones.
    """
    rates: dict[str, list[float]] = {}
    for condition in conditions:
        if condition.flip_rate is not None:
            rates.setdefault(condition.perturbation, []).append(condition.flip_rate)
    if not rates:
        return {}
    path = store.folder / "calibration.json"
    found = _known(path)
    keys = [(m, d, kind) for m in range(len(plan.models)) for d in range(len(datasets)) for kind in rates]
    progress.stage("Calibrating strengths", len(keys))
    for model, dataset, kind in keys:
        name = f"{model}/{dataset}/{kind}"
        if name not in found:
            images = datasets[dataset].images
            rate = flip_rate(models(model), images, plan, kind, plan.models[model].tolerance)
            smallest = 0.5 / min(len(images.ids), IMAGES)  # half the distance between two possible rates
            levels = calibrate(kind, rate, rates[kind], tolerance=max(0.02, smallest))
            found[name] = [asdict(level) for level in levels]
            text = json.dumps(found, indent=2, sort_keys=True) + "\n"
            write_atomically(path, lambda file, text=text: file.write(text.encode()))
        progress.advance(1)
    return {key: [one["level"] for one in found[f"{key[0]}/{key[1]}/{key[2]}"]] for key in keys}


def _known(path: Place) -> dict[str, list[dict[str, Any]]]:
    """The levels of an earlier run; none where they cannot be read: the same images give the same levels again."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        warn(f"{path} is damaged. The strengths are calibrated again.")
        return {}
    return found


def flip_rate(
    model: Model, images: Images, plan: Plan, kind: str, tolerance: float | str | None = None
) -> Callable[[float], float]:
    """Level → share of the predictions that change, on at most `IMAGES` images, chosen as a limit chooses.

    tolerance: of a network of values, how far a value moves before the answer has changed.
    """
    size = plan.batch_size or 8
    rows = sampled(images.ids, images.labels, IMAGES, plan.seed, plan.sampling)
    blocks = [open_block(images, rows[i : i + size], model) for i in range(0, len(rows), size)]
    perturbers = [_perturber(model, block, plan.seed) for block in blocks if block.ids]

    def rate(level: float) -> float:
        flips = total = 0
        for perturber, clean in perturbers:
            with model.evaluating(), torch.no_grad():
                y = perturber.apply(kind, level, extrapolate=True)
                now = model.logits(y)
                rule = target_rule(plan.target, model.classes)
                target = resolved(rule, clean, values=True) if model.of_values else now[:, 0]
                flips += int(changed(model, clean, now, target, float(tolerance or 0)).sum())
            total += len(clean)
        return flips / max(1, total)

    return rate


def _perturber(model: Model, block: ImageBlock, seed: int) -> tuple[Perturber, torch.Tensor]:
    """The perturber of some images, and the network's outputs on them `(n, K)`."""
    x = block.x.to(model.device)
    with model.evaluating(), torch.no_grad():
        clean = model.logits(x)
    answer = top_class(clean)
    return Perturber(x, block.ids, seed, lambda images: loss_gradient(model, images, answer), model.logits), clean
