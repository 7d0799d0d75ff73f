"""A region that is erased: what its map foretold, what the network did, and both in words.

*Share* is the part of a map's sum that lies in the region. *Rank* is the share of all places in the image, to which the
region's shape can be moved as a whole, where it would hold less of the map (half of those where it would hold as much).
It needs no random numbers: every place is counted. A region that cannot be moved has no rank.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from heatproof.panels.explained_image import ClassProbability, ExplainedClass, Method
from heatproof.view.interface import Erased

#: A map foretells a large effect from this rank on, and a small one up to that.
MUCH, LITTLE = 0.9, 0.5
#: The network needs a region where the probability falls by this share of itself; it does not up to that.
NEEDED, SPARED = 0.2, 0.05


class Foretold(NamedTuple):
    """What a map says of a region, each in [0, 1]: `share` of the map, `rank` among all places; NaN where undefined."""

    share: float
    rank: float


class RegionLine(NamedTuple):
    """One method in the table of a region."""

    method: str
    foretold: Foretold
    verdict: str


class RegionAnswer(NamedTuple):
    """What is said of a region: `effect`, what the network did, and a line for each method. `area` in [0, 1]."""

    area: float
    effect: str
    prediction: str
    lines: tuple[RegionLine, ...]


def region_of(strokes: Sequence[Sequence[Sequence[float]]], radius: float, size: tuple[int, int]) -> np.ndarray:
    """Strokes of a round brush → bool `(H, W)`.

    Points are (across, down) in [0, 1], the radius is a share of the width.
    """
    height, width = size
    drawn = Image.new("1", (width, height))
    pen = ImageDraw.Draw(drawn)
    reach = max(0.5, min(max(radius, 0.0), 1.0) * width)
    for stroke in strokes:
        points = [(float(x) * width, float(y) * height) for x, y in stroke if math.isfinite(x) and math.isfinite(y)]
        for before, (x, y) in zip([None, *points], points, strict=False):
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=1)
            if before is not None:
                pen.line((*before, x, y), fill=1, width=max(1, round(2 * reach)))
    return np.asarray(drawn, bool)


def foretold(display: np.ndarray, region: np.ndarray) -> Foretold:
    """Share and rank of a region on a map `(H, W)` in [0, 1] of the region's size."""
    total = float(display.sum())
    if not region.any() or not total > 0:
        return Foretold(math.nan, math.nan)
    held = float(display[region].sum())
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    shape = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    places = _sums_of_places(display, shape)
    if places.size < 2:
        return Foretold(held / total, math.nan)
    near = 1e-6 * total
    others = places.size - 1
    below, equal = int((places < held - near).sum()), int((np.abs(places - held) <= near).sum()) - 1
    return Foretold(held / total, (below + max(equal, 0) / 2) / others)


def _sums_of_places(display: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The sum of the map under a shape at every place where it lies wholly inside: a correlation, by Fourier."""
    height, width = display.shape
    field = np.fft.rfft2(display.astype(np.float64))
    kernel = np.fft.rfft2(shape.astype(np.float64), s=(height, width))
    sums = np.fft.irfft2(field * kernel.conj(), s=(height, width))
    return sums[: height - shape.shape[0] + 1, : width - shape.shape[1] + 1]


def region_answer(
    region: np.ndarray, block: ExplainedClass, methods: Sequence[Method], erased: Erased | None
) -> RegionAnswer:
    """What the maps of a class foretold of a region, and what the network did (`erased`, None without one)."""
    fall = None if erased is None else _fall(erased)
    lines = []
    for method in methods:
        shown = block.maps.get(method.key)
        if shown is None or shown.flag:
            continue
        told = foretold(_sized(shown.display, region.shape), region)
        lines.append(RegionLine(method.name, told, verdict(told, fall)))
    return RegionAnswer(
        float(region.mean()),
        "" if erased is None else effect(erased),
        "" if erased is None else _now(erased),
        tuple(lines),
    )


def effect(erased: Erased) -> str:
    """`Without this region the probability of “cat” falls from 98 % to 41 %.`"""
    name, before, after = _name(erased.before), erased.before.percent, erased.after.percent
    what = f"the value of {name}" if erased.before.value is not None else f"the probability of “{name}”"
    if before == after:
        return f"Without this region {what} stays at {before}."
    falls = _number(erased.after) < _number(erased.before)
    return f"Without this region {what} {'falls' if falls else 'rises'} from {before} to {after}."


def verdict(told: Foretold, fall: float | None) -> str:
    """What map and network say together; empty without a network, or where one of them says neither."""
    if math.isnan(told.rank):
        return ""
    much, little = told.rank >= MUCH, told.rank <= LITTLE
    if fall is None:
        return "the map says: important" if much else "the map says: not important" if little else ""
    needed, spared = fall >= NEEDED, fall <= SPARED
    if much and needed:
        return "foretold: the map marks it, and the network needs it"
    if little and spared:
        return "foretold: the map does not mark it, and the network does without"
    if much and spared:
        return "not foretold: the map marks it, yet the network does without"
    if little and needed:
        return "not foretold: the network needs it, yet the map does not mark it"
    return "the map is undecided" if LITTLE < told.rank < MUCH else "the effect is in between"


def _now(erased: Erased) -> str:
    if erased.before.value is not None or erased.predicted.index == erased.before.index:
        return ""
    return f"The prediction is then {erased.predicted.full}."


def _fall(erased: Erased) -> float | None:
    before, after = _number(erased.before), _number(erased.after)
    if erased.before.value is not None or not math.isfinite(before) or before <= 0:
        return None
    return (before - after) / before


def _number(answer: ClassProbability) -> float:
    return answer.probability if answer.value is None else answer.value


def _name(answer: ClassProbability) -> str:
    return answer.name.split(",")[0].strip() or (
        f"class {answer.index}" if answer.value is None else f"output {answer.index}"
    )


def _sized(display: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if display.shape == shape:
        return display
    field = Image.fromarray(np.asarray(display, np.float32)).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(field)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of two maps of one shape; NaN where one is constant or the shapes differ."""
    if one.shape != other.shape or float(one.std()) == 0 or float(other.std()) == 0:
        return math.nan
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
