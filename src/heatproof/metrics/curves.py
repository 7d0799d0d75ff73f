"""The curve engine: pixels are ranked once, and the network scores the image while they are removed or restored.

An image at any step is a threshold on the ranks, so the masked images of many steps and many images are built on
the device, as many at a time as one pass takes. No number depends on how they were grouped.
"""

from collections.abc import Callable, Sequence

import torch

from heatproof.errors import InvalidInput
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.registry import unknown
from heatproof.rounding import rounded
from heatproof.transfers import on_device

#: How pixels of equal value are ranked.
TIES = {
    "jitter": "a seeded order among them, so that exactly k pixels go",
    "block": "they go together, as soon as the first of them would",
}

#: Which pixels are removed, or restored, first.
FIRST = {"most": "the most important", "least": "the least important"}

Score = Callable[..., torch.Tensor]


def pixel_ranks(maps: torch.Tensor, generators: Sequence[torch.Generator], ties: str = "jitter") -> torch.Tensor:
    """Rank of every pixel in its own map, 0 the most important: `(N, *spatial)` → the same shape, int64.

    Maps are in [0, 1] and rounded to six digits first (`heatproof.rounding`): what differs by less is a tie.
    `jitter` breaks ties by a permutation that depends on the image's generator and the number of pixels alone, so
    every rank from 0 to n − 1 occurs once; `block` gives a group of equal pixels the rank of its first. NaN ranks
    last. Ranks of `block` need no random numbers.
    """
    if ties not in TIES:
        raise unknown("`ties`", str(ties), TIES)
    if len(generators) != len(maps):
        raise InvalidInput(f"One generator for each of {len(maps)} maps is needed. Got {len(generators)}.")
    flat = rounded(maps.detach().flatten(1))
    flat = torch.where(flat.isnan(), -torch.inf, flat)
    return (_blocks(flat) if ties == "block" else _order_with_random_ties(flat, generators)).view(maps.shape)


def _order_with_random_ties(flat: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """A stable sort of shuffled pixels: the shuffle decides among equals, and nothing else."""
    n = flat.shape[1]
    drawn = [torch.randperm(n, generator=generator, device=generator.device) for generator in generators]
    shuffle = on_device(torch.stack(drawn), flat.device) if drawn else flat.new_zeros(0, n).long()
    order = flat.gather(1, shuffle).sort(dim=1, descending=True, stable=True).indices
    return _ranks(shuffle.gather(1, order))


def _ranks(order: torch.Tensor) -> torch.Tensor:
    """Pixels in order → the rank of each pixel."""
    positions = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions)


def _blocks(flat: torch.Tensor) -> torch.Tensor:
    ordered, order = flat.sort(dim=1, descending=True, stable=True)
    positions = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(order).scatter_(1, order, torch.where(starts, positions, 0).cummax(1).values)


def reversed_ranks(ranks: torch.Tensor) -> torch.Tensor:
    """Ranks from the other end: 0 the least important; ties share the rank of their first there too."""
    flat = ranks.flatten(1)
    size = torch.zeros_like(flat).scatter_add_(1, flat, torch.ones_like(flat)).gather(1, flat)
    return (flat.shape[1] - flat - size).view(ranks.shape)


def pixel_counts(pixels: int, steps: int) -> list[int]:
    """How many of `pixels` are removed at the steps 0 … `steps`: `round(i / steps · pixels)`, both ends included."""
    steps = check_int("steps", steps)
    return [round(i * pixels / steps) for i in range(steps + 1)]


def shares(steps: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """`i / steps` for the steps 0 … `steps`, float64."""
    return torch.arange(steps + 1, dtype=torch.float64, device=device) / steps


def area(points: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Area under curves `(N, P)` over `at` `(P,)`, by the trapezoid rule, float64."""
    return torch.trapezoid(points.double(), on_device(at, points.device, torch.float64), dim=-1)


def curve_points(
    z: torch.Tensor,
    background: torch.Tensor,
    ranks: torch.Tensor,
    score: Score,
    *,
    steps: int,
    first: str = "most",
    restore: bool = False,
    of: str = "probability",
    start: torch.Tensor | None = None,
    end: torch.Tensor | None = None,
) -> torch.Tensor:
    """The score while pixels of `z` are removed, or restored on the background: `(N, steps + 1)` float64.

    At step i exactly `round(i / steps · n)` of the n pixels are removed (`restore`: restored), if ranks have no ties.

    Args:
        z, background: `(N, C, *spatial)`; a pixel is all its channels.
        ranks: `(N, *spatial)`, see `pixel_ranks`.
        score: `(images, rows=which, of=of)` → `(M,)`; one pass each.
        first: `most` or `least` important first.
        start, end: `(N,)`, the scores of the first and the last step where they are known; they then need no pass.
    """
    if first not in FIRST:
        raise unknown("`first`", str(first), FIRST)
    counts = pixel_counts(ranks.shape[1:].numel(), steps)
    known = {count: value for count, value in ((counts[0], start), (counts[-1], end)) if value is not None}
    distinct = sorted(set(counts) - set(known))
    asked = torch.tensor(distinct, dtype=torch.int64).expand(len(z), -1)
    ranks = reversed_ranks(ranks) if first == "least" else ranks
    found = threshold_scores(z, background, ranks, asked, score, restore=restore, of=of)
    columns = {**known, **dict(zip(distinct, found.unbind(1), strict=True))}
    return torch.stack([columns[count].to(z.device, torch.float64) for count in counts], 1)


def threshold_scores(
    z: torch.Tensor,
    background: torch.Tensor,
    ranks: torch.Tensor,
    counts: torch.Tensor,
    score: Score,
    *,
    restore: bool = False,
    of: str = "probability",
) -> torch.Tensor:
    """The score of images whose pixels of rank < count are the background's: `(N, P)` float64.

    Args:
        counts: `(N, P)` int64 on the CPU, each image its own; a negative one is skipped, and NaN in the result.
        restore: the pixels of rank < count are the image's, all others the background's.
    """
    found = torch.full(counts.shape, torch.nan, dtype=torch.float64, device=z.device)
    images, columns = (counts >= 0).nonzero(as_tuple=True)
    below, above = (z, background) if restore else (background, z)
    rows = rows_per_pass(z)
    buffer = z.new_empty(min(rows, len(images)), *z.shape[1:])
    owners, places, limits = on_device(torch.stack([images, columns, counts[images, columns]]), z.device)
    for part in parts(len(images), rows):
        mixed = buffer[: len(images[part])]
        _mix(mixed, images[part], limits[part], ranks, below, above)
        found[owners[part], places[part]] = score(mixed, rows=owners[part], of=of).to(found)
    return found


def _mix(
    out: torch.Tensor,
    which: torch.Tensor,
    limits: torch.Tensor,
    ranks: torch.Tensor,
    below: torch.Tensor,
    above: torch.Tensor,
) -> None:
    """Writes an image for each limit: `below` where the rank is below it, else `above`; `which` in order, on the CPU.

    Each image is broadcast over its limits: copying it for each of them would take four times as long.
    """
    first = 0
    for image, many in zip(*(one.tolist() for one in which.unique_consecutive(return_counts=True)), strict=True):
        here = slice(first, first + many)
        reached = ranks[image] < limits[here].view(-1, *[1] * (ranks.dim() - 1))
        torch.where(reached[:, None], below[image], above[image], out=out[here])
        first += many
