"""What methods and metrics that a study has not would add, by their passes through the network alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from heatproof.attributions import ATTRIBUTIONS, requested
from heatproof.engine import refusals, resolve_layers
from heatproof.metrics.catalogue import METRICS
from heatproof.metrics.metric_request import MetricRequest, requested_metrics
from heatproof.studies.cell_passes import CellPasses
from heatproof.studies.cost import Passes
from heatproof.studies.jobs import all_requests
from heatproof.studies.measures import needs_mask
from heatproof.studies.prediction import PartCost, Prediction


def with_others(found: Prediction, ready: Any) -> Prediction:
    """The prediction with every method and metric that the study has not, the costliest of each kind first.

    A method would be explained under every condition and scored by every metric of the study; a metric would be taken
    under the reference. `ready`: the study as `run.prepared` gives it.
    """
    others = [*_methods(found, ready), *_metrics(found, ready)]
    share = lambda one: replace_share(one, found.seconds)  # noqa: E731
    return replace(found, others=sorted(map(share, others), key=lambda one: (one.kind, -one.seconds, one.name)))


def replace_share(part: PartCost, seconds: float) -> PartCost:
    """The part with its share of a study that takes so long without it."""
    return part._replace(share=part.seconds / max(seconds, 1e-9))


def _methods(found: Prediction, ready: Any) -> Iterator[PartCost]:
    model, conditions = ready.models(0), len(ready.study.all_conditions(ready.plan))
    passes = CellPasses.of(ready.checked[0], all_requests(ready.plan))
    there = {one.entry.name for one in all_requests(ready.plan)}
    scoring = _scoring_of_a_method(found, len(all_requests(ready.plan)))
    for name, entry in ATTRIBUTIONS.items():
        if name in there or entry.traits["control"] or entry.traits.get("stored"):
            continue
        request = requested([name])[0]
        if refusals(model, resolve_layers(model, [request], ready.checked[0].layer)):
            continue
        own = passes.method(request) + Passes(-1.0)  # the prediction is there already
        yield _part("method", name, own * conditions, found, scoring)


def _metrics(found: Prediction, ready: Any) -> Iterator[PartCost]:
    passes = CellPasses.of(ready.checked[0], all_requests(ready.plan))
    there = {request.entry.name for _, request in ready.measures.taken}
    masked = any(one.masked for one in ready.datasets)
    requests = all_requests(ready.plan)
    for name in METRICS:
        request = requested_metrics([name], parts=False)[0]
        if name in there or not _single(request, masked, ready.models(0).of_values):
            continue
        one = passes.metric(request)
        again = sum((passes.method(method) * one.again for method in requests), Passes())
        yield _part("metric", name, one.first + one.further * max(0, len(requests) - 1) + again, found)


def _single(request: MetricRequest, masked: bool, values: bool) -> bool:
    """Whether a metric scores one map, and could be taken of these images."""
    special = request.paired or request.parts or request.of_parts or request.of_mosaics
    return not special and (masked or not needs_mask(request)) and not (values and request.refusal_of_values)


def _scoring_of_a_method(found: Prediction, methods: int) -> float:
    """Seconds of all scores of one method, as those of the study have on average."""
    return sum(part.seconds for part in found.parts if part.kind == "metric") / max(1, methods)


def _part(kind: str, name: str, passes: Passes, found: Prediction, more: float = 0.0) -> PartCost:
    images = sum(found.images.values())
    seconds = [(passes.forward + passes.tails) * one.forward + passes.backward * one.backward for one in _rates(found)]
    whole = (passes.forward + passes.backward + passes.tails) * images * len(seconds)
    return PartCost(kind, name, sum(seconds) * images + more, whole, 0.0)


def _rates(found: Prediction) -> Sequence[Passes]:
    return list(found.rates.values())
