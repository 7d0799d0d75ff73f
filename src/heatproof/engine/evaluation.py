"""Metrics run on one batch: values by method and metric, and a flag where there is no value."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch

from heatproof.ambient import neutral
from heatproof.attributions import display_maps, flags
from heatproof.engine.batch import Batch
from heatproof.engine.checked_output import checked_values
from heatproof.engine.explanation import Explanation, explanation
from heatproof.engine.image_scores import ImageScores, MapScores
from heatproof.engine.memory import out_of_memory
from heatproof.engine.part_answers import PartAnswers
from heatproof.engine.references import Pairs, ReferenceMaps
from heatproof.engine.resolved_methods import ResolvedMethod
from heatproof.engine.saturation import WATCHED, SeenProbabilities
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.flags import FINE, Flag, Reason, absent_flags, first_flags
from heatproof.metrics.catalogue import stated
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.metrics.metric_request import MetricRequest
from heatproof.models.row_checks import check_images
from heatproof.quantities import having, of_variants

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """The values of one metric for a method's maps of some images.

    values: `(N,)` float64 on the CPU; NaN where there is none. flags: one for each image, `FINE` where there is nothing
    to report; a value with a flag is the stated value of a degenerate map. curve: `at` `(P,)`, `points` `(N, P)`, or
    None.
    """

    method: str
    metric: str
    values: torch.Tensor
    flags: list[Flag]
    curve: tuple[torch.Tensor, torch.Tensor] | None = None


class FinishedScores(Protocol):
    """Outcomes of one batch that are known from an earlier run; `None` where one is not."""

    def outcome(self, method: str, metric: str) -> Outcome | None: ...
    def add_outcome(self, outcome: Outcome) -> None: ...


@dataclass(frozen=True)
class MethodScores:
    """One method's display maps `(N, *spatial)` with the outcomes of all metrics."""

    method: str
    maps: torch.Tensor
    flags: list[Flag]
    outcomes: list[Outcome]


@dataclass(frozen=True)
class GivenMaps:
    """Maps made elsewhere: `(N, *size)`, on any scale.

    `absent`: for each image, whether it has no map. `reference`: the maps of the reference images, where there are any.
    """

    key: str
    maps: torch.Tensor
    absent: Sequence[bool] = ()
    reference: torch.Tensor | None = None


def evaluate(
    batch: Batch,
    methods: Sequence[ResolvedMethod],
    metrics: Sequence[MetricRequest],
    *,
    given: Sequence[GivenMaps] = (),
    ground_truth: torch.Tensor | None = None,
    reference: ReferenceMaps | None = None,
    reference_images: torch.Tensor | None = None,
    found: Explanation | None = None,
    survive: bool = False,
    upsample: str = "bilinear",
    finished: FinishedScores | None = None,
    parts: PartAnswers | None = None,
) -> Iterator[MethodScores]:
    """Explains a batch with all methods together, and scores each method's maps with all metrics.

    Args:
        given: further maps, made elsewhere; metrics that explain again have no value for them.
        ground_truth: `(N, *spatial)` bool, where the object is.
        reference: the maps of the same methods, or of some of them, on the reference images, for metrics of pairs.
        reference_images: those images, for maps made elsewhere.
        found: the explanation of the batch, where it was made before.
        survive: a metric that raises gives NaN and a flag that says why, in place of an error; running out of memory
            and invalid options are always errors.
        finished: outcomes of this batch that are known, and where new ones are kept.
        parts: the parts of the images, for metrics of parts.
    """
    if any(of_variants(request.entry.needs) for request in metrics):
        check_images(batch.model, tuple(batch.x.shape[1:]), len(batch.x), variants=True)
    found = found or explanation(batch, methods, survive=survive, upsample=upsample)
    scored = _scored(
        ImageScores(batch, ground_truth, parts),
        methods, metrics, given, reference, reference_images, found, survive, upsample, finished,
    )  # fmt: skip
    while True:
        # Not around a `yield`: the caller's thread would keep the network, and the caller's modes would be changed.
        with neutral(), batch.model.evaluating(), torch.no_grad():
            one = next(scored, None)
        if one is None:
            return
        yield one


