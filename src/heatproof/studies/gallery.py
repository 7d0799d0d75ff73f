"""At most sixteen cases to look at, chosen from the rows and drawn to arrays; the report needs no network for them.

Four kinds, by the first method of the plan's best median κ: the prediction held and the map moved (worst), the
prediction held and the map held (best), the prediction changed and the map did not (blind), and it changed and the
map did too. A case is one picture under one perturbation, over all severities.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from heatproof.engine import Explanation
from heatproof.files import write_atomically
from heatproof.models import Model
from heatproof.perturbations import Perturber
from heatproof.rounding import top_class
from heatproof.studies import noise
from heatproof.studies.executors import Map
from heatproof.studies.store import Store, connect

#: Kind → title, what to order by, which pairs.
KINDS = (
    ("map moved", "The prediction held, but the map moved", "value ASC", "NOT changed"),
    ("map held", "The prediction held, and so did the map", "value DESC", "NOT changed"),
    ("map blind", "The prediction changed, but the map did not", "value DESC", "changed"),
    ("map followed", "The prediction changed, and so did the map", "value ASC", "changed"),
)
EACH = 4


class Case(NamedTuple):
    """One case chosen from the rows, and the file it is drawn to."""

    file: str
    kind: str
    title: str
    model: str
    dataset: str
    image: str
    perturbation: str
    severity: int
    method: str
    value: float


def write_gallery(store: Store, setup: noise.Setup, map_jobs: Map, progress: Any) -> None:
    """Writes `gallery/`, unless the one that is there shows these cases already."""
    cases = chosen(store, setup)
    folder = store.folder / "gallery"
    index = folder / "index.json"
    wanted = [case.file for case in cases]
    if index.exists() and [case["file"] for case in json.loads(index.read_text("utf-8"))] == wanted:
        return
    progress.stage("Drawing the gallery", len(cases))
    for _ in map_jobs(sorted(cases, key=lambda case: case.model), progress.advance):  # a model is loaded once
        pass
    entries = [json.loads(str(np.load(folder / file)["entry"])) for file in wanted]
    text = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
    write_atomically(index, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
    for stale in set(folder.glob("case-*.npz")) - {folder / file for file in wanted}:
        stale.unlink()


def drawn(study: noise.NoiseStudy, case: Case, advance: Callable[[float], None]) -> str:
    """Draws one case to its file; returns the file's name."""
    store = Store(study.setup.folder)
    entry, arrays = described(study, store, case)
    arrays["entry"] = np.array(json.dumps(entry))
    write_atomically(store.folder / "gallery" / case.file, lambda file: np.savez_compressed(file, **arrays))
    advance(1.0)
    return case.file


