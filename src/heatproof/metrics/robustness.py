"""How far a map moves when its picture is perturbed: RBO, κ and four companions (protocols §5, paper N).

A pair is the map of a clean picture and the map of the same method on a perturbed version of it, both
display maps in [0, 1]. What belongs to the clean map alone is worked out once (`Reference`); hundreds of
pairs share it. Values are float64; a pair of which one map is constant or not finite has no score: NaN, and
a reason.

440 pairs of 224² maps (11 methods × 40 conditions) take about .2 s on one core.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from heatproof import tensors
from heatproof.errors import InvalidInput
from heatproof.metrics import rankings
from heatproof.metrics.rankings import Ranking, Ties
from heatproof.metrics.similarity import Reduced, cosine, cosine_of, l1, norm, ssim, ssim_of

#: The scores of a pair, in the order of the tables.
SCORES = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")
_RANKED = ("rbo", "kappa", "spearman")
__all__ = [
    "SCORES",
    "Reference",
    "cosine",
    "l1",
    "pair_scores",
    "reasons",
    "reference",
    "segment_means",
    "ssim",
]

#: Rows and columns of a tile; wide ones are read faster, small ones meet fewer segments.
TILE = (16, 32)
#: Why a pair has no score, by code; 0 is fine. The last two concern the ranked scores alone.
REASONS = (
    "",
    "non-finite clean map",
    "constant clean map",
    "non-finite perturbed map",
    "constant perturbed map",
    "clean map equal in all segments",
    "perturbed map equal in all segments",
)


@dataclass(frozen=True)
class Reference:
    """What pairs share: N clean maps of one picture (one for each method) and their segments.

    maps `(N, H, W)`; tiles: the label map; ranking of the segment means `(N, n)`; norm `(N,)`; reduced
    maps for SSIM; code `(N,)`: why a map has no score (see REASONS).
    """

    maps: torch.Tensor
    tiles: "Tiles"
    ranking: Ranking
    norm: torch.Tensor
    reduced: Reduced
    code: torch.Tensor

    @property
    def segments(self) -> int:
        """The number of segments n."""
        return len(self.tiles.pixels)


def reference(clean: torch.Tensor, segments: torch.Tensor) -> Reference:
    """Prepares clean maps `(N, H, W)` of one picture with the label map `(H, W)` for many pairs."""
    _check(clean, segments)
    tiles = Tiles.of(segments)
    reduced = Reduced.of(clean)
    return Reference(
        maps=clean,
        tiles=tiles,
        ranking=rankings.ranking(tiles.means(clean)),
        norm=norm(clean),
        reduced=reduced,
        code=_map_code(clean, reduced.maps),
    )


def pair_scores(
    clean: Reference | torch.Tensor,
    perturbed: torch.Tensor,
    segments: torch.Tensor | None = None,
    *,
    scores: Iterable[str] = SCORES,
    p: float = 0.9,
    ties: Ties = "b",
    extrapolated: bool = True,
) -> dict[str, torch.Tensor]:
    """Scores of the pairs `clean[n]`, `perturbed[m, n]`: name → `(M, N)` float64, and `code` (see `reasons`).

    clean: `(N, H, W)` display maps, or their `reference(…)`. perturbed: `(M, N, H, W)`, or `(N, H, W)` for
    one condition; several in one call are a little faster. segments:
    an int64 label map `(H, W)` of the clean picture, or `(N, H, W)`, one for each clean map (several
    pictures); not needed with a Reference. scores: leave out what is not needed, e.g. for a second
    segmenter, which changes only rbo, kappa and spearman. p, ties, extrapolated: see `rankings.rbo`.

    Range: rbo, cosine [0, 1], kappa ≤ 1, spearman, ssim [−1, 1]: higher is more alike. l1 [0, 1]: lower is.
    Errors: InvalidInput for shapes that do not fit and label maps with gaps.
    """
    perturbed = perturbed[None] if perturbed.dim() == 3 else perturbed
    how = _known(scores), p, ties, extrapolated
    if isinstance(clean, Reference):
        return _scored(clean, perturbed, *how)
    if segments is None:
        raise InvalidInput("`segments` must be given with clean maps. Got None.")
    if segments.dim() == 2:
        return _scored(reference(clean, segments), perturbed, *how)
    each = [(reference(clean[i : i + 1], labels), perturbed[:, i : i + 1]) for i, labels in enumerate(segments)]
    parts = [_scored(one, maps, *how) for one, maps in each]
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}


def reasons(code: torch.Tensor, score: str = "rbo") -> list:
    """The flag text of every pair, as a nested list shaped like `code`; "" where `score` has a value.

    Equal segment means leave l1, ssim and cosine alone; a constant or non-finite map has none of the six.
    """
    last = len(REASONS) if score in _RANKED else 5
    if code.dim() == 0:
        return REASONS[int(code)] if int(code) < last else ""  # type: ignore[return-value]
    return [reasons(part, score) for part in code]


def segment_means(maps: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Mean of maps `(…, H, W)` in each segment of one label map `(H, W)`: `(…, n)` float64.

    Labels must run from 0 to n − 1 without gaps (InvalidInput otherwise).
    """
    return Tiles.of(segments).means(maps)


