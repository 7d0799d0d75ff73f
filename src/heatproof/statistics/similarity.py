"""Six measures of how alike two maps are, over severities: where they agree, and paper N's case of RBO against L1.

N: as noise grew, L1 fell from .289 to .237, so that maps seemed more alike, while RBO fell from .779 to .502.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from heatproof.rounding import largest, rounded
from heatproof.statistics.intervals import multiplicities, percentiles, weighted_medians
from heatproof.statistics.paired import differences, holm, signed_ranks

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


def medians(pairs: pd.DataFrame, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """Median of every measure in every cell and severity with its interval, bootstrapped by image; columns `MEDIANS`.

    All pairs with a value count, whether the prediction held or not.
    """
    rows, draws = [], _Draws(resamples, seed)
    groups: Any = pairs.groupby([*CELL, "severity"], sort=True, observed=True)
    for key, cell in groups:
        about = dict(zip((*CELL, "severity"), key, strict=True))
        for measure in (name for name in MEASURES if name in cell):
            values: Any = cell.sort_values("image")[measure].dropna().to_numpy(np.float64)
            row = {"measure": measure, "n": len(values), "median": np.nan, "low": np.nan, "high": np.nan}
            if len(values):
                found = draws.medians(values[:, None], str(about["dataset"]))[0]
                low, high = percentiles(found, len(values), level)
                row |= {"median": float(np.median(values)), "low": low, "high": high}
            rows.append(about | row)
    return pd.DataFrame(rows, columns=list(MEDIANS))


def steps(pairs: pd.DataFrame, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """The change of the medians of L1 and RBO from each severity to the next, paired by image; columns `STEPS`.

    Images that have both values at both severities count. Intervals are of the difference of the medians, bootstrapped
    by image. p is the larger of the one-sided p of “L1 falls” and “RBO falls” by Wilcoxon's test, as the case needs
    both; p_holm is corrected over all steps and real methods of a setting. `case`: p_holm below 1 − level, and both
    medians fall. Controls have no p.
    """
    rows: list[dict[str, Any]] = []
    draws = _Draws(resamples, seed)
    groups: Any = pairs.groupby(list(CELL), sort=True, observed=True)
    for key, cell in groups:
        about = dict(zip(CELL, key, strict=True))
        rows += [{**about, **step} for step in _steps(cell, bool(about["control"]), draws, level)]
    frame = pd.DataFrame(rows, columns=list(STEPS))
    for _, part in frame.groupby(list(CELL[:4]), sort=False):
        frame.loc[part.index, "p_holm"] = holm(list(part["p"].astype(np.float64)))
    falls = (rounded(frame[["l1", "rbo"]].to_numpy(np.float64)) < 0).all(1)
    return frame.assign(case=falls & (frame["p_holm"].to_numpy(np.float64) < 1 - level))


def _steps(cell: Any, control: bool, draws: "_Draws", level: float) -> Iterator[dict[str, Any]]:
    severities = sorted(cell["severity"].unique())
    wide = {s: cell[cell["severity"] == s].set_index("image")[["l1", "rbo"]].dropna() for s in severities}
    dataset = str(cell["dataset"].iloc[0])
    for one, two in pairwise(severities):
        images = sorted(set(wide[one].index) & set(wide[two].index))
        row: dict[str, Any] = {"severity": one, "next": two, "images": len(images), "p": np.nan}
        tails = []
        for name in ("l1", "rbo") if images else ():
            values = np.stack([wide[s].loc[images, name].to_numpy(np.float64) for s in (one, two)], 1)
            drawn = draws.medians(values, dataset)
            moves = drawn[1] - drawn[0]
            low, high = percentiles(moves, len(images), level)
            row |= {name: float(np.diff(np.median(values, axis=0))[0]), f"{name}_low": low, f"{name}_high": high}
            tails.append(_p_of_a_fall(*values.T))
        if tails and not control:
            row["p"] = max(tails)
        yield row


class _Draws:
    """The resamples of a dataset's images, drawn once for each number of images."""

    def __init__(self, resamples: int, seed: int):
        self.resamples, self.seed = resamples, seed
        self._drawn: dict[tuple[str, int], np.ndarray] = {}

    def medians(self, values: np.ndarray, dataset: str) -> np.ndarray:
        """The medians of columns of values `(images, columns)`, in the same resamples of the images."""
        key = dataset, len(values)
        if key not in self._drawn:
            self._drawn = {key: multiplicities(len(values), self.resamples, self.seed, f"similarity {dataset}")}
        rows = np.arange(len(values))
        return np.array([weighted_medians(column, self._drawn[key], rows) for column in values.T])


def _p_of_a_fall(before: np.ndarray, after: np.ndarray) -> float:
    """One-sided p of Wilcoxon's signed-rank test against “it does not fall”, paired by image."""
    _, p, effect, _ = signed_ranks(differences(before, after))
    return p / 2 if effect > 0 else 1 - p / 2


def correlations(pairs: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of every two measures over the pairs of real methods that have all; square, by names.

    Distances are turned round, so that 1 means that two measures put all pairs in the same order. Spearman's
    correlation: Pearson's of the mid-ranks.
    """
    names = [name for name in MEASURES if name in pairs]
    values = pairs.loc[~pairs["control"].astype(bool), names].dropna().to_numpy(np.float64)
    if len(values) < 2:
        return pd.DataFrame(np.nan, index=names, columns=names)
    signs = np.array([-1.0 if name in DISTANCES else 1.0 for name in names])
    ranks = rankdata(rounded(values * signs, largest(values, 0)), axis=0)
    ranks -= ranks.mean(0)
    size = np.sqrt((ranks**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(ranks.T @ ranks / np.outer(size, size), index=names, columns=names)
