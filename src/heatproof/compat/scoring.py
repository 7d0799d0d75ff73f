"""`heatproof.score` for other call styles: normalised images, as arrays or tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.compat.given_models import AsGiven, checked, known_layers
from heatproof.engine import Scores, score
from heatproof.errors import InvalidInput
from heatproof.geometry import Geometry
from heatproof.memo import cached_property
from heatproof.metrics.metric_request import requested_metrics
from heatproof.models import Layers, Model
from heatproof.models.model import bare, module_device
from heatproof.models.preprocessing import Preprocessing, per_channel

#: How far outside [0, 1] an image may lie when its normalisation is undone: rounding only.
ROUNDING = 1e-3


class ProbabilityModel(AsGiven):
    """A module whose inputs are taken as they are; with one logit l, the probability of class 0 is sigmoid(l)."""

    def unwrap(self, output: Any) -> torch.Tensor:
        """As `AsGiven.unwrap`; the softmax of `(l/2, −l/2)` is the sigmoid of l, that of class 0."""
        found = super().unwrap(output)
        return found / 2 if self.one_logit else found


class NormalisedModel(Model):
    """A module whose images were normalised with known mean and std."""

    @cached_property
    def layers(self) -> Layers:
        """As `known_layers`."""
        return known_layers(self)


@neutral()
def scored(
    model: Model | nn.Module,
    inputs: Any,
    maps_or_methods: Any,
    metrics: Mapping[str, Mapping[str, Any]] | Sequence[str],
    *,
    mean: Any = None,
    std: Any = None,
    **more: Any,
) -> Scores:
    """Scores of images in the form that the model takes.

    Args:
        model: a `heatproof.Model`, with images in [0, 1]; or a module, with images normalised for it.
        inputs: `(N, C, *spatial)`.
        mean, std: of the normalisation of a module's images, from which the fill `black` is computed. Where neither is
            given, `black` is zero, as `mean` is, and a metric that uses colours is an error.
        more: as for `heatproof.score`; a `reference` that is not a mapping holds images in the form of `inputs`.
    """
    some = checked(_tensor(inputs))
    masks, reference = more.pop("masks", None), more.pop("reference", None)
    if masks is not None:
        more["masks"] = _masks(masks)
    if isinstance(model, Model):
        if mean is not None or std is not None:
            raise InvalidInput("`mean` and `std` are for a module. Got a Model, which has its own.")
    elif not isinstance(model, nn.Module):
        raise InvalidInput(f"`model` must be a torch.nn.Module or a heatproof.Model. Got {type(model).__name__}.")
    else:
        if mean is None and std is None:
            _refuse_colours(metrics)
        module = model
        model, some = _as_model(module, some, mean, std)
        if reference is not None and not isinstance(reference, Mapping):
            reference = _as_model(module, checked(_tensor(reference)), mean, std)[1]
    if reference is not None:
        more["reference"] = reference if isinstance(reference, Mapping) else _tensor(reference).to(model.device)
    return score(model, some.to(model.device), maps_or_methods, metrics, **more)


def _tensor(given: Any) -> Any:
    """An array as a float tensor; anything else as it is."""
    return torch.from_numpy(given).float() if isinstance(given, np.ndarray) else given


def _refuse_colours(metrics: Any) -> None:
    """Raises InvalidInput for metrics that need images in [0, 1]: for superpixels, for file sizes, for new images."""
    for request in requested_metrics(metrics):
        needs, foreign = set(request.entry.needs), request.entry.traits.get("foreign", False)
        if needs & {"model", "segments", "segment_ranks", "information"} and "explain" not in needs and not foreign:
            raise InvalidInput(
                f"{request.key!r} sees the colours of an image, and these are normalised. Give the `mean` and `std` "
                "that they were normalised with."
            )


def _as_model(module: nn.Module, z: torch.Tensor, mean: Any, std: Any) -> tuple[Model, torch.Tensor]:
    """The module as a model, and its images as that model takes them."""
    if mean is None and std is None:
        return ProbabilityModel(module, z.shape[1:]), z
    if z.dim() != 4 or z.shape[1] != 3:
        raise InvalidInput(f"`mean` and `std` are for images (N, 3, H, W). Got {tuple(z.shape)}.")
    known = Preprocessing(
        per_channel("mean", 0 if mean is None else mean),
        per_channel("std", 1 if std is None else std),
        Geometry((z.shape[2], z.shape[3])),
    )
    module = bare(module)
    model = NormalisedModel(module, known, type(module).__name__, module_device(module))
    means, stds = (z.new_tensor(values).view(1, 3, 1, 1) for values in (known.mean, known.std))
    x = z * stds + means
    low, high = float(x.amin()), float(x.amax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise InvalidInput(
            f"`mean` and `std` must be those that the images were normalised with. Taking them back gives "
            f"{low:.3g} … {high:.3g}, and images lie in [0, 1]."
        )
    return model, x.clamp(0, 1)


def _masks(masks: Any) -> torch.Tensor:
    """`(N, *size)` bool, from `(N, 1, *size)` too."""
    found = torch.as_tensor(np.asarray(masks)) if not isinstance(masks, torch.Tensor) else masks
    found = found.detach().cpu() > 0
    return found[:, 0] if found.dim() > 3 and found.shape[1] == 1 else found
