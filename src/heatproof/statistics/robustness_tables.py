"""The robustness table, and blocks for the tests, from a frame of pairs.

A frame of pairs has a row per image × method × perturbation × severity, columns as `tables/pairs.parquet`:
model, dataset, layer, segmenter, image, method, control, perturbation, severity, rbo, kappa, changed (and
more, unused here).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heatproof.errors import InvalidInput
from heatproof.statistics.intervals import Replicates, bootstrap, delong, multiplicities

#: What identifies a cell; no cell pools over perturbations.
CELL = ("model", "dataset", "layer", "segmenter", "method", "control", "perturbation")
#: Columns of tables/robustness.csv.
COLUMNS = (
    *CELL,
    "severity",
    "n",
    "flips",
    "flip_rate",
    "psnr",
    "segments",
    "consistency",
    "responsiveness",
    "responsiveness_low",
    "responsiveness_high",
    "rm",
    "rm_low",
    "rm_high",
    "rm0",
    "rm0_low",
    "rm0_high",
    "responsiveness_within",
    "responsiveness_within_low",
    "responsiveness_within_high",
    "rm0_within",
    "rm0_within_low",
    "rm0_within_high",
    "reliable",
)
#: Columns with an interval → the quantity of `intervals.QUANTITIES`.
ESTIMATES = {
    "responsiveness": "responsiveness",
    "rm": "rm",
    "rm0": "rm0",
    "responsiveness_within": "within",
    "rm0_within": "rm0_within",
}
#: The severity of rows that pool all severities.
ALL = "all"
# Private functions take frames as `Any`: pandas' stubs cannot follow boolean indexing.
#: The columns that a frame of pairs must have.
_NEEDED = (*CELL, "severity", "image", "rbo", "kappa", "changed")


class Cell(NamedTuple):
    """A method under one perturbation at one severity, or at all together (`severity` is "all")."""

    model: str
    dataset: str
    layer: str
    segmenter: str
    method: str
    control: bool
    perturbation: str
    severity: str


def robustness_table(
    pairs: pd.DataFrame,
    psnr: pd.DataFrame | None = None,
    segments: pd.DataFrame | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Consistency, responsiveness, RM and RM₀ of every cell with 95 % intervals; columns as COLUMNS.

    One row per cell and severity (as text) and one, severity "all", for its severities together. `n` counts
    the pairs used: those with an RBO (no flag, no constant map) and a known prediction; flips, flip_rate,
    medians and AUC are over these. responsiveness, rm and rm0 are NaN below ten changed or unchanged pairs;
    `reliable` needs twenty. responsiveness_within and rm0_within compare only pairs of one severity
    (`stratified_auc`): they decide the verdict where RM and RM₀ are fooled; at a single severity they are
    responsiveness and rm0. Intervals: DeLong for the responsiveness of a single severity; bootstrap by image for
    everything else, the same resamples for every cell of a dataset.

    psnr: columns psnr and some of model, dataset, image, perturbation, severity; the mean of finite values
    is shown. segments: columns segments and some of model, dataset, segmenter, image (or a column
    `segments` in `pairs`): the mean over images. Without them those columns are NaN. Rows are sorted by
    cell; row order of the input is irrelevant.
    """
    noise = _means(psnr, "psnr")
    sizes = _means(pairs if segments is None and "segments" in pairs else segments, "segments")
    rows = []
    for cell, found, area in _measure_cells(pairs, resamples, seed):
        point = found.point
        line = {**cell._asdict(), "n": point.n, "flips": point.flips, "reliable": point.reliable}
        line["flip_rate"] = point.flips / point.n if point.n else np.nan
        line |= {"psnr": noise(cell), "segments": sizes(cell), "consistency": point.consistency}
        for column, quantity in ESTIMATES.items():
            interval = found.interval(quantity)
            low, high = area if quantity in ("responsiveness", "within") and area else (interval.low, interval.high)
            line |= {column: interval.value, f"{column}_low": low, f"{column}_high": high}
        rows.append(line)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def pooled(pairs: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> dict[Cell, Replicates]:
    """The "all" cells with their resamples, drawn as in `robustness_table`, for differences between methods."""
    clean = _usable(pairs)
    drawn = _draws(clean, resamples, seed)
    return {cell: _bootstrap_cell(cell, rows, drawn, seed) for cell, rows in _cells(clean, single=False)}


def rm_blocks(table: pd.DataFrame, value: str = "rm", controls: bool = False) -> pd.DataFrame:
    """A robustness table as blocks × methods: a block is model × dataset × layer × segmenter × perturbation × severity.

    "all" rows are left out (they would count their severities twice). A method that is missing or NaN in a
    block leaves a NaN there: the tests then drop the block, and count it. A method that is NaN in all is left out.
    """
    kept: Any = table[table["severity"].astype(str) != ALL]
    kept = kept if controls else kept[~kept["control"].astype(bool)]
    index = ["model", "dataset", "layer", "segmenter", "perturbation", "severity"]
    return kept.pivot(index=index, columns="method", values=value).dropna(axis=1, how="all").sort_index()


def image_blocks(
    pairs: pd.DataFrame, value: str = "rbo", unchanged: bool = True, controls: bool = False
) -> pd.DataFrame:
    """Pairs as blocks × methods: a block is an image (of a model, dataset, layer, segmenter).

    The value is the mean over those of the image's conditions in which *every* method has one, so that
    methods are compared on the same images; `unchanged`: only conditions that did not change the
    prediction, where a high RBO is good. A method without a value in a whole setting (a model, dataset, layer and
    segmenter) leaves a NaN in its blocks: the tests then drop them, and count them.
    """
    kept = _usable(pairs, value)
    kept = kept if controls else kept[~kept["control"].astype(bool)]
    kept = kept[~kept["changed"].astype(bool)] if unchanged else kept
    block = ["model", "dataset", "layer", "segmenter", "image"]
    wide = kept.pivot(index=[*block, "perturbation", "severity"], columns="method", values=value)
    settings: Any = wide.groupby(level=block[:-1], sort=True)
    shared = [part.dropna(axis=1, how="all").dropna() for _, part in settings]
    whole: Any = pd.concat(shared) if shared else wide
    return whole.reindex(columns=wide.columns).groupby(level=block, sort=True).mean()


def _measure_cells(
    pairs: pd.DataFrame, resamples: int, seed: int
) -> Iterator[tuple[Cell, Replicates, tuple[float, float] | None]]:
    """Every cell in order, with its resamples and, for a single severity, DeLong's bounds."""
    known = _usable(pairs)
    drawn = _draws(known, resamples, seed)
    named = {cell: rows for single in (True, False) for cell, rows in _cells(known, single)}
    empty = {cell: rows.iloc[:0] for single in (True, False) for cell, rows in _cells(pairs, single)}
    for cell in sorted({**empty, **named}, key=_position):
        rows = named.get(cell, empty.get(cell))
        assert rows is not None
        found = _bootstrap_cell(cell, rows, drawn, seed)
        area = None
        if cell.severity != ALL and not np.isnan(found.point.responsiveness):
            interval = delong(-rows["rbo"].to_numpy(), rows["changed"].to_numpy(bool))
            area = interval.low, interval.high
        yield cell, found, area


def _usable(pairs: Any, value: str = "rbo") -> Any:
    """Pairs with a value and a known prediction, `changed` a plain bool."""
    missing = [name for name in _NEEDED if name not in pairs]
    if missing:
        raise InvalidInput(f"`pairs` must have the columns {', '.join(_NEEDED)}. Got none called {missing[0]!r}.")
    known = pairs["changed"].astype("boolean")
    kept = pairs[known.notna() & pairs[value].notna()]
    if kept.duplicated([*CELL, "severity", "image"]).any():
        raise InvalidInput("`pairs` must have one row per cell, severity and image. Got some of them twice.")
    return kept.assign(changed=known[kept.index].astype(bool))


def _cells(pairs: Any, single: bool) -> Iterator[tuple[Cell, Any]]:
    keys = [*CELL, "severity"] if single else list(CELL)
    for key, rows in pairs.groupby(keys, sort=False, observed=True):
        model, dataset, layer, segmenter, method, control, perturbation, *severity = key
        names = [str(part) for part in (model, dataset, layer, segmenter, method)]
        level = str(severity[0]) if single else ALL
        yield Cell._make([*names, bool(control), str(perturbation), level]), rows


def _position(cell: Cell) -> tuple:
    """Real methods before controls, severities as numbers, "all" last."""
    last = cell.severity == ALL
    number = float(cell.severity) if cell.severity.replace(".", "", 1).isdigit() else 0.0
    return (*cell[:4], cell.perturbation, cell.control, cell.method, last, number, cell.severity)


class Resamples(NamedTuple):
    """The resamples of one dataset: image → row, and `(images, resamples)` multiplicities."""

    rows: Mapping[str, int]
    drawn: np.ndarray


def _draws(pairs: Any, resamples: int, seed: int) -> dict[str, Resamples]:
    """Dataset → its resamples; images are sorted by name, so that neither row order nor methods matter."""
    found = {}
    for dataset, rows in pairs.groupby("dataset", sort=True, observed=True):
        images = sorted(rows["image"].astype(str).unique())
        drawn = multiplicities(len(images), resamples, seed, str(dataset))
        found[str(dataset)] = Resamples({name: i for i, name in enumerate(images)}, drawn)
    return found


def _bootstrap_cell(cell: Cell, rows: Any, draws: Mapping[str, Resamples], seed: int) -> Replicates:
    """A cell's resamples; rows in the order of (image, severity), so that sums round alike."""
    positions, drawn = draws.get(cell.dataset, Resamples({}, np.zeros((1, 1))))
    image = rows["image"].astype(str).map(positions).to_numpy(np.int64)
    severity = rows["severity"].astype(str).to_numpy(str)
    order = np.lexsort((severity, image))
    rbo, kappa = (rows[name].to_numpy(np.float64)[order] for name in ("rbo", "kappa"))
    changed = rows["changed"].to_numpy(bool)[order]
    return bootstrap(rbo, kappa, changed, image[order], drawn, seed, severity[order])


def _means(frame: Any, column: str) -> Callable[[Cell], float]:
    """Cell → mean of the finite values of `column`, by whichever of the cell's keys the frame has; NaN without it."""
    if frame is None:
        return lambda cell: np.nan
    finite = frame[np.isfinite(frame[column].to_numpy(np.float64))]
    keys = [key for key in ("model", "dataset", "segmenter", "perturbation", "severity") if key in finite]
    if column == "segments":  # segments are those of the clean image
        keys = [key for key in keys if key not in ("perturbation", "severity")]
        finite = finite.drop_duplicates([*keys, *(["image"] if "image" in finite else [])])
    pooling = [key for key in keys if key != "severity"]
    single, all_together = _group_means(finite, column, keys), _group_means(finite, column, pooling)

    def mean(cell: Cell) -> float:
        found, by = (all_together, pooling) if cell.severity == ALL else (single, keys)
        return found.get(tuple(str(getattr(cell, key)) for key in by), np.nan)

    return mean


def _group_means(frame: Any, column: str, keys: list[str]) -> dict[tuple[str, ...], float]:
    if not keys:
        return {(): float(frame[column].mean())}
    means = frame.groupby([frame[key].astype(str) for key in keys], observed=True)[column].mean()
    return {key if isinstance(key, tuple) else (key,): float(mean) for key, mean in means.items()}
