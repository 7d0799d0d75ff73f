"""A dry run of metrics on a toy network: an invalid option is an error before any work."""

from collections.abc import Sequence

import torch
from torch import nn

from heatproof.attributions import requested
from heatproof.engine.batch import Batch
from heatproof.engine.evaluation import evaluate
from heatproof.engine.explanation import explanation
from heatproof.engine.references import ReferenceMaps
from heatproof.engine.resolved_methods import resolve_layers
from heatproof.errors import InvalidInput, UnknownName
from heatproof.metrics.metric_request import MetricRequest
from heatproof.models import wrap

#: The side of the toy's image: large enough for every default, and small enough to be fast.
SIDE = 32


def dry_run(metrics: Sequence[MetricRequest]) -> None:
    """Runs every metric that has other options than its defaults on one small image and an untrained network.

    Raises:
        InvalidInput, UnknownName: the metric's own error about its options. Any other error on the toy is ignored.
    """
    for request in metrics:
        if request.entry.traits.get("foreign") or request.parts or request.options == dict(request.entry.options):
            continue
        try:
            _try_metric(request)
        except (InvalidInput, UnknownName) as error:
            raise type(error)(f"{request.key}: {error}") from None
        except Exception:
            continue


def _try_metric(request: MetricRequest) -> None:
    generator = torch.Generator().manual_seed(0)
    # Not drawn by the layers: they take their first weights from the global generator.
    convolution, classify = nn.utils.skip_init(nn.Conv2d, 3, 4, 3, 4), nn.utils.skip_init(nn.Linear, 4, 3)
    network = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), classify).float()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    model = wrap(network, size=SIDE, layer="0", device="cpu")
    methods = resolve_layers(model, requested(["gradcam"]), "0")
    x = torch.rand(1, 3, SIDE, SIDE, generator=generator)
    ground_truth = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    ground_truth[:, 4:20, 4:20] = True
    reference = None
    if request.paired:
        reference = ReferenceMaps.of(x, explanation(Batch.of(model, methods, x, ids=["toy"]), methods))
    batch = Batch.of(model, methods, x.flip(3), ids=["toy"])
    for _ in evaluate(batch, methods, [request], ground_truth=ground_truth, reference=reference):
        pass
