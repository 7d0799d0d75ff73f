"""The score study: one job explains some pictures with all methods together and scores every map with every metric.

Whatever is shared is worked out once for the batch (`engine.evaluate`). Whatever cannot be scored becomes a flagged
row: a picture that cannot be opened, a method that does not serve the model, a map that is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from heatproof.attributions.stored import Stored, as_map, fitted
from heatproof.data import Pictures
from heatproof.engine import Batch, GivenMaps, MethodScores, Outcome, evaluate, halved
from heatproof.errors import InvalidPicture
from heatproof.flags import FINE, Flag, Reason
from heatproof.metrics.request import MetricRequest, requested_metrics
from heatproof.models import Model
from heatproof.rounding import top_class
from heatproof.studies.executors import Advance
from heatproof.studies.jobs import (
    Block,
    Job,
    Setup,
    Workplace,
    at_layers,
    correctness,
    non_finite,
    numbers,
    of_method,
    open_block,
    rule,
)
from heatproof.studies.plan import ScorePlan
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store
from heatproof.studies.truth import Truth

#: Scores are stored to so many decimals, so that equal maps tie exactly.
DECIMALS = 12
#: The points of a metric's curve are rows of the metric with this behind its name, the share in `strength`.
CURVE = "-curve"
#: Maps of so many pictures of a dataset are kept, at this longest side, for the gallery.
KEPT, SIDE = 128, 112


class ScoreStudy(Workplace):
    """Runs jobs: `study(job, advance)` writes the job's shard and returns its key."""

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.plan: ScorePlan = setup.plan
        self.metrics = requested_metrics(self.plan.metrics)
        self.truth = [Truth(plan.masks, found) for plan, found in zip(self.plan.datasets, setup.pictures, strict=True)]
        self.stored = [stored_maps(self.plan, pictures) for pictures in setup.pictures]

    def __call__(self, job: Job, advance: Advance) -> str:
        model, pictures = self.model(job.model), self.setup.pictures[job.dataset]
        block = open_block(pictures, range(job.start, job.stop), model, self.plan.target)
        rows, kept = self.rows(job), Kept()
        refused = self.refused(job.model)
        every = [*map(of_method, self.requests), *map(of_maps, self.stored[job.dataset])]
        flag(rows, block.failed, every, self.metrics)
        for request in self.requests:
            if request.key in refused:
                why = dict.fromkeys(block.ids, f"not applicable: {refused[request.key]}")
                flag(rows, why, [of_method(request)], self.metrics)
        share = 1 / (job.stop - job.start)
        advance(share * len(block.failed))
        if block.ids:
            work = lambda part: Scored(self, job, model, block[part]).run(lambda s: advance(s * share))  # noqa: E731
            for part_rows, part_kept in halved(work, len(block.ids)):
                rows.extend(part_rows)
                kept.extend(part_kept)
        Store(self.setup.folder).write_shard(job.key, rows.table(), kept.arrays())
        return job.key


def stored_maps(plan: ScorePlan, pictures: Pictures) -> list[Stored]:
    """The maps made beforehand, for the pictures of one dataset."""
    return [Stored(one.label, one.path, tuple(pictures.ids)) for one in plan.maps]


def of_maps(maps: Stored) -> dict[str, Any]:
    """The columns that say which maps made beforehand a row is about."""
    return {"method": maps.name, "control": False, "operator": "", "options": ""}


def flag(
    rows: Rows, why: Mapping[str, str], about: Sequence[Mapping[str, Any]], metrics: Sequence[MetricRequest]
) -> None:
    """Flagged rows of what could not be scored: picture → reason, for those methods and all metrics."""
    images, reasons = list(why), list(why.values())
    for columns in about if images else ():
        for request in metrics:
            rows.add(images, **columns, metric=request.key, value=[float("nan")] * len(images), flag=reasons)


