"""Fisher and Pitman's paired test of means: the signs of the differences are flipped at random."""

import numpy as np

from heatproof.rounding import ANSWER_STEP, rounded
from heatproof.seeds import derived_seed

#: How many draws of signs, where all of them would be more.
FLIPS = 9999


def mean_p(moves: np.ndarray, flips: int = FLIPS, seed: int = 0) -> float:
    """Two-sided p of differences `(n,)` having mean 0, if each could as well have the other sign.

    p is the share of sign patterns whose sum is at least as far from 0: of all `2ⁿ` where that is at most `flips + 1`,
    else of `flips` drawn ones and the observed one. It looks at sizes, not at ranks, so a few large differences among
    many zeros count. Equal differences (`paired.differences` rounds them) leave p at 1; no difference at all: NaN.
    """
    moves = np.asarray(moves, np.float64)
    if not len(moves):
        return np.nan
    if not moves.any():
        return 1.0
    moved = moves[moves != 0]
    observed, scale = abs(moved.sum()), float(np.abs(moved).sum())
    every = 2.0 ** len(moved) <= flips + 1
    sums = _all_sums(moved) if every else _drawn_sums(moved, flips, seed)
    far = rounded(np.abs(sums) - observed, scale, ANSWER_STEP) >= 0
    return float(far.mean()) if every else float((1 + far.sum()) / (flips + 1))


def _all_sums(moves: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for move in moves:
        sums = np.concatenate([sums + move, sums - move])
    return sums


def _drawn_sums(moves: np.ndarray, flips: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(derived_seed(seed, "", "sign flips"))
    found = np.empty(flips)
    step = max(1, 2_000_000 // len(moves))
    for start in range(0, flips, step):
        count = min(step, flips - start)
        bits = generator.integers(0, 256, (count, -(-len(moves) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1)[:, : len(moves)]
        found[start : start + count] = 2.0 * (signs @ moves) - moves.sum()
    return found
