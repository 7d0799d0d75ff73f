"""A network and its images, and the pieces of heatproof that every defect is made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

import heatproof
from heatproof.attributions.foreign import unregister
from heatproof.data import Shapes
from heatproof.engine import Maps, Scores
from heatproof.geometry import Geometry, default_resize
from heatproof.memo import cached_property
from heatproof.metrics.localisation import mask_cosine
from heatproof.metrics.similarity import cosine
from heatproof.models import Model

Method = str | Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Lab:
    """A network, `n` test images of Shapes with their masks, and a seed. The explained class is the label.

    slow: how many of the images a defect sees whose arms cost hundreds of passes for each image.
    """

    model: Model
    images: Shapes
    n: int
    seed: int = 0
    slow: int = 32
    batch: int = 16

    @cached_property
    def x(self) -> torch.Tensor:
        """`(N, C, H, W)` in [0, 1], resized and cropped as the network's input."""
        return torch.stack([self.model.geometry.image(self.images.open(i)) for i in range(self.n)])

    @cached_property
    def mask(self) -> torch.Tensor:
        """`(N, H, W)` bool, through the same resize and crop."""
        return torch.stack([self.model.geometry.mask(self.images.mask(i)) for i in range(self.n)])

    @cached_property
    def labels(self) -> list[int]:
        return [int(label) for label in self.images.labels[: self.n] if label is not None]

    @property
    def target(self) -> torch.Tensor:
        return torch.tensor(self.labels)

    def few(self, n: int) -> "Lab":
        """The first images alone."""
        return self if n >= self.n else replace(self, n=n)

    def explain(self, methods: Method, x: torch.Tensor | None = None, **more: Any) -> Maps:
        """`heatproof.explain` of the images, or of others with the same labels."""
        given = {"target": "label", "labels": self.labels, "seed": self.seed, "batch_size": self.batch, **more}
        return heatproof.explain(given.pop("model", self.model), self.x if x is None else x, methods, **given)

    def score(self, maps_or_methods: Any, metrics: Any, x: torch.Tensor | None = None, **more: Any) -> Scores:
        """`heatproof.score` of the images, or of others with the same labels and masks."""
        given = {"target": "label", "labels": self.labels, "masks": self.mask, "seed": self.seed,
                 "batch_size": self.batch, **more}  # fmt: skip
        return heatproof.score(self.model, self.x if x is None else x, maps_or_methods, metrics, **given)

    def probability(self, z: torch.Tensor) -> torch.Tensor:
        """The label's probability on normalised images, `(N,)` float64."""
        with self.model.evaluating(), torch.no_grad():
            logits = torch.cat([self.model.of_normalised(part) for part in z.split(self.batch)])
        return self.model.probabilities(logits).gather(1, self.target[: len(z), None])[:, 0]

    def cosine(self, maps: torch.Tensor) -> torch.Tensor:
        """Cosine of display maps with the masks; 0 for a degenerate map."""
        return mask_cosine(maps, self.mask).nan_to_num(0.0)

    def cropping(self) -> "Lab":
        """The same network with a resize to 8/7 and a centre crop, where its own geometry does not crop."""
        own = self.model.geometry
        if own.resize not in (None, own.size[0]):
            return self
        shape = Geometry(own.size, default_resize(own.size, 0.875), own.interpolation, channels=own.channels)
        return replace(self, model=self.model.with_preprocessing(replace(self.model.preprocessing, geometry=shape)))


def agreement(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosine of two display maps of each image, `(N,)`: NaN where `one` is degenerate, 0 where only `other` is."""
    usable = one.flatten(1).any(1)
    return torch.where(usable, cosine(one, other).nan_to_num(0.0), torch.nan)


@contextmanager
def registered(name: str, function: Callable[..., torch.Tensor]) -> Iterator[str]:
    """A function of quantities as a method, inside the block alone."""
    heatproof.register(name, function)
    try:
        yield name
    finally:
        unregister(name)
