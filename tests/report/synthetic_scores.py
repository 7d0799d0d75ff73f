"""The folder of a score study made of seeded numbers, without a network: rows with curves, plan, facts, gallery."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .synthetic import _blob, _bytes, as_rows

#: Method → how good its maps are.
METHODS = {"gradcam": 0.7, "gradcam++": 0.72, "layercam": 0.6, "eigencam": 0.4, "integrated-gradients": 0.25}
#: Control → how good its maps are; each is as good as the best by the scores that `FOOLS` names.
CONTROLS = {"random": 0.0, "half": 0.02, "ones": 0.01, "centre": 0.15, "edges": 0.1}
FOOLS = {
    "half": ("average-drop", "adcc"),
    "ones": ("average-drop", "average-increase", "average-sensitivity", "maximum-sensitivity"),
    "random": ("deletion",),
    "centre": ("average-sensitivity", "maximum-sensitivity", "pointing-game"),
}


def facts(better: str, family: str, low: float | None, high: float | None, summary: str) -> dict:
    return {"better": better, "family": family, "range": [low, high], "summary": summary}


#: A small set of metrics of every family, range and direction.
METRICS = {
    "average-drop": facts("low", "fidelity", 0, 1, "The share of its probability the class loses when masked."),
    "average-increase": facts("high", "fidelity", 0, 1, "How often masking raises the probability."),
    "average-gain": facts("high", "fidelity", 0, 1, "The share of what is missing to 1 that masking gains."),
    "deletion": facts("low", "fidelity", 0, 1, "Area under the probability while pixels go black, important first."),
    "insertion": facts("high", "fidelity", 0, 1, "Area under the probability while pixels return."),
    "monotonicity": facts("high", "fidelity", -1, 1, "Do larger attributions go with larger effects?"),
    "infidelity": facts("low", "fidelity", 0, None, "Expected squared error of the map as a linear model."),
    "road": facts("high", "road", -1, 1, "Least relevant first minus most relevant first, imputed."),
    "adcc": facts("high", "composite", 0, 1, "Harmonic mean of coherency, complexity and average drop."),
    "arcc": facts("high", "composite", 0, 1, "The same with ROAD."),
    "complexity": facts("low", "complexity", 0, 1, "Mean of the map."),
    "entropy": facts("low", "complexity", 0, None, "Entropy of the map as a distribution."),
    "average-sensitivity": facts("low", "sensitivity", 0, None, "Change of the map under small noise, on average."),
    "maximum-sensitivity": facts("low", "sensitivity", 0, None, "Change of the map under small noise, at most."),
    "pointing-game": facts("high", "localisation", 0, 1, "Is the brightest pixel on the object?"),
    "mprt": facts("low", "sanity", -1, 1, "Likeness of the maps when the network's weights are drawn anew."),
}
CURVES = {"deletion": 29, "insertion": 29, "road": 4}


@dataclass(frozen=True)
class Recipe:
    """What the made-up study is like."""

    images: tuple[str, ...] = tuple(f"cats/{i:03d}.jpg" for i in range(24))
    methods: dict[str, float] = field(default_factory=lambda: METHODS)
    controls: dict[str, float] = field(default_factory=lambda: CONTROLS)
    metrics: dict[str, dict] = field(default_factory=lambda: METRICS)
    curves: dict[str, int] = field(default_factory=lambda: CURVES)
    models: tuple[str, ...] = ("timm:resnet18",)
    datasets: tuple[str, ...] = ("photographs",)
    flagged: dict[str, str] = field(default_factory=dict)  # image → reason
    masks: bool = True  # without, the localisation metrics are NaN and flagged
    labels: bool = True
    class_names: tuple[str, ...] = ("tench", "hen")
    gallery: int = 2
    missing: int = 0
    resamples: int = 100
    seed: int = 7


def study(folder: Path, recipe: Recipe | None = None, **changes) -> Path:
    """Writes the folder and returns it."""
    recipe = recipe or Recipe(**changes)
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    jobs = [(model, dataset) for model in recipe.models for dataset in recipe.datasets]
    for index, (model, dataset) in enumerate(jobs):
        rows(recipe, model, dataset).to_parquet(folder / "rows" / f"job-{index:04d}.parquet", index=False)
    plan = {
        "study": "score",
        "seed": recipe.seed,
        "methods": list(recipe.methods),
        "controls": "all" if recipe.controls else "none",
        "metrics": list(recipe.metrics),
        "metric_facts": recipe.metrics,
        "models": [{"name": name, "layer": "layer4", "classes": 2} for name in recipe.models],
        "datasets": [{"name": name, "image_count": len(recipe.images)} for name in recipe.datasets],
        "target": "predicted",
        "resamples": recipe.resamples,
        "jobs": len(jobs) + recipe.missing,
        "command": "heatproof score images --model timm:resnet18 --metrics all --out out",
        "version": "heatproof 0.1.0, torch 2.15.0, python 3.11.2",
    }
    (folder / "study.json").write_text(json.dumps(plan, indent=1, sort_keys=True), encoding="utf-8")
    if recipe.gallery:
        gallery(folder / "gallery", recipe)
    return folder


def rows(recipe: Recipe, model: str, dataset: str) -> pd.DataFrame:
    """All rows of one model and dataset: facts of the images, scores, points of the curves."""
    rng = np.random.default_rng([recipe.seed, *model.encode(), *dataset.encode()])
    base = {"study": "score", "model": model, "dataset": dataset, "layer": "layer4"}
    base |= {"perturbation": "", "severity": 0, "strength": 0.0, "n": 0}
    records = []
    for image in recipe.images:
        flag = recipe.flagged.get(image, "")
        where, hard = base | {"image": image, "flag": flag}, rng.normal(0, 0.08)
        if recipe.labels:
            records.append(where | {"metric": "correct", "value": np.nan if flag else 1.0})
        for method, quality in (recipe.methods | recipe.controls).items():
            line = where | {"method": method, "control": method in recipe.controls}
            for metric, fact in recipe.metrics.items():
                value = _value(recipe, method, quality, metric, fact, hard, rng)
                records.append(
                    line | {"metric": metric, "value": np.nan if flag else value} | _mask(recipe, fact, flag)
                )
            for metric, points in recipe.curves.items():
                for at in np.linspace(0.2, 0.8, 4) if points == 4 else np.linspace(0, 1, points):
                    value = np.clip(abs((metric == "insertion") - np.exp(-5 * quality * at)) + hard, 0, 1)
                    point = {"metric": f"{metric}-curve", "strength": at, "value": np.nan if flag else value}
                    records.append(line | point)
    return as_rows(records, recipe.seed)


def _mask(recipe: Recipe, fact: dict, flag: str) -> dict:
    if recipe.masks or fact.get("family") != "localisation" or flag:
        return {}
    return {"value": np.nan, "flag": "the mask is empty"}


def _value(recipe: Recipe, method: str, quality: float, metric: str, fact: dict, hard: float, rng) -> float:
    """A number in the metric's range, better for better methods, and for those that fool it."""
    if method in recipe.controls and metric in FOOLS.get(method, ()):
        quality = 0.8
    value = np.clip(quality + hard + rng.normal(0, 0.06), 0, 1)
    value = value if fact.get("better") == "high" else 1 - value
    low, high = fact.get("range", (0, 1))
    return low + (high - low) * value if high is not None else 9 * value


def gallery(folder: Path, recipe: Recipe) -> None:
    """Cases with one column: an image and the map of every method."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(recipe.seed)
    methods = [*recipe.methods, *recipe.controls]
    cases = []
    for index in range(recipe.gallery):
        name, image = f"case-{index:02d}.npz", recipe.images[index % len(recipe.images)]
        pixels = np.stack([_blob(rng, 224, 60) for _ in range(3)], axis=-1)[None]
        maps = np.stack([[_blob(rng, 56, 9)] for _ in methods])
        np.savez_compressed(folder / name, images=_bytes(pixels), maps=_bytes(maps))
        column = {
            "condition": "",
            "severity": 0,
            "class": 1,
            "class_name": (recipe.class_names or (None,))[0],
            "probability": 0.9,
        }
        case = {"file": name, "title": f"Image {index + 1}", "why": "the methods disagree most", "image": image}
        case |= {"model": recipe.models[0], "dataset": recipe.datasets[0], "label": 0}
        case |= {"label_name": (recipe.class_names or (None,))[0], "columns": [column], "methods": methods}
        cases.append(case)
    (folder / "index.json").write_text(json.dumps(cases), encoding="utf-8")
