"""Pairs of maps: what the metrics of stability share (protocols §5, paper N).

A pair is a map and its reference: the map of the same method on the clean image, both display maps in [0, 1]. What
belongs to the reference alone is worked out once (`Reference`); hundreds of pairs share it. A `Pair` gives the metrics
their quantities for all methods of one image together.

440 pairs of 224² maps (11 methods × 40 conditions) take about .2 s on one core.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from heatproof.errors import InvalidInput
from heatproof.memo import cached_property
from heatproof.metrics import rankings
from heatproof.metrics.metric_request import MetricRequest
from heatproof.metrics.rankings import Ranking
from heatproof.metrics.similarity import Reduced
from heatproof.transfers import on_device, on_host

#: Rows and columns of a tile; wide tiles are read faster, small ones overlap fewer segments.
TILE = (16, 32)


@dataclass
class Reference:
    """What pairs share: the reference maps of one image, one for each method, and its segments.

    Args:
        maps: `(M, *spatial)` display maps, float.
        segments: segmenter → the image's label map `(H, W)` int64, with labels 0 … n − 1.

    Raises:
        InvalidInput: maps or a label map of another shape or kind.
    """

    maps: torch.Tensor
    segments: Callable[[str], torch.Tensor]
    _tiles: dict[str, "Tiles"] = field(default_factory=dict, init=False)
    _rankings: dict[str, Ranking] = field(default_factory=dict, init=False)

    def tiles(self, segmenter: str) -> "Tiles":
        """The label map of a segmenter, prepared for means of many maps."""
        if segmenter not in self._tiles:
            labels = self.segments(segmenter)
            _check(self.maps, labels)
            self._tiles[segmenter] = Tiles.of(labels, self.maps.device)
        return self._tiles[segmenter]

    def ranking(self, segmenter: str) -> Ranking:
        """The ranking of the segment means of every map, `(M, n)`."""
        if segmenter not in self._rankings:
            self._rankings[segmenter] = rankings.ranking(self.tiles(segmenter).means(self.maps))
        return self._rankings[segmenter]

    def count(self, segmenter: str) -> int:
        """The number of segments n."""
        return len(self.tiles(segmenter).pixels)

    @cached_property
    def reduced(self) -> Reduced:
        """The maps at 56² for SSIM."""
        return Reduced.of(self.maps)


@dataclass
class Pair:
    """The maps `(M, *spatial)` of all methods on one image, beside their reference."""

    reference: Reference
    maps: torch.Tensor
    _rankings: dict[str, Ranking] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.maps.shape != self.reference.maps.shape:
            shape = tuple(self.reference.maps.shape)
            raise InvalidInput(f"Maps must have the shape of their reference, {shape}. Got {tuple(self.maps.shape)}.")

    def segment_ranks(self, segmenter: str) -> tuple[Ranking, Ranking]:
        """Rankings of the segment means of the maps and of the reference, each `(M, n)`."""
        if segmenter not in self._rankings:
            self._rankings[segmenter] = rankings.ranking(self.reference.tiles(segmenter).means(self.maps))
        return self._rankings[segmenter], self.reference.ranking(segmenter)

    @cached_property
    def reduced(self) -> tuple[Reduced, Reduced]:
        """The maps and the reference at 56²."""
        return Reduced.of(self.maps), self.reference.reduced

    def value(self, request: MetricRequest) -> torch.Tensor:
        """One metric of all methods, `(M,)` float64."""
        given = {need: PAIR_SUPPLIERS[need](self) for need in request.entry.needs}
        return request.entry(given, request.options)


#: Quantity → how a metric of pairs gets it.
PAIR_SUPPLIERS: Mapping[str, Callable[[Pair], Any]] = {
    "maps": lambda pair: pair.maps,
    "reference": lambda pair: pair.reference.maps,
    "segment_ranks": lambda pair: pair.segment_ranks,
    "reduced": lambda pair: pair.reduced,
}


def segment_means(maps: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Mean of maps `(…, H, W)` in each segment of one label map `(H, W)`: `(…, n)` float64.

    Labels must run from 0 to n − 1 without gaps (InvalidInput otherwise).
    """
    return Tiles.of(segments, maps.device).means(maps)


