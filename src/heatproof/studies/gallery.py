"""The gallery: images that the study chooses from the rows, stored with their maps so that a page needs no network.

`gallery/index.json` is a list of cases. The arrays of each lie in its `file`: `images` uint8 `(C, H, W, 3)` and
`maps` uint8 `(M, C, h, w)`, 255 for 1, for the reference and the conditions shown beside it; `masks` bool `(C, H, W)`
where the images have masks.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from heatproof.archives import Archive
from heatproof.engine import Explanation
from heatproof.errors import HeatproofError, InvalidStudy
from heatproof.files import write_atomically
from heatproof.models import Model
from heatproof.rounding import top_class
from heatproof.studies.cases import Case
from heatproof.studies.executors import Advance, Map
from heatproof.studies.explained import Explained
from heatproof.studies.jobs import Job, Setup
from heatproof.studies.measurement import Measurement
from heatproof.studies.store import Store, connect
from heatproof.studies.worker import Worker
from heatproof.tensors import as_seen


class CaseFile(NamedTuple):
    """A case, and the file that it is drawn to."""

    file: str
    case: Case


def write_gallery(store: Store, setup: Setup, map_jobs: Map, progress: Any) -> None:
    """Writes `gallery/`, unless the one in the folder shows these cases already."""
    drawings = chosen_cases(store, setup)
    if drawings is None:
        return
    folder = store.folder / "gallery"
    index = folder / "index.json"
    wanted = [drawing.file for drawing in drawings]
    if index.exists() and [case["file"] for case in json.loads(index.read_text("utf-8"))] == wanted:
        return
    progress.stage("Drawing the gallery", len(drawings))
    for _ in map_jobs(sorted(drawings, key=lambda one: one.case.model), progress.advance):  # a model is loaded once
        pass
    entries = [json.loads(_entry(folder / file)) for file in wanted]
    text = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
    write_atomically(index, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
    for stale in set(folder.glob("case-*.npz")) - {folder / file for file in wanted}:
        stale.unlink()


def _entry(path: Path) -> str:
    """What a file of the gallery says of itself."""
    with Archive(path) as arrays:
        return str(arrays["entry"])


def chosen_cases(store: Store, setup: Setup) -> list[CaseFile] | None:
    """The cases of the study with their files, None where it has no gallery."""
    study = setup.study
    if study.cases is None:
        return None
    connection = connect(store.folder)
    alone = len(study.all_conditions(setup.plan)) == 1
    kept = [
        (one.settings.label, image)
        for one in setup.datasets
        for index, image in enumerate(one.images.ids)
        if not alone or one.shown is None or index in one.shown
    ]
    names = zip(*kept, strict=True) if kept else ((), ())
    columns = {name: pa.array(values, pa.string()) for name, values in zip(("dataset", "image"), names, strict=True)}
    connection.register("kept", pa.table(columns))
    try:
        cases = list(study.cases(connection, setup.plan))
    except HeatproofError:
        raise
    except Exception as error:  # a study of the user's own may raise anything
        raise InvalidStudy(
            f"The cases of the study {study.name!r} failed. They raised {type(error).__name__}: {error}."
        ) from error
    if wrong := next((one for one in cases if not isinstance(one, Case)), None):
        raise InvalidStudy(f"The cases of the study {study.name!r} must be of `Case`. Got {type(wrong).__name__}.")
    names = {model.label: model.classes for model in setup.plan.models}
    return [_case_file(number, case, names[case.model]) for number, case in enumerate(cases)]


def _case_file(number: int, case: Case, classes: Any) -> CaseFile:
    """The file's name depends on what it shows; also on class names that were given, which may differ the next time."""
    told = repr(tuple(case)) if classes is None else repr((tuple(case), classes))
    content = hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return CaseFile(f"case-{number:02d}-{content}.npz", case)


def draw(worker: Worker, drawing: CaseFile, advance: Advance) -> str:
    """Draws one case to its file; returns the file's name."""
    store = Store(worker.setup.folder)
    entry, arrays = entry_and_arrays(worker, store, drawing)
    arrays["entry"] = np.array(json.dumps(entry))
    write_atomically(store.folder / "gallery" / drawing.file, lambda file: np.savez_compressed(file, **arrays))
    advance(1.0)
    return drawing.file


