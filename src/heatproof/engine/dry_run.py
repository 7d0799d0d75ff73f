"""A dry run on a toy network: an invalid option, or a bug in a user's method or metric, shows before any work."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from heatproof.attributions import Request, requested
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.engine.batch import Batch
from heatproof.engine.evaluation import evaluate
from heatproof.engine.explanation import explanation
from heatproof.engine.memory import out_of_memory
from heatproof.engine.references import ReferenceMaps
from heatproof.engine.resolved_methods import resolve_layers
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.flags import Flag, Reason
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.metrics.metric_request import MetricRequest
from heatproof.models import Model, wrap
from heatproof.seeds import seeded

#: The side of the toy's image: large enough for every default, and small enough to be fast.
SIDE = 32
#: The toy's first layer.
LAYER = "0"


def dry_run(metrics: Sequence[MetricRequest]) -> None:
    """Runs every metric that has other options than its defaults on one small image and an untrained network.

    Raises:
        InvalidInput, UnknownName: the metric's own error about its options. Any other error on the toy is ignored.
    """
    for request in metrics:
        if request.entry.traits.get("foreign") or request.parts or request.options == dict(request.entry.options):
            continue
        try:
            model, x = toy(1)
            _evaluated(model, x, "gradcam", LAYER, request)
        except (InvalidInput, UnknownName) as error:
            raise type(error)(f"{request.key}: {error}") from None
        except Exception:
            continue


def plugin_failures(
    model: Model, x: torch.Tensor, layer: str, methods: Iterable[Request], metrics: Iterable[MetricRequest]
) -> dict[str, str]:
    """What is wrong with the user's own methods and metrics on images `x` of a model: name → reason.

    Each is run once: it must not raise, and give finite numbers of the right shape. Metrics score a random map. A
    method that does not apply to the network is left out, and so is heatproof's own.
    """
    found: dict[str, str] = {}
    for method in (one for one in methods if PLUGIN_METHODS.of_user(one.entry) and not one.entry.traits.get("stored")):
        if why := _failure(lambda one=method: _method_flags(model, x, layer, one)):
            found[f"method {method.key}"] = why
    for metric in (one for one in metrics if PLUGIN_METRICS.of_user(one.entry)):
        if why := _failure(lambda one=metric: _evaluated(model, x, "random", "", one)):
            found[f"metric {metric.key}"] = why
    return found


def toy(images: int, channels: Sequence[int] = (4,), before: int = 0) -> tuple[Model, torch.Tensor]:
    """An untrained network of three classes, the same every time, and images for it.

    Its layers 0, 1 … have so many `channels` each; one more, a ReLU, is followed by pooling and a linear head. `before`
    them are so many layers with weights that change nothing, and number 0, 1 … in their place.
    """
    generator = torch.Generator().manual_seed(0)
    with seeded(generator, torch.device("cpu")):  # layers take their first weights from the global generator
        first = nn.Conv2d(3, channels[0], 3, 4)
        head = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 3)
        deeper = [nn.Conv2d(before, after, 1) for before, after in itertools.pairwise(channels)]
        idle = [nn.Conv2d(3, 3, 1, bias=False) for _ in range(before)]
    for layer in idle:
        nn.init.dirac_(layer.weight)
    network = nn.Sequential(*idle, first, *deeper, *head).float()
    x = torch.rand(images, 3, SIDE, SIDE, generator=generator)
    return wrap(network, size=SIDE, layer=str(before), device="cpu"), x


def _failure(work: Callable[[], list[Flag]]) -> str:
    """Why a run failed, as a flag's text; empty where it did not, and where memory ran out."""
    try:
        flags = work()
    except NotApplicable:
        return ""
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        return "" if out_of_memory(error) else str(Flag.of_error(error))
    bad = [flag for flag in flags if flag.reason in (Reason.NON_FINITE, Reason.UNDEFINED)]
    return "it gave no finite number" if flags and len(bad) == len(flags) else ""


def _method_flags(model: Model, x: torch.Tensor, layer: str, request: Request) -> list[Flag]:
    methods = resolve_layers(model, [request], layer)
    batch = Batch.of(model, methods, x, ids=_names(x))
    return list(explanation(batch, methods).flags[request.key])  # type: ignore[arg-type] - one target for each image


def _evaluated(model: Model, x: torch.Tensor, method: str, layer: str, request: MetricRequest) -> list[Flag]:
    """The flags of one metric on the maps of one method; the pairs of a metric of pairs are with mirrored images."""
    methods = resolve_layers(model, requested([method]), layer)
    ground_truth = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool)
    ground_truth[:, x.shape[2] // 8 : x.shape[2] * 5 // 8, x.shape[3] // 8 : x.shape[3] * 5 // 8] = True
    reference = None
    if request.paired:
        reference = ReferenceMaps.of(x, explanation(Batch.of(model, methods, x, ids=_names(x)), methods))
    batch = Batch.of(model, methods, x.flip(3), ids=_names(x))
    metrics = [*request.parts.values(), request]
    (scores,) = evaluate(batch, methods, metrics, ground_truth=ground_truth, reference=reference)
    return scores.outcomes[-1].flags


def _names(x: torch.Tensor) -> list[str]:
    return ["toy", *(f"toy {i}" for i in range(1, len(x)))]
