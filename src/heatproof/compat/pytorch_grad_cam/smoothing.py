"""`eigen_smooth`: the first principal component over the channels of a map, in place of their sum."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from heatproof.attributions import Request
from heatproof.attributions.ablation import ablation_weights
from heatproof.attributions.cam import BASES, shapley_weights
from heatproof.attributions.eigen import eigencam
from heatproof.attributions.fullgrad import fullgrad_shares
from heatproof.attributions.scorecam import score_weights
from heatproof.compat.given_models import AsGiven, Reshape, Wanted, by_images
from heatproof.engine import Batch, ResolvedMethod
from heatproof.engine.batch import LayerBatch
from heatproof.errors import NotApplicable
from heatproof.explained_output import Output
from heatproof.tensors import minmax, upsampled

#: Methods whose map is a sum of weighted activations → their weights `(N, C)`.
WEIGHTS: Mapping[str, Callable[..., torch.Tensor]] = {
    "ablationcam": ablation_weights,
    "scorecam": score_weights,
    "shapleycam": shapley_weights,
}


def smoothed(
    module: nn.Module,
    inputs: torch.Tensor,
    wanted: Wanted,
    request: Request,
    layers: Sequence[str],
    reshape: Reshape | None,
) -> list[torch.Tensor]:
    """For each layer, the raw map of the smoothed method.

    Raises:
        NotApplicable: a method whose map is no sum over channels.
    """
    parts, options = _parts_of(request), {k: v for k, v in request.options.items() if k in request.entry.own}
    plain = Request(request.entry.name, request.entry, options)
    methods = [ResolvedMethod(plain, (layer,)) for layer in layers]

    def work(model: AsGiven, some: torch.Tensor, rule: Any, output: Output) -> list[torch.Tensor]:
        batch = Batch.of(model, methods, some.to(model.device).float(), target_rule=rule, output=output)
        with model.evaluating(), torch.no_grad():
            (at_target,) = batch.by_target
            given = [LayerBatch(at_target, layer, plain).given() for layer in layers]
            return [eigencam(parts(**one, **options)) for one in given]

    found = by_images(module, inputs, wanted, work, reshape)
    return [torch.cat(rows) for rows in zip(*found, strict=True)]


def _parts_of(request: Request) -> Callable[..., torch.Tensor]:
    """A function of the method's quantities and options that gives each channel's part, `(N, C, *spatial)`."""
    name = request.entry.name
    if name in WEIGHTS:
        weights = WEIGHTS[name]

        def weighted_channels(activations: torch.Tensor, **given: Any) -> torch.Tensor:
            found = weights(activations, **given)
            return found.view(*found.shape, *[1] * (activations.dim() - 2)) * activations

        return weighted_channels
    if name in BASES:
        formula = BASES[name]

        def single_channels(activations: torch.Tensor, gradients: torch.Tensor, **options: Any) -> torch.Tensor:
            # These formulas are sums over channels, so one channel alone gives its part of the sum.
            alone = (tensor.flatten(0, 1)[:, None] for tensor in (activations, gradients))
            return formula(*alone, **options).view_as(activations)

        return single_channels
    raise NotApplicable(
        f"`eigen_smooth` is for {', '.join([*BASES, *WEIGHTS, 'fullgrad'])}. Got {name!r}. "
        "Take EigenCAM or EigenGradCAM."
    )


def smoothed_shares(inputs: torch.Tensor, module: nn.Module, wanted: Wanted, request: Request) -> torch.Tensor:
    """FullGrad's map `(N, *size)` with the first principal component of its layers' maps, at an eighth of the size."""
    methods = [ResolvedMethod(request, ("",))]
    size = tuple(inputs.shape[2:])
    small = tuple(max(1, side // 8) for side in size)

    def work(model: AsGiven, some: torch.Tensor, rule: Any, output: Output) -> torch.Tensor:
        batch = Batch.of(model, methods, some.to(model.device).float(), target_rule=rule, output=output)
        with model.evaluating(), torch.no_grad():
            (at_target,) = batch.by_target
            given = LayerBatch(at_target, "", request).given()
            options = {name: value for name, value in request.options.items() if name in request.entry.own}
            shares = fullgrad_shares(**given, **options)
        reduced = upsampled(minmax(shares.flatten(0, 1)), small)
        return upsampled(eigencam(reduced.view(*shares.shape[:2], *small)), size)

    return torch.cat(by_images(module, inputs, wanted, work))
