"""The seconds that an image takes, by method, metric and change, measured in a few seconds on the study's own images.

A few images are measured as in the study, with the time taken at every map and every score: under the reference and
under one condition of each kind, with metrics on the maps of two methods. Methods and metrics that run the network very
often are measured by themselves and stopped in time; the passes that are left cost what those made did. What was not
reached costs its passes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch

from heatproof.engine import ResolvedMethod, needs_by_layer
from heatproof.errors import InvalidStudy
from heatproof.metrics.metric_request import MetricRequest
from heatproof.passes import rows_per_pass
from heatproof.rounding import top_class
from heatproof.studies.cell_passes import CellPasses
from heatproof.studies.changed_images import ChangedImages
from heatproof.studies.compiling import seconds_of_pass
from heatproof.studies.conditions import INTACT, Condition
from heatproof.studies.cost import Passes
from heatproof.studies.explained_classes import share_with_class
from heatproof.studies.image_sizes import Sizes
from heatproof.studies.jobs import Job
from heatproof.studies.maps import KeptMaps
from heatproof.studies.measurement import Measurement
from heatproof.studies.measures import Measures
from heatproof.studies.rows import Rows
from heatproof.studies.stopwatch import Clock, Stopwatch
from heatproof.studies.study import ALL, Measure
from heatproof.studies.timed_parts import MAP, PREDICTION, REST, TimedParts, stopped_at
from heatproof.studies.worker import Worker
from heatproof.targets import nth

#: Images of each dataset that are measured first.
MEASURED = 2
#: Methods whose maps are scored.
SCORED = 2
#: Shares of the time: for one method or metric among the others, for all of these, and for the changes of the images.
EACH, TOGETHER, CHANGES = 0.03, 0.45, 0.15


@dataclass(frozen=True)
class Cell:
    """Seconds and passes of one image by what they are spent on.

    method, metric: empty where they belong to none. change: the perturbation or transformation; empty under the
    reference, and for another class or state alone. plain: the passes from which only logits are wanted, and which a
    compiled copy may run.
    """

    method: str
    metric: str
    change: str
    seconds: float
    passes: float = 0.0
    plain: float = 0.0


@dataclass(frozen=True)
class ImageTime:
    """Where the seconds of one image go, and some rows of the study, as they are written.

    forward, backward: seconds of a pass of one image.
    """

    cells: Sequence[Cell]
    forward: float
    backward: float
    rows: Rows
    kept: KeptMaps

    @property
    def seconds(self) -> float:
        """Seconds of one image under all conditions."""
        return sum(cell.seconds for cell in self.cells)


@dataclass
class Calibration:
    """Measures the images of one dataset under one model, in about so many `seconds`."""

    worker: Worker
    model: int
    dataset: int
    passes: CellPasses
    seconds: float
    heavy: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.plan, self.about = self.worker.plan, self.worker.setup.datasets[self.dataset]
        self.clock = Clock(self.worker.setup.device, self.plan.threads)
        self.whole = few = self._opened(MEASURED)
        self.network = few.model
        self.modules = [one for one in (self.network.module, self.network.compiled) if one is not None]
        self.conditions = [_at_some_level(one) for one in few.conditions]
        self.sizes = Sizes.of(self.network, few.methods, self.conditions, self.plan.seed)

    def found(self) -> ImageTime:
        """The time of one image.

        Raises:
            InvalidStudy: no image can be measured.
        """
        self.forward, self.backward = self._rates()
        self.plain = self.forward if self.network.compiled is None else seconds_of_pass(self.network)
        light = [one for one in self.whole.methods if self._light(self.passes.method(one.request))]
        metrics = {request.key: request for _, request in self.whole.measures.taken if not request.parts}
        left = [key for key, one in metrics.items() if not self._light(self._metric_passes(one, light[:SCORED]))]
        timed, rows, kept = self._together(light, left)
        changes = self._changes()
        rest = [*(one for one in self.whole.methods if one not in light), *(metrics[key] for key in left)]
        for number, one in enumerate(rest):
            until = self.clock() + max(0.3, (self.seconds - self.clock()) / (len(rest) - number))
            if isinstance(one, MetricRequest):
                self.heavy[one.key] = self._metric_alone(one, light, until)
            else:
                self.heavy[one.key] = self._method_alone(one, until)
        cells = [Cell("", "", "", self.opening, 0), *self._cells(timed, light, changes)]
        return ImageTime(cells, self.forward, self.backward, rows, kept)

    # --- what is timed ---

    def _opened(self, most: int) -> Measurement:
        """The measurement of some images, and what it takes to open one."""
        start = self.clock()
        few = few_images(self.worker, self.model, self.dataset, most)
        self.opening = (self.clock() - start) / len(few.block.ids)
        return few

    def _rates(self) -> tuple[float, float]:
        """Seconds of a forward and of a backward pass of one image, in batches as metrics make them."""
        x = self.whole.x[:1]
        rows = max(1, min(rows_per_pass(x), self.plan.batch_size or MEASURED))
        x = x.expand(rows, *x.shape[1:]).contiguous()
        forward, both = [], []
        with self.network.evaluating():
            for number in range(3):
                with Stopwatch(self.worker.setup.device, self.plan.threads) as watch, torch.inference_mode():
                    self.network.logits(x)
                forward.append(watch.seconds / rows)
                with Stopwatch(self.worker.setup.device, self.plan.threads) as watch, torch.enable_grad():
                    image = x.clone().requires_grad_()
                    logits = self.network.logits(image)
                    if logits.requires_grad:
                        torch.autograd.grad(logits.sum(), image, allow_unused=True)
                both.append(watch.seconds / rows)
                if number and self.clock() > 0.1 * self.seconds:
                    break
        return min(forward), max(0.0, min(both) - min(forward))

    def _cost(self, passes: Passes) -> float:
        """Seconds of some passes of one image."""
        others = passes.forward - passes.plain + passes.tails
        return self.plain * passes.plain + self.forward * others + self.backward * passes.backward

    def _light(self, passes: Passes) -> bool:
        """Whether they are few enough to be measured among the others."""
        return MEASURED * self._cost(passes) <= EACH * self.seconds

    def _metric_passes(self, request: MetricRequest, methods: Sequence[ResolvedMethod]) -> Passes:
        """Of a metric on the maps of a first method and a further one."""
        found = self.passes.metric(request)
        again = sum((self.passes.method(one.request) * found.again for one in methods), Passes())
        return found.first + found.further + again

    def _together(self, light: Sequence[ResolvedMethod], left: Sequence[str]) -> tuple[TimedParts, Rows, KeptMaps]:
        """The light methods and metrics under the reference and one condition of each kind."""
        chosen = [self.conditions[0], *self._representatives()]
        self.chosen = [one.name for one in chosen]

        def measured(whole: Measurement, seconds: float) -> tuple[TimedParts, Rows, KeptMaps]:
            scored = [one.key for one in light[:SCORED]]
            parts = TimedParts(self.clock, self.clock() + seconds, len(whole.block.ids), scored, left)
            part = self._part(whole, light, whole.measures, chosen, parts)
            rows, kept = Rows(), KeptMaps()
            with stopped_at(self.modules, self.clock, parts.until + seconds):
                rows, kept = part.run(lambda share: None)
            return parts, rows, kept

        start = self.clock()
        found = measured(self.whole, TOGETHER * self.seconds)
        taken = (self.clock() - start) / len(self.whole.block.ids)
        # What a first call loads is no part of the cost, and larger batches cost less an image.
        size = int(min(self.plan.batch_size or MEASURED, TOGETHER * self.seconds / max(taken, 1e-9)))
        if size >= min(MEASURED, self.plan.batch_size or MEASURED):
            self.whole = self._opened(size)
            found = measured(self.whole, TOGETHER * self.seconds)
        return found

    def _part(
        self,
        whole: Measurement,
        methods: Sequence[ResolvedMethod],
        measures: Measures,
        conditions: Sequence[Condition],
        parts: TimedParts | None = None,
    ) -> Measurement:
        return Measurement(self.plan, whole.dataset, whole.models, methods, whole.layer, measures, whole.block,
                           conditions, parts, whole.tolerance)  # fmt: skip

    def _representatives(self) -> list[Condition]:
        """One condition of each kind but the reference, and a second one of the first kind, cheap ones first.

        Under the first one pair metrics also prepare the reference maps.
        """
        found: list[Condition] = []
        for number, kind in enumerate(dict.fromkeys(map(self._kind, self.conditions[1:]))):
            alike = [one for one in self.conditions[1:] if self._kind(one) == kind and _of_all(one, self.plan.target)]
            found += sorted(alike, key=lambda one: one.cost)[: 1 if number else 2]
        return found

    def _kind(self, condition: Condition) -> tuple[object, ...]:
        """What conditions of equal cost have in common, beside the change of the images."""
        changed = bool(condition.perturbation or condition.transformation)
        return self.sizes.shapes[condition.name], condition.state, changed, nth(condition.target)[0] == "label"

    def _changes(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(perturbation, transformation) → seconds of one image at the first strength, and at a further one."""
        found: dict[tuple[str, str], list[float]] = {}
        kinds = {(one.perturbation, one.transformation) for one in self.conditions} - {("", "")}
        whole, count = self.whole, len(self.whole.block.ids)
        with self.network.evaluating(), torch.no_grad():
            clean = top_class(self.network.logits(whole.x))
        images = ChangedImages(self.network, whole.x, whole.block, self.about.images, self.plan.seed, lambda: clean)
        for one in self.conditions:
            key = one.perturbation, one.transformation
            if key not in kinds or len(found.get(key, ())) == 2:
                continue
            until = self.clock() + CHANGES * self.seconds / (2 * len(kinds))
            # What fails is flagged when it is its turn.
            with stopped_at(self.modules, self.clock, until) as progress, suppress(Exception):
                images.under(one)
            found.setdefault(key, []).append(progress.seconds(count * one.cost / 2, self.forward) / count)
        return {key: (times[0], times[-1]) for key, times in found.items()}

    def _method_alone(self, method: ResolvedMethod, until: float) -> float:
        """Seconds of one image for a map of a method that runs the network often."""
        needed = self.passes.method(method.request)
        whole = self._part(self.whole, [method], Measures([]), self.conditions[:1])
        with stopped_at(self.modules, self.clock, until) as progress:
            whole.run(lambda share: None)
        count = len(whole.block.ids)
        rate = self._cost(needed) / max(1.0, needed.forward + needed.tails)
        return max(0.0, progress.seconds(count * (needed.forward + needed.tails), rate) / count - self.forward)

    def _metric_alone(self, request: MetricRequest, light: Sequence[ResolvedMethod], until: float) -> float:
        """Seconds of one image for a metric that runs the network often, on the maps of one method."""
        method = next(iter(light), self.whole.methods[0] if self.whole.methods else None)
        if method is None:
            return 0.0
        found, count = self.passes.metric(request), len(self.whole.block.ids)
        needed = found.first + self.passes.method(method.request) * found.again
        alone = Measures([(Measure(request.key, request.key, conditions=ALL), request)])
        part = self._part(self.whole, [method], alone, self.conditions[:1])
        part.reference  # noqa: B018 - its maps are no part of the metric
        with stopped_at(self.modules, self.clock, until) as progress:
            part.run(lambda share: None)
        rate = self._cost(needed) / max(1.0, needed.forward + needed.tails)
        return progress.seconds(count * (needed.forward + needed.tails), rate) / count

    # --- from what was timed to one image of the study ---

    def _cells(
        self, timed: TimedParts, light: Sequence[ResolvedMethod], changes: Mapping[tuple[str, str], tuple[float, float]]
    ) -> Iterator[Cell]:
        kinds = {self._kind(one): number for number, one in enumerate(self._in_order(), 1)}  # the last one of a kind
        seen: set[tuple[str, str]] = set()
        for number, one in enumerate(self.conditions):
            share = share_with_class(one.target, [self.about])
            at = kinds.get(self._kind(one), 0) if number else 0
            change = " ".join(filter(None, (one.perturbation, one.transformation.partition("[")[0])))
            key = one.perturbation, one.transformation
            if key in changes:
                yield Cell("", "", change, share * changes[key][key in seen], share * (one.cost - 1))
                seen.add(key)
            for cell in self._under(one, at, timed, light, not number):
                plain = share * cell.plain * (one.state == INTACT)  # a copy has the network's own weights
                yield replace(
                    cell, change=change, seconds=share * cell.seconds, passes=share * cell.passes, plain=plain
                )
        yield from self._prepared(timed)

    def _in_order(self) -> list[Condition]:
        by_name = {one.name: one for one in self.conditions}
        return [by_name[name] for name in self.chosen[1:]]

    def _prepared(self, timed: TimedParts) -> Iterator[Cell]:
        """What pair metrics prepare once, under the first condition that is not the reference."""
        others = self._in_order()
        if len(others) < 2 or self._kind(others[0]) != self._kind(others[1]):
            return
        for request in {r.key: r for _, r in self.whole.measures.taken if r.paired and not r.parts}.values():
            first, further = (self._timed(timed, number, request.key) for number in (1, 2))
            if first and further:
                extra = first[0] - further[0] + (len(self.whole.methods) - 1) * (first[-1] - further[-1])
                yield Cell("", request.key, "", max(0.0, extra))

    def _under(
        self, condition: Condition, at: int, timed: TimedParts, light: Sequence[ResolvedMethod], first: bool
    ) -> Iterator[Cell]:
        """Predictions, maps and scores under one condition; `at`: the one measured that is like it."""
        count = timed.images
        able = self.sizes.able(condition, self.whole.methods)
        if able is None:
            return
        seconds = lambda method, part: timed.seconds[at, method, part] / count  # noqa: E731
        yield Cell("", "", "", seconds("", PREDICTION) + seconds("", REST), 1.0)
        clean = timed.seconds[0, "", PREDICTION]
        ratio = timed.seconds[at, "", PREDICTION] / clean if clean and at else 1.0
        first_of, shared = self._shared_gradients(at, timed, [one for one in able if one in light])
        if first_of:
            yield Cell("", "", "", shared / count, 1.0)
        for method in able:
            needed = self.passes.method(method.request)
            passes = needed.forward + needed.backward + needed.tails - 1 - (first_of != "" and _with_graph(method))
            own = self.heavy[method.key] * ratio if method.key in self.heavy else seconds(method.key, MAP)
            own -= shared / count if method.key == first_of else 0.0
            rest = sum(timed.seconds[at, one.key, REST] for one in light) / count / max(1, len(light))
            yield Cell(method.key, "", "", own + rest, passes, needed.plain)
        due = [request for _, request in self.whole.measures.at(first, self.about.masked, self.about.mosaics)]
        given = [one.name for one in self.about.given] if first else []
        for request in {one.key: one for one in due if not one.parts}.values():
            yield from self._scored(request, at, timed, [one.key for one in able] + given, ratio)

    def _shared_gradients(self, at: int, timed: TimedParts, methods: Sequence[ResolvedMethod]) -> tuple[str, float]:
        """The first of several methods that share a backward pass, and its seconds; empty where none share one."""
        sharing = [one.key for one in methods if _with_graph(one)]
        if len(sharing) < 2:
            return "", 0.0
        own, *others = (timed.seconds[at, key, MAP] for key in sharing)
        return sharing[0], max(0.0, own - min(others))

    def _scored(
        self, request: MetricRequest, at: int, timed: TimedParts, methods: Sequence[str], ratio: float
    ) -> Iterator[Cell]:
        """One metric on the maps of all methods."""
        needed = self.passes.metric(request)
        by_key = {one.key: self.passes.method(one.request) for one in self.whole.methods}
        found = self._timed(timed, at, request.key)
        if request.having("explains"):
            scored = [key for key in timed.scored if (at, key, request.key) in timed.seconds]
            own = [one.key for one in self.whole.methods]
            measured = found or ([self.heavy[request.key] * ratio] if request.key in self.heavy else [])
            on = scored if found else [next(iter(timed.scored), own[0] if own else "")]
            known = sum(self._explaining(key, timed, by_key) for key in on[: len(measured)])
            for method in (key for key in methods if key in by_key):
                passes, weight = by_key[method] * needed.again, self._explaining(method, timed, by_key)
                alike = bool(measured and known) and method not in self.heavy
                each = sum(measured) / known * weight if alike else weight * needed.again
                yield Cell(method, request.key, "", each, passes.all, passes.plain)
            return
        for number, method in enumerate(methods):
            passes = needed.further if number else needed.first
            if found:
                each = found[min(number, len(found) - 1)]
            elif request.key in self.heavy:
                share = self._cost(needed.further) / self._cost(needed.first) if self._cost(needed.first) else 1.0
                each = self.heavy[request.key] * ratio * (share if number else 1.0)
            else:
                each = self._cost(passes)
            yield Cell(method, request.key, "", each, passes.all, passes.plain)

    def _explaining(self, method: str, timed: TimedParts, passes: Mapping[str, Passes]) -> float:
        """Seconds of one image for a map of one method alone, with the gradients that it shares with others."""
        own = self.heavy.get(method, timed.seconds[0, method, MAP] / timed.images)
        return max(self._cost(passes.get(method, Passes(1))), own + timed.seconds[0, "", PREDICTION] / timed.images)

    def _timed(self, timed: TimedParts, at: int, metric: str) -> list[float]:
        """Seconds of one image for a metric on the maps of each method that was scored."""
        known = [(at, method, metric) for method in timed.scored]
        return [timed.seconds[key] / timed.images for key in known if key in timed.seconds]


def _with_graph(method: ResolvedMethod) -> bool:
    """Whether a method asks for gradients at a layer, which are worked out once for all."""
    return any(needs.graph for needs in needs_by_layer([method]).values())


def _of_all(condition: Condition, target: str) -> bool:
    """Whether every image has the class that a condition explains."""
    kind, number = nth(condition.target or target)
    return kind != "label" or number == 1


def _at_some_level(condition: Condition) -> Condition:
    """A condition whose strength is not calibrated yet at its severity."""
    unknown = bool(condition.perturbation) and condition.level != condition.level
    return condition.at_level(float(condition.severity)) if unknown else condition


def few_images(worker: Worker, model: int, dataset: int, most: int) -> Measurement:
    """The measurement of the first `most` images that can be opened; a single one costs more per image."""
    number = len(worker.setup.datasets[dataset].images.ids)
    block = worker.block(model, dataset, range(number), most=most)
    if not block.ids:
        label, why = worker.setup.datasets[dataset].settings.label, next(iter(block.failed.values()), "there are none")
        raise InvalidStudy(f"Expected an image of {label} that can be measured. Got {number}, and none can: {why}.")
    return worker.measurement(Job(model, dataset, block.indices[0], block.indices[-1] + 1), block)
