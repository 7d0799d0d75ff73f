"""What a defect is, what its two arms are, and how their difference is summed up."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from heatproof.statistics.intervals import multiplicities, percentiles, resampled_means

RESAMPLES = 2000


@dataclass(frozen=True)
class Arms:
    """One quantity without and with a defect, one value for each image.

    off, on: `(N,)`; NaN counts as absent. paired: an image that lacks a value in one arm is left out of both; where the
    defect is that values go missing, each mean is over the images that it has.
    """

    quantity: str
    off: Any
    on: Any
    _: KW_ONLY
    paired: bool = True
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """Means of both arms, their difference with its 95 % interval, and how many images each mean has."""

    off: float
    on: float
    difference: float
    low: float
    high: float
    n_off: int
    n_on: int


@dataclass(frozen=True)
class Defect:
    """A defect: where it is, what it is, and a function of a `Lab` that gives its arms.

    why_not: why it cannot be switched on here; it then has no arms.
    """

    name: str
    where: str
    what: str
    arms: Callable[[Any], Iterator[Arms]] | None = None
    why_not: str = ""


DEFECTS: dict[str, Defect] = {}


def defect(name: str, where: str, what: str) -> Callable[[Callable[[Any], Iterator[Arms]]], Callable]:
    """Files a function of a `Lab` under the name of its defect."""

    def filed(function: Callable[[Any], Iterator[Arms]]) -> Callable[[Any], Iterator[Arms]]:
        _file(Defect(name, where, what, function))
        return function

    return filed


def gap(name: str, where: str, what: str, why_not: str) -> None:
    """Files a defect that cannot be switched on honestly."""
    _file(Defect(name, where, what, None, why_not))


def _file(one: Defect) -> None:
    if one.name in DEFECTS:
        raise ValueError(f"A defect has one name. Got {one.name!r} twice.")
    DEFECTS[one.name] = one


def summary(arms: Arms, seed: int = 0, resamples: int = RESAMPLES) -> Summary:
    """The means, and the interval of their difference from resamples of whole images.

    Both arms see the same resamples, so the difference is paired by image.
    """
    # Rounded, so that the rounding of another processor is no difference.
    off, on = (np.round(np.asarray(values, dtype=np.float64), 6) for values in (arms.off, arms.on))
    if off.shape != on.shape or off.ndim != 1:
        raise ValueError(f"Arms must have one value for each image. Got {off.shape} and {on.shape}.")
    if arms.paired:
        known = ~np.isnan(off) & ~np.isnan(on)
        off, on = np.where(known, off, np.nan), np.where(known, on, np.nan)
    n_off, n_on = int((~np.isnan(off)).sum()), int((~np.isnan(on)).sum())
    if not n_off or not n_on:
        return Summary(_mean(off), _mean(on), np.nan, np.nan, np.nan, n_off, n_on)
    drawn = multiplicities(len(off), resamples, seed, "defects")
    moved = resampled_means(on, drawn) - resampled_means(off, drawn)
    low, high = percentiles(moved, min(n_off, n_on))
    return Summary(_mean(off), _mean(on), _mean(on) - _mean(off), low, high, n_off, n_on)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
