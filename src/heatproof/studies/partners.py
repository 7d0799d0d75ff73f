"""Other images of a set to mix with: drawn by the seed and the image's id, so that a batch has no part in them."""

from collections.abc import Iterator, Sequence

import torch

from heatproof.data import Images
from heatproof.errors import InvalidImage, NotApplicable
from heatproof.models import Model
from heatproof.studies.jobs import input_of


def partners(images: Images, model: Model, ids: Sequence[str], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Another image of the set for each of `ids`, `(N, C, H, W)` in [0, 1], as input of the model.

    Every other image is as likely. One that cannot be used is passed over, and the next one drawn takes its place.

    Raises:
        NotApplicable: the set has no other image that can be used.
    """
    return torch.stack(
        [_partner(images, model, one, generator) for one, generator in zip(ids, generators, strict=True)]
    )


def _partner(images: Images, model: Model, identity: str, generator: torch.Generator) -> torch.Tensor:
    for index in _drawn(len(images.ids), generator):
        other = images.ids[index]
        if other == identity or other in images.flags:
            continue
        try:
            return input_of(images.open(index), model)
        except InvalidImage:
            continue
    raise NotApplicable(
        f"an image is mixed with another one of its set, and there is none that can be used ({identity})"
    )


def _drawn(count: int, generator: torch.Generator) -> Iterator[int]:
    """Positions of the images in a random order; the whole order is drawn only where the first few cannot be used."""
    for _ in range(8):
        yield int(torch.randint(count, (), generator=generator))
    yield from torch.randperm(count, generator=generator).tolist()