def _scored(
    images: ImageScores,
    methods: Sequence[ResolvedMethod],
    metrics: Sequence[MetricRequest],
    given: Sequence[GivenMaps],
    reference: ReferenceMaps | None,
    reference_images: torch.Tensor | None,
    found: Explanation,
    survive: bool,
    upsample: str,
    finished: FinishedScores | None,
) -> Iterator[MethodScores]:
    """As `evaluate`, in its modes."""
    images.batch.release()
    answered = torch.isfinite(found.answers.logits).all(1).tolist()
    evaluation = _Evaluation(images, metrics, survive, finished, answered)
    display = {m.key: found.display(m.key, upsample).detach() for m in methods} if evaluation.paired else {}
    asked = [request for request in metrics if request.paired]
    pairs = Pairs(reference, display, asked) if display and reference is not None else None
    for method in methods:
        stored = method.request.entry.traits.get("stored", False)
        maps = display.get(method.key)
        maps = found.display(method.key, upsample).detach() if maps is None else maps
        raw, seen = found.raw[method.key].detach(), [*found.flags[method.key]]  # one target: no lists
        scores = MapScores(images, maps, raw, None if stored else method, upsample)
        yield evaluation.of(scores, method.key, seen, pairs)  # type: ignore[arg-type]
    for one in given:
        raw = one.maps.to(images.x)
        seen = absent_flags(one.absent or [False] * len(raw), flags(raw, "display"))
        maps = display_maps(raw, "display", tuple(images.x.shape[2:]))
        there = images.x if reference_images is None else reference_images.to(images.x)
        own = _pairs_of(one, maps, there, images.ground_truth, [request for request in metrics if request.paired])
        yield evaluation.of(MapScores(images, maps, raw, None), one.key, seen, own)


def _pairs_of(
    one: GivenMaps, maps: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None, metrics: Sequence[MetricRequest]
) -> Pairs | None:
    """Maps made elsewhere beside their own reference."""
    if one.reference is None:
        return None
    raw = one.reference.to(maps)
    shown = display_maps(raw, "display", tuple(maps.shape[1:]))
    reference = ReferenceMaps(x, {one.key: shown}, {one.key: flags(raw, "display")}, mask)
    return Pairs(reference, {one.key: maps}, metrics)


@dataclass
class _Evaluation:
    """Runs all metrics on the maps of one method at a time."""

    images: ImageScores
    metrics: Sequence[MetricRequest]
    survive: bool
    finished: FinishedScores | None
    answered: list[bool]
    _seen: dict[str, SeenProbabilities] = field(default_factory=dict, init=False)  # of metrics that share answers

    @property
    def paired(self) -> bool:
        """Whether some metric compares a map with its reference."""
        return any(request.paired for request in self.metrics)

    def of(self, scores: MapScores, key: str, seen: list[Flag], pairs: Pairs | None) -> MethodScores:
        """All metrics of one method; `seen` are the flags of its maps."""
        done: dict[str, Outcome] = {}
        for request in self.metrics:
            if request.parts:
                parts = {part: done[one.key] for part, one in request.parts.items()}
                done[request.key] = self._composed(key, request, parts)
                continue
            known = self.finished.outcome(key, request.key) if self.finished is not None else None
            if known is None:
                paired = request.paired
                known = self._pair(key, seen, request, pairs) if paired else self._single(scores, key, seen, request)
                if self.finished is not None:
                    self.finished.add_outcome(known)
            done[request.key] = known
        return MethodScores(key, scores.maps, seen, list(done.values()))

    def _pair(self, key: str, seen: list[Flag], request: MetricRequest, pairs: Pairs | None) -> Outcome:
        if pairs is None or key not in pairs:
            return _without(key, request, [Flag(Reason.NO_REFERENCE)] * len(seen))
        found = self._guarded(key, request, lambda: checked_values(pairs.values(key, request), request.key, len(seen)))
        if isinstance(found, Flag):
            return _without(key, request, [found] * len(seen))
        known = first_flags(pairs.reference.flags_of(key), seen)
        constant = torch.tensor([flag.degenerate for flag in known])
        values = stated(request.entry.traits["degenerate"], found[0], constant)
        mute = Flag(Reason.NO_ANSWER)
        known = [flag if fine else mute for flag, fine in zip(known, self.answered, strict=True)]
        return _flag_values(key, request, values, known)

    def _single(self, scores: MapScores, key: str, seen: list[Flag], request: MetricRequest) -> Outcome:
        """One metric on one method's maps."""
        entry, count = request.entry, len(seen)
        if self.images.model.of_values and (why := request.refusal_of_values):
            return _without(key, request, [Flag(Reason.NOT_APPLICABLE, f"not for a network of values: {why}")] * count)
        if scores.method is None and having(entry.needs, "explains"):
            return _without(key, request, [Flag(Reason.MADE_ELSEWHERE)] * count)
        located = "mask" in entry.needs and not entry.traits.get("foreign")  # metrics of other libraries may do without
        if located and self.images.ground_truth is None:
            return _without(key, request, [Flag(Reason.NO_MASKS)] * count)

        if "parts" in entry.needs and self.images.parts is None:
            return _without(key, request, [Flag(Reason.NO_PARTS)] * count)

        watched = self._watched(request, scores.maps)
        missing: list[Flag] = [FINE] * count

        def work() -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
            given = scores.given(entry.needs, entry.name)
            given = given if watched is None else watched.given(given)
            values = checked_values(entry(given, request.options), request.key, count)
            missing[:] = given["parts"].missing if "parts" in given else missing
            return values

        found = self._guarded(key, request, work)
        if isinstance(found, Flag):
            return _without(key, request, [found] * count)
        values, curve = found
        constant = torch.tensor([flag.degenerate for flag in seen])
        if located:  # without an object no map has a value
            constant &= self.images.objects
        worst = entry.traits["degenerate"]
        if self.images.model.of_values and request.in_units and worst is not None:
            worst = math.nan  # no number is the worst in units that may be any
        values = stated(worst, values, constant)
        asks, mute = bool(having(entry.needs, "asks")), Flag(Reason.NO_ANSWER)
        known = [mute if asks and not fine else flag for flag, fine in zip(seen, self.answered, strict=True)]
        if watched is not None:
            still = [Flag(Reason.SATURATED) if one else FINE for one in watched.saturated]
            known = first_flags(known, still)
        absent = [flag if math.isnan(value) else FINE for flag, value in zip(missing, values.tolist(), strict=True)]
        return _flag_values(key, request, values, first_flags(known, absent), curve)

    def _watched(self, request: MetricRequest, maps: torch.Tensor) -> SeenProbabilities | None:
        """The record of the probabilities that a metric sees; None where it can see none.

        What a metric shares between methods is asked for once, so the record is kept.
        """
        needs = request.entry.needs
        if self.images.model.of_values or not WATCHED.keys() & set(needs):
            return None
        made = SeenProbabilities(self.images.whole(), self.images.target, maps)
        return self._seen.setdefault(request.key, made) if "shared" in needs else made

    def _composed(self, key: str, request: MetricRequest, parts: Mapping[str, Outcome]) -> Outcome:
        count = len(next(iter(parts.values())).flags)
        if self.images.model.of_values and (why := request.refusal_of_values):
            return _without(key, request, [Flag(Reason.NOT_APPLICABLE, f"not for a network of values: {why}")] * count)
        found = self._guarded(key, request, lambda: composed(key, request, parts))
        return _without(key, request, [found] * count) if isinstance(found, Flag) else found

    def _guarded(self, key: str, request: MetricRequest, work: Callable[[], T]) -> T | Flag:
        """What `work` gives; where it raises, a flag if the evaluation is to survive, else the error with its place.

        Running out of memory, and invalid options of heatproof's own metrics, are always errors.
        """
        try:
            return work()
        except NotApplicable as error:
            return Flag.of_error(error, Reason.NOT_APPLICABLE)
        except (Exception, SystemExit) as error:
            options = isinstance(error, InvalidInput | UnknownName) and not PLUGIN_METRICS.of_user(request.entry)
            if self.survive and not options and not out_of_memory(error):
                return Flag.of_error(error)
            error.add_note(f"in metric {request.key!r} on the maps of {key!r}")
            raise


