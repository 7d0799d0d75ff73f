"""Methods whose maps are equal, from pairs that come in parts: `equal_maps.equal_pairs` without holding all of them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import ANSWER_STEP, rounded
from heatproof.statistics.equal_maps import COMPANIONS, DIFFERENT, EqualMaps


def equal_blocks(blocks: Callable[[], Iterable[Any]], images: int, order: Sequence[str] = ()) -> EqualMaps:
    """The methods whose values are equal in all pairs, as by `equal_maps.equal_pairs`.

    Args:
        blocks: the pairs in parts, gone through twice; all methods of an image and condition are in one part.
        images: the number of images with a value.
        order: the methods in the order in which they may stand for others.
    """
    sizes: dict[str, float] = {}
    control: dict[str, bool] = {}
    for block in blocks():
        control |= dict(block[["method", "control"]].drop_duplicates().itertuples(index=False, name=None))
        for name in (name for name in COMPANIONS if name in block):
            found = np.abs(block[name].to_numpy(np.float64))
            sizes[name] = max(sizes.get(name, 0.0), float(np.nanmax(found)) if (~np.isnan(found)).any() else 0.0)
    position = {name: number for number, name in enumerate(order)}
    names = sorted(control, key=lambda name: (position.get(name, len(position)), name))
    differ = {(one, other) for one, other in combinations(names, 2) if control[one] != control[other]}
    kinds: dict[tuple[str, str], np.ndarray] = {}
    for block in blocks():
        for metric, size in sizes.items():
            table = _table(block, metric, names) / (size if size > 0 else 1.0)
            for number, name in enumerate(names):
                _remember(kinds, (metric, name), table[number])
            for (i, one), (j, other) in combinations(enumerate(names), 2):
                if (one, other) not in differ and not _same(table[i], table[j]):
                    differ.add((one, other))
    shown = {name for (_, name), seen in kinds.items() if len(seen) >= DIFFERENT}
    groups: list[list[str]] = []
    for name in names:
        same = [group for group in groups if (group[0], name) not in differ and group[0] in shown]
        same[0].append(name) if same else groups.append([name])
    equal = tuple(tuple(group) for group in groups if len(group) > 1)
    return EqualMaps(equal, images, frozenset(name for name in names if control[name]))


def _table(block: Any, metric: str, names: Sequence[str]) -> np.ndarray:
    """The values of one metric, methods × (condition, image); NaN where there is none."""
    number = {name: place for place, name in enumerate(names)}
    rows = block["method"].map(number).astype(np.int64).to_numpy()
    keys = [
        name
        for name in ("model", "dataset", "layer", "segmenter", "perturbation", "severity", "image")
        if name in block
    ]
    columns = block.groupby(keys, sort=False, observed=True).ngroup().to_numpy()
    table = np.full((len(names), int(columns.max()) + 1 if len(columns) else 0), np.nan)
    table[rows, columns] = block[metric].to_numpy(np.float64)
    return table


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two methods agree, in what is missing too."""
    known = ~np.isnan(one)
    if not np.array_equal(known, ~np.isnan(other)):
        return False
    return not np.any(rounded(one[known] - other[known], None, ANSWER_STEP))


def _remember(kinds: dict[tuple[str, str], np.ndarray], key: tuple[str, str], values: np.ndarray) -> None:
    """Counts different numbers up to `DIFFERENT`."""
    seen = kinds.get(key, np.zeros(0))
    if len(seen) < DIFFERENT:
        more = pd.unique(rounded(values[~np.isnan(values)], None, ANSWER_STEP))
        kinds[key] = np.union1d(seen, more[: 2 * DIFFERENT])
