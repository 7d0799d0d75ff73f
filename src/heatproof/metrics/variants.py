"""What several metrics do to a picture and to its map: random pictures, groups of pixels, one attribution a pixel."""

from collections.abc import Callable, Sequence

import torch

from heatproof.models import Model
from heatproof.passes import parts, rows_per_pass
from heatproof.tensors import per_image, upsampled


def signed(raw: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """One signed attribution a pixel, `(N, *size)` float64: the map as the method made it, at the picture's size.

    Channels are summed (a pixel is one unit), layer resolution is upsampled as display maps are. No scaling: the
    metrics that ask are correlations, or scale by themselves. All zeros where the display map says nothing (it is
    constant, or not finite), so that a constant cannot pass for an explanation.
    """
    if raw.dim() == maps.dim() + 1:
        raw = raw.double().sum(1)
    found = upsampled(raw.double(), tuple(maps.shape[1:]))
    silent = (maps.flatten(1) == 0).all(1) | ~torch.isfinite(raw.flatten(1)).all(1)
    return torch.where(per_image(silent, found), 0.0, found)


def random_pictures(
    rows: Sequence[int], z: torch.Tensor, model: Model, generator: Sequence[torch.Generator]
) -> torch.Tensor:
    """A picture of U[0, 1] values, each pixel and channel by itself, for each of `rows`; normalised, `(M, C, *size)`.

    Each is drawn from its picture's own generator.
    """
    drawn = torch.stack([torch.rand(z.shape[1:], generator=generator[row]) for row in rows])
    return model.normalise(drawn.to(z))


def streamed(
    count: int, z: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor], samples: int, group: int = 1
) -> torch.Tensor:
    """`work` of the rows 0 … samples − 1 of each of `count` pictures, a pass at a time: `(count, samples, …)`.

    Args:
        work: numbers of pictures `(M,)`, in order and each up to `samples` times in turn → `(M, …)`.
        group: how many variants `work` makes of each row.
    """
    owner = torch.arange(count).repeat_interleave(samples)
    step = max(1, rows_per_pass(z) // group)
    found = [work(owner[part]) for part in parts(len(owner), step)]
    return torch.cat(found).unflatten(0, (count, samples))