def _flag_values(
    method: str,
    request: MetricRequest,
    values: torch.Tensor,
    known: list[Flag],
    curve: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Outcome:
    """NaN where a flag allows no value; a flag where a value is NaN."""
    impossible = torch.tensor([bool(flag) and not flag.valued for flag in known])
    values = torch.where(impossible | ~torch.isfinite(values), torch.nan, values)
    undefined = Flag(Reason.UNDEFINED, request.entry.traits["undefined"])
    found = [flag or (undefined if math.isnan(v) else FINE) for flag, v in zip(known, values.tolist(), strict=True)]
    return Outcome(method, request.key, values, found, curve)


def _without(method: str, request: MetricRequest, known: list[Flag]) -> Outcome:
    """No value for any image."""
    return Outcome(method, request.key, torch.full((len(known),), torch.nan, dtype=torch.float64), known)


def unusable(scores: MethodScores, failed: Mapping[int, str]) -> MethodScores:
    """The scores with no value for images that could not be used: row → reason."""
    if not failed:
        return scores
    flags = {row: Flag(Reason.UNUSABLE, why) for row, why in failed.items()}
    outcomes = []
    for one in scores.outcomes:
        rows = torch.tensor(list(failed), device=one.values.device)
        curve = one.curve and (one.curve[0], one.curve[1].index_fill(0, rows.to(one.curve[1].device), torch.nan))
        known = [flags.get(i, flag) for i, flag in enumerate(one.flags)]
        outcomes.append(replace(one, values=one.values.index_fill(0, rows, torch.nan), flags=known, curve=curve))
    seen = [flags.get(i, flag) for i, flag in enumerate(scores.flags)]
    return replace(scores, flags=seen, outcomes=outcomes)


def composed(method: str, request: MetricRequest, parts: Mapping[str, Outcome]) -> Outcome:
    """A composite metric from the values of its parts: it needs no network, so rows are enough.

    Flags of the parts are kept; a degenerate map has the composite's stated value where there is one.
    """
    given = request.entry({part: one.values for part, one in parts.items()}, request.options)
    values, _ = checked_values(given, request.key, len(next(iter(parts.values())).flags))
    known = first_flags(*(one.flags for one in parts.values()))
    constant = torch.tensor([flag.degenerate for flag in known])
    values = stated(request.entry.traits["degenerate"], values, constant)
    return _flag_values(method, request, values, known)
