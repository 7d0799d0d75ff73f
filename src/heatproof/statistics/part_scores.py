"""Completeness, correctness and contrastivity from the rows of the part metrics (FunnyBirds, protocols §9).

The threshold above which a part is important is chosen on a validation set, for each model and method, as the one that
maximises `(CSDC + PC + DC) / 3 + D`, and then applied to the test sets. Completeness is half of that sum, the score the
mean of completeness, correctness and contrastivity. Hesse et al. 2023, section 4.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import ANSWER_STEP, rounded
from heatproof.statistics.intervals import multiplicities, percentiles
from heatproof.statistics.special_rows import CHECKS, CONTRASTIVITY, CORRECTNESS

#: The parts of the score, and the score.
SUMS = ("completeness", "correctness", "contrastivity", "score")
#: Columns of tables/thresholds.csv.
THRESHOLDS = ("model", "method", "control", "validation", "n", "threshold", "objective")
#: Columns of tables/parts.csv; `n_` columns count the images with a value.
PART_SCORES = (
    *("model", "dataset", "method", "control", "threshold", "n"),
    *(name for one in SUMS for name in (one, f"{one}_low", f"{one}_high")),
    *CHECKS,
    *(f"n_{name}" for name in (*CHECKS, CORRECTNESS, CONTRASTIVITY)),
)


def chosen_thresholds(means: pd.DataFrame, validation: str) -> pd.DataFrame:
    """The threshold of every model and method, columns THRESHOLDS.

    The best mean of the objective on the `validation` set; of equal ones the lowest, as in the published code. NaN
    where a check has no value on that set.

    Args:
        means: model, dataset, method, control, metric (of `CHECKS`), strength (the threshold), n (images with a value),
            mean.
    """
    lines = []
    here: Any = means[means["dataset"] == validation]
    for (model, method, control), cell in here.groupby(["model", "method", "control"], sort=False):
        wide: Any = cell.pivot(index="strength", columns="metric", values="mean").reindex(columns=list(CHECKS))
        values = rounded(objective(wide.sort_index()).to_numpy(), 1.0, ANSWER_STEP)
        known = bool(np.isfinite(values).any())
        best = int(np.nanargmax(values)) if known else 0  # the first of equal ones
        at = (float(wide.sort_index().index[best]), float(values[best])) if known else (np.nan, np.nan)
        lines.append((model, method, bool(control), validation, int(cell["n"].min()), *at))
    return pd.DataFrame(lines, columns=list(THRESHOLDS))


def objective(checks: Any) -> Any:
    """`(CSDC + PC + DC) / 3 + D` of a frame with a column for each check; NaN where one is missing."""
    sufficiency, preservation, deletion, distractibility = (checks[name] for name in CHECKS)
    return (sufficiency + preservation + deletion) / 3 + distractibility


def image_part_scores(values: pd.DataFrame) -> pd.DataFrame:
    """`SUMS` of each image and method; NaN where a part of it is missing.

    Args:
        values: model, dataset, image, method, control and a column for every part metric, those of `CHECKS` at the
            chosen threshold.
    """
    complete = objective(values) / 2
    parts = [complete, values[CORRECTNESS], values[CONTRASTIVITY]]
    score: Any = sum(parts) / 3
    key = values[["model", "dataset", "image", "method", "control"]]
    return key.assign(**dict(zip(SUMS, [*parts, score], strict=True)))


def part_score_table(
    values: pd.DataFrame, thresholds: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The scores of every model, test set and method, columns PART_SCORES; `values` as for `image_part_scores`.

    Each check is the mean over the images with a value, and the sums are those of the means, as in the paper. Intervals
    are 95 % bootstrap intervals by image, the same draws for every method.
    """
    lines = []
    chosen = thresholds.set_index(["model", "method"])["threshold"].to_dict()
    frame: Any = values
    names = [*CHECKS, CORRECTNESS, CONTRASTIVITY]
    for (model, dataset), cell in frame.groupby(["model", "dataset"], sort=False):
        images = sorted(cell["image"].unique())
        drawn = multiplicities(len(images), resamples, seed, f"parts {dataset}")
        for (method, control), own in cell.groupby(["method", "control"], sort=False):
            found: Any = own.set_index("image").reindex(images)[names]
            table = found.to_numpy(np.float64)
            means, resampled = _means(table, np.ones((len(images), 1))), _means(table, drawn)
            line = {"model": model, "dataset": dataset, "method": method, "control": bool(control)}
            line |= {"threshold": chosen.get((model, method), np.nan), "n": len(images)}
            line |= dict(zip(CHECKS, means[: len(CHECKS), 0], strict=True))
            counts = np.isfinite(table).sum(0)
            line |= {f"n_{name}": int(count) for name, count in zip(names, counts, strict=True)}
            for name, value, draws in zip(SUMS, _sums(means), _sums(resampled), strict=True):
                low, high = percentiles(draws, len(images))
                line |= {name: float(value[0]), f"{name}_low": low, f"{name}_high": high}
            lines.append(line)
    return pd.DataFrame(lines, columns=list(PART_SCORES))


def _means(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means `(metrics, draws)` of `(images, metrics)` over the images with a value; NaN without one."""
    known = np.isfinite(table)
    sums, counts = np.where(known, table, 0).T @ weights, known.T.astype(np.float64) @ weights
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _sums(means: np.ndarray) -> Sequence[np.ndarray]:
    """`SUMS` from the means of the part metrics `(metrics, draws)`."""
    sufficiency, preservation, deletion, distractibility, correctness, contrastivity = means
    complete = ((sufficiency + preservation + deletion) / 3 + distractibility) / 2
    return [complete, correctness, contrastivity, (complete + correctness + contrastivity) / 3]