@dataclass(frozen=True)
class Tiles:
    """A label map cut into tiles of 16 × 32 pixels, each with the one-hot matrix of the few segments it meets.

    So the sums are small matrix products in float64: exact for float32 maps down to 2^-29, whatever the
    order, and more than twice as fast as index_add. member `(tiles, 512, k)`; segment `(tiles · k,)`: whose
    sum it is (n: nobody's); pixels `(n,)`: pixels in each segment.
    """

    member: torch.Tensor
    segment: torch.Tensor
    pixels: torch.Tensor

    @classmethod
    def of(cls, segments: torch.Tensor) -> "Tiles":
        """Cuts a label map `(H, W)`; pixels that fill up the last tiles belong to no segment."""
        pixels = torch.bincount(segments.flatten())
        if not bool(pixels.all()):
            gap = int((pixels == 0).nonzero()[0])
            raise InvalidInput(f"Labels must run from 0 to n − 1 without gaps. Got no pixel with label {gap}.")
        n = len(pixels)
        found = [torch.unique(tile, return_inverse=True) for tile in _tiles(segments[None], fill=n)[:, 0]]
        k = max(len(labels) for labels, _ in found)
        segment = torch.cat([F.pad(labels, (0, k - len(labels)), value=n) for labels, _ in found])
        member = torch.stack([F.one_hot(inverse, k) for _, inverse in found]).double()
        return cls(member, segment, pixels)

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


def _scored(
    clean: Reference,
    perturbed: torch.Tensor,
    wanted: tuple[str, ...],
    p: float,
    ties: Ties,
    extrapolated: bool,
) -> dict[str, torch.Tensor]:
    if perturbed.shape[1:] != clean.maps.shape:
        shape = ", ".join(map(str, clean.maps.shape))
        raise InvalidInput(f"`perturbed` must be (M, {shape}). Got {tuple(perturbed.shape)}.")
    # One condition at a time: its maps stay in the processor's cache.
    reduced = [Reduced.of(maps) for maps in perturbed]
    codes = [_map_code(maps, small.maps, offset=2) for maps, small in zip(perturbed, reduced, strict=True)]
    code = _first(clean.code.expand(perturbed.shape[:2]), torch.stack(codes))
    values: dict[str, torch.Tensor] = {}
    if any(name in _RANKED for name in wanted):
        moved = rankings.ranking(clean.tiles.means(perturbed))
        values["rbo"] = rankings.rbo(clean.ranking, moved, p, ties, extrapolated)
        if "kappa" in wanted:
            chance = rankings.rbo_expectation(clean.ranking, moved, p, ties, extrapolated)
            values["kappa"] = rankings.kappa(values["rbo"], chance)
        values["spearman"] = rankings.spearman(clean.ranking, moved)
    if "l1" in wanted:
        values["l1"] = torch.stack([l1(clean.maps, maps) for maps in perturbed])
    if "cosine" in wanted:
        cosines = [cosine_of(clean.maps, maps, clean.norm, norm(maps)) for maps in perturbed]
        values["cosine"] = torch.stack(cosines)
    if "ssim" in wanted:
        values["ssim"] = torch.stack([ssim_of(clean.reduced, small) for small in reduced])
    scores = {name: values[name].masked_fill(code > 0, torch.nan) for name in wanted}
    if any(name in _RANKED for name in wanted):
        equal = _first((~clean.ranking.valid).long() * 5, (~moved.valid).long() * 6)
        code = _first(code, equal)
    return {**scores, "code": code}


def _known(scores: Iterable[str]) -> tuple[str, ...]:
    for name in (scores := tuple(scores)):
        if name not in SCORES:
            raise InvalidInput(f"`scores` must be among {', '.join(SCORES)}. Got {name!r}.")
    return scores


def _check(clean: torch.Tensor, segments: torch.Tensor) -> None:
    if clean.dim() != 3 or not clean.is_floating_point():
        raise InvalidInput(f"`clean` must be float maps (N, H, W). Got {clean.dtype} {tuple(clean.shape)}.")
    if segments.shape != clean.shape[1:] or segments.dtype != torch.int64:
        raise InvalidInput(
            f"`segments` must be an int64 label map {tuple(clean.shape[1:])}. "
            f"Got {segments.dtype} {tuple(segments.shape)}."
        )


def _first(code: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """The first reason that applies."""
    return torch.where(code > 0, code, then)


def _map_code(maps: torch.Tensor, reduced: torch.Tensor, offset: int = 0) -> torch.Tensor:
    """0 fine, 1 non-finite, 2 constant (+ `offset`); full maps are read only where `reduced` is suspect."""
    shape = maps.shape[:-2]
    flat, small = maps.flatten(0, -3), reduced.flatten(0, -3)
    code = torch.zeros(len(flat), dtype=torch.int64, device=maps.device)
    suspect = tensors.degenerate(small).nonzero().flatten()
    if len(suspect):
        constant = tensors.degenerate(flat[suspect])
        infinite = ~torch.isfinite(flat[suspect]).flatten(1).all(1)
        code[suspect] = torch.where(infinite, 1 + offset, torch.where(constant, 2 + offset, 0))
    return code.view(shape)
