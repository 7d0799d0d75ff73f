"""The table of a score study, its curves, and the table as HTML (protocols §9, §11).

Rows are a frame with a row per image, method and metric. Its columns are `image`, `method`, `metric`, `value`, and
optionally `model`, `dataset`, `control`, `flag`. Rows without a method (facts about an image) and points of curves
(metric `NAME-curve`) are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from heatproof.errors import InvalidInput
from heatproof.rounding import ANSWER_STEP, rounded
from heatproof.statistics.intervals import multiplicities, percentiles
from heatproof.statistics.special_rows import CURVE

#: Columns of tables/scores.csv.
COLUMNS = ("model", "method", "metric", "n", "mean", "std", "low", "high", "better", "flagged")
ARROWS = {"high": "↑", "low": "↓"}

_DEFAULTS = {"model": "", "dataset": "", "control": False, "flag": ""}
_NEEDED = ("image", "method", "metric", "value")

#: Metric key → "high" or "low", or a mapping with `better` (study.json's `metric_facts`).
Directions = Mapping[str, Any]


def score_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that hold a score, with all columns; values that are not finite become NaN."""
    missing = [name for name in _NEEDED if name not in rows]
    if missing:
        raise InvalidInput(f"`rows` must have the columns {', '.join(_NEEDED)}. Got none called {missing[0]!r}.")
    frame: Any = rows.assign(**{name: value for name, value in _DEFAULTS.items() if name not in rows})
    names = frame["metric"].astype(str)
    frame = frame[(frame["method"].astype(str) != "") & ~names.str.endswith(CURVE)]
    value = frame["value"].astype(float)
    return frame.assign(value=value.where(np.isfinite(value)), flag=frame["flag"].fillna("").astype(str))


def better(directions: Directions | None, metric: str) -> str:
    """`high`, `low`, or an empty string where it is not known."""
    fact = (directions or {}).get(metric, "")
    return str(fact.get("better", "")) if isinstance(fact, Mapping) else str(fact)


