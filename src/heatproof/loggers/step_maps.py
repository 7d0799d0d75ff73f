"""The maps of all monitored images at one step of training, their scores, and how far they moved since the last."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from heatproof.engine import Batch, MethodScores, ReferenceMaps, evaluate, explanation, halved
from heatproof.errors import InvalidInput
from heatproof.flags import Flag
from heatproof.loggers.monitored_images import MonitoredImages
from heatproof.metrics.metric_request import MetricRequest, parsed_metric
from heatproof.panels.explain_images import entry_of
from heatproof.panels.explained_image import ExplainedImage
from heatproof.panels.panel import panel
from heatproof.report.overlay import Look
from heatproof.targets import as_classes

#: Name in the log → the metric of a map and the same image's map of the step before; no network is run for it.
MOVEMENT = {"spearman-to-last": "spearman[segmenter=grid]", "rbo-to-last": "rbo[segmenter=grid]"}


@dataclass
class StepMaps:
    """What one step gives: row → entry, display maps on the CPU with their flags, and values by method and metric."""

    rows: int
    entries: dict[int, ExplainedImage] = field(default_factory=dict)
    maps: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    flags: dict[int, dict[str, Flag]] = field(default_factory=dict)
    values: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, rows: Sequence[int], scores: MethodScores) -> None:
        """The maps and the values of one method for some images."""
        shown = scores.maps.detach().cpu()
        for row, one, flag in zip(rows, shown, scores.flags, strict=True):
            self.maps.setdefault(row, {})[scores.method] = one
            self.flags.setdefault(row, {})[scores.method] = flag
        for outcome in scores.outcomes:
            key = (outcome.metric, scores.method)
            new = torch.full((self.rows,), torch.nan, dtype=torch.float64)
            self.values.setdefault(key, new)[list(rows)] = outcome.values.cpu()
            if reason := next((str(flag) for flag in outcome.flags if flag), ""):
                self.reasons.setdefault(key, reason)

    @property
    def empty(self) -> dict[tuple[str, str], str]:
        """(metric, method) → why no image has a value."""
        none = [key for key, values in self.values.items() if bool(values.isnan().all())]
        return {key: self.reasons.get(key, "") for key in none}


def step_maps(
    images: MonitoredImages,
    metrics: Sequence[MetricRequest],
    previous: StepMaps | None,
    *,
    batch_size: int,
    survive: bool,
) -> StepMaps:
    """Explains and scores all images with the network as it is now.

    Args:
        previous: the maps of the step before, with which these are compared; None at the first.
        survive: a method or a metric that raises has no value, in place of an error.
    """
    found = StepMaps(len(images.sources))
    wanted = [*metrics, *(parsed_metric(name) for name in MOVEMENT.values() if previous)]
    for rows in images.groups(batch_size):
        work = partial(_of_batch, images, rows, wanted, previous, survive, found)
        for _ in halved(work, len(rows)):
            pass
    for row, source in enumerate(images.sources):
        if row not in images.x:
            found.entries[row] = ExplainedImage(source.id, source.name, flag=source.flag)
    return found


def _of_batch(
    images: MonitoredImages,
    every: Sequence[int],
    metrics: Sequence[MetricRequest],
    previous: StepMaps | None,
    survive: bool,
    found: StepMaps,
    part: slice,
) -> None:
    rows = every[part]
    work, sources = images.work, [images.sources[row] for row in rows]
    methods, x = work.asked.methods, torch.stack([images.x[row] for row in rows])
    batch = Batch.of(
        work.model,
        methods,
        x.to(work.model.device),
        target_rule=_target(work.target, rows),
        ids=[source.id for source in sources],
        seed=work.seed,
        labels=[source.label for source in sources] if work.target == "label" else None,
        output=work.output,
    )
    maps = explanation(batch, methods, survive=survive, upsample=work.upsample)
    if batch.target.dim() == 2:
        raise InvalidInput(f"`target` must be one class for each image. Got {batch.target.shape[1]}.")
    reference = _reference(batch.x, rows, previous, images.methods)
    truth = _ground_truth(images, rows, x)
    scores = evaluate(batch, methods, metrics, ground_truth=truth, reference=reference, found=maps, survive=survive,
                      upsample=work.upsample)  # fmt: skip
    for one in scores:
        found.add(rows, one)
    by_method = {method.key: maps for method in methods}
    for i, row in enumerate(rows):
        found.entries[row] = entry_of(work, sources[i], x[i], batch, by_method, {}, i)


def _target(target: Any, rows: Sequence[int]) -> Any:
    if isinstance(target, str | int) or callable(target):
        return target
    classes = as_classes(target)
    return classes[list(rows)] if classes.dim() else classes


def _reference(
    x: torch.Tensor, rows: Sequence[int], previous: StepMaps | None, methods: Sequence[str]
) -> ReferenceMaps | None:
    if previous is None:
        return None
    maps = {key: torch.stack([previous.maps[row][key] for row in rows]).to(x.device) for key in methods}
    return ReferenceMaps(x, maps, {key: [previous.flags[row][key] for row in rows] for key in methods})


def _ground_truth(images: MonitoredImages, rows: Sequence[int], x: torch.Tensor) -> torch.Tensor | None:
    if not images.masks:
        return None
    empty = np.zeros(tuple(x.shape[-2:]), bool)
    return torch.from_numpy(np.stack([images.masks.get(row, empty) for row in rows]))


# --- what is logged ---


def step_scalars(found: StepMaps, previous: StepMaps | None, methods: Sequence[str], name: str) -> dict[str, float]:
    """The numbers of a step by name; one that no image has is left out. See docs/training.md."""
    shown = {key: text for text, key in MOVEMENT.items()}
    scalars = {}
    for (metric, method), values in found.values.items():
        mean = float(values.nanmean())
        if math.isfinite(mean):
            scalars[f"{name}/{shown.get(metric, metric)}/{method}"] = mean
    for method in methods:
        flagged = sum(bool(found.flags.get(row, {}).get(method, "unusable")) for row in range(found.rows))
        scalars[f"{name}/flagged/{method}"] = float(flagged)
    return scalars | {f"{name}/prediction/{key}": value for key, value in _predictions(found, previous).items()}


def _predictions(found: StepMaps, previous: StepMaps | None) -> dict[str, float]:
    """Mean probability of the class predicted, share of right ones, and of those that are another than before."""
    seen = {row: entry for row, entry in found.entries.items() if entry.predicted and entry.predicted.value is None}
    if not seen:
        return {}
    numbers = {"probability": _mean(entry.predicted.probability for entry in seen.values() if entry.predicted)}
    labelled = [entry for entry in seen.values() if entry.label]
    if labelled:
        numbers["accuracy"] = _mean(_index(entry) == entry.label.index for entry in labelled if entry.label)
    if previous is not None:
        numbers["changed"] = _mean(_index(entry) != _index(previous.entries[row]) for row, entry in seen.items())
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _index(entry: ExplainedImage) -> int:
    return -1 if entry.predicted is None else entry.predicted.index


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def step_panels(images: MonitoredImages, found: StepMaps, name: str, most: int) -> list[tuple[str, np.ndarray, str]]:
    """Name, pixels uint8 `(H, W, 3)` and caption of the panels of the first `most` images."""
    rows, look = images.work.asked.rows, Look()
    chosen = [found.entries[row] for row in range(min(most, found.rows))]
    return [(f"{name}/maps/{one.name}", np.asarray(panel(one, rows, look)), caption(one)) for one in chosen]


def caption(entry: ExplainedImage) -> str:
    """`cat.jpg: predicted tench (0), 98 %; label cat (3)`."""
    if entry.predicted is None:
        return f"{entry.name}: {entry.flag}"
    label = f"; label {entry.label.text}" if entry.label else ""
    return f"{entry.name}: predicted {entry.predicted.full}{label}"


def without_value(found: StepMaps) -> Mapping[str, str]:
    """Reason → the scores that no image has for it, in words."""
    by_reason: dict[str, list[str]] = {}
    for (metric, method), reason in found.empty.items():
        by_reason.setdefault(reason or "undefined", []).append(f"{metric} of {method}")
    return {reason: ", ".join(names) for reason, names in by_reason.items()}