class Scored:
    """Some pictures of a job, scored."""

    def __init__(self, study: ScoreStudy, job: Job, model: Model, block: Block):
        self.study, self.job, self.model, self.block = study, job, model, block
        self.needing_masks = {request.key for request in study.metrics if "mask" in request.entry.needs}
        self.rows = Rows()
        self.reasons: dict[str, list[Flag]] = {}  # maps made beforehand → why a picture's cannot be used
        self.unmasked: list[Flag] = []  # why a picture has no mask

    def run(self, advance: Callable[[float], None]) -> tuple[Rows, "Kept"]:
        """All rows of these pictures, and the maps to keep; `advance` hears of pictures."""
        study, plan, block = self.study, self.study.plan, self.block
        places = study.places(self.job.model)
        x = block.x.to(self.model.device)
        settings: dict[str, Any] = {"target_rule": rule(plan), "seed": plan.seed, "labels": block.labels}
        batch = Batch.of(self.model, places, x, ids=block.ids, **settings)
        given = [self._given(maps, x) for maps in study.stored[self.job.dataset]]
        ground_truth = self._truth()
        columns = {place.key: at_layers(place) for place in places}
        columns |= {maps.name: of_maps(maps) for maps in study.stored[self.job.dataset]}
        kept, count = Kept(), len(columns)
        for one in evaluate(batch, places, study.metrics, given=given, ground_truth=ground_truth, survive=True):
            self._add(one, columns[one.method], self._prediction(batch))
            kept.add(columns[one.method]["method"], one.maps, block)
            advance(len(block.ids) / count)
        self._facts(batch)
        if not columns:
            advance(len(block.ids))
        return self.rows, kept

    def _given(self, maps: Stored, x: torch.Tensor) -> GivenMaps:
        """The stored maps of these pictures, not a number where there is none that can be used."""
        found, reasons, absent = [], [], []
        for i, (identity, size) in enumerate(zip(self.block.ids, self.block.sizes, strict=True)):
            try:
                one = as_map(maps(identity), size, self.model.geometry)
                found.append(x.new_full(x.shape[2:], torch.nan) if one is None else
                             fitted(one[None], x[i : i + 1], "display", maps.name)[0])  # fmt: skip
                absent.append(one is None)
                reasons.append(FINE)
            except InvalidPicture as error:
                found.append(x.new_full(x.shape[2:], torch.nan))
                absent.append(True)
                reasons.append(Flag(Reason.NO_MAP, f"its map cannot be used: {error}", error))
        self.reasons[maps.name] = reasons
        return GivenMaps(maps.name, torch.stack(found), absent)

    def _truth(self) -> torch.Tensor | None:
        """Where the objects are; nowhere where that is not known, and then `unmasked` says why."""
        if not self.needing_masks:
            return None
        truth, geometry = self.study.truth[self.job.dataset], self.model.geometry
        masks, self.unmasked = [], []
        for index, size in zip(self.block.indices, self.block.sizes, strict=True):
            reason, mask = FINE, None
            try:
                mask = truth.mask(index, geometry, size)
            except InvalidPicture as error:
                reason = Flag(Reason.NO_MASK, f"its mask cannot be used: {error}", error)
            self.unmasked.append(reason or (Flag(Reason.NO_MASK) if mask is None else FINE))
            masks.append(torch.zeros(geometry.size, dtype=torch.bool) if mask is None else mask)
        return torch.stack(masks)

    def _add(self, one: MethodScores, columns: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Rows of one method: the scores, then the points of the curves behind them."""
        ids = self.block.ids
        for outcome in one.outcomes:
            flags = self._flags(outcome)
            value = numbers(outcome.values).round(DECIMALS)
            self.rows.add(ids, **columns, **about, metric=outcome.metric, value=value, flag=flags)
            if outcome.curve is None:
                continue
            at, points = outcome.curve
            longer = {name: _repeated(column, len(at)) for name, column in about.items()}
            self.rows.add(
                _repeated(ids, len(at)),
                **columns,
                **longer,
                metric=f"{outcome.metric}{CURVE}",
                strength=np.tile(numbers(at), len(ids)),
                value=numbers(points).round(DECIMALS).reshape(-1),
                flag=_repeated(flags, len(at)),
            )

    def _flags(self, outcome: Outcome) -> list[Flag]:
        """What the engine said, in words that say more where more is known here."""
        reasons = self.reasons.get(outcome.method, [FINE] * len(outcome.flags))
        flags = [reason if reason and flag.reason is Reason.NO_MAP else flag
                 for flag, reason in zip(outcome.flags, reasons, strict=True)]  # fmt: skip
        if outcome.metric not in self.needing_masks:
            return flags
        return [why if flag and why else flag for flag, why in zip(flags, self.unmasked, strict=True)]

    def _prediction(self, batch: Batch) -> dict[str, Any]:
        """Columns with what the model says of the picture; null where it gave no number."""
        logits = batch.logits
        probability, predicted = self.model.probabilities(logits).amax(1), top_class(logits)
        fine = [not text for text in non_finite(logits)]
        nullable = lambda values: [v if ok else None for v, ok in zip(values.tolist(), fine, strict=True)]  # noqa: E731
        return {"clean_class": nullable(predicted), "clean_probability": nullable(probability)}

    def _facts(self, batch: Batch) -> None:
        """Rows about the pictures: the class explained, its probability, and whether the prediction is the label."""
        ids, about, broken = self.block.ids, self._prediction(batch), non_finite(batch.logits)
        probability = self.model.probabilities(batch.logits).gather(1, batch.target[:, None])[:, 0]
        self.rows.add(ids, metric="target-class", value=numbers(batch.target), flag=broken, **about)
        self.rows.add(ids, metric="probability", value=numbers(probability).round(DECIMALS), flag=broken, **about)
        if any(label is not None for label in self.block.labels):
            self.rows.add(ids, metric="correct", **correctness(batch.logits, self.block.labels), **about)


def _repeated(values: Sequence[Any], times: int) -> list[Any]:
    return [value for value in values for _ in range(times)]


class Kept:
    """Display maps of some pictures, small enough to be stored: `values` uint8 `(methods, n, h, w)`."""

    def __init__(self) -> None:
        self._parts: list[tuple[list[str], dict[str, np.ndarray]]] = []

    def add(self, method: str, maps: torch.Tensor, block: Block) -> None:
        """The maps `(N, *size)` in [0, 1] of a method on the pictures of a block."""
        rows = [row for row, index in enumerate(block.indices) if index < KEPT]
        if not rows:
            return
        images = [block.ids[row] for row in rows]
        if not self._parts or self._parts[-1][0] != images:
            self._parts.append((images, {}))
        self._parts[-1][1][method] = _small(maps[rows])

    def extend(self, other: "Kept") -> None:
        """The maps of further pictures."""
        self._parts += other._parts

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a job's `.npz`; none where no map is kept."""
        if not self._parts:
            return {}
        methods = list(self._parts[0][1])
        values = [np.concatenate([maps[method] for _, maps in self._parts]) for method in methods]
        return {
            "values": np.stack(values),
            "methods": np.array(methods),
            "images": np.array([image for images, _ in self._parts for image in images]),
        }


def _small(maps: torch.Tensor) -> np.ndarray:
    """Mean over blocks where that makes the longest side at most SIDE; uint8."""
    scale = min(1.0, SIDE / max(maps.shape[1:]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in maps.shape[1:])
        maps = torch.nn.functional.adaptive_avg_pool2d(maps[:, None].float(), (height, width))[:, 0]
    return (maps * 255).round().byte().cpu().numpy()
