"""Explains and measures some images of one model under every condition of a study.

The first condition is the reference; pair metrics compare the maps under the others with it. Shared quantities are
computed once (`engine`): one forward and one backward for all methods under a condition, segments once per image. A
missing map or mask becomes a flagged row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from heatproof.attributions import Request
from heatproof.attributions.stored import Stored, as_map, fitted
from heatproof.engine import (
    Batch,
    Explanation,
    GivenMaps,
    MethodScores,
    Outcome,
    PartAnswers,
    ReferenceMaps,
    ResolvedMethod,
    evaluate,
    explanation,
)
from heatproof.errors import InvalidImage
from heatproof.flags import FINE, Flag, Reason, first_flags
from heatproof.memo import cached_property
from heatproof.metrics.localisation import peak_on_mask
from heatproof.metrics.metric_request import MetricRequest
from heatproof.metrics.part_checks import background_independence
from heatproof.models import Model
from heatproof.perturbations import Perturber, psnr, strength_at
from heatproof.rounding import top_class
from heatproof.statistics.special_rows import BACKGROUND, CURVE, PEAK, PROJECTION
from heatproof.studies.answers import changed
from heatproof.studies.conditions import INTACT, Condition
from heatproof.studies.jobs import Dataset, ImageBlock, options_hash, target_rule
from heatproof.studies.maps import KeptMaps
from heatproof.studies.measures import Measures, needs_mask
from heatproof.studies.part_sets import images_by_parts
from heatproof.studies.partial import PartialBatch, PartialCondition
from heatproof.studies.projections import projections
from heatproof.studies.rows import Rows
from heatproof.studies.settings import Plan
from heatproof.studies.study import Measure
from heatproof.tensors import NEARLY_ONE_COLOUR, contrast
from heatproof.transformations import transformed

#: Scores are stored with this many decimals, so that equal maps tie exactly and rounding noise decides no rank.
DECIMALS = 12


def of_method(request: Request) -> dict[str, Any]:
    """The columns that say which method a row is about."""
    return {
        "method": request.name,
        "control": bool(request.entry.traits["control"]),
        "operator": request.operator,
        "options": options_hash(request.options),
    }


def at_layers(method: ResolvedMethod) -> dict[str, Any]:
    """`of_method` with the layers that the method reads, empty for one that reads none."""
    return {**of_method(method.request), "layers": method.where if method.request.spatial else ""}


def of_maps(maps: Stored) -> dict[str, Any]:
    """The columns that say which maps made beforehand a row is about."""
    return {"method": maps.name, "control": False, "operator": "", "options": ""}


@dataclass(frozen=True)
class Explained:
    """The images of a part of a job under one condition, and their maps."""

    condition: Condition
    batch: Batch
    found: Explanation

    @property
    def x(self) -> torch.Tensor:
        """The images as the network's input."""
        return self.batch.x


