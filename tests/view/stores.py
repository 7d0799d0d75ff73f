"""Results folders as studies write them, made up in a moment: for the tests of the viewer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import heatproof
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store

#: Names that a page must escape, and show in their own direction of writing.
NASTY = ("<img src=x onerror=alert(1)>.png", "שלום עולם.png", "🦊 & “fox”.png")
CLASSES = ("<script>alert(1)</script>", "קַטְגוֹרְיָה", "🐈 cat, tom")
METHODS = ("gradcam", "eigencam", "random")
KIND, SEVERITIES = "gaussian-noise", (1, 3)
SIZE, LAYER = 32, 4


def write_study(
    folder: Path,
    names: Sequence[str] = (*NASTY, *(f"{i:02d}.png" for i in range(27))),
    *,
    images: bool = True,
    jobs: int = 1,
    maps: bool = True,
    broken: str = "",
    **plan: Any,
) -> Path:
    """A study of noise on these images, in one job. `broken`: the image that could not be read.

    Image i is predicted as class i % 3 with a probability that falls with i; every fourth changes at severity 3.
    """
    photographs = folder.parent / f"{folder.name}-images"
    if images:
        photographs.mkdir(parents=True, exist_ok=True)
        for at, name in enumerate(names):
            Image.fromarray(picture(at)).save(photographs / name)
    store = Store(folder)
    store.rows.mkdir(parents=True, exist_ok=True)
    store.write_plan({**_plan(len(names), jobs), **plan})
    settings = {
        "study": "noise-robustness",
        "models": ["shapes"],
        "datasets": [{"images": str(photographs), "name": "set"}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    rows = Rows(study="noise-robustness", model="net", dataset="set", layer="top", target="predicted", seed=0,
                version=heatproof.__version__)  # fmt: skip
    good = [name for name in names if name != broken]
    _add(rows, good)
    if broken:
        for method in METHODS:
            rows.add([broken], method=method, control=method == "random", metric="arcc", value=np.nan, reference=True,
                     flag="cannot be read as an image", layers="top")  # fmt: skip
    conditions = ["", *(f"{KIND}:{severity}" for severity in SEVERITIES)]
    draws = np.random.default_rng(0)
    values = draws.normal(size=(len(METHODS), len(conditions), len(good), LAYER, LAYER)).astype(np.float16)
    arrays = {"values": values, "scale": np.ones(values.shape[:3], np.float32), "methods": np.array(METHODS),
              "conditions": np.array(conditions), "images": np.array(good)}  # fmt: skip
    store.write_shard("m00-d00-0000000", rows.table(), arrays if maps else None)
    return folder


def picture(seed: int) -> np.ndarray:
    """An image of blocks, uint8 `(SIZE, SIZE, 3)`."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return blocks.repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)


def _add(rows: Rows, names: Sequence[str]) -> None:
    at = np.arange(len(names))
    facts = {"clean_class": at % 3, "clean_probability": 1 - at / (2 * len(names))}
    same = {"perturbed_class": facts["clean_class"], "perturbed_probability": facts["clean_probability"]}
    right = (at % 5 > 0).astype(float)
    rows.add(names, metric="correct", value=right, reference=True, changed=[False] * len(names), **facts, **same)
    for number, method in enumerate(METHODS):
        about = {"method": method, "control": method == "random", "layers": "" if method == "random" else "top"}
        rows.add(names, metric="arcc", value=((at * (7 + number)) % len(names)) / len(names), reference=True, **about)
        rows.add(names, metric="average-drop", value=at / len(names), reference=True, **about)
    for severity in SEVERITIES:
        changed = (at % 4 == 0) & (severity == 3)
        now = {"perturbed_class": (at + changed) % 3, "perturbed_probability": np.full(len(names), 0.5), **facts}
        noise = {"perturbation": KIND, "severity": severity, "changed": changed.tolist()}
        rows.add(names, metric="psnr", value=np.full(len(names), 20.0), **noise, **now)
        for method in METHODS:
            about = {"method": method, "control": method == "random", "layers": "" if method == "random" else "top"}
            rows.add(names, metric="rbo", value=1 - severity * at / (9 * len(names)), **about, **noise)


def _plan(count: int, jobs: int) -> dict[str, Any]:
    return {
        "study": "noise-robustness",
        "version": f"heatproof {heatproof.__version__}, torch 2, python 3",
        "jobs": jobs,
        "seed": 0,
        "target": "predicted",
        "methods": list(METHODS[:2]),
        "perturbations": [KIND],
        "models": [{"name": "net", "asked_layer": "auto", "preprocessing": {
            "size": [SIZE, SIZE], "resize": "none", "interpolation": "bilinear", "channels": 3, "window": None,
            "alpha_background": "white"}}],
        "datasets": [{"name": "set", "image_count": count}],
        "class_names": {"net": list(CLASSES)},
        "metric_facts": {"arcc": {"better": "high", "summary": "How well it <holds>."},
                         "average-drop": {"better": "low", "summary": ""}, "rbo": {"better": "high", "summary": ""}},
    }  # fmt: skip


def write_index(folder: Path, entries: Sequence[dict[str, Any]]) -> None:
    """The index of a folder of `heatproof explain`."""
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(json.dumps(list(entries)), "utf-8")
