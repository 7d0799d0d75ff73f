"""What several metrics share: random images, and one attribution for each pixel."""

from collections.abc import Callable, Sequence

import torch

from heatproof.models import Model
from heatproof.passes import parts, rows_per_pass
from heatproof.registry import unknown
from heatproof.tensors import per_image, upsampled
from heatproof.transfers import on_device


def signed(raw: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """One signed attribution a pixel, `(N, *size)` float64: the map as the method made it, at the image's size.

    Channels are summed (a pixel is one unit), layer resolution is upsampled as display maps are. No scaling: the
    metrics that use it are correlations, or scale by themselves. All zeros where the map is degenerate (constant or
    not finite), so that a constant cannot pass for an explanation.
    """
    one = raw.double().sum(1) if raw.dim() == maps.dim() + 1 else raw.double()
    found = upsampled(one, tuple(maps.shape[1:]))
    return torch.where(per_image(silent(raw, maps), found), 0.0, found)


def silent(raw: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Whether the map is degenerate, `(N,)`: its display map is zero everywhere, or the map itself is not finite."""
    return (maps.flatten(1) == 0).all(1) | ~torch.isfinite(raw.flatten(1)).all(1)


def answer(of: str, logits: torch.Tensor, target: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The network's output for the images themselves, `(N,)` float64: known already, so no pass."""
    if of not in ("logit", "probability"):
        raise unknown("`of`", str(of), ("logit", "probability"))
    return p if of == "probability" else logits.double().gather(1, target[:, None])[:, 0]


def random_images(
    rows: Sequence[int], z: torch.Tensor, model: Model, generator: Sequence[torch.Generator]
) -> torch.Tensor:
    """An image of U[0, 1] values, each pixel and channel by itself, for each of `rows`; normalised, `(M, C, *size)`.

    Each is drawn from its image's own generator.
    """
    drawn = torch.stack([torch.rand(z.shape[1:], generator=generator[row]) for row in rows])
    return model.normalise(on_device(drawn, z.device, z.dtype))


Work = Callable[[torch.Tensor, torch.Tensor, Sequence[int]], torch.Tensor]


def streamed(count: int, samples: int, z: torch.Tensor, work: Work, group: int = 1) -> torch.Tensor:
    """`work` of `samples` variants of each of `count` images, a pass at a time: `(count, samples, …)`.

    Args:
        work: number of the image `(M,)` and of the sample `(M,)`, all samples of an image before the next image's,
            so that generators are used in one order whatever a pass holds; the numbers of the images once more as
            integers → `(M, …)`.
        group: how many images `work` passes to the network for each variant.
    """
    every = torch.arange(count * samples, device=z.device)
    owner, turn = every.div(samples, rounding_mode="floor"), every % samples
    step = max(1, rows_per_pass(z) // group)
    found = [work(owner[part], turn[part], [one // samples for one in range(count * samples)[part]])
             for part in parts(len(every), step)]  # fmt: skip
    return torch.cat(found).unflatten(0, (count, samples))