def _named(number: int, *fields: Any) -> Case:
    content = hashlib.blake2b(repr(fields).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return Case(f"case-{number:02d}-{content}.npz", *fields)


def chosen(store: Store, setup: noise.Setup) -> list[Case]:
    """Up to four cases of each kind, no picture twice within a kind, for the method with the best median κ."""
    connection = connect(store.folder)
    best = connection.execute(
        "SELECT method FROM rows WHERE metric = 'kappa' AND NOT control AND NOT isnan(value) AND NOT changed "
        "GROUP BY method ORDER BY median(value) DESC, method LIMIT 1"
    ).fetchone()
    if best is None:
        best = (setup.plan.methods[0],)
    cases: list[Case] = []
    for kind, title, order, which in KINDS:
        rows = connection.execute(
            "SELECT model, dataset, image, perturbation, severity, value FROM ("
            "  SELECT *, row_number() OVER (PARTITION BY model, dataset, image "
            f"   ORDER BY {order}, perturbation, severity) AS place FROM rows "
            f"  WHERE metric = 'rbo' AND method = ? AND segmenter = ? AND flag = '' AND {which}) "
            f"WHERE place = 1 ORDER BY {order}, model, dataset, image LIMIT {EACH}",
            [best[0], setup.plan.segmenters[0]],
        ).fetchall()
        cases += [_named(len(cases) + i, kind, title, *row[:5], best[0], row[5]) for i, row in enumerate(rows)]
    return cases


def described(study: noise.NoiseStudy, store: Store, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """The case's entry in the index, and its arrays: pictures and maps, the clean ones first."""
    plan = study.plan
    model_index = [model.label for model in plan.models].index(case.model)
    dataset_index = [dataset.label for dataset in plan.datasets].index(case.dataset)
    pictures = study.setup.pictures[dataset_index]
    position = pictures.ids.index(case.image)
    model = study.model(model_index)
    block = noise.open_block(pictures, [position], model, plan.target)
    job = noise.Job(model_index, dataset_index, position, position + 1)
    measured = noise.Measured(study, job, model, pictures, block)
    conditions = [c for c in study.conditions(job) if c.perturbation == case.perturbation]
    columns, tiles, maps = _columns(study, measured, conditions, model)
    requests = [p.request for p in study.places(model_index) if not p.request.entry.traits["control"]]
    label = pictures.labels[position]
    entry = {
        "file": case.file,
        "title": case.title,
        "why": f"{case.method}: RBO {case.value:.2f} at {case.perturbation}, severity {case.severity}",
        "kind": case.kind,
        "model": case.model,
        "dataset": case.dataset,
        "image": case.image,
        "perturbation": case.perturbation,
        "severities": [c.severity for c in conditions],
        "label": label,
        "label_name": _class_name(model, label),
        "columns": columns,
        "methods": [r.name for r in requests],
        "rbo": _scores(store, plan.segmenters[0], case, [r.name for r in requests], [c.severity for c in conditions]),
    }
    arrays = {"pictures": np.stack(tiles), "maps": np.stack([[m[r.key] for m in maps] for r in requests])}
    return entry, arrays


def _columns(
    study: noise.NoiseStudy, measured: noise.Measured, conditions: Sequence[noise.Condition], model: Model
) -> tuple[list[dict[str, Any]], list[np.ndarray], list[dict[str, np.ndarray]]]:
    """For the clean picture and each severity: what the model says, the picture, the maps."""
    perturber = Perturber(measured.x, measured.block.ids, study.plan.seed, measured._loss_gradient, model.logits)
    seen: list[tuple[int, torch.Tensor, Explanation]] = [(0, measured.x, measured.clean)]
    for condition in conditions:
        with model.evaluating():
            y = perturber.apply(condition.perturbation, condition.level, extrapolate=bool(study.plan.calibrate))
        seen.append((condition.severity, y, measured.explained(y, condition.name)))
    columns = [_said(severity, found, measured, model) for severity, _, found in seen]
    tiles = [(x[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy() for _, x, _ in seen]
    maps = [{p.key: (found.display(p.key)[0] * 255).round().byte().cpu().numpy() for p in measured.places}
            for _, _, found in seen]  # fmt: skip
    return columns, tiles, maps


def _said(severity: int, found: Explanation, measured: noise.Measured, model: Model) -> dict[str, Any]:
    predicted = int(top_class(found.logits[0]))
    return {
        "severity": severity,
        "class": predicted,
        "class_name": _class_name(model, predicted),
        "probability": float(model.probabilities(found.logits[:1])[0, predicted]),
        "changed": predicted != int(measured.clean_class[0]),
    }


def _class_name(model: Model, index: int | None) -> str | None:
    return model.classes[index] if model.classes and index is not None and index < len(model.classes) else None


def _scores(
    store: Store, segmenter: str, case: Case, methods: Sequence[str], severities: Sequence[int]
) -> dict[str, list[float | None]]:
    """Method → RBO at each severity as measured in the study, None for the clean picture."""
    rows = connect(store.folder).execute(
        "SELECT method, severity, value FROM rows WHERE metric = 'rbo' AND segmenter = ? AND model = ? AND dataset = ? "
        "AND image = ? AND perturbation = ?",
        [segmenter, case.model, case.dataset, case.image, case.perturbation],
    )
    found = {(method, severity): value for method, severity, value in rows.fetchall()}
    clear = lambda value: None if value is None or value != value else value  # noqa: E731 - NaN is not JSON
    return {method: [None, *(clear(found.get((method, s))) for s in severities)] for method in methods}
