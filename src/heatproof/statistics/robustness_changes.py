"""How the figures of the same methods differ between two settings: two ways of cutting the image, or two networks.

Both settings have the same images, so differences are paired: one bootstrap by image gives both figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heatproof import spelling
from heatproof.rounding import rounded
from heatproof.statistics.agreement import kendall_w
from heatproof.statistics.intervals import Replicates, bootstrap_p, multiplicities, percentiles
from heatproof.statistics.paired import LEAST_IMAGES, LEAST_METHODS, holm
from heatproof.statistics.robustness_tables import Cell
from heatproof.statistics.special_rows import HALVED

#: The figures that are compared, in the order of tables.
FIGURES = ("rm", "rm0", "consistency", "responsiveness", "kappa")
#: Columns of a frame of changes. `change` is `after − before`. w: Kendall's W of the two orders of the real methods,
#: NaN with fewer than three.
CHANGES = (
    *("quantity", "method", "control", "perturbations", "images", "before", "after"),
    *("change", "low", "high", "p", "p_holm", "differs", "w"),
)
LEVEL = 0.95


class Moved(NamedTuple):
    """Two segmenters that cut alike, but for the borders: `moved` has them elsewhere than `whole`."""

    whole: str
    moved: str


def moved_borders(segmenters: Sequence[str]) -> list[Moved]:
    """The pairs of segmenters of which one is the other with its borders moved: `grid[shift=…]` and `HALVED`."""
    found = []
    for name in filter(None, segmenters):  # a study without segments has an empty name
        parts = spelling.parse(name)
        rest = {key: value for key, value in parts.options.items() if key != "shift"}
        halved = parts.name in HALVED
        whole = str(parts.options.get("of", "quickshift")) if halved else spelling.format("grid", rest)
        if whole in segmenters and (halved or (parts.name == "grid" and "shift" in parts.options)):
            found.append(Moved(whole, name))
    return found


def in_both(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the pairs of two settings those that have an RBO and a known prediction in both, so that changes are paired.

    first, second: columns method, perturbation, severity, image, changed and rbo, one row for each of the first four.
    """
    key = ["method", "perturbation", "severity", "image"]
    frames: list[Any] = [first, second]
    known = [frame[frame["rbo"].notna() & frame["changed"].notna()] for frame in frames]
    shared = known[0][key].merge(known[1][key])
    kept = [frame[pd.MultiIndex.from_frame(frame[key]).isin(pd.MultiIndex.from_frame(shared))] for frame in known]
    return kept[0], kept[1]


def changes(before: Mapping[Cell, Replicates], after: Mapping[Cell, Replicates], level: float = LEVEL) -> pd.DataFrame:
    """The change of every figure of every method from one setting to another, columns `CHANGES`.

    before, after: the pooled cells of one setting each (`robustness_tables.pooled`, whose resamples of a dataset are
    the same for all settings). A figure is the mean over the perturbations in which both settings have it. The
    intervals and p are of the paired difference, bootstrapped by image; p_holm is corrected over the real methods of a
    quantity, controls are left out of that. `differs`: p_holm below 1 − level. All are NaN where no perturbation has
    the figure in both settings, as with fewer than ten changed predictions; with fewer than `LEAST_IMAGES` images the
    interval and p are.
    """
    cells = [{(cell.method, cell.perturbation): one for cell, one in found.items()} for found in (before, after)]
    methods = sorted({(cell.control, cell.method) for cell in (*before, *after)})
    frames = []
    for quantity in FIGURES:
        rows = [{"quantity": quantity, "method": method, "control": control,
                 **_change(cells, method, quantity, level)} for control, method in methods]  # fmt: skip
        frame = pd.DataFrame(rows, columns=list(CHANGES))
        real = ~frame["control"].astype(bool).to_numpy()
        together = np.full(len(frame), np.nan)
        together[real] = holm(list(frame["p"].to_numpy(np.float64)[real]))
        order = frame.loc[real, ["before", "after"]].to_numpy(np.float64).T
        w = kendall_w(order, LEAST_METHODS).w
        frames.append(frame.assign(p_holm=together, differs=together < 1 - level, w=w))
    return pd.concat(frames, ignore_index=True)