@dataclass
class Measurement:
    """Some images of a job, to be explained and measured under every condition.

    models: state → the model in that state. layer: the study's own, whose raw maps are kept. finished: what an earlier
    run of the job has worked out on these images, and where new results are kept. tolerance: of a network of values,
    how far a value moves before the answer has changed, in its units.
    """

    plan: Plan
    dataset: Dataset
    models: Callable[[str], Model]
    methods: Sequence[ResolvedMethod]
    layer: str
    measures: Measures
    block: ImageBlock
    conditions: Sequence[Condition]
    finished: PartialBatch | None = None
    tolerance: float | str | None = None
    rows: Rows = field(default_factory=Rows, init=False)
    _perturbers: dict[str, Perturber] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.model = self.models(INTACT)
        self.x = self.block.x.to(self.model.device)
        self.stored = [m for m in self.methods if m.request.form == "cam" and m.layers == (self.layer,)]

    def run(self, advance: Callable[[float], None]) -> tuple[Rows, KeptMaps]:
        """All rows of these images, and the maps to keep; `advance` is called with shares of the images."""
        weights = [self._cost(number) for number in range(len(self.conditions))]
        step = len(self.block.ids) / sum(weights)
        kept, rows = self._nothing_kept(), Rows()
        for number, weight in enumerate(weights):
            known = self.finished.rows(number, kept) if self.finished is not None else None
            if known is None:
                self._of_condition(number, kept, lambda share, weight=weight: advance(step * weight * share))
                known = self.rows
            else:
                advance(step * weight)
            rows.extend(known)
        return rows, kept

    def _of_condition(self, number: int, kept: KeptMaps, advance: Callable[[float], None]) -> None:
        """Explains and measures the images under one condition; its rows are in `rows`."""
        self.rows = Rows()
        explained = self.explained(self.conditions[number])
        raw = [explained.found.raw[method.key] for method in self.stored] if len(self.conditions) > 1 else []
        kept.add_raw(raw)
        self._measure(explained, kept, advance)
        if self.finished is not None:
            self.finished.add_rows(number, self.rows, raw, kept.display)

    def _cost(self, number: int) -> float:
        """Rough cost of a condition in passes; a metric on the reference runs the network again for each method."""
        if number:
            return self.conditions[number].cost
        return 1.0 + 8.0 * len(self._measures_due(True)) * len(self.methods)

    def _nothing_kept(self) -> KeptMaps:
        one = len(self.conditions) == 1
        shown = [self.block.ids[row] for row in self._gallery_rows] if one else []
        methods = [method.request.name for method in self.stored]
        return KeptMaps(self.block.ids, methods, [condition.name for condition in self.conditions], shown=shown)

    @cached_property
    def _gallery_rows(self) -> list[int]:
        shown = self.dataset.shown
        return [row for row, index in enumerate(self.block.indices) if shown is None or index in shown]

    def _measures_due(self, reference: bool) -> list[tuple[Measure, MetricRequest]]:
        return self.measures.at(reference, self.dataset.masked, self.dataset.mosaics)

    # --- images and maps under a condition ---

    @cached_property
    def reference(self) -> Explained:
        """The images under the first condition."""
        return self._explained(self.conditions[0])

    def explained(self, condition: Condition) -> Explained:
        """The images under a condition, and their maps."""
        return self.reference if condition == self.conditions[0] else self._explained(condition)

    def _explained(self, condition: Condition) -> Explained:
        first = condition == self.conditions[0]
        finished = self._finished(condition)
        model = self.models(condition.state)
        batch = Batch.of(
            model,
            self.methods,
            self._images(condition),
            target_rule=target_rule(condition.target or self.plan.target, model.classes),
            ids=self.block.ids,
            seed=self.plan.seed,
            condition=condition.name or ("clean" if len(self.conditions) > 1 else ""),
            labels=self.block.labels,
            clean=None if first else self.clean_class,
        )
        return Explained(condition, batch, explanation(batch, self.methods, survive=True, finished=finished))

    def _finished(self, condition: Condition) -> PartialCondition | None:
        """What is known of the images under a condition."""
        return None if self.finished is None else self.finished.condition(list(self.conditions).index(condition))

    def _images(self, condition: Condition) -> torch.Tensor:
        """The images transformed, then perturbed; attacks lead away from the prediction under the reference."""
        if not condition.perturbation:
            return self._transformed(condition.transformation)
        with self.model.evaluating():
            return self._perturber(condition).apply(
                condition.perturbation, condition.level, extrapolate=condition.calibrated
            )

    def _transformed(self, name: str) -> torch.Tensor:
        return transformed(name, self.x, self.block.ids, self.plan.seed) if name else self.x

    def _perturber(self, condition: Condition) -> Perturber:
        """One perturber for all conditions of a transformation, so that they share intermediate results."""
        name = condition.transformation
        if name not in self._perturbers:
            x = self._transformed(name)
            self._perturbers[name] = Perturber(
                x, self.block.ids, self.plan.seed, self._loss_gradient, self.model.logits
            )
        return self._perturbers[name]

    def _loss_gradient(self, images: torch.Tensor) -> torch.Tensor:
        return loss_gradient(self.model, images, self.clean_class)

    @cached_property
    def clean_class(self) -> torch.Tensor:
        """`(n,)` predictions under the reference; also what the attacks try to change."""
        return top_class(self.reference.found.logits)

    @cached_property
    def clean_probability(self) -> torch.Tensor:
        """`(n,)` probabilities of the predictions under the reference."""
        probabilities = self.reference.batch.model.probabilities(self.reference.found.logits)
        return probabilities.gather(1, self.clean_class[:, None])[:, 0]

    def changed(self, explained: Explained) -> torch.Tensor:
        """`(n,)` bool: whether the answer is another than under the reference."""
        before, target = self.reference.found.logits, self.reference.found.target
        return changed(explained.batch.model, before, explained.found.logits, target, float(self.tolerance or 0))

    @cached_property
    def no_prediction(self) -> list[Flag]:
        """Why an image has no prediction under the reference, `FINE` if it has one."""
        return non_finite(self.reference.found.logits)

    @cached_property
    def reference_maps(self) -> ReferenceMaps:
        """The maps of all methods under the reference, prepared for many pairs."""
        return ReferenceMaps.of(self.reference.x, self.reference.found)

    # --- rows ---

    def _measure(self, explained: Explained, kept: KeptMaps, advance: Callable[[float], None]) -> None:
        """Adds the rows of one condition: the predictions, then every measure of every method."""
        first = explained is self.reference
        about = {**explained.condition.columns, **self._prediction(explained), "reference": first}
        if explained.condition.perturbation:
            about["strength"] = strength_of(explained.condition)
        self._image_rows(explained, about, first)
        due = self._measures_due(first)
        given = [self._given_maps(maps) for maps in self.dataset.given] if first else []
        parts = self.part_answers(explained) if any(request.of_parts for _, request in due) else None
        if due:
            columns = {m.key: at_layers(m) for m in self.methods} | {m.name: of_maps(m) for m in self.dataset.given}
            scores = evaluate(
                explained.batch,
                self.methods,
                list({request.key: request for _, request in due}.values()),
                given=[maps for maps, _ in given],
                ground_truth=self.ground_truth(explained.condition) if any(needs_mask(r) for _, r in due) else None,
                reference=None if first or not any(request.paired for _, request in due) else self.reference_maps,
                found=explained.found,
                survive=True,
                finished=self._finished(explained.condition),
                parts=parts,
            )
            reasons = {maps.key: why for maps, why in given}
            for one in scores:
                self._add(one, due, {**about, **columns[one.method]}, reasons.get(one.method))
                if first:
                    self._add_projections(one.maps, one.flags, {**about, **columns[one.method]})
                    self._add_peaks(one.maps, one.flags, {**about, **columns[one.method]})
                if kept.shown:
                    kept.add_display(columns[one.method]["method"], one.maps[self._gallery_rows])
                advance(1 / len(columns))
        if parts is not None and first:
            self._add_background(parts, explained, about)
        if first and not due:
            for method in self.methods:
                maps, flags = explained.found.display(method.key), explained.found.flags[method.key]
                self._add_projections(maps, flags, {**about, **at_layers(method)})
                self._add_peaks(maps, flags, {**about, **at_layers(method)})
        if not due or not (self.methods or given):
            advance(1.0)

    def _image_rows(self, explained: Explained, about: Mapping[str, Any], first: bool) -> None:
        """Adds rows about the images: PSNR, whether they are classified right, the class explained, its probability."""
        ids, found, batch = self.block.ids, explained.found, explained.batch
        flags = first_flags(self.no_prediction, non_finite(found.logits))
        if not first and explained.x.shape == self.x.shape:
            self.rows.add(ids, **about, metric="psnr", value=numbers(psnr(self.x, explained.x)), flag=flags)
        if any(label is not None for label in self.block.labels) and not batch.model.of_values:
            self.rows.add(ids, **about, metric="correct", **correctness(found.logits, self.block.labels))
        spans = contrast(explained.x).tolist() if first else []
        for row in (row for row, span in enumerate(spans) if span < NEARLY_ONE_COLOUR):
            own = {name: [value[row]] if isinstance(value, list) else value for name, value in about.items()}
            self.rows.add([ids[row]], **own, metric="contrast", value=spans[row], flag=Flag(Reason.ONE_COLOUR))
        answer = batch.model.probabilities(found.logits).gather(1, found.target[:, None])[:, 0]
        name = "value" if batch.model.of_values else "probability"
        self.rows.add(ids, **about, metric="target-class", value=numbers(found.target), flag=flags)
        self.rows.add(ids, **about, metric=name, value=numbers(answer).round(DECIMALS), flag=flags)

    def _prediction(self, explained: Explained) -> dict[str, Any]:
        """Columns with the predictions under the reference and this condition; null where logits are not finite.

        A network of values has no class and no probability; its values are rows of the metric `value`.
        """
        found, model = explained.found, explained.batch.model
        fine = [not flag for flag in first_flags(self.no_prediction, non_finite(found.logits))]
        nullable = lambda values: [v if ok else None for v, ok in zip(values.tolist(), fine, strict=True)]  # noqa: E731
        turned = {"changed": nullable(self.changed(explained))}
        if model.of_values:
            return turned
        now, probability = top_class(found.logits), model.probabilities(found.logits)
        return {
            **turned,
            "clean_class": nullable(self.clean_class),
            "perturbed_class": nullable(now),
            "clean_probability": nullable(self.clean_probability),
            "perturbed_probability": nullable(probability.amax(1)),
        }

    def _add(
        self,
        one: MethodScores,
        due: Sequence[tuple[Measure, MetricRequest]],
        about: Mapping[str, Any],
        unusable: Sequence[Flag] | None,
    ) -> None:
        """Adds the rows of one method: every measure, each followed by the points of the curve behind it."""
        outcomes = {outcome.metric: outcome for outcome in one.outcomes}
        for measure, request in due:
            outcome = outcomes[request.key]
            flags = first_flags(self.no_prediction, self._flags(outcome, request, unusable))
            values = numbers(outcome.values).round(DECIMALS)
            values[[bool(flag) for flag in self.no_prediction]] = np.nan
            segmented = request.paired and "segmenter" in request.options
            count = self.reference_maps.counts(request.options["segmenter"]) if segmented else 0
            columns = {**about, "segmenter": measure.segmenter}
            self.rows.add(self.block.ids, **columns, metric=measure.column, value=values, flag=flags, n=count)
            if outcome.curve is not None:
                self._add_curve(outcome.curve, f"{measure.column}{CURVE}", columns, flags)

    def _add_projections(self, maps: torch.Tensor, flags: Sequence[Any], about: Mapping[str, Any]) -> None:
        """Adds a row for each map of one method, by which methods with equal maps are recognised."""
        values = numbers(projections(maps)).round(DECIMALS)
        known = first_flags(self.no_prediction, flags)
        values[[bool(flag) for flag in known]] = np.nan
        self.rows.add(self.block.ids, **about, metric=PROJECTION, value=values, flag=known)

    def _add_peaks(self, maps: torch.Tensor, flags: Sequence[Any], about: Mapping[str, Any]) -> None:
        """Adds a row for each image with a mask: whether the highest pixel of the map of one method lies on it."""
        if not self.dataset.masked:
            return
        masks, known = self._masks[0], first_flags(self.no_prediction, flags)
        values = peak_on_mask(maps, masks, known).tolist()
        rows = [row for row, there in enumerate(masks.flatten(1).any(1).tolist()) if there]
        own = {
            name: [value[row] for row in rows] if isinstance(value, list) else value for name, value in about.items()
        }
        ids, flagged = [self.block.ids[row] for row in rows], [known[row] for row in rows]
        found = [round(values[row], DECIMALS) for row in rows]
        if rows:
            self.rows.add(ids, **own, metric=PEAK, value=found, flag=flagged)

    def _add_curve(
        self, curve: tuple[torch.Tensor, torch.Tensor], metric: str, about: Mapping[str, Any], flags: Sequence[Flag]
    ) -> None:
        at, points = curve
        ids, times = self.block.ids, len(at)
        longer = {name: repeated(value, times) if isinstance(value, list) else value for name, value in about.items()}
        longer |= {"strength": np.tile(numbers(at), len(ids)), "flag": repeated(flags, times), "metric": metric}
        self.rows.add(repeated(ids, times), **longer, value=numbers(points).round(DECIMALS).reshape(-1))

    def _flags(self, outcome: Outcome, request: MetricRequest, unusable: Sequence[Flag] | None) -> list[Flag]:
        """The engine's flags, with the reason where a map made beforehand or a mask could not be used."""
        flags = list(outcome.flags)
        if unusable is not None:
            flags = [why if why and flag.reason is Reason.NO_MAP else flag
                     for flag, why in zip(flags, unusable, strict=True)]  # fmt: skip
        if not needs_mask(request):
            return flags
        optional = request.entry.traits.get(
            "foreign"
        )  # it gets masks where there are any, and may fail for other reasons
        return [why if why and flag and (not optional or flag.reason is Reason.UNDEFINED) else flag
                for flag, why in zip(flags, self._masks[1], strict=True)]  # fmt: skip

    # --- what comes with the images ---

    def _given_maps(self, maps: Stored) -> tuple[GivenMaps, list[Flag]]:
        """The maps made beforehand for these images, NaN where none can be used, and the reasons."""
        found, reasons, absent = [], [], []
        for row, (identity, size) in enumerate(zip(self.block.ids, self.block.sizes, strict=True)):
            one, reason = None, FINE
            try:
                one = as_map(maps(identity), size, self.model.geometry)
                if one is not None:
                    one = fitted(one[None], self.x[row : row + 1], "display", maps.name)[0]
            except InvalidImage as error:
                one, reason = None, Flag(Reason.NO_MAP, f"its map cannot be used: {error}", error)
            absent.append(one is None)
            reasons.append(reason)
            found.append(self.x.new_full(self.x.shape[2:], torch.nan) if one is None else one)
        return GivenMaps(maps.name, torch.stack(found), absent), reasons

    @cached_property
    def _masks(self) -> tuple[torch.Tensor, list[Flag]]:
        """The masks, empty where there is none that can be used, and the reasons."""
        geometry, masks, flags = self.model.geometry, [], []
        for index, size in zip(self.block.indices, self.block.sizes, strict=True):
            mask, why = None, Flag(Reason.NO_MASK)
            try:
                mask = self.dataset.ground_truth.mask(index, geometry, size)
            except InvalidImage as error:
                why = Flag(Reason.NO_MASK, f"its mask cannot be used: {error}", error)
            flags.append(why if mask is None else FINE)
            masks.append(torch.zeros(geometry.size, dtype=torch.bool) if mask is None else mask)
        return torch.stack(masks), flags

    def ground_truth(self, condition: Condition) -> torch.Tensor:
        """The masks, transformed like the images under a condition."""
        masks = self._masks[0]
        if not condition.transformation:
            return masks
        images = masks[:, None].to(self.x).expand(-1, self.x.shape[1], -1, -1)
        return transformed(condition.transformation, images, self.block.ids, self.plan.seed, mask=True)[:, 0] > 0.5

    def part_answers(self, explained: Explained) -> PartAnswers | None:
        """The parts of the images; None where they have none, and under a condition that changes the images."""
        condition = explained.condition
        if condition.transformation or condition.perturbation or not self.dataset.parted:
            return None
        given = images_by_parts(self.dataset.images, self.block.indices, self.model.classes)
        return PartAnswers(explained.batch.model, explained.x, explained.found.logits, given)

    def _add_background(self, parts: PartAnswers, explained: Explained, about: Mapping[str, Any]) -> None:
        """Adds a row for each image: the share of its distractors on which the network does not depend."""
        values = background_independence(explained.found.logits, explained.found.target, parts.view())
        flags = [FINE if value == value else Flag(Reason.UNDEFINED, "no distractor, or an image without one is missing")
                 for value in values.tolist()]  # fmt: skip
        counts = [len(names) - len(parts.given.table.parts) for names in parts.things]
        self.rows.add(self.block.ids, **about, metric=BACKGROUND, value=numbers(values), flag=flags, n=counts)


