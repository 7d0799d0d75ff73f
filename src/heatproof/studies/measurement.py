"""Explains and measures some images of one model under every condition of a study.

The first condition is the reference; pair metrics compare the maps under the others with it. Shared quantities are
computed once (`engine`): one forward and one backward for all methods under a condition, segments once per image. A
missing map or mask becomes a flagged row.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from heatproof.ambient import network_autocast
from heatproof.engine import (
    Batch,
    GivenMaps,
    MethodScores,
    Outcome,
    PartAnswers,
    ReferenceMaps,
    ResolvedMethod,
    evaluate,
    explanation,
    needs_by_layer,
)
from heatproof.engine.projections import projections
from heatproof.errors import LayerError, ModelError, NotApplicable
from heatproof.flags import FINE, Flag, Reason, first_flags
from heatproof.memo import cached_property
from heatproof.metrics.localisation import peak_on_mask
from heatproof.metrics.metric_request import MetricRequest
from heatproof.metrics.part_checks import background_independence
from heatproof.models import Model
from heatproof.models.other_size import size_refusal
from heatproof.perturbations import psnr
from heatproof.rounding import top_class
from heatproof.statistics.special_rows import BACKGROUND, CURVE, GROUND_TRUTH, PEAK, PROJECTION
from heatproof.studies.answers import changed, correctness, non_finite
from heatproof.studies.beside_images import Flagged, maps_beside, masks_of, without_object
from heatproof.studies.changed_images import ChangedImages, strength_of
from heatproof.studies.conditions import INTACT, Condition
from heatproof.studies.explained import Explained, at_layers, of_maps
from heatproof.studies.explained_classes import rule_of, unlabelled, without_class
from heatproof.studies.jobs import Dataset, ImageBlock
from heatproof.studies.maps import KeptMaps
from heatproof.studies.measures import Measures, needs_mask
from heatproof.studies.part_sets import images_by_parts
from heatproof.studies.partial import PartialBatch, PartialCondition
from heatproof.studies.rows import Rows
from heatproof.studies.settings import Plan
from heatproof.studies.study import Measure
from heatproof.studies.together import ExplainedAhead, Together
from heatproof.tensors import NEARLY_ONE_COLOUR, contrast
from heatproof.transfers import on_device

#: Scores are stored with this many decimals, so that equal maps tie exactly and rounding noise decides no rank.
DECIMALS = 12


@dataclass
class Measurement:
    """Some images of a job, to be explained and measured under every condition.

    models: state → the model in that state. layer: the study's own, whose raw maps are kept. finished: what an earlier
    run of the job has worked out on these images, and where new results are kept. tolerance: of a network of values,
    how far a value moves before the answer has changed, in its units. known: the images under the first condition,
    where they have been explained. together: how many conditions are explained in one pass. precision: of the network's
    autocast, where it explains and is asked; images are changed in full precision.
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
    known: Explained | None = None
    together: Together = field(default_factory=Together)
    precision: torch.dtype | None = None
    rows: Rows = field(default_factory=Rows, init=False)

    def __post_init__(self) -> None:
        self.model = self.models(INTACT)
        self.x = on_device(self.block.x, self.model.device)
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
        absent = without_class(self._target(self.conditions[number]), self.block)
        there = [row for row, one in enumerate(self.block.ids) if one not in absent]
        own = self._part(there) if absent else self
        own.rows = Rows()
        explained = own._possible(number) if there else None
        raw = [self._raw(explained, method, there) for method in self.stored] if len(self.conditions) > 1 else []
        kept.add_raw(raw)
        if explained is not None:
            own._measure(explained, kept, advance)
        self.rows = own.rows
        if self.finished is not None:
            self.finished.add_rows(number, self.rows, raw, kept.display)

    def _part(self, rows: Sequence[int]) -> "Measurement":
        """Some of the images, with what is known of them."""
        known = self.reference.part(rows)
        return replace(self, block=self.block.only(rows), finished=None, known=known, together=Together())

    def _raw(self, explained: Explained | None, method: ResolvedMethod, rows: Sequence[int]) -> torch.Tensor:
        """The raw maps of a method under a condition that has these images; NaN where it has none."""
        known = None if explained is None else explained.found.raw.get(method.key)
        if known is None:
            return torch.full_like(self.reference.found.raw[method.key], torch.nan)
        if len(rows) == len(self.block.ids):
            return known
        found = known.new_full((len(self.block.ids), *known.shape[1:]), torch.nan)
        found[list(rows)] = known
        return found

    def _possible(self, number: int) -> Explained | None:
        """The images under a condition, with flagged rows for the methods that have no maps there; None for all.

        A network may not take images of another size, its layer may have one position there, and a set may have no
        other image to mix with.
        """
        condition = self.conditions[number]
        try:
            explained, why = self._ahead(number) or self.explained(condition), ""
        except ModelError as error:
            if not (number and condition.transformation):
                raise
            explained, why = None, str(Flag.of_error(error, Reason.NOT_APPLICABLE))
        able = {method.key for method in explained.methods} if explained is not None else set()
        about = {**condition.columns, "value": np.nan, "flag": why or (explained.refused if explained else "")}
        for measure, _ in self._measures_due(not number):
            for method in (one for one in self.methods if one.key not in able):
                own = {"metric": measure.column, "segmenter": measure.segmenter}
                self.rows.add(self.block.ids, **about, **at_layers(method), **own)
        return explained

    def _cost(self, number: int) -> float:
        """Rough cost of a condition in passes; a metric that is no pair's runs the network again for each method."""
        scored = sum(not request.paired for _, request in self._measures_due(not number))
        return self.conditions[number].cost + 8.0 * scored * len(self.methods)

    def _nothing_kept(self) -> KeptMaps:
        shown = [self.block.ids[row] for row in self._gallery_rows] if len(self.conditions) == 1 else []
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
        return self.known or self._explained(self.conditions[0])

    def explained(self, condition: Condition) -> Explained:
        """The images under a condition, and their maps."""
        return self.reference if condition == self.conditions[0] else self._explained(condition)

    def _explained(self, condition: Condition) -> Explained:
        model, x = self.models(condition.state), self.changed_images.under(condition)
        if x.shape != self.x.shape and (why := size_refusal(model, tuple(x.shape[1:]))):
            raise NotApplicable(why)
        explain = partial(self._with_maps, condition, model, x)
        try:
            return explain(self.methods)
        except LayerError as error:  # at another size the layer may have one position alone
            if x.shape == self.x.shape:
                raise
            free = [method for method in self.methods if not any(one.kept for one in needs_by_layer([method]).values())]
            if not free:
                raise
            return explain(free, str(Flag.of_error(error, Reason.NOT_APPLICABLE)))

    def _with_maps(
        self, condition: Condition, model: Model, x: torch.Tensor, methods: Sequence[ResolvedMethod], refused: str = ""
    ) -> Explained:
        batch = self._batch(condition, model, x, methods)
        with self._lower():
            found = explanation(batch, methods, survive=True, finished=self._finished(condition))
        batch.release()
        return Explained(condition, batch, found, methods, refused)

    def _batch(self, condition: Condition, model: Model, x: torch.Tensor, methods: Sequence[ResolvedMethod]) -> Batch:
        """The images `x` under a condition."""
        return Batch.of(
            model,
            methods,
            x,
            target_rule=rule_of(self._target(condition), self.block, model),
            ids=self.block.ids,
            seed=self.plan.seed,
            condition=condition.name or ("clean" if len(self.conditions) > 1 else ""),
            labels=self.block.labels,
            clean=None if condition == self.conditions[0] else self.clean_class,
        )

    def _lower(self) -> AbstractContextManager[None]:
        """While it lasts, the network runs in the study's `precision`."""
        return network_autocast(self.model.device, self.precision)

    def _ahead(self, number: int) -> Explained | None:
        """The images under a condition that shares the pass of others; None where it does not."""
        found = self._shared_passes.take(number) if self.together.count > 1 and number else None
        return found and Explained(self.conditions[number], *found, self.methods)

    @cached_property
    def _shared_passes(self) -> ExplainedAhead:
        me, states = weakref.proxy(self), [condition.state for condition in self.conditions]
        calls = lambda number: me._joinable(number), lambda: me._lower()
        return ExplainedAhead(self.together, states, self.methods, *calls, self.finished)

    def _joinable(self, number: int) -> Batch | None:
        """The images under a condition; None where these are fewer, or have another size."""
        condition = self.conditions[number]
        if without_class(self._target(condition), self.block):
            return None
        model, x = self.models(condition.state), self.changed_images.under(condition)
        return self._batch(condition, model, x, self.methods) if x.shape == self.x.shape else None

    def _finished(self, condition: Condition) -> PartialCondition | None:
        """What is known of the images under a condition."""
        return None if self.finished is None else self.finished.condition(list(self.conditions).index(condition))

    @cached_property
    def changed_images(self) -> ChangedImages:
        """The images under every condition."""
        me, images = weakref.proxy(self), self.dataset.images  # a circle of references would keep it in memory
        return ChangedImages(self.model, self.x, self.block, images, self.plan.seed, lambda: me.clean_class)

    @cached_property
    def clean_class(self) -> torch.Tensor:
        """`(n,)` predictions under the reference; also what the attacks try to change."""
        return top_class(self.reference.found.logits)

    @cached_property
    def _clean(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`(n,)` predictions under the reference and their probabilities, in the CPU's memory."""
        logits = self.reference.found.answers.logits
        top = top_class(logits)
        return top, self.reference.batch.model.probabilities(logits).gather(1, top[:, None])[:, 0]

    def changed(self, explained: Explained) -> torch.Tensor:
        """`(n,)` bool in the CPU's memory: whether the answer is another than under the reference."""
        before, target = self.reference.found.answers
        now, tolerance = explained.found.answers.logits, float(self.tolerance or 0)
        return changed(explained.batch.model, before, now, target, tolerance)

    @cached_property
    def no_prediction(self) -> list[Flag]:
        """Why an image has no prediction under the reference, `FINE` if it has one."""
        return non_finite(self.reference.found.answers.logits)

    def unusable(self, condition: Condition) -> list[Flag]:
        """Why an image has no rows under a condition: no prediction under the reference, or no label to explain."""
        return first_flags(self.no_prediction, unlabelled(self._target(condition), self.block))

    def _target(self, condition: Condition) -> str:
        """The rule for the class explained under a condition."""
        return condition.target or self.plan.target

    @cached_property
    def reference_maps(self) -> ReferenceMaps:
        """The maps of all methods under the reference, prepared for many pairs."""
        masks = self._masks[0] if self.dataset.masked else None
        return ReferenceMaps.of(self.reference.x, self.reference.found, mask=masks)

    def _paired(self, explained: Explained) -> ReferenceMaps | None:
        """The reference maps for pairs; None under the reference itself, and where the images have another size."""
        own = explained is self.reference or explained.x.shape != self.x.shape
        return None if own else self.reference_maps

    # --- rows ---

    def _measure(self, explained: Explained, kept: KeptMaps, advance: Callable[[float], None]) -> None:
        """Adds the rows of one condition: the predictions, then every measure of every method."""
        first = explained is self.reference
        about = {**explained.condition.columns, **self._prediction(explained), "reference": first}
        if explained.condition.perturbation:
            about["strength"] = strength_of(explained.condition)
        absent = self.unusable(explained.condition)
        self._image_rows(explained, about, first)
        due = self._measures_due(first)
        given = self._maps_beside() if first else []
        parts = self.part_answers(explained) if any(request.of_parts for _, request in due) else None
        if due:
            columns = {m.key: at_layers(m) for m in explained.methods}
            columns |= {maps.key: of_maps(maps.key) for maps, _ in given}
            scores = evaluate(
                explained.batch,
                explained.methods,
                list({request.key: request for _, request in due}.values()),
                given=[maps for maps, _ in given],
                ground_truth=self.ground_truth(explained.condition) if any(needs_mask(r) for _, r in due) else None,
                reference=self._paired(explained) if any(request.paired for _, request in due) else None,
                found=explained.found,
                survive=True,
                finished=self._finished(explained.condition),
                parts=parts,
            )
            reasons = {maps.key: why for maps, why in given}
            pooled = first or explained.condition.target in self.plan.pooled_targets
            with self._lower():
                for one in scores:
                    self._add(one, due, {**about, **columns[one.method]}, absent, reasons.get(one.method))
                    if pooled and one.method != GROUND_TRUTH:
                        self._add_projections(one.maps, one.flags, {**about, **columns[one.method]})
                    if first and one.method != GROUND_TRUTH:
                        self._add_peaks(one.maps, one.flags, {**about, **columns[one.method]})
                    if kept.shown and one.method != GROUND_TRUTH:
                        kept.add_display(columns[one.method]["method"], one.maps[self._gallery_rows])
                    advance(1 / len(columns))
        if parts is not None and first:
            self._add_background(parts, explained, about)
        if first and not due:
            for method in self.methods:
                maps, flags = explained.found.display(method.key), explained.found.flags[method.key]
                self._add_projections(maps, flags, {**about, **at_layers(method)})
                self._add_peaks(maps, flags, {**about, **at_layers(method)})
        if not due or not (explained.methods or given):
            advance(1.0)

    def _image_rows(self, explained: Explained, about: Mapping[str, Any], first: bool) -> None:
        """Adds rows about the images: PSNR, whether they are classified right, the class explained, its probability."""
        ids, (logits, target), batch = self.block.ids, explained.found.answers, explained.batch
        flags = first_flags(self.unusable(explained.condition), non_finite(logits))
        if not first and explained.x.shape == self.x.shape:
            self.rows.add(ids, **about, metric="psnr", value=numbers(psnr(self.x, explained.x)), flag=flags)
        if any(label is not None for label in self.block.labels) and not batch.model.of_values:
            self.rows.add(ids, **about, metric="correct", **correctness(logits, self.block))
        spans = contrast(explained.x).tolist() if first else []
        for row in (row for row, span in enumerate(spans) if span < NEARLY_ONE_COLOUR):
            own = {name: [value[row]] if isinstance(value, list) else value for name, value in about.items()}
            self.rows.add([ids[row]], **own, metric="contrast", value=spans[row], flag=Flag(Reason.ONE_COLOUR))
        answer = batch.model.probabilities(logits).gather(1, target[:, None])[:, 0]
        name = "value" if batch.model.of_values else "probability"
        missing = [bool(flag) for flag in self.unusable(explained.condition)]
        for metric, values in (("target-class", target), (name, answer)):
            known = numbers(values).round(DECIMALS)
            known[missing] = np.nan
            self.rows.add(ids, **about, metric=metric, value=known, flag=flags)

    def _prediction(self, explained: Explained) -> dict[str, Any]:
        """Columns with the predictions under the reference and this condition; null where logits are not finite.

        A network of values has no class and no probability; its values are rows of the metric `value`.
        """
        logits, model = explained.found.answers.logits, explained.batch.model
        fine = [not flag for flag in first_flags(self.no_prediction, non_finite(logits))]
        nullable = lambda values: [v if ok else None for v, ok in zip(values.tolist(), fine, strict=True)]  # noqa: E731
        turned = {"changed": nullable(self.changed(explained))}
        if model.of_values:
            return turned
        now, probability, (before, of_before) = top_class(logits), model.probabilities(logits), self._clean
        return {
            **turned,
            "clean_class": nullable(before),
            "perturbed_class": nullable(now),
            "clean_probability": nullable(of_before),
            "perturbed_probability": nullable(probability.amax(1)),
        }

    def _add(
        self,
        one: MethodScores,
        due: Sequence[tuple[Measure, MetricRequest]],
        about: Mapping[str, Any],
        absent: Sequence[Flag],
        unusable: Sequence[Flag] | None,
    ) -> None:
        """Adds the rows of one method: every measure, each followed by the points of the curve behind it."""
        outcomes = {outcome.metric: outcome for outcome in one.outcomes}
        for measure, request in due:
            outcome = outcomes[request.key]
            missing = first_flags(absent, self.unusable(self.conditions[0])) if request.paired else absent
            if request.paired and needs_mask(request):  # segments are cut at the mask
                missing = first_flags(missing, without_object(self._masks))
            flags = first_flags(missing, self._flags(outcome, request, unusable))
            values = numbers(outcome.values).round(DECIMALS)
            values[[bool(flag) for flag in missing]] = np.nan
            segmented = request.paired and "segmenter" in request.options
            count = self.reference_maps.counts(request.options["segmenter"]) if segmented else 0
            columns = {**about, "segmenter": measure.segmenter}
            self.rows.add(self.block.ids, **columns, metric=measure.column, value=values, flag=flags, n=count)
            if outcome.curve is not None and (about["reference"] or measure.curves):
                self._add_curve(outcome.curve, f"{measure.column}{CURVE}", columns, flags)

    def _add_projections(self, maps: torch.Tensor, flags: Sequence[Any], about: Mapping[str, Any]) -> None:
        """Adds a row for each map of one method, by which methods with equal maps are recognised."""
        values = numbers(projections(maps)).round(DECIMALS)
        known = first_flags(self.unusable(self.conditions[0]), flags)
        values[[bool(flag) for flag in known]] = np.nan
        self.rows.add(self.block.ids, **about, metric=PROJECTION, value=values, flag=known)

    def _add_peaks(self, maps: torch.Tensor, flags: Sequence[Any], about: Mapping[str, Any]) -> None:
        """Adds a row for each image with a mask: whether the highest pixel of the map of one method lies on it."""
        if not self.dataset.masked:
            return
        masks, known = self._masks[0], first_flags(self.unusable(self.conditions[0]), flags)
        values = peak_on_mask(maps, masks, known).tolist()
        rows = [row for row, there in enumerate(masks.flatten(1).any(1).tolist()) if there]
        own = {k: [v[row] for row in rows] if isinstance(v, list) else v for k, v in about.items()}
        ids, flagged = [self.block.ids[row] for row in rows], [known[row] for row in rows]
        if rows:
            self.rows.add(ids, **own, metric=PEAK, value=[round(values[row], DECIMALS) for row in rows], flag=flagged)

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
        optional = request.entry.traits.get("foreign")  # it may do without masks, and fail for other reasons
        return [why if why and flag and (not optional or flag.reason is Reason.UNDEFINED) else flag
                for flag, why in zip(flags, self._masks[1], strict=True)]  # fmt: skip

    # --- what comes with the images ---

    def _maps_beside(self) -> list[tuple[GivenMaps, list[Flag]]]:
        """Maps made beforehand, and the ground truth as a map where the study scores it."""
        truth = self._masks if self.plan.scores_ground_truth and self.dataset.masked else None
        return maps_beside(self.dataset, self.block, self.model.geometry, self.x, truth)

    @cached_property
    def _masks(self) -> Flagged:
        """The masks, empty where there is none that can be used, and the reasons."""
        return masks_of(self.dataset, self.block, self.model.geometry)

    def ground_truth(self, condition: Condition) -> torch.Tensor:
        """The masks, transformed like the images under a condition."""
        return self.changed_images.masks(self._masks[0], condition)

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
        undefined = Flag(Reason.UNDEFINED, "no distractor, or an image without one is missing")
        flags = [FINE if value == value else undefined for value in values.tolist()]
        counts = [len(names) - len(parts.given.table.parts) for names in parts.things]
        self.rows.add(self.block.ids, **about, metric=BACKGROUND, value=numbers(values), flag=flags, n=counts)


def repeated(values: Sequence[Any], times: int) -> list[Any]:
    """Each value `times` times in a row."""
    return [value for value in values for _ in range(times)]


def numbers(values: torch.Tensor) -> np.ndarray:
    """A tensor as float64 numpy."""
    return values.detach().double().cpu().numpy()
