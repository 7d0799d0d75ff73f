"""The user's own code in a study: its fingerprints, and a run beforehand that shows its bugs.

Numbers depend on it as they do on weights and images, so a study whose code has changed is another study.
Code of heatproof's own has no fingerprint: its version is in the plan.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heatproof import spelling
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.code_fingerprint import code_fingerprint
from heatproof.engine import plugin_failures, toy
from heatproof.engine.dry_run import LAYER
from heatproof.errors import InvalidStudy, warn
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.metrics.metric_request import MetricRequest
from heatproof.perturbations import PERTURBATIONS
from heatproof.plugins import current_folder_importable, entry_code, made_here
from heatproof.registry import Registry
from heatproof.segments import SEGMENTERS
from heatproof.studies.jobs import Dataset, all_requests, open_block
from heatproof.studies.loading import StudyModels
from heatproof.studies.measures import Measures
from heatproof.studies.settings import Plan
from heatproof.studies.study import BUILT_IN, Study
from heatproof.transformations import TRANSFORMATIONS


def own_code(study: Study, plan: Plan, measures: Measures, models: Mapping[str, str]) -> list[dict[str, str]]:
    """What is the user's own, as `{"name": "method mine", "fingerprint": …}`, each once.

    models: name → `model_code`, empty for a model that is not the user's.
    """
    found: dict[str, str] = {f"model {name}": code for name, code in models.items()}
    if study.name not in BUILT_IN:
        found[f"study {study.name}"] = _study_code(study)
    found |= {f"method {one.entry.name}": PLUGIN_METHODS.code(one.entry) for one in all_requests(plan)}
    metrics = list(_with_parts(request for _, request in measures.taken))
    found |= {f"metric {one.entry.name}": PLUGIN_METRICS.code(one.entry) for one in metrics}
    conditions = study.all_conditions(plan)
    found |= _filed("perturbation", PERTURBATIONS, (one.perturbation for one in conditions))
    found |= _filed("transformation", TRANSFORMATIONS, (one.transformation for one in conditions))
    found |= _filed("segmenter", SEGMENTERS, (str(one.options.get("segmenter", "")) for one in metrics))
    return [{"name": name, "fingerprint": code} for name, code in found.items() if code]


def warn_of_failures(
    plan: Plan,
    measures: Measures,
    datasets: Sequence[Dataset],
    models: StudyModels,
    layers: Sequence[str],
    labelled: bool,
) -> None:
    """Runs the user's own methods and metrics on a toy network; those that fail there, on images of the study.

    A warning names those that fail there too: their rows will be flagged.

    Raises:
        InvalidStudy: nothing but what fails would be explained, or measured.
    """
    methods, metrics = all_requests(plan), [request for _, request in measures.taken]
    model, x = toy(2)
    failed = plugin_failures(model, x, LAYER, methods, metrics)
    if not failed:
        return
    again = [one for one in methods if f"method {one.key}" in failed]
    measured = [one for one in metrics if f"metric {one.key}" in failed]
    everywhere: dict[str, str] | None = None
    for index, layer in enumerate(layers):
        model, images = models(index), datasets[0].images
        x = open_block(images, range(len(images.ids)), model, labelled, most=2).x.to(model.device)
        if not len(x):
            return
        found = plugin_failures(model, x, layer, again, measured)
        everywhere = found if everywhere is None else {name: why for name, why in everywhere.items() if name in found}
        for name, why in found.items():
            at = f" with {plan.models[index].label}" if len(layers) > 1 else ""
            warn(f"The {name} failed on the first images{at}, so its rows will be flagged. {why.rstrip('.')}.")
    real = [f"method {one.key}" for one in methods if not one.entry.traits["control"]]
    asked = {"methods": [] if plan.given_maps else real, "metrics": [f"metric {one.key}" for one in metrics]}
    for kind, names in asked.items():
        if names and everywhere and all(name in everywhere for name in names):
            why = "; ".join(f"{name}: {everywhere[name]}" for name in names)
            raise InvalidStudy(f"Expected {kind} that run on the first images. Got {why}. `--debug` shows where.")


def _with_parts(requests: Iterable[MetricRequest]) -> Iterable[MetricRequest]:
    for request in requests:
        yield request
        yield from request.parts.values()


def _filed(kind: str, registry: Registry, spellings: Iterable[str]) -> dict[str, str]:
    """The user's own entries of a registry among these spellings."""
    entries = {one.name: one for text in spellings if text and (one := registry[spelling.head(text)])}
    return {f"{kind} {name}": entry_code(one) for name, one in entries.items() if not made_here(one)}


def _study_code(study: Study) -> str:
    """A hash of what decides a study's rows: not its tables, sections and gallery, which are made anew every time."""
    deciding: list[Any] = [study.settings, study.measures, study.conditions, study.check, study.cheaper]
    with current_folder_importable():
        return code_fingerprint(*deciding)
