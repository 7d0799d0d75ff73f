"""The pooled cells of a noise study: means over conditions, their intervals, and which differences are significant.

All by bootstrap by image, where every method is drawn with the same images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from heatproof.rounding import rounded
from heatproof.statistics.intervals import Interval, Replicates, percentiles, widening


@dataclass(frozen=True)
class PooledCells:
    """The pooled cells: a condition is a cell without its method; values are means over the conditions."""

    real: tuple[str, ...]
    controls: tuple[str, ...]
    cells: Mapping[tuple, Mapping[str, Replicates]]
    level: float
    seed: int
    conditions: tuple[tuple, ...] = field(default=())

    def mean(self, method: str, quantity: str, conditions: Sequence[tuple]) -> tuple[float, np.ndarray]:
        """Point value and resamples `(resamples,)` of a method's mean over conditions."""
        found = [self.cells[c][method] for c in conditions]
        point = float(np.mean([getattr(one.point, quantity) for one in found]))
        return point, np.mean([one.values[quantity] for one in found], axis=0)

    def has(self, method: str, condition: tuple, quantity: str) -> bool:
        """Whether the method has a value there."""
        found = self.cells[condition].get(method)
        return found is not None and not np.isnan(getattr(found.point, quantity))

    def where_all_have(self, quantity: str) -> "PooledCells":
        """The same over the cells in which every real method has the quantity."""
        found = [c for c in self.cells if self.real and all(self.has(m, c, quantity) for m in self.real)]
        return replace(self, conditions=tuple(sorted(found)))

    def without_the_unmeasured(self, quantity: str) -> "PooledCells":
        """The same without the real methods that have the quantity nowhere, so that they exclude no cell."""
        return replace(self, real=tuple(m for m in self.real if any(self.has(m, c, quantity) for c in self.cells)))

    def best(self, quantity: str) -> str | None:
        """The real method with the highest mean over the conditions, of equal ones the first by name."""
        found = {m: self.interval(m, quantity).value for m in self.real}
        return next(iter(highest_first([m for m in found if not np.isnan(found[m])], found)), None)

    def fooled_by(self, quantity: str) -> tuple[str, ...]:
        """The controls that are not significantly worse than the best real method; a missing value fools nothing."""
        best = self.best(quantity)
        present = [c for c in self.controls if not np.isnan(self.interval(c, quantity).value)] if best else []
        worse = self.worse(present, best, quantity) if best else set()
        return tuple(control for control in present if control not in worse)

    def worse(self, methods: Sequence[str], best: str, quantity: str, level: float | None = None) -> set[str]:
        """Which of `methods` are significantly worse than `best`, paired by image, at `level` for all together."""
        return {worse for _, worse in self.separated([(best, method) for method in methods], quantity, level)}

    def apart(self, quantity: str) -> frozenset[frozenset[str]]:
        """The pairs of real methods that differ significantly, at `level` for all pairs together."""
        pairs = list(combinations(self.real, 2))
        found = self.separated([*pairs, *((b, a) for a, b in pairs)], quantity)
        return frozenset(map(frozenset, found))

    def separated(
        self, pairs: Sequence[tuple[str, str]], quantity: str, level: float | None = None
    ) -> list[tuple[str, str]]:
        """Those of `pairs` whose first is significantly higher than the second, paired by image.

        Simultaneous bounds (max-T): a difference counts where it exceeds its standard error by more than the largest
        studentised deviation of any of the differences does in `level` of the resamples, times the `widening` that
        intervals have.
        """
        points, values, known, images = [], [], [], []
        for one, other in pairs:
            shared = [c for c in self.conditions if self.has(one, c, quantity) and self.has(other, c, quantity)]
            if shared:
                first, second = self.mean(one, quantity, shared), self.mean(other, quantity, shared)
                points.append(first[0] - second[0])
                values.append(first[1] - second[1])
                known.append((one, other))
                images += [self.cells[c][one].images for c in shared]
        if not known or min(images) < 2:  # one image has no spread
            return []
        point, drawn = rounded(np.array(points)), rounded(np.array(values))
        drawn = drawn[:, ~np.isnan(drawn).any(0)]
        error = drawn.std(1) if drawn.shape[1] else np.full(len(known), np.inf)
        scale = np.where(rounded(error) > 0, error, np.inf)  # equal methods: no difference, no error
        deviation = np.abs((drawn - point[:, None]) / scale[:, None]).max(0)
        level = level or self.level
        reach = np.quantile(deviation, level) * widening(min(images), level) if len(drawn.T) else 0
        return [pair for pair, bound in zip(known, point - reach * error, strict=True) if rounded(bound) > 0]

    def interval(self, method: str, quantity: str) -> Interval:
        """The method's mean over those of `conditions` in which it has a value."""
        where = [c for c in self.conditions if self.has(method, c, quantity)]
        if not where:
            return Interval(np.nan, np.nan, np.nan, 0, self.level, self.seed)
        value, values = self.mean(method, quantity, where)
        pairs = sum(self.cells[c][method].point.n for c in where)
        images = min(self.cells[c][method].images for c in where)
        return Interval(value, *percentiles(values, images, self.level), pairs, self.level, self.seed)


def highest_first(methods: Sequence[str], values: Mapping[str, float]) -> list[str]:
    """Methods by their values, equal ones by name, those without a value last."""
    return sorted(methods, key=lambda m: (-np.nan_to_num(rounded(np.float64(values[m])), nan=-np.inf), m))