def entry_and_arrays(worker: Worker, store: Store, drawing: CaseFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The case's entry in the index, and its arrays: images and maps, the reference first."""
    plan, case = worker.plan, drawing.case
    model_index = [one.label for one in plan.models].index(case.model)
    dataset_index = [one.label for one in plan.datasets].index(case.dataset)
    images, model = worker.setup.datasets[dataset_index].images, worker.models(model_index)
    position = images.ids.index(case.image)
    job = Job(model_index, dataset_index, position, position + 1)
    block = worker.block(model_index, dataset_index, [position])
    measurement = worker.measurement(job, block)
    first, *others = measurement.conditions
    label = block.labels[0]
    entry = {
        "file": drawing.file,
        **{field: getattr(case, field) for field in ("kind", "title", "why", "model", "dataset", "image")},
        "label": label,
        "label_name": model.class_name(label),
    }
    shown = [first, *(one for one in others if one.name in case.conditions)]
    masks: dict[str, Any] = {}
    if measurement.dataset.masked:
        found = [measurement.ground_truth(one)[:1, None] for one in shown]
        masks["masks"] = np.stack([_sized(one, tuple(found[0].shape[2:]))[0, 0].bool().cpu().numpy() for one in found])
    kept = None if case.conditions else _kept_maps(worker, store, job, case.image)
    if kept is not None:
        methods, maps = kept
        columns = [_stored_prediction(store, case, model)]
        pixels = [_pixels(measurement.x)]
    else:
        seen = [measurement.explained(condition) for condition in shown]
        requests = [method.request for method in measurement.methods if not method.request.entry.traits["control"]]
        columns = [_column(one, measurement) for one in seen]
        size = tuple(seen[0].x.shape[2:])
        pixels = [_pixels(_sized(one.x, size)) for one in seen]
        methods = [request.name for request in requests]
        maps = np.stack([[_bytes(one.found, request.key, size) for one in seen] for request in requests])
    return {**entry, "methods": methods, "columns": columns}, {"images": np.stack(pixels), "maps": maps, **masks}


def _kept_maps(worker: Worker, store: Store, job: Job, image: str) -> tuple[list[str], np.ndarray] | None:
    """The methods and the stored display maps of an image, controls last; None if none are stored."""
    size = worker.plan.batch_size or 1
    path = store.maps / f"{job._replace(start=job.start - job.start % size).key}.npz"
    if not path.exists():
        return None
    with Archive(path) as arrays:
        shard = {name: arrays[name] for name in arrays if name.startswith("display")}
    if "display" not in shard or image not in shard["display_images"]:
        return None
    controls = {request.name for request in worker.requests if request.entry.traits["control"]}
    methods = [str(name) for name in shard["display_methods"]]
    order = sorted(range(len(methods)), key=lambda row: methods[row] in controls)
    column = list(shard["display_images"]).index(image)
    return [methods[row] for row in order], shard["display"][order, column : column + 1]


def _stored_prediction(store: Store, case: Case, model: Model) -> dict[str, Any]:
    """The entry of the reference image, with its prediction from the rows."""
    found = connect(store.folder).execute(
        "SELECT any_value(clean_class), any_value(clean_probability), any_value(value) FILTER (metric = 'value') "
        "FROM rows WHERE model = ? AND dataset = ? AND image = ?",
        [case.model, case.dataset, case.image],
    )
    predicted, probability, value = found.fetchone() or (None, None, None)
    about = {"condition": "", "perturbation": "", "severity": 0, "changed": False}
    if model.of_values:
        return {**about, "value": value}
    return {
        **about,
        "class": predicted,
        "class_name": model.class_name(predicted),
        "probability": probability,
    }


def _column(explained: Explained, measurement: Measurement) -> dict[str, Any]:
    """The entry of the image under a condition, with its prediction."""
    model = explained.batch.model
    condition = explained.condition
    scores = model.probabilities(explained.found.logits[:1])[0]
    about = {
        "condition": "" if condition == measurement.conditions[0] else condition.name,
        **{"target": measurement.plan.target, **condition.columns},
        "changed": bool(measurement.changed(explained)[0]),
    }
    if model.of_values:
        return {**about, "value": float(scores[explained.found.target[0]])}
    predicted = int(top_class(explained.found.logits[0]))
    return {
        **about,
        "class": predicted,
        "class_name": model.class_name(predicted),
        "probability": float(scores[predicted]),
    }


def _pixels(x: torch.Tensor) -> np.ndarray:
    return as_seen(x[0]).cpu().numpy()


def _bytes(found: Explanation, key: str, size: tuple[int, ...]) -> np.ndarray:
    if key not in found.methods:  # it has no map of an image of this size
        return np.zeros(size, np.uint8)
    shown = _sized(found.display(key)[:1, None], size)[0, 0]  # type: ignore[index]
    return (shown * 255).round().byte().cpu().numpy()


def _sized(shown: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Images or maps `(1, C, h, w)` in the size of the reference's, beside which they are drawn."""
    return shown if tuple(shown.shape[2:]) == size else torch.nn.functional.interpolate(shown.float(), size)
