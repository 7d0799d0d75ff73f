"""What `study.json` holds: everything that the numbers of a study depend on, and facts for its page."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import heatproof
from heatproof.files import file_fingerprint
from heatproof.studies.answers import all_values
from heatproof.studies.checked_models import Checked
from heatproof.studies.jobs import Dataset, Job, all_requests
from heatproof.studies.measures import Measures
from heatproof.studies.settings import Plan


def described(
    plan: Plan,
    measures: Measures,
    checked: Sequence[Checked],
    datasets: Sequence[Dataset],
    jobs: Sequence[Job],
    command: str,
) -> dict[str, Any]:
    """The contents of `study.json`: everything the numbers depend on, and facts for the report."""
    names = {request.key: request.name for request in all_requests(plan)}
    models = [
        {**wanted.model_dump(), "name": found.label, "layer": found.layer, "asked_layer": wanted.layer,
         "classes": found.classes, "fingerprint": found.fingerprint, "preprocessing": found.preprocessing,
         "not_applicable": {names[key]: reason for key, reason in found.refused.items()},
         **({"named_targets": dict(found.named_targets)} if found.named_targets else {})}
        for wanted, found in zip(plan.models, checked, strict=True)
    ]  # fmt: skip
    for model in models:
        model["checkpoint"] = Path(model["checkpoint"]).name if model["checkpoint"] else None
    facts = {
        **plan.model_dump(exclude={"models", "datasets"}),
        "models": models,
        "datasets": [_described_dataset(dataset) for dataset in datasets],
        "options": {request.name: dict(request.options) for request in all_requests(plan) if request.options},
        "metric_facts": {measure.column: request.facts(all_values(plan)) for measure, request in measures.taken},
        "masks": {d.settings.label: file_fingerprint(Path(d.settings.masks)) for d in datasets if d.settings.masks},
        "jobs": len(jobs),
        "version": versions(),
        "command": command,
    }
    if plan.pooled_targets:
        facts["pooled_targets"] = list(plan.pooled_targets)
    if samples := {one.settings.label: one.sample for one in datasets if one.sample}:
        facts["samples"] = samples
    if plan.given_maps:
        facts["maps"] = [
            {"name": one.label, "fingerprint": file_fingerprint(Path(one.path))} for one in plan.given_maps
        ]
    return facts


def _described_dataset(dataset: Dataset) -> dict[str, Any]:
    """The facts of a dataset, without paths, as the numbers do not depend on them."""
    settings = dataset.settings.model_dump(exclude={"download"})
    settings |= dict.fromkeys(("images", "labels", "root", "masks"))
    labelled = sum(label is not None for label in dataset.images.labels)
    return {**settings, "name": dataset.settings.label, "image_count": len(dataset.images.ids), "labelled": labelled,
            "fingerprint": dataset.images.fingerprint}  # fmt: skip


def versions() -> str:
    """The versions of heatproof, torch and Python."""
    return f"heatproof {heatproof.__version__}, torch {torch.__version__}, python {platform.python_version()}"