def score_table(
    rows: pd.DataFrame, directions: Directions | None = None, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean of every metric for every model and method; columns as COLUMNS, shares as fractions and not in per cent.

    `n` counts the rows with a number, over which mean and std (ddof 1) are taken, `flagged` the rows with a flag. low
    and high: 95 % bootstrap interval of the mean by image, the same draws for every cell; NaN below two images.
    Models, methods and metrics stand in the order in which the rows name them.
    """
    frame = score_rows(rows)
    if frame.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    unit, drawn = draws(frame, resamples, seed)
    cells: Any = frame.groupby(["model", "method", "metric"], sort=False, observed=True)
    order = np.argsort(unit, kind="stable")  # sums then round alike, whatever the order of the rows
    means = _resample_means(frame["value"].to_numpy()[order], cells.ngroup().to_numpy()[order], unit[order], drawn)
    lines = []
    for ((model, method, metric), cell), values in zip(cells, means, strict=True):
        images = len(cell.loc[cell["value"].notna(), ["dataset", "image"]].drop_duplicates())
        low, high = percentiles(values, images)
        found: Any = np.sort(cell["value"].dropna().to_numpy())
        mean, std = (found.mean() if len(found) else np.nan), (found.std(ddof=1) if len(found) > 1 else np.nan)
        if len(found) and found[0] == found[-1]:
            mean, std, low, high = found[0], 0.0 * std, found[0], found[0]
        if images < 2:
            low = high = np.nan
        flagged = int((cell["flag"] != "").sum())
        lines.append((model, method, metric, len(found), mean, std, low, high, better(directions, metric), flagged))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def draws(frame: pd.DataFrame, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The image of each row as a number, and `(images, resamples)`: how often each is drawn, dataset by dataset."""
    unit: Any = frame.groupby(["dataset", "image"], sort=True, observed=True).ngroup()
    images: Any = frame[["dataset", "image"]].drop_duplicates().groupby("dataset", sort=True, observed=True).size()
    drawn = [multiplicities(int(count), resamples, seed, f"scores {name}") for name, count in images.items()]
    return unit.to_numpy(), np.concatenate(drawn)


def _resample_means(values: np.ndarray, cell: np.ndarray, unit: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mean of each cell in each resample, `(cells, resamples)`; NaN where it has no number."""
    known = ~np.isnan(values)
    position = cell[known] * len(drawn) + unit[known]
    shape = (cell.max() + 1, len(drawn))
    sums = np.bincount(position, values[known], shape[0] * shape[1]).reshape(shape) @ drawn
    counts = np.bincount(position, minlength=shape[0] * shape[1]).reshape(shape) @ drawn
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def curve_table(rows: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of every curve at every share: model, method, metric (of the curve's score), at, n, mean, low, high.

    `rows` also has `strength`, the share of pixels removed or restored. 95 % bootstrap intervals by image.
    """
    columns = ["model", "method", "metric", "at", "n", "mean", "low", "high"]
    points: Any = rows[rows["metric"].astype(str).str.endswith(CURVE)]
    if points.empty:
        return pd.DataFrame(columns=columns)
    points = points.assign(metric=points["metric"].astype(str).str.removesuffix(CURVE), at=points["strength"])
    tables = []
    for metric, frame in points.groupby("metric", sort=False, observed=True):
        frame = score_rows(frame)
        unit, drawn = draws(frame, resamples, seed)
        cells = frame.groupby(["model", "method", "at"], sort=True, observed=True)
        means = _resample_means(frame["value"].to_numpy(), cells.ngroup().to_numpy(), unit, drawn)
        table = cells["value"].agg(n="count", mean="mean").reset_index().assign(metric=metric)
        images = len(frame[["dataset", "image"]].drop_duplicates())
        bounds = np.array([percentiles(row, images) for row in means])
        tables.append(table.assign(low=bounds[:, 0], high=bounds[:, 1])[columns])
    return pd.concat(tables, ignore_index=True)


def reaches(value: float, other: float) -> bool:
    """Whether a mean is at least as high as another, to five digits of the larger."""
    return bool(rounded(np.float64(value - other), max(abs(value), abs(other)), ANSWER_STEP) >= 0)


def wide_scores(cell: pd.DataFrame) -> pd.DataFrame:
    """One metric's rows as images × methods, both sorted; methods without any number stay, as NaN."""
    means: Any = cell.groupby(["image", "method"], observed=True)["value"].mean()
    return means.unstack().sort_index().sort_index(axis=1)


def figure(value: float) -> str:
    """Three decimals, or three digits for very small or large numbers; a dash for NaN; a true minus sign."""
    if value is None or pd.isna(value):
        return "–"
    plain = value == 0 or 0.01 <= abs(value) < 100
    return (f"{value:.3f}" if plain else f"{value:.3g}").replace("-", "−")


_CELL = "padding:.25em .6em;text-align:right;border-bottom:1px solid #8884;white-space:nowrap;vertical-align:top"
_NAME = "padding:.25em .6em;text-align:left;border-bottom:1px solid #8884;font-weight:600"
_SMALL = "display:block;font-size:.8em;opacity:.7;font-weight:400"


def html_table(table: pd.DataFrame, controls: Iterable[str] = ()) -> str:
    """A score table as HTML, methods × metrics: mean, interval, an arrow for the better way, best mean in bold.

    Everything is escaped and styled in place, so that it can stand in any notebook. Controls are never bold.
    """
    from markupsafe import Markup, escape

    useless, parts = set(controls), []
    for model, frame in table.groupby("model", sort=False):
        methods, metrics = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame["metric"]))
        lines: Any = frame.itertuples()
        found = {(row.method, row.metric): row for row in lines}
        ways = dict(zip(frame["metric"], frame["better"], strict=True))
        tops = {
            m: _best(frame[(frame["metric"] == m) & ~frame["method"].isin(list(useless))], ways[m]) for m in metrics
        }
        head = Markup("").join(
            Markup('<th scope="col" style="{}">{} {}</th>').format(_CELL, m, ARROWS.get(ways[m], "")) for m in metrics
        )
        body = Markup("").join(
            Markup('<tr><th scope="row" style="{}">{}{}</th>{}</tr>').format(
                _NAME,
                method,
                " (control)" if method in useless else "",
                Markup("").join(_html_cell(found.get((method, m)), method in tops[m]) for m in metrics),
            )
            for method in methods
        )
        caption = Markup('<caption style="text-align:left">{}</caption>').format(model) if model else ""
        parts.append(
            Markup(
                '<div style="overflow-x:auto"><table style="border-collapse:collapse">{}<thead><tr><th></th>{}</tr>'
                "</thead><tbody>{}</tbody></table></div>"
            ).format(caption, head, body)
        )
    note = "Mean and 95 % interval by image. ↑ higher is better, ↓ lower is better."
    parts.append(Markup('<p style="font-size:.85em;opacity:.7">{}</p>').format(escape(note)))
    return str(Markup("").join(parts))


def _best(frame: Any, way: str) -> set[str]:
    """The methods with the best mean."""
    means = frame["mean"] if way == "high" else -frame["mean"]
    top = [reaches(mean, means.max()) for mean in means]
    return set(frame.loc[top, "method"]) if way in ARROWS else set()


def _html_cell(row: Any, best: bool) -> Any:
    from markupsafe import Markup

    if row is None:
        return Markup('<td style="{}">–</td>').format(_CELL)
    weight = ";font-weight:700" if best else ""
    span = "" if pd.isna(row.low) else f"{figure(row.low)} to {figure(row.high)}"
    lines = [line for line in (span, f"{row.flagged} flagged" if row.flagged else "") if line]
    small = Markup("").join(Markup('<span style="{}">{}</span>').format(_SMALL, line) for line in lines)
    return Markup('<td style="{}{}">{}{}</td>').format(_CELL, weight, figure(row.mean), small)
