"""Conditions that give a network images of another size than its own, found before a study begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from heatproof.attributions import requested
from heatproof.engine import Batch, ResolvedMethod, explanation, needs_by_layer, resolve_layers
from heatproof.errors import HeatproofError, LayerError
from heatproof.models import Model
from heatproof.models.other_size import size_refusal
from heatproof.quiet import ignored_warnings
from heatproof.studies.conditions import Condition
from heatproof.transformations import transformed


@dataclass(frozen=True)
class Sizes:
    """Which conditions give a network images of another size, and which methods have maps there.

    shapes: condition → the shape `(C, H, W)` of its images. refused: shape → None where the network does not take such
    images, else the methods without a map there.
    """

    own: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]
    refused: Mapping[tuple[int, ...], frozenset[str] | None]

    @classmethod
    def of(cls, model: Model, methods: Sequence[ResolvedMethod], conditions: Sequence[Condition], seed: int) -> "Sizes":
        """Found on a grey image."""
        x = torch.full((1, *model.input_shape), 0.5, device=model.device)
        shapes = {one.name: _shape(one.transformation, x, seed) for one in conditions}
        own = tuple(x.shape[1:])
        others = dict.fromkeys(shape for shape in shapes.values() if shape != own)
        return cls(own, shapes, {shape: _refused(model, methods, shape) for shape in others})

    def refused_under(self, condition: Condition) -> frozenset[str] | None:
        """The methods without a map under a condition; None where the network does not take its images."""
        return self.refused.get(self.shapes[condition.name], frozenset())

    def able(self, condition: Condition, methods: Sequence[ResolvedMethod]) -> Sequence[ResolvedMethod] | None:
        """The methods that have maps under a condition; None where the network does not take its images."""
        refused = self.refused_under(condition)
        return None if refused is None else [method for method in methods if method.key not in refused]

    def same(self, condition: Condition) -> bool:
        """Whether the images have the network's own size."""
        return self.shapes[condition.name] == self.own


def _shape(transformation: str, x: torch.Tensor, seed: int) -> tuple[int, ...]:
    if not transformation:
        return tuple(x.shape[1:])
    return tuple(transformed(transformation, x, ["grey"], seed, partners=lambda *_: x).shape[1:])


def _refused(model: Model, methods: Sequence[ResolvedMethod], shape: tuple[int, ...]) -> frozenset[str] | None:
    """The methods that have no maps of images of another shape, as their layer has one position alone there."""
    if size_refusal(model, shape):
        return None
    kept = [one for one in methods if any(needs.kept for needs in needs_by_layer([one]).values())]
    layers = dict.fromkeys(layer for one in kept for layer in one.layers)
    x = torch.full((1, *shape), 0.5, device=model.device)
    try:
        with ignored_warnings():
            probes = [one for layer in layers for one in resolve_layers(model, requested(["eigencam"]), layer)]
            for probe in probes:
                explanation(Batch.of(model, [probe], x, ids=["grey"]), [probe])
    except LayerError:
        return frozenset(one.key for one in kept)
    except HeatproofError:  # of the probe alone
        return frozenset()
    return frozenset()
