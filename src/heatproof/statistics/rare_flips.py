"""How sure responsiveness and RM are when few predictions change: subsampled pairs of a study (protocols §5).

A study with many changed predictions can say what it would have found with few. In a condition (one perturbation at one
severity, so that an image is one pair) k of the changed pairs and n − k of the others are drawn, both with replacement
and the same for all methods, many times. The spread of a figure over these replays is its sampling error at k changed
predictions among n images.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import rounded
from heatproof.seeds import derived_seed
from heatproof.statistics.robustness import COMPUTED, RELIABLE
from heatproof.statistics.weighted import medians_of, weighted_aucs, weights

#: The numbers of changed predictions that are tried.
STEPS = (3, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000)
#: How many of these numbers are tried at a time.
TOGETHER = 4
#: The replays of a condition at a number of changed predictions.
REPLAYS = 400
#: An interval that is wider tells hardly more than that a figure is above chance.
WIDE = 0.2
SETTING = ("model", "dataset", "layer", "segmenter")
#: Columns of the table. A row with an empty method is the mean over the real methods. `told_apart`: the share of pairs
#: of real methods whose responsiveness differs in 95 % of the replays (only there).
COLUMNS = (
    *(*SETTING, "method", "control", "changed", "images", "flip_rate", "conditions"),
    *("responsiveness", "responsiveness_width", "rm_width", "told_apart", "status"),
)


def rare_flips(pairs: pd.DataFrame, seed: int = 0, replays: int = REPLAYS, level: float = 0.95) -> pd.DataFrame:
    """The widths of the intervals at few changed predictions, columns `COLUMNS`.

    pairs: as of `robustness_tables`. Conditions count in which, among the images for which every real method has an
    RBO, ten predictions changed and twenty held; k goes up to the number that changed. Widths are those of the central
    `level` of the replays, averaged over the conditions. status: "not computed" below ten, "unreliable" below twenty
    changed predictions, as in the tables of a study. Empty where no condition counts.
    """
    groups: Any = pairs.groupby(list(SETTING), sort=True, observed=True)
    parts = [table_of(key, replay_rows(part, key, seed, replays, level)) for key, part in groups]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def replay_rows(
    pairs: Any, setting: Sequence[str], seed: int = 0, replays: int = REPLAYS, level: float = 0.95
) -> list[dict[str, Any]]:
    """The widths of each condition, method and number of changed predictions, of some conditions of a setting."""
    return [line for cell in _conditions(pairs) for line in _replayed(cell, setting, seed, replays, level)]


def table_of(setting: Sequence[str], found: list[dict[str, Any]]) -> pd.DataFrame:
    """The table of one setting from all its `replay_rows`: means over the conditions."""
    rows = []
    for (changed, control, method), lines in _groups(pd.DataFrame(found)):
        means = lines[["images", "flip_rate", "responsiveness", "responsiveness_width", "rm_width"]].mean()
        apart = lines["told_apart"].mean()
        rows.append({**dict(zip(SETTING, setting, strict=True)), "method": method, "control": control,
                     "changed": changed, **means, "told_apart": apart, "conditions": len(lines),
                     "status": status(changed)})  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def status(changed: int) -> str:
    """What a study does with so many changed predictions: "not computed", "unreliable", or nothing to remark."""
    return "not computed" if changed < COMPUTED else "unreliable" if changed < RELIABLE else ""


def enough(table: pd.DataFrame, width: float = WIDE) -> int | None:
    """The smallest number of changed predictions from which the mean interval is no wider; None where all are wider.

    table: the rows of one setting of `rare_flips`.
    """
    means: Any = table[table["method"] == ""]
    found = means.sort_values("changed")
    wide = rounded(found["responsiveness_width"].to_numpy(np.float64)) > width
    after = int(np.flatnonzero(wide)[-1]) + 1 if wide.any() else 0
    return int(found["changed"].iloc[after]) if after < len(found) else None


def _groups(frame: Any) -> Iterator[tuple[tuple[int, bool, str], Any]]:
    if len(frame):
        yield from frame.groupby(["changed", "control", "method"], sort=True)


class _Condition:
    """RBO of all methods `(images, methods)` in one condition, and which predictions changed."""

    def __init__(self, name: str, rbo: Any, changed: np.ndarray, controls: Sequence[bool]):
        self.name, self.methods, self.controls = name, list(map(str, rbo.columns)), list(controls)
        self.rbo, self.changed = rbo.to_numpy(np.float64), changed


def _conditions(pairs: Any) -> Iterator[_Condition]:
    """The conditions with enough predictions of both kinds."""
    known = pairs[pairs["rbo"].notna() & pairs["changed"].notna()]
    control = known.groupby("method", observed=True)["control"].first()
    for (kind, severity), cell in known.groupby(["perturbation", "severity"], sort=True, observed=True):
        wide = cell.pivot(index="image", columns="method", values="rbo").sort_index().sort_index(axis=1)
        real = [name for name in wide.columns if not control[name]]
        wide = wide.dropna(subset=real).dropna(axis=1)
        by_image = cell.drop_duplicates("image").set_index("image")["changed"]
        changed = by_image.reindex(wide.index).to_numpy(bool)
        if real and changed.sum() >= COMPUTED and (~changed).sum() >= RELIABLE:
            yield _Condition(f"{kind} {severity}", wide, changed, [bool(control[name]) for name in wide.columns])


def _replayed(cell: _Condition, key: Any, seed: int, replays: int, level: float) -> Iterator[dict[str, Any]]:
    """The widths of one condition, for every number of changed predictions, by method and on the mean."""
    n, tails = len(cell.changed), [0.5 - level / 2, 0.5 + level / 2]
    numbers = [k for k in STEPS if k <= min(cell.changed.sum(), n - 1)]
    real = ~np.array(cell.controls)
    for some in (numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER)):
        drawn = [drawn_pairs(cell.changed, k, replays, derived_seed(seed, f"{key[1]} {cell.name}", f"rare flips {k}"))
                 for k in some]  # fmt: skip
        every = _figures(cell, weights(np.concatenate(drawn, axis=1), n))
        for at, k in enumerate(some):
            areas, products = (values[:, at * replays : (at + 1) * replays] for values in every)
            widths = [np.diff(np.quantile(values, tails, axis=1), axis=0)[0] for values in (areas, products)]
            about = {"changed": k, "images": n, "flip_rate": k / n}
            for i, method in enumerate(cell.methods):
                yield {**about, "method": method, "control": cell.controls[i], "responsiveness": areas[i].mean(),
                       "responsiveness_width": widths[0][i], "rm_width": widths[1][i],
                       "told_apart": np.nan}  # fmt: skip
            yield {**about, "method": "", "control": False, "responsiveness": areas[real].mean(),
                   "responsiveness_width": widths[0][real].mean(), "rm_width": widths[1][real].mean(),
                   "told_apart": _told_apart(areas[real], tails)}  # fmt: skip


def drawn_pairs(changed: np.ndarray, k: int, replays: int, seed: int) -> np.ndarray:
    """How often each pair is drawn, `(pairs, replays)`: k changed ones and as many others as make up the number."""
    generator = np.random.default_rng(seed)
    drawn = np.zeros((len(changed), replays), np.float32)
    for kind, number in ((changed, k), (~changed, len(changed) - k)):
        some = int(kind.sum())
        # one by one: NumPy's multinomial of many equal shares takes ten times as long
        which = generator.integers(0, some, (replays, number)) + some * np.arange(replays)[:, None]
        drawn[kind] = np.bincount(which.ravel(), minlength=replays * some).reshape(replays, some).T
    return drawn


def _figures(cell: _Condition, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responsiveness and RM of each method in each replay, `(methods, replays)`."""
    rows, held = np.arange(len(cell.changed)), ~cell.changed
    areas = np.array([weighted_aucs(-rbo, cell.changed, drawn, rows) for rbo in cell.rbo.T])
    still = medians_of([(rbo[held], rows[held]) for rbo in cell.rbo.T], drawn)
    return areas, still * areas


def _told_apart(areas: np.ndarray, tails: Sequence[float]) -> float:
    """The share of pairs of methods whose difference has one sign in the central part of the replays."""
    pairs = np.array(list(combinations(range(len(areas)), 2)))
    if not len(pairs):
        return np.nan
    low, high = np.quantile(rounded(areas[pairs[:, 0]] - areas[pairs[:, 1]]), tails, axis=1)
    return float(np.mean((low > 0) | (high < 0)))
