"""Finds the severity at which a given share of the predictions flips, on this model and these images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heatproof.errors import InvalidInput
from heatproof.perturbations.ladder import HIGHEST, PERTURBATIONS, strength_at

#: The default target flip rates (protocols, section 3).
TARGETS = (0.05, 0.15, 0.30, 0.50)


@dataclass(frozen=True)
class Calibrated:
    """The severity found for one target.

    `level` is the severity above 0 nearest in flip rate, `strength` its main parameter in the kind's unit,
    `flip_rate` the share of predictions that flip there. `reached` is false where that is further from the
    target than the tolerance (out of reach below the highest level, or jumped over), and where nothing flips.
    """

    kind: str
    target: float
    level: float
    strength: float
    flip_rate: float
    reached: bool


def calibrate(
    kind: str,
    flip_rate_of: Callable[[float], float],
    targets: Sequence[float] = TARGETS,
    *,
    tolerance: float = 0.02,
    highest: float = HIGHEST,
    resolution: float = 1 / 64,
) -> list[Calibrated]:
    """One `Calibrated` for each target, in the order given.

    `flip_rate_of(level)` is the share of predictions that flip at a continuous severity (0–10, to be applied
    with `extrapolate=True`); each level is evaluated once. The level is doubled from 1 until the target is
    passed, then the bracket is halved until a rate lies within `tolerance` of the target or the bracket is
    narrower than `resolution` times its upper end. Rates are multiples of 1/n and need not grow with the level, so the
    bracket is always the lowest level seen at or above the target with the next one seen below it, and the
    result is the nearest of all rates seen, the lower level among equals. With n images no tolerance below
    1/(2n) can be promised.

    Raises InvalidInput for targets outside (0, 1), a rate outside [0, 1], or settings out of range;
    UnknownName for a kind that does not exist.
    """
    name = PERTURBATIONS.parse(kind)[0].name
    _check(targets, tolerance, highest, resolution)
    seen = _FlipRates(flip_rate_of)
    for target in sorted(targets):
        _search(seen, target, tolerance, highest, resolution)
    return [_answer(name, kind, seen, target, tolerance) for target in targets]


class _FlipRates(dict[float, float]):
    """Level → flip rate, evaluated once; at level 0 nothing flips."""

    def __init__(self, flip_rate_of: Callable[[float], float]):
        super().__init__({0.0: 0.0})
        self._flip_rate_of = flip_rate_of

    def ask(self, level: float) -> None:
        """Works the rate out and remembers it."""
        rate = float(self._flip_rate_of(level))
        if not 0 <= rate <= 1:
            raise InvalidInput(f"`flip_rate_of` must return a share in [0, 1]. Got {rate} at severity {level:g}.")
        self[level] = rate

    def miss(self, level: float, target: float) -> float:
        """The distance of the rate there from the target, rounded because 3/20 is not exact in binary."""
        return round(abs(self[level] - target), 9)

    def meets(self, level: float, target: float, tolerance: float) -> bool:
        """Whether the rate there is within the tolerance of the target; a rate of 0 never is."""
        return self[level] > 0 and self.miss(level, target) <= tolerance

    def bracket(self, target: float) -> tuple[float, float | None]:
        """The lowest level at or above the target (None: not seen yet) and the next one seen below it."""
        upper = min((level for level, rate in self.items() if rate >= target), default=None)
        lower = max(level for level in self if upper is None or level < upper)
        return lower, upper


def _search(seen: _FlipRates, target: float, tolerance: float, highest: float, resolution: float) -> None:
    """Evaluates levels until the target is met, or its bracket is narrow enough."""
    lower, upper = seen.bracket(target)
    while upper is None and lower < highest:
        seen.ask(min(highest, max(1.0, 2 * lower)))
        lower, upper = seen.bracket(target)
    while upper is not None and upper - lower > resolution * max(upper, 0.01):
        if any(seen.meets(level, target, tolerance) for level in seen):
            return
        seen.ask((lower + upper) / 2)
        lower, upper = seen.bracket(target)


def _answer(name: str, kind: str, seen: _FlipRates, target: float, tolerance: float) -> Calibrated:
    def rank(level: float) -> tuple[bool, float, float]:
        return not seen.meets(level, target, tolerance), seen.miss(level, target), level

    level = min((level for level in seen if level > 0), key=rank)
    strength = strength_at(kind, level, extrapolate=True)
    return Calibrated(name, target, level, strength, seen[level], seen.meets(level, target, tolerance))


def _check(targets: Sequence[float], tolerance: float, highest: float, resolution: float) -> None:
    if not targets or not all(0 < target < 1 for target in targets):
        raise InvalidInput(f"`targets` must be flip rates between 0 and 1. Got {tuple(targets)}.")
    if not 0 <= tolerance < 1:
        raise InvalidInput(f"`tolerance` must be in [0, 1). Got {tolerance}.")
    if not 0 < highest <= HIGHEST:
        raise InvalidInput(f"`highest` must be above 0 and at most {HIGHEST:g}. Got {highest}.")
    if not (0 < resolution < 1 and math.isfinite(resolution)):
        raise InvalidInput(f"`resolution` must be between 0 and 1. Got {resolution}.")
