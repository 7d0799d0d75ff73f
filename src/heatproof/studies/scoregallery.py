"""At most sixteen pictures to look at, chosen from the rows; their maps were kept when they were scored.

What decides is the first composite of the study, else its first metric: where the best method has its best and its
worst scores, where the methods differ most, and where a control beats the best method by most.
"""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heatproof.files import write_atomically
from heatproof.metrics.request import requested_metrics
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.studies.executors import Advance, Map
from heatproof.studies.jobs import Job, Setup, open_block
from heatproof.studies.plan import ScorePlan
from heatproof.studies.scoring import KEPT, ScoreStudy
from heatproof.studies.store import Store, connect

EACH = 4


class Case(NamedTuple):
    """One picture chosen from the rows, and the file it is drawn to."""

    file: str
    kind: str
    title: str
    why: str
    model: str
    dataset: str
    image: str


def write_gallery(store: Store, setup: Setup, map_jobs: Map, progress: Any) -> None:
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


def chosen(store: Store, setup: Setup) -> list[Case]:
    """Up to four cases of each kind, no picture twice, among the pictures whose maps are kept."""
    plan: ScorePlan = setup.plan
    lead = leading(plan)
    rows: Any = connect(store.folder).execute(
        "SELECT model, dataset, image, method, control, value FROM rows "
        "WHERE metric = ? AND method <> '' AND flag = '' AND NOT isnan(value) ORDER BY ALL",
        [lead.key],
    ).df()  # fmt: skip
    kept = {(d.label, image) for d, p in zip(plan.datasets, setup.pictures, strict=True) for image in p.ids[:KEPT]}
    rows = rows[[pair in kept for pair in zip(rows["dataset"], rows["image"], strict=True)]]
    if rows.empty:
        return []
    sign = 1.0 if lead.better == "high" else -1.0
    cases: list[Case] = []
    kinds = _kinds(rows, sign, lead.key)
    count = len(rows.drop_duplicates(["model", "dataset", "image"]))
    each = min(EACH, -(-count // max(1, len(kinds))))  # a few pictures are shared out, so that every kind has some
    for kind, title, why, order in kinds:
        seen = {case[4:] for case in cases}
        for place in [place for place in order if place not in seen][:each]:
            cases.append(_named(len(cases), kind, title, why[place], *place))
    return cases


def leading(plan: ScorePlan) -> Any:
    """The metric by which cases are chosen: the first composite, else the first there is."""
    requests = requested_metrics(plan.metrics)
    return next((request for request in requests if request.family == "composite"), requests[0])


def _kinds(rows: Any, sign: float, metric: str) -> list[tuple[str, str, dict[Any, str], list[Any]]]:
    """Kind, title, place → why, places in order; a place is (model, dataset, image)."""
    key = ["model", "dataset", "image"]
    real, fakes = rows[~rows["control"]], rows[rows["control"]]
    if real.empty:
        return []
    means: pd.Series = real.groupby("method")["value"].mean()
    best = (sign * rounded(means, largest(means.to_numpy(), None), ANSWER_STEP)).sort_index().idxmax()
    own = real[real["method"] == best].set_index(key)["value"].sort_index()
    said = {place: f"{best}: {metric} {value:.2f}" for place, value in own.items()}
    down = (sign * own).sort_values(ascending=False, kind="stable")
    found = [
        ("good", "The best method does well", said, list(down.index)),
        ("bad", "The best method does badly", said, list(down.index[::-1])),
    ]
    if real["method"].nunique() > 1:
        spans: pd.Series = real.groupby(key)["value"].agg(lambda values: values.max() - values.min())
        spans = spans.sort_values(ascending=False, kind="stable")
        why = {place: f"{metric} differs by {value:.2f} between methods" for place, value in spans.items()}
        found.append(("split", "The methods disagree", why, list(spans.index)))
    if len(fakes):
        gaps = fakes.set_index(key).join(own.rename("own"), how="inner").reset_index()
        gaps["gap"] = sign * (gaps["value"] - gaps["own"])
        gaps = gaps[gaps["gap"] > 0].sort_values("gap", ascending=False, kind="stable").drop_duplicates(key)
        lines = [(tuple(row[name] for name in key), row) for row in gaps.to_dict("records")]
        why = {place: f"{metric}: {row['method']} {row['value']:.2f}, {best} {row['own']:.2f}" for place, row in lines}
        found.append(("fooled", "A control does better than the best method", why, [place for place, _ in lines]))
    return found


def _named(number: int, *fields: Any) -> Case:
    content = hashlib.blake2b(repr(fields).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return Case(f"case-{number:02d}-{content}.npz", *fields)


def drawn(study: ScoreStudy, case: Case, advance: Advance) -> str:
    """Draws one case to its file from the kept maps; returns the file's name. No network is asked."""
    plan, store = study.plan, Store(study.setup.folder)
    model_index = [model.label for model in plan.models].index(case.model)
    dataset_index = [dataset.label for dataset in plan.datasets].index(case.dataset)
    pictures, model = study.setup.pictures[dataset_index], study.model(model_index)
    position = pictures.ids.index(case.image)
    size = plan.batch_size or 1
    shard = np.load(store.maps / f"{Job(model_index, dataset_index, position - position % size, 0).key}.npz")
    column = list(shard["images"]).index(case.image)
    controls = {request.name for request in study.requests if request.entry.traits["control"]}
    order = sorted(range(len(shard["methods"])), key=lambda row: str(shard["methods"][row]) in controls)  # they go last
    block = open_block(pictures, [position], model, plan.target)
    predicted, probability = connect(store.folder).execute(
        "SELECT any_value(clean_class), any_value(clean_probability) FROM rows "
        "WHERE model = ? AND dataset = ? AND image = ?",
        [case.model, case.dataset, case.image],
    ).fetchone() or (None, None)  # fmt: skip
    name = lambda index: model.classes[index] if model.classes and index is not None else None  # noqa: E731
    label = pictures.labels[position]
    entry = {
        **{field: getattr(case, field) for field in ("file", "title", "why", "kind", "model", "dataset", "image")},
        "perturbation": "",
        "severities": [],
        "label": label,
        "label_name": name(label) if label is None or not model.classes or label < len(model.classes) else None,
        "methods": [str(shard["methods"][row]) for row in order],
        "columns": [{"severity": 0, "class": predicted, "class_name": name(predicted), "probability": probability,
                     "changed": False}],
    }  # fmt: skip
    arrays: dict[str, Any] = {
        "pictures": (block.x.permute(0, 2, 3, 1) * 255).round().byte().numpy(),
        "maps": shard["values"][order, column : column + 1],
        "entry": np.array(json.dumps(entry)),
    }
    write_atomically(store.folder / "gallery" / case.file, lambda file: np.savez_compressed(file, **arrays))
    advance(1.0)
    return case.file