@dataclass(frozen=True)
class Tiles:
    """A label map cut into tiles of 16 × 32 pixels, each with the one-hot matrix of the few segments it overlaps.

    So the sums are small matrix products in float64: exact for float32 maps down to 2^-29, whatever the
    order, and more than twice as fast as index_add. member `(tiles, 512, k)`; segment `(tiles · k,)`: the
    segment of each sum (n: none); pixels `(n,)`: pixels in each segment.
    """

    member: torch.Tensor
    segment: torch.Tensor
    pixels: torch.Tensor

    @classmethod
    def of(cls, segments: torch.Tensor, device: torch.device) -> "Tiles":
        """Cuts a label map `(H, W)` for maps on `device`; pixels that fill up the last tiles belong to no segment."""
        segments = on_host([segments])[0]  # sizes depend on the labels, and each would be waited for
        pixels = torch.bincount(segments.flatten())
        if not bool(pixels.all()):
            gap = int((pixels == 0).nonzero()[0])
            raise InvalidInput(f"Labels must run from 0 to n − 1 without gaps. Got no pixel with label {gap}.")
        n = len(pixels)
        found = [torch.unique(tile, return_inverse=True) for tile in _tiles(segments[None], fill=n)[:, 0]]
        k = max(len(labels) for labels, _ in found)
        segment = torch.cat([F.pad(labels, (0, k - len(labels)), value=n) for labels, _ in found])
        member = torch.stack([F.one_hot(inverse, k) for _, inverse in found]).double()
        return cls(*(on_device(one, device) for one in (member, segment, pixels)))

    def means(self, maps: torch.Tensor) -> torch.Tensor:
        """`(…, H, W)` → `(…, n)` float64; some maps at a time, so that they stay in the processor's cache."""
        flat = maps.reshape(-1, *maps.shape[-2:])
        sums = torch.cat([self._sums(part) for part in flat.split(55)])
        return (sums / self.pixels).view(*maps.shape[:-2], -1)

    def _sums(self, maps: torch.Tensor) -> torch.Tensor:
        parts = torch.bmm(_tiles(maps, dtype=torch.float64), self.member)
        sums = parts.new_zeros(len(maps), len(self.pixels) + 1)
        return sums.index_add_(1, self.segment, parts.transpose(0, 1).flatten(1))[:, :-1]


def _tiles(maps: torch.Tensor, fill: int = 0, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`(N, H, W)` → `(tiles, N, 512)`, filled up below and on the right, in `dtype`; one copy."""
    down, across = (-maps.shape[1]) % TILE[0], (-maps.shape[2]) % TILE[1]
    maps = F.pad(maps, (0, across, 0, down), value=fill) if down or across else maps
    n, rows, columns = len(maps), maps.shape[1] // TILE[0], maps.shape[2] // TILE[1]
    cut = maps.new_empty(rows, columns, n, *TILE, dtype=dtype or maps.dtype)
    cut.copy_(maps.reshape(n, rows, TILE[0], columns, TILE[1]).permute(1, 3, 0, 2, 4))
    return cut.view(rows * columns, n, -1)


def _check(maps: torch.Tensor, segments: torch.Tensor) -> None:
    if maps.dim() != 3 or not maps.is_floating_point():
        raise InvalidInput(f"Reference maps must be float maps (M, H, W). Got {maps.dtype} {tuple(maps.shape)}.")
    if segments.shape != maps.shape[1:] or segments.dtype != torch.int64:
        raise InvalidInput(
            f"`segments` must be an int64 label map {tuple(maps.shape[1:])}. "
            f"Got {segments.dtype} {tuple(segments.shape)}."
        )
