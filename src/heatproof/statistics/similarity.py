"""Six measures of how alike two maps are, over severities: where they agree, and paper N's case of RBO against L1.

N: as noise grew, L1 fell from .289 to .237, so that maps seemed more alike, while RBO fell from .779 to .502.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import STEP, largest, rounded
from heatproof.statistics.intervals import multiplicities, percentiles
from heatproof.statistics.paired import differences, holm, signed_ranks
from heatproof.statistics.weighted import medians_of, weights

#: The measures; of all but those in `DISTANCES` more is more alike.
MEASURES = ("rbo", "kappa", "l1", "ssim", "spearman", "cosine")
DISTANCES = ("l1",)
#: The measures in sentences and tables.
NAMES = {"rbo": "RBO", "kappa": "κ", "l1": "L1", "ssim": "SSIM", "spearman": "Spearman", "cosine": "cosine"}
CELL = ("model", "dataset", "layer", "segmenter", "method", "control", "perturbation")
#: Columns of the medians: one row per cell, severity and measure.
MEDIANS = (*CELL, "severity", "measure", "n", "median", "low", "high")
#: Columns of the steps from a severity to the next that was run. `case` is N's: the maps seem more alike by L1, which
#: falls, and less alike by RBO, which falls too.
STEPS = (
    *(*CELL, "severity", "next", "images", "l1", "l1_low", "l1_high", "rbo", "rbo_low", "rbo_high"),
    *("p", "p_holm", "case"),
)


#: How many sets of resamples are kept: cells of one study have few different numbers of images.
KEPT = 4


def medians(pairs: pd.DataFrame, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """Median of every measure in every cell and severity with its interval, bootstrapped by image; columns `MEDIANS`.

    All pairs with a value count, whether the prediction held or not.
    """
    return pd.DataFrame(median_rows(pairs, Draws(resamples, seed), level), columns=list(MEDIANS))


def median_rows(pairs: Any, draws: "Draws", level: float = 0.95) -> list[dict[str, Any]]:
    """The rows of `medians` of some of the pairs of a setting: of whole cells."""
    rows, sets = [], []
    groups: Any = pairs.sort_values("image", kind="stable").groupby([*CELL, "severity"], sort=True, observed=True)
    for key, cell in groups:
        about = dict(zip((*CELL, "severity"), key, strict=True))
        for measure in (name for name in MEASURES if name in cell):
            values = cell[measure].to_numpy(np.float64)
            sets.append(values[~np.isnan(values)])
            row = {"measure": measure, "n": len(sets[-1]), "median": np.nan, "low": np.nan, "high": np.nan}
            rows.append(about | row)
    datasets = [str(row["dataset"]) for row in rows]
    for row, values, found in zip(rows, sets, draws.medians(sets, datasets), strict=True):
        if len(values):
            low, high = percentiles(found, len(values), level)
            row |= {"median": float(np.median(values)), "low": low, "high": high}
    return rows


def steps(pairs: pd.DataFrame, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """The change of the medians of L1 and RBO from each severity to the next, paired by image; columns `STEPS`.

    Images that have both values at both severities count. Intervals are of the difference of the medians, bootstrapped
    by image. p is the larger of the one-sided p of “L1 falls” and “RBO falls” by Wilcoxon's test, as the case needs
    both; p_holm is corrected over all steps and real methods of a setting. `case`: p_holm below 1 − level, and both
    medians fall. Controls have no p.
    """
    return steps_of(step_rows(pairs, Draws(resamples, seed), level), level)


def step_rows(pairs: Any, draws: "Draws", level: float = 0.95) -> list[dict[str, Any]]:
    """The rows of `steps` of some of the pairs of a setting, of whole cells; without p_holm and `case`."""
    rows: list[dict[str, Any]] = []
    groups: Any = pairs.sort_values("image", kind="stable").groupby(list(CELL), sort=True, observed=True)
    for key, cell in groups:
        about = dict(zip(CELL, key, strict=True))
        rows += [{**about, **step} for step in _steps(cell, bool(about["control"]), draws, level)]
    return rows


def steps_of(rows: list[dict[str, Any]], level: float = 0.95) -> pd.DataFrame:
    """The table of `steps` from all its rows."""
    frame = pd.DataFrame(rows, columns=list(STEPS)).sort_values(list(CELL), kind="stable").reset_index(drop=True)
    for _, part in frame.groupby(list(CELL[:4]), sort=False):
        frame.loc[part.index, "p_holm"] = holm(list(part["p"].astype(np.float64)))
    falls = (rounded(frame[["l1", "rbo"]].to_numpy(np.float64)) < 0).all(1)
    return frame.assign(case=falls & (frame["p_holm"].to_numpy(np.float64) < 1 - level))


def _steps(cell: Any, control: bool, draws: "Draws", level: float) -> Iterator[dict[str, Any]]:
    severities = sorted(cell["severity"].unique())
    known = cell[cell["l1"].notna() & cell["rbo"].notna()]
    images = pd.factorize(known["image"])[0]
    level_of, numbers = known["severity"].to_numpy(), known[["l1", "rbo"]].to_numpy(np.float64)
    dataset = str(cell["dataset"].iloc[0])
    at = {s: level_of == s for s in severities}
    for one, two in pairwise(severities):
        both, first, second = np.intersect1d(images[at[one]], images[at[two]], True, True)
        row: dict[str, Any] = {"severity": one, "next": two, "images": len(both), "p": np.nan}
        tails = []
        if len(both):
            before, after = numbers[at[one]][first], numbers[at[two]][second]
            drawn = draws.medians([*before.T, *after.T], [dataset] * 4)
            for place, name in enumerate(("l1", "rbo")):
                low, high = percentiles(drawn[place + 2] - drawn[place], len(both), level)
                move = float(np.median(after[:, place]) - np.median(before[:, place]))
                row |= {name: move, f"{name}_low": low, f"{name}_high": high}
                tails.append(np.nan if control else _p_of_a_fall(before[:, place], after[:, place]))
        if tails and not control:
            row["p"] = max(tails)
        yield row


class Draws:
    """The resamples of a dataset's images, drawn once for each number of images."""

    def __init__(self, resamples: int, seed: int):
        self.resamples, self.seed = resamples, seed
        self._drawn: dict[tuple[str, int], np.ndarray] = {}

    def medians(self, sets: Sequence[np.ndarray], datasets: Sequence[str]) -> list[np.ndarray]:
        """The medians of several sets of values, one for each image; those of a size are in the same resamples."""
        found: list[np.ndarray] = [np.full(self.resamples, np.nan)] * len(sets)
        kinds = [(dataset, len(values)) for dataset, values in zip(datasets, sets, strict=True)]
        for dataset, images in dict.fromkeys(kinds):
            if not images:
                continue
            places = [place for place, kind in enumerate(kinds) if kind == (dataset, images)]
            drawn, rows = self._of(dataset, images), np.arange(images)
            medians = medians_of([(sets[place], rows) for place in places], drawn)
            for place, values in zip(places, medians, strict=True):
                found[place] = values
        return found

    def _of(self, dataset: str, images: int) -> np.ndarray:
        key = dataset, images
        if key not in self._drawn:
            drawn = multiplicities(images, self.resamples, self.seed, f"similarity {dataset}")
            self._drawn = {**dict(list(self._drawn.items())[-KEPT + 1 :]), key: weights(drawn, images)}
        return self._drawn[key]


