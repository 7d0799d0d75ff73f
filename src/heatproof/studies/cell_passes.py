"""The passes of one image by method and metric, counted on the toy network of `cost` one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from heatproof.attributions import Request, requested
from heatproof.engine import Batch, ResolvedMethod, evaluate, explanation
from heatproof.metrics.metric_request import MetricRequest
from heatproof.quiet import ignored_warnings
from heatproof.studies.checked_models import Checked
from heatproof.studies.cost import Counted, Explained, Passes, ToyBatch, counted

NONE = Passes()


@dataclass(frozen=True)
class MetricPasses:
    """Passes of a metric on the maps of the first method, and of a further one; the points of its curve.

    again: how often it explains again with the method under test; these passes are not in the others.
    """

    first: Passes = NONE
    further: Passes = NONE
    points: int = 0
    again: float = 0.0


@dataclass
class CellPasses:
    """Passes of single methods and metrics on one image of a network; what fails on the toy counts as none."""

    explained: Explained
    _methods: dict[str, Passes] = field(default_factory=dict, init=False)
    _metrics: dict[str, MetricPasses] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, checked: Checked, requests: Sequence[Request]) -> "CellPasses":
        """For a checked model and the methods that are applicable to it."""
        able = [one for one in requests if one.key not in checked.refused]
        return cls(Explained(able, checked.channels, checked.linear, checked.layers_read))

    def method(self, request: Request) -> Passes:
        """The passes of one method alone, the prediction included."""
        if request.key not in self._methods:
            layers = {key: widths for key, widths in self.explained.layers.items() if key == request.key}
            try:
                batch = ToyBatch.of(replace(self.explained, requests=[request], layers=layers))
                self._methods[request.key] = batch.passes([]).passes
            except Exception:  # what fails on a small image may well run on those of the study
                self._methods[request.key] = Passes(1.0)
        return self._methods[request.key]

    def metric(self, request: MetricRequest) -> MetricPasses:
        """The passes of one metric alone; of pairs and of parts none are counted here."""
        if request.key not in self._metrics:
            self._metrics[request.key] = self._of_metric(request)
        return self._metrics[request.key]

    def metrics(self, requests: Sequence[MetricRequest]) -> Mapping[str, MetricPasses]:
        """The same of several, by key."""
        return {request.key: self.metric(request) for request in requests}

    def _of_metric(self, request: MetricRequest) -> MetricPasses:
        if request.paired or request.parts or request.of_parts:
            return MetricPasses()
        toy = ToyBatch.of(replace(self.explained, requests=requested(["eigencam", "gradcam"]), layers={}))
        try:
            with ignored_warnings():
                found, points = _evaluated(toy, toy.methods, request)
        except Exception:  # as above
            return MetricPasses()
        if request.having("explains"):
            return MetricPasses(again=found[0].forward, points=points)
        return MetricPasses(found[0].passes, found[1].passes, points)


def _evaluated(toy: ToyBatch, methods: Sequence[ResolvedMethod], request: MetricRequest) -> tuple[list[Counted], int]:
    """The passes of a metric for each method, and the points of its curve."""
    x, model = toy.x, toy.model
    mask = torch.zeros(1, *x.shape[2:], dtype=torch.bool)
    mask[:, 8:24, 8:24] = True
    batch = Batch.of(model, methods, x, ids=["toy"], condition="clean")
    maps = explanation(batch, methods, survive=True)
    found, points, before = [], 0, Counted()
    with counted(model.module) as made:
        for one in evaluate(batch, methods, [request], ground_truth=mask, found=maps, survive=True):
            curve = one.outcomes[-1].curve
            points = len(curve[0]) if curve is not None else points
            found.append(made + before * -1)
            before = made * 1
    return found, points
