"""Rank-biased overlap of two rankings with ties, and its expectation by chance (protocols §5, paper N).

RBO: Webber, Moffat & Zobel 2010. Ties: Corsi & Urbano 2024 (variants a and b). All in float64, over the last
dimension, broadcasting over the leading ones. A large score means an early rank.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from heatproof.errors import InvalidInput

Ties = Literal["b", "a", "stable"]
#: Segment means are rounded to this many decimals before ranking; `heatproof.rounding` says why.
DECIMALS = 6


@dataclass(frozen=True)
class Ranking:
    """Where every item of `(…, n)` stands, with its tie group; ranks count from 1, the largest score first.

    top, bottom: the first and last rank of the item's tie group. position: its rank when ties go by index.
    group_top, group_bottom: first and last rank of the tie group that covers rank d = 1 … n.
    valid `(…,)`: finite scores that are not all equal (else there is no ranking).
    """

    top: torch.Tensor
    bottom: torch.Tensor
    position: torch.Tensor
    group_top: torch.Tensor
    group_bottom: torch.Tensor
    valid: torch.Tensor

    @property
    def mid(self) -> torch.Tensor:
        """Mid-ranks, float64: tied items share the mean of their ranks."""
        return (self.top + self.bottom).double() / 2


def ranking(scores: torch.Tensor) -> Ranking:
    """The ranking of scores `(…, n)` in [0, 1], such as segment means, to `DECIMALS` decimals.

    Round scores on another scale first (`heatproof.rounding`), and give them to `ranking_of`.
    """
    return ranking_of(scores.double().round(decimals=DECIMALS))


def ranking_of(scores: torch.Tensor) -> Ranking:
    """The ranking of scores `(…, n)` that are rounded already."""
    if scores.dim() == 0 or scores.shape[-1] == 0:
        raise InvalidInput(f"Scores must hold at least one item, as (…, n). Got shape {tuple(scores.shape)}.")
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device).expand_as(order)
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    group_top = torch.where(starts, rank, 0).cummax(-1).values
    ends = torch.cat([starts[..., 1:], torch.ones_like(starts[..., :1])], -1)
    n = scores.shape[-1]
    group_bottom = torch.where(ends, rank, n).flip(-1).cummin(-1).values.flip(-1)
    position = torch.empty_like(order)
    return Ranking(
        top=position.scatter(-1, order, group_top),
        bottom=position.scatter(-1, order, group_bottom),
        position=position.scatter(-1, order, rank),
        group_top=group_top,
        group_bottom=group_bottom,
        valid=torch.isfinite(scores).all(-1) & (group_top[..., -1] > 1),
    )


def rbo(one: Ranking, other: Ranking, p: float = 0.9, ties: Ties = "b", extrapolated: bool = True) -> torch.Tensor:
    """Rank-biased overlap `(…,)` in [0, 1], 1 for equal rankings; NaN where either has no ranking.

    `(1−p) Σ_d p^(d−1) A_d`, plus `p^n` when `extrapolated`; `A_d = Σ c¹c² / norm` with the membership
    `c_e(d) = clip((d−t+1)/(b−t+1), 0, 1)` of items in tie groups from rank t to b. `ties`: `b` divides by
    `sqrt(Σc¹² Σc²²)` (Corsi & Urbano's RBO^b), `a` by d, `stable` breaks ties by index. Lower p is more
    top-weighted. Without ties all three are the plain form, and extrapolated it is Webber's RBO_ext.
    """
    depth = _depths(one)
    if ties == "stable":
        overlap = _counts_to_depth(torch.maximum(one.position, other.position))
        agreement = overlap / depth
    else:
        scale = depth if ties == "a" else torch.sqrt(_norm(one) * _norm(other))
        agreement = _tied_overlap(one, other) / scale
    return _weighted_agreement(agreement, p, extrapolated, ties).masked_fill(~(one.valid & other.valid), torch.nan)


def rbo_expectation(
    one: Ranking, other: Ranking, p: float = 0.9, ties: Ties = "b", extrapolated: bool = True
) -> torch.Tensor:
    """The mean of `rbo` when the items of both are shuffled independently, ties kept: exact, `(…,)`.

    `b`: `A_d = d² / (n ‖c¹(d)‖ ‖c²(d)‖)`; `a`: `d / n`; `stable`: `Σ_i π¹_i(d) π²_i(d) / d`, π_i(d) the
    chance that the item of index i is among the first d (the index breaks ties in both lists alike, so lists
    with large tie groups agree even if they are unrelated).
    """
    depth = _depths(one)
    n = one.top.shape[-1]
    if ties == "stable":
        agreement = _stable_overlap(one, other) / depth
    else:
        scale = depth if ties == "a" else torch.sqrt(_norm(one) * _norm(other))
        agreement = depth**2 / (n * scale)
    return _weighted_agreement(agreement, p, extrapolated, ties).masked_fill(~(one.valid & other.valid), torch.nan)


def kappa(value: torch.Tensor, expectation: torch.Tensor) -> torch.Tensor:
    """Chance-corrected `(RBO − E) / (1 − E)`: 1 for equal rankings, about 0 for unrelated; NaN if E = 1."""
    room = 1 - expectation
    return torch.where(room > 1e-12, (value - expectation) / room, torch.nan)


def spearman(one: Ranking, other: Ranking) -> torch.Tensor:
    """Pearson correlation of the mid-ranks, in [−1, 1]; NaN where either has no ranking."""
    mean = (one.top.shape[-1] + 1) / 2
    a, b = one.mid - mean, other.mid - mean
    value = (a * b).sum(-1) / torch.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return value.clamp(-1, 1).masked_fill(~(one.valid & other.valid), torch.nan)


def _depths(one: Ranking) -> torch.Tensor:
    n = one.top.shape[-1]
    return torch.arange(1, n + 1, dtype=torch.float64, device=one.top.device)


def _weighted_agreement(agreement: torch.Tensor, p: float, extrapolated: bool, ties: str) -> torch.Tensor:
    """`(1−p) Σ p^(d−1) A_d`, and `p^n` (the agreement at full depth is 1) when extrapolated."""
    if not 0 < p < 1:
        raise InvalidInput(f"`p` must lie between 0 and 1. Got {p}.")
    if ties not in ("a", "b", "stable"):
        raise InvalidInput(f"`ties` must be 'b', 'a' or 'stable'. Got {ties!r}.")
    n = agreement.shape[-1]
    powers = p ** torch.arange(n, dtype=torch.float64, device=agreement.device)
    value = (1 - p) * (agreement * powers).sum(-1)
    return (value + p**n if extrapolated else value).clamp(0, 1)


def _fraction(one: Ranking) -> torch.Tensor:
    """Membership at depth d of the items in the tie group that covers rank d, `(…, n)`."""
    size = one.group_bottom - one.group_top + 1
    return (_depths(one) - one.group_top + 1) / size


def _norm(one: Ranking) -> torch.Tensor:
    """`Σ c(d)²`: one for each item ranked before the covering group, and the group's size × fraction²."""
    size = one.group_bottom - one.group_top + 1
    return (one.group_top - 1) + size * _fraction(one) ** 2


def _counts_to_depth(first: torch.Tensor) -> torch.Tensor:
    """How many items have `first` ≤ d, for d = 1 … n: a histogram and its running sum, `(…, n)` float64."""
    n = first.shape[-1]
    histogram = first.new_zeros((*first.shape[:-1], n + 2), dtype=torch.float64)
    histogram.scatter_add_(-1, first, torch.ones_like(first, dtype=torch.float64))
    return histogram.cumsum(-1)[..., 1 : n + 1]


def _tied_overlap(one: Ranking, other: Ranking) -> torch.Tensor:
    """`Σ_i c¹_i(d) c²_i(d)` in O(n): an item is at depth d in (an earlier group), partly in, or out.

    Four counts suffice: in both, in one and at least partly in the other (twice), at least partly in both.
    """
    in1, in2 = one.bottom + 1, other.bottom + 1  # the first depth whose covering group comes after the item
    whole = _counts_to_depth(torch.maximum(in1, in2))
    whole_part = _counts_to_depth(torch.maximum(in1, other.top)) - whole
    part_whole = _counts_to_depth(torch.maximum(one.top, in2)) - whole
    part_part = _counts_to_depth(torch.maximum(one.top, other.top)) - whole - whole_part - part_whole
    f1, f2 = _fraction(one), _fraction(other)
    return whole + f2 * whole_part + f1 * part_whole + f1 * f2 * part_part


def _stable_overlap(one: Ranking, other: Ranking, rows: int = 256) -> torch.Tensor:
    """`Σ_i π¹_i(d) π²_i(d)`, `(…, n)`; π only once for every pattern of ties, `rows` pairs at a time."""
    tops = torch.broadcast_tensors(one.group_top, other.group_top)
    shape, n = tops[0].shape, tops[0].shape[-1]
    patterns, which = torch.unique(torch.stack(tops).reshape(-1, n), dim=0, return_inverse=True)
    inclusion = torch.cat([_inclusion(part) for part in patterns.split(rows)])
    first, second = which.view(2, -1)
    pairs = zip(first.split(rows), second.split(rows), strict=True)
    return torch.cat([(inclusion[i] * inclusion[j]).sum(-1) for i, j in pairs]).view(shape)


def _inclusion(group_top: torch.Tensor) -> torch.Tensor:
    """π_i(d) `(…, d, i)`: the chance that the item of index i is among the first d when values are shuffled.

    It is in an earlier group with chance (t−1)/n, in the covering group of m with m/n, and there among the
    first d−t+1 by index if at most d−t of the group's other members have a smaller index (hypergeometric).
    """
    n, device = group_top.shape[-1], group_top.device
    factorials = torch.lgamma(torch.arange(1, n + 1, dtype=torch.float64, device=device))  # ln k! at k < n
    top = group_top[..., None]
    size = (top == group_top[..., None, :]).sum(-1, keepdim=True)
    index = torch.arange(n, device=device)
    before = torch.arange(1, n + 1, device=device)[:, None] - top  # members that may come first: r = d − t
    log_pmf = (
        _log_binomial(factorials, index, before)
        + _log_binomial(factorials, n - 1 - index, size - 1 - before)
        - _log_binomial(factorials, torch.full_like(size, n - 1), size - 1)
    )
    cumulated = log_pmf.exp().cumsum(-2)
    padded = torch.cat([torch.zeros_like(cumulated[..., :1, :]), cumulated], -2)
    start = padded.gather(-2, (top - 1).expand_as(cumulated))
    return ((top - 1) + size * (cumulated - start)) / n


def _log_binomial(factorials: torch.Tensor, n: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """ln C(n, k) from a table of ln k!; −∞ where k < 0 or k > n."""
    rest = n - k
    impossible = (k < 0) | (rest < 0)
    return (factorials[n] - factorials[k.clamp(min=0)] - factorials[rest.clamp(min=0)]).masked_fill(
        impossible, -torch.inf
    )