def strength_of(condition: Condition) -> float:
    """The main parameter of the perturbation, in its own unit."""
    return strength_at(condition.perturbation, condition.level, extrapolate=condition.calibrated)


def repeated(values: Sequence[Any], times: int) -> list[Any]:
    """Each value `times` times in a row."""
    return [value for value in values for _ in range(times)]


def numbers(values: torch.Tensor) -> np.ndarray:
    """A tensor as float64 numpy."""
    return values.detach().double().cpu().numpy()


def non_finite(logits: torch.Tensor) -> list[Flag]:
    """A flag for each image on which the model gives NaN or infinity."""
    fine = torch.isfinite(logits).all(1).tolist()
    return [FINE if ok else Flag(Reason.NO_ANSWER) for ok in fine]


def correctness(logits: torch.Tensor, labels: Sequence[int | None]) -> dict[str, Any]:
    """1 if the prediction is the label, else 0; NaN and flagged without a label, flagged with non-finite logits."""
    predicted = top_class(logits).tolist()
    known = [label is not None for label in labels]
    values = [float(p == label) if ok else float("nan") for p, label, ok in zip(predicted, labels, known, strict=True)]
    flags = [FINE if ok else Flag(Reason.UNUSABLE, "no label") for ok in known]
    return {"value": values, "flag": first_flags(flags, non_finite(logits))}


def loss_gradient(model: Model, images: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """d cross-entropy to the clean prediction / d images; summed over the batch, so that images do not mix."""
    with model.evaluating(), torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.logits(images), clean, reduction="sum")
        return torch.autograd.grad(loss, images)[0]
