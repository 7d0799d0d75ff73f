"""The engine on a few images with names and a seed of one's own: method → metric → values."""

from collections.abc import Sequence

import torch

from heatproof.attributions import requested
from heatproof.engine import Batch, evaluate, resolve_layers
from heatproof.metrics.metric_request import requested_metrics
from heatproof.models import Model


def scored(
    model: Model, x: torch.Tensor, methods: Sequence[str], metrics, ids: Sequence[str], layer: str = "two", **more
) -> dict[str, dict[str, torch.Tensor]]:
    """`more` goes to the batch and, as `ground_truth`, to the metrics."""
    ground_truth = more.pop("ground_truth", None)
    resolved = resolve_layers(model, requested(methods), layer)
    batch = Batch.of(model, resolved, x, ids=ids, **more)
    found = evaluate(batch, resolved, requested_metrics(metrics), ground_truth=ground_truth)
    return {one.method: {outcome.metric: outcome.values for outcome in one.outcomes} for one in found}