def _change(cells: Sequence[Mapping[tuple[str, str], Replicates]], method: str, quantity: str, level: float) -> dict:
    """The figures of one method, and their difference."""
    kinds = [
        kind
        for name, kind in sorted(cells[0])
        if name == method and not any(np.isnan(_value(one.get((method, kind)), quantity)) for one in cells)
    ]
    if not kinds:
        return {"perturbations": 0, "images": 0}
    points = [float(np.mean([_value(one[method, kind], quantity) for kind in kinds])) for one in cells]
    values = [np.mean([one[method, kind].values[quantity] for kind in kinds], axis=0) for one in cells]
    images = min(one[method, kind].images for one in cells for kind in kinds)
    moves = values[1] - values[0]
    enough = images >= LEAST_IMAGES
    low, high = percentiles(moves, images, level) if enough else (np.nan, np.nan)
    p = bootstrap_p(moves, images) if enough else np.nan
    gap = {"change": points[1] - points[0], "low": low, "high": high, "p": p}
    return {"perturbations": len(kinds), "images": images, "before": points[0], "after": points[1], **gap}


def _value(one: Replicates | None, quantity: str) -> float:
    return np.nan if one is None else getattr(one.point, quantity)


def largest_change(found: pd.DataFrame, quantity: str) -> Any | None:
    """The row of the real method whose figure changes most, either way; None where there is none."""
    rows: Any = found[(found["quantity"] == quantity) & ~found["control"].astype(bool) & found["change"].notna()]
    if rows.empty:
        return None
    return rows.loc[rows.assign(size=rounded(rows["change"].abs())).sort_values("size", kind="stable").index[-1]]


def counts(found: pd.DataFrame, quantity: str) -> tuple[int, int, int]:
    """Of the real methods that have the figure: how many, and for how many it is significantly lower, and higher."""
    rows: Any = found[(found["quantity"] == quantity) & ~found["control"].astype(bool) & found["change"].notna()]
    lower, higher = (
        int((rows["differs"].astype(bool) & way).sum()) for way in (rows["change"] < 0, rows["change"] > 0)
    )
    return len(rows), lower, higher


def can_differ(found: pd.DataFrame, quantity: str, resamples: int, level: float = LEVEL) -> bool:
    """Whether so many resamples allow a p small enough for Holm's correction over the real methods."""
    rows: Any = found[(found["quantity"] == quantity) & ~found["control"].astype(bool) & found["change"].notna()]
    if rows.empty or rows["images"].min() < LEAST_IMAGES:
        return False
    smallest = bootstrap_p(np.ones(resamples), int(rows["images"].min()))
    return bool(len(rows) * smallest < 1 - level)


def flip_rates(
    first: pd.DataFrame, second: pd.DataFrame, dataset: str, resamples: int, seed: int, level: float = LEVEL
) -> dict[str, float]:
    """The share of changed predictions of two networks on the same images, and its paired difference with an interval.

    first, second: columns image, perturbation, severity, changed. Only conditions of an image that both have count.
    Keys: before, after, change, low, high, p, images, conditions.
    """
    key = ["image", "perturbation", "severity"]
    both: Any = first.merge(second, on=key, suffixes=("_before", "_after")).dropna()
    if both.empty:
        return dict.fromkeys(("before", "after", "change", "low", "high", "p"), np.nan) | {"images": 0, "conditions": 0}
    sums: Any = both.assign(n=1.0).groupby("image", sort=True)[["changed_before", "changed_after", "n"]].sum()
    before, after, n = (sums[name].to_numpy(np.float64) for name in ("changed_before", "changed_after", "n"))
    drawn = multiplicities(len(sums), resamples, seed, dataset)
    moves = (after - before) @ drawn / (n @ drawn)
    low, high = percentiles(moves, len(sums), level)
    rates = {"before": before.sum() / n.sum(), "after": after.sum() / n.sum()}
    change = rates["after"] - rates["before"]
    more = {"p": bootstrap_p(moves, len(sums)), "images": len(sums), "conditions": len(both[key[1:]].drop_duplicates())}
    return {**rates, "change": change, "low": low, "high": high, **more}