def _p_of_a_fall(before: np.ndarray, after: np.ndarray) -> float:
    """One-sided p of Wilcoxon's signed-rank test against “it does not fall”, paired by image."""
    _, p, effect, _ = signed_ranks(differences(before, after))
    return p / 2 if effect > 0 else 1 - p / 2


def correlations(pairs: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of every two measures over the pairs of real methods that have all; square, by names.

    Distances are turned round, so that 1 means that two measures put all pairs in the same order. Spearman's
    correlation: Pearson's of the mid-ranks.
    """
    return correlations_of(lambda: [pairs])


def correlations_of(blocks: Callable[[], Iterable[pd.DataFrame]]) -> pd.DataFrame:
    """`correlations` of pairs in parts, which are gone through three times: for the scales, the ranks, the products.

    Values are rounded to one of a fixed number of steps before they are ranked, so the ranks follow from how often each
    step was seen, and no part need be kept.
    """
    names: list[str] = []
    most, steps = np.zeros(0), round(1 / STEP)
    for block in blocks():
        names, values = _complete(block)
        most = np.maximum(most if len(most) else 0, largest(values, 0) if len(values) else 0).reshape(-1)
    scale = np.where(most > 0, most, 1.0)
    seen = np.zeros((len(names), 2 * steps + 1), np.int64)
    for _, values in map(_complete, blocks()):
        for row, places in zip(seen, _places(values, scale, steps), strict=True):
            row += np.bincount(places, minlength=len(row))
    count = int(seen[:1].sum())
    if count < 2:
        return pd.DataFrame(np.nan, index=names, columns=names)
    ranks = seen.cumsum(1) - (seen - 1) / 2 - (count + 1) / 2  # mid-ranks, less their mean
    products = np.zeros((len(names), len(names)))
    for _, values in map(_complete, blocks()):
        centred = np.array([row[places] for row, places in zip(ranks, _places(values, scale, steps), strict=True)])
        products += centred @ centred.T
    size = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(products / np.outer(size, size), index=names, columns=names)


def _complete(pairs: Any) -> tuple[list[str], np.ndarray]:
    """The measures, and their values in the pairs of real methods that have all `(pairs, measures)`; more is alike."""
    names = [name for name in MEASURES if name in pairs]
    values = pairs.loc[~pairs["control"].astype(bool), names].to_numpy(np.float64)
    signs = np.array([-1.0 if name in DISTANCES else 1.0 for name in names])
    return names, values[~np.isnan(values).any(1)] * signs


def _places(values: np.ndarray, scale: np.ndarray, steps: int) -> np.ndarray:
    """Which step of `rounding.rounded` each value is, from 0 on, `(measures, pairs)`."""
    return (np.clip(values / scale, -1, 1) * steps).round().astype(np.int64).T + steps
