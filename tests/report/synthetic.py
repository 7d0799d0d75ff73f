"""A study folder made of seeded numbers, without a network: rows, plan and gallery as a run writes them."""

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

METHODS = {"gradcam": 0.62, "gradcam++": 0.78, "eigencam": 0.5, "layercam": 0.7}
CONTROLS = {"random": 0.05, "centre": 1.0}
COMPANIONS = ("kappa", "l1", "spearman", "ssim", "cosine")


@dataclass(frozen=True)
class Recipe:
    """What the made-up study is like."""

    images: tuple[str, ...] = tuple(f"cats/{i:03d}.jpg" for i in range(60))
    methods: dict[str, float] = field(default_factory=lambda: METHODS)
    controls: dict[str, float] = field(default_factory=lambda: CONTROLS)
    models: tuple[str, ...] = ("timm:mobilenetv2_100",)
    datasets: tuple[str, ...] = ("photographs",)
    segmenters: tuple[str, ...] = ("quickshift",)
    perturbations: tuple[str, ...] = ("gaussian-noise", "jpeg", "fgsm")
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    flips: str = "growing"  # or "none" or "all"
    flagged: dict[str, str] = field(default_factory=dict)  # image → reason
    masks: bool = False
    labels: bool = True
    class_names: tuple[str, ...] = ("tench", "hen", "bulbul")
    gallery: int = 2
    missing: int = 0  # jobs not done
    resamples: int = 50
    seed: int = 7


