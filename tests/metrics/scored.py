"""The engine on a few pictures with names and a seed of one's own: method → metric → values."""

from collections.abc import Sequence

import torch

from heatproof.attributions import requested
from heatproof.engine import Batch, judged, needs_by_layer, placed
from heatproof.metrics.request import requested_metrics
from heatproof.models import Model


def scored(
    model: Model, x: torch.Tensor, methods: Sequence[str], metrics, ids: Sequence[str], layer: str = "two", **more
) -> dict[str, dict[str, torch.Tensor]]:
    """`more` goes to the batch and, as `truth`, to the metrics."""
    truth = more.pop("truth", None)
    places = placed(model, requested(methods), layer)
    needs = needs_by_layer([(place.request, place.layers) for place in places])
    batch = Batch(model, x, needs, ids=ids, **more)
    found = judged(batch, places, requested_metrics(metrics), truth=truth)
    return {one.method: {outcome.metric: outcome.values for outcome in one.outcomes} for one in found}