def study(folder: Path, recipe: Recipe | None = None, **changes) -> Path:
    """Writes the folder and returns it."""
    recipe = recipe or Recipe(**changes)
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    jobs = list(product(recipe.models, recipe.datasets, recipe.perturbations))
    for index, (model, dataset, perturbation) in enumerate(jobs):
        frame = rows(recipe, model, dataset, perturbation)
        frame.to_parquet(folder / "rows" / f"job-{index:04d}.parquet", index=False)
    plan = {
        "study": "noise-robustness",
        "seed": recipe.seed,
        "methods": list(recipe.methods),
        "controls": "all" if recipe.controls else "none",
        "perturbations": list(recipe.perturbations),
        "severities": list(recipe.severities),
        "segmenters": list(recipe.segmenters),
        "models": [{"name": name, "layer": "blocks.6", "classes": 3} for name in recipe.models],
        "datasets": [{"name": name, "image_count": len(recipe.images)} for name in recipe.datasets],
        "resamples": recipe.resamples,
        "jobs": len(jobs) + recipe.missing,
        "command": "heatproof run noise-robustness --model timm:mobilenetv2_100 --images images --out out",
        "version": "heatproof 0.1.0, torch 2.15.0, python 3.11.2",
    }
    (folder / "study.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    if recipe.gallery:
        gallery(folder / "gallery", recipe)
    return folder


def rows(recipe: Recipe, model: str, dataset: str, perturbation: str) -> pd.DataFrame:
    """All rows of one model, dataset and kind (and, with the first kind, those of the clean images)."""
    rng = np.random.default_rng([recipe.seed, *model.encode(), *dataset.encode(), *perturbation.encode()])
    base = {"study": "noise-robustness", "model": model, "dataset": dataset, "layer": "blocks.6"}
    records = []
    if perturbation == recipe.perturbations[0]:
        records += _clean_rows(recipe, base, rng)
    for image in recipe.images:
        flag = recipe.flagged.get(image, "")
        hard = rng.uniform(0.6, 1.4)
        for severity in recipe.severities:
            changed = _changed(recipe.flips, severity, hard, rng)
            clean, other = int(rng.integers(3)), 0
            other = (clean + 1) % 3 if changed else clean
            outcome = {
                "changed": None if flag else changed,
                "clean_class": None if flag else clean,
                "perturbed_class": None if flag else other,
                "clean_probability": np.nan if flag else rng.uniform(0.5, 1),
                "perturbed_probability": np.nan if flag else rng.uniform(0.3, 1),
            }
            where = base | {"image": image, "perturbation": perturbation, "severity": severity, "flag": flag} | outcome
            where["strength"] = 0.1 * severity
            records.append(where | _value("psnr", 34 - 4 * severity + rng.normal(0, 1), flag))
            if recipe.labels:
                records.append(where | _value("correct", float(not changed), flag))
            for segmenter, (method, steadiness) in product(
                recipe.segmenters, (recipe.methods | recipe.controls).items()
            ):
                pair = where | {
                    "segmenter": segmenter,
                    "method": method,
                    "control": method in recipe.controls,
                }
                values = _pair(steadiness, severity, changed, rng)
                records += [pair | _value(metric, value, flag, n=118) for metric, value in values.items()]
    return as_rows(records, recipe.seed)


def _clean_rows(recipe: Recipe, base: dict, rng: np.random.Generator) -> list[dict]:
    records = []
    for image in recipe.images:
        where = base | {"image": image, "perturbation": "", "severity": 0, "strength": 0.0}
        where["flag"] = recipe.flagged.get(image, "")
        if recipe.labels:
            records.append(where | _value("correct", 1.0, where["flag"]))
        if recipe.masks:
            for method, steadiness in (recipe.methods | recipe.controls).items():
                pair = where | {"method": method, "control": method in recipe.controls}
                value = np.clip(0.3 + 0.4 * steadiness * rng.uniform(0.4, 1), 0, 1)
                records.append(pair | _value("mask-cosine", value, where["flag"]))
    return records


def _changed(flips: str, severity: int, hard: float, rng: np.random.Generator) -> bool:
    if flips == "growing":
        return bool(rng.uniform() < 0.11 * severity * hard)
    return flips == "all"


def _pair(steadiness: float, severity: int, changed: bool, rng: np.random.Generator) -> dict[str, float]:
    """Companions of one pair: a method that ignores the image (steadiness 1) is always equal to itself."""
    if steadiness >= 1:
        return dict.fromkeys(("rbo", "kappa", "spearman", "ssim", "cosine"), 1.0) | {"l1": 0.0}
    rbo = np.clip(steadiness + 0.3 - 0.06 * severity - 0.16 * changed + rng.normal(0, 0.1), 0.02, 0.999)
    noise = rng.normal(0, 0.03, 4)
    return {
        "rbo": rbo,
        "kappa": (rbo - 0.2) / 0.8,
        "l1": np.clip(0.4 * (1 - rbo) + noise[0], 0, 1),
        "spearman": np.clip(2 * rbo - 1 + noise[1], -1, 1),
        "ssim": np.clip(rbo - 0.1 + noise[2], -1, 1),
        "cosine": np.clip(rbo + 0.1 + noise[3], 0, 1),
    }


def _value(metric: str, value: float, flag: str, n: int = 0) -> dict:
    counted = n if metric in ("rbo", "kappa", "spearman") and not flag else 0
    return {"metric": metric, "value": np.nan if flag else float(value), "n": counted}


def as_rows(records: list[dict], seed: int) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(records)
    texts = {
        "segmenter": "",
        "layers": "",
        "operator": "",
        "method": "",
        "transformation": "",
        "state": "",
        "target": "predicted",
        "flag": "",
    }
    for column, default in {**texts, "options": "0", "version": "0.1.0"}.items():
        values = frame[column] if column in frame else pd.Series(default, index=frame.index)
        frame[column] = values.fillna(default).astype(str)
    frame["control"] = frame["control"].astype("boolean").fillna(False).astype(bool)
    for column in ("clean_class", "perturbed_class"):
        frame[column] = (frame[column] if column in frame else pd.Series(pd.NA, index=frame.index)).astype("Int32")
    changed = frame["changed"] if "changed" in frame else pd.Series(pd.NA, index=frame.index)
    frame["changed"] = changed.astype("boolean")
    for column in ("clean_probability", "perturbed_probability"):
        frame[column] = frame[column].astype(float) if column in frame else np.nan
    return frame.astype({"severity": "int16", "n": "int32"}).assign(seed=np.int64(seed))


def gallery(folder: Path, recipe: Recipe) -> None:
    """`gallery` cases: soft blobs as images, sharper blobs as maps."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(recipe.seed)
    methods, columns = list(recipe.methods), 1 + len(recipe.severities)
    cases = []
    for index in range(recipe.gallery):
        name, image = f"case-{index:02d}.npz", recipe.images[index % len(recipe.images)]
        pixels = np.stack([_blob(rng, 224, 60) for _ in range(3)], axis=-1)
        images = np.stack([_noisy(pixels, 0.08 * s, rng) for s in range(columns)])
        maps = np.stack([[_blob(rng, 56, 9) for _ in range(columns)] for _ in methods])
        np.savez_compressed(folder / name, images=_bytes(images), maps=_bytes(maps))
        cases.append(_case(recipe, index, name, image, methods, rng))
    (folder / "index.json").write_text(json.dumps(cases), encoding="utf-8")


def _case(recipe: Recipe, index: int, file: str, image: str, methods: list[str], rng) -> dict:
    best, kind = index % 2 == 0, recipe.perturbations[index % len(recipe.perturbations)]
    column = [
        {
            "condition": f"{kind} severity {severity}" if severity else "",
            "perturbation": kind if severity else "",
            "severity": severity,
            "class": int(severity > 3),
            "class_name": recipe.class_names[int(severity > 3)] if recipe.class_names else None,
            "probability": 0.97 - 0.1 * severity,
            "changed": severity > 3,
        }
        for severity in (0, *recipe.severities)
    ]
    return {
        "file": file,
        "title": "Steadiest maps" if best else "Least steady maps",
        "why": "the highest median RBO over all methods" if best else "the lowest median RBO over all methods",
        "model": recipe.models[0],
        "dataset": recipe.datasets[0],
        "image": image,
        "label": 0 if recipe.labels else None,
        "label_name": recipe.class_names[0] if recipe.labels and recipe.class_names else None,
        "columns": column,
        "methods": methods,
    }


def _blob(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    total = np.zeros((size, size))
    for _ in range(4):
        cy, cx = rng.uniform(0.2 * size, 0.8 * size, 2)
        total += rng.uniform(0.3, 1) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return total / total.max()


def _noisy(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + sigma * rng.standard_normal(image.shape), 0, 1)


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.rint(255 * array).astype(np.uint8)
