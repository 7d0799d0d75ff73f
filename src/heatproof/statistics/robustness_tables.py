"""The robustness table, and blocks for the tests, from a frame of pairs.

A frame of pairs has a row per image × method × perturbation × severity, columns as `tables/pairs.parquet`:
model, dataset, layer, segmenter, image, method, control, perturbation, severity, rbo, kappa, changed (and
more, unused here).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heatproof.errors import InvalidInput
from heatproof.statistics.intervals import Replicates, bootstrap, delong, multiplicities
from heatproof.statistics.robustness_evidence import PooledCells
from heatproof.statistics.weighted import weights
from heatproof.statistics.wording import listed

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
    "fools",
)
#: Columns with an interval → the quantity of `intervals.QUANTITIES`.
ESTIMATES = {
    "responsiveness": "responsiveness",
    "rm": "rm",
    "rm0": "rm0",
    "responsiveness_within": "within",
    "rm0_within": "rm0_within",
}
#: The quantities that a control may fool, by their columns.
FOOLED = {"consistency": "consistency", **ESTIMATES}
#: The severity of rows that pool all severities.
ALL = "all"
#: More severities than a perturbation has: an image has as many values in a cell.
MOST_SEVERITIES = 1000
#: What stands between names in the column `fools`, and the level of its tests.
FOOLS, LEVEL = "; ", 0.95
#: What identifies an image in a setting.
BLOCK = ("model", "dataset", "layer", "segmenter", "image")
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
    responsiveness and rm0. `fools`, of a control: the columns by which it is not significantly worse than the best real
    method of its cell (bootstrap by image), with a semicolon between. Intervals: DeLong for the responsiveness of a
    single severity; bootstrap by image for everything else, the same resamples for every cell of a dataset.

    psnr: columns psnr and some of model, dataset, image, perturbation, severity; the mean of finite values
    is shown. segments: columns segments and some of model, dataset, segmenter, image (or a column
    `segments` in `pairs`): the mean over images. Without them those columns are NaN. Rows are sorted by
    cell; row order of the input is irrelevant.
    """
    noise = cell_means(psnr, "psnr")
    sizes = cell_means(pairs if segments is None and "segments" in pairs else segments, "segments")
    cells = measured_cells(pairs, resamples_of(usable_images(pairs), resamples, seed), seed)
    return table_of({one.cell: one.line(noise, sizes) for one in cells})


class Resamples(NamedTuple):
    """The resamples of one dataset: image → row, and `(images, resamples)` multiplicities."""

    rows: Mapping[str, int]
    drawn: np.ndarray


class MeasuredCell(NamedTuple):
    """A cell with its resamples, for a single severity DeLong's bounds, and, of a control, the columns it fools."""

    cell: Cell
    found: Replicates
    area: tuple[float, float] | None
    fools: str

    def line(self, noise: Callable[[Cell], float], sizes: Callable[[Cell], float]) -> dict[str, Any]:
        """The cell's row of the table; noise, sizes: its mean PSNR and number of segments."""
        point, cell = self.found.point, self.cell
        line = {**cell._asdict(), "n": point.n, "flips": point.flips, "reliable": point.reliable, "fools": self.fools}
        line["flip_rate"] = point.flips / point.n if point.n else np.nan
        line |= {"psnr": noise(cell), "segments": sizes(cell), "consistency": point.consistency}
        for column, quantity in ESTIMATES.items():
            interval = self.found.interval(quantity)
            inside = quantity in ("responsiveness", "within") and self.area
            low, high = self.area if inside and self.area else (interval.low, interval.high)
            line |= {column: interval.value, f"{column}_low": low, f"{column}_high": high}
        return line


def table_of(lines: Mapping[Cell, Mapping[str, Any]]) -> pd.DataFrame:
    """The table with these rows."""
    return pd.DataFrame([lines[cell] for cell in sorted(lines, key=_position)], columns=list(COLUMNS))


def pooled(pairs: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> dict[Cell, Replicates]:
    """The "all" cells with their resamples, drawn as in `robustness_table`, for differences between methods."""
    clean = _usable(pairs)
    return pooled_cells(clean, resamples_of(usable_images(clean), resamples, seed), seed)


def pooled_cells(pairs: pd.DataFrame, drawn: Mapping[str, "Resamples"], seed: int) -> dict[Cell, Replicates]:
    """`pooled` of some of the pairs of a dataset, in given resamples of its images."""
    clean, known = _usable(pairs), {}
    return {cell: _bootstrap_cell(cell, rows, drawn, seed, known) for cell, rows in _cells(clean, single=False)}


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
    prediction, where a high RBO is good. An image without such a condition has NaN, and so has a method without a value
    in a whole setting (a model, dataset, layer and segmenter): the tests drop these blocks, and count them.
    """
    every: Any = pairs[[*BLOCK]].drop_duplicates()
    kept = _usable(pairs, value)
    kept = kept if controls else kept[~kept["control"].astype(bool)]
    kept = kept[~kept["changed"].astype(bool)] if unchanged else kept
    block = list(BLOCK)
    wide = kept.pivot(index=[*block, "perturbation", "severity"], columns="method", values=value)
    settings: Any = wide.groupby(level=block[:-1], sort=True)
    shared = [part.dropna(axis=1, how="all").dropna() for _, part in settings]
    whole: Any = pd.concat(shared) if shared else wide
    means: Any = whole.reindex(columns=wide.columns).groupby(level=block, sort=True).mean()
    return means.reindex(pd.MultiIndex.from_frame(every).sort_values())


class FooledCell(NamedTuple):
    """The controls that fool a quantity under one perturbation at the same severities ("all": taken together)."""

    model: str
    dataset: str
    perturbation: str
    severities: tuple[str, ...]
    controls: tuple[str, ...]

    @property
    def text(self) -> str:
        """`gaussian-noise at severity 1 and 3 (edges)`."""
        single = [one for one in self.severities if one != ALL]
        at = f" at {'severity' if len(single) == 1 else 'severities'} {listed(single)}" if single else ""
        if ALL in self.severities:
            at += " and over all severities" if single else " over all severities"
        return f"{self.perturbation}{at} ({', '.join(self.controls)})"


def fooled_cells(table: pd.DataFrame, quantity: str | None) -> Iterator[FooledCell]:
    """The cells in which a control fools a quantity of `intervals.QUANTITIES`, from a robustness table."""
    column = next((name for name, of in FOOLED.items() if of == quantity), None)
    if column is None or "fools" not in table:
        return
    rows: Any = table[[column in str(fools).split(FOOLS) for fools in table["fools"]]]
    found: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (model, dataset, kind, control), cell in rows.groupby(
        ["model", "dataset", "perturbation", "method"], sort=False
    ):
        where = str(model), str(dataset), str(kind), tuple(map(str, cell["severity"]))
        found.setdefault(where, []).append(str(control))
    yield from (FooledCell(*key, tuple(controls)) for key, controls in found.items())


def measured_cells(pairs: pd.DataFrame, drawn: Mapping[str, "Resamples"], seed: int) -> Iterator[MeasuredCell]:
    """Every cell of some pairs; those of a perturbation and severity must be there together, of all methods."""
    known = _usable(pairs)
    named = {cell: rows for single in (True, False) for cell, rows in _cells(known, single)}
    empty = {cell: rows.iloc[:0] for single in (True, False) for cell, rows in _cells(pairs, single)}
    groups: dict[Cell, list[Cell]] = {}
    for cell in {**empty, **named}:
        groups.setdefault(cell._replace(method="", control=False), []).append(cell)
    wins: dict = {}  # of a severity, which are those of its stratum in the cell of all severities
    for cells in groups.values():  # methods are compared within a cell, and its resamples are then let go
        rows: dict[Cell, Any] = {cell: named[cell] if cell in named else empty[cell] for cell in cells}
        found = {cell: _bootstrap_cell(cell, rows[cell], drawn, seed, wins) for cell in cells}
        fools = _fools(found)
        for cell in cells:
            area = None
            if cell.severity != ALL and not np.isnan(found[cell].point.responsiveness):
                interval = delong(-rows[cell]["rbo"].to_numpy(), rows[cell]["changed"].to_numpy(bool))
                area = interval.low, interval.high
            yield MeasuredCell(cell, found[cell], area, fools.get(cell.method, ""))


def _fools(found: Mapping[Cell, Replicates]) -> dict[str, str]:
    """Control → the quantities by which it is not significantly worse than the best real method of one cell."""
    real, controls = ([cell.method for cell in found if cell.control is kind] for kind in (False, True))
    here = {cell.method: replicates for cell, replicates in found.items()}
    evidence = PooledCells(tuple(sorted(real)), tuple(sorted(controls)), {(): here}, LEVEL, 0, ((),))
    names: dict[str, list[str]] = {}
    for column, quantity in FOOLED.items():
        for control in evidence.fooled_by(quantity):
            names.setdefault(control, []).append(column)
    return {control: FOOLS.join(columns) for control, columns in names.items()}


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


def usable_images(pairs: Any) -> dict[str, list[str]]:
    """Dataset → the images with a usable pair, by name."""
    known = _usable(pairs)[["dataset", "image"]].drop_duplicates()
    return {str(dataset): sorted(rows["image"].astype(str))
            for dataset, rows in known.groupby("dataset", sort=True, observed=True)}  # fmt: skip


def resamples_of(images: Mapping[str, Sequence[str]], resamples: int, seed: int) -> dict[str, Resamples]:
    """Dataset → the resamples of its images, which are sorted by name: neither row order nor methods matter."""
    found = {}
    for dataset, names in images.items():
        drawn = weights(multiplicities(len(names), resamples, seed, dataset), MOST_SEVERITIES * len(names))
        found[dataset] = Resamples({name: i for i, name in enumerate(names)}, drawn)
    return found


def _bootstrap_cell(cell: Cell, rows: Any, draws: Mapping[str, Resamples], seed: int, known: dict) -> Replicates:
    """A cell's resamples; rows in the order of (image, severity), so that sums round alike."""
    positions, drawn = draws.get(cell.dataset, Resamples({}, np.zeros((1, 1), np.float32)))
    image, severity = _positions(rows["image"], positions), rows["severity"].to_numpy()
    order = np.lexsort((severity, image))
    rbo, kappa = (rows[name].to_numpy(np.float64)[order] for name in ("rbo", "kappa"))
    changed = rows["changed"].to_numpy(bool)[order]
    return bootstrap(rbo, kappa, changed, image[order], drawn, seed, severity[order], known)


def _positions(images: Any, positions: Mapping[str, int]) -> np.ndarray:
    """The rows of images in their resamples."""
    if isinstance(images.dtype, pd.CategoricalDtype):  # looked up once for each image
        names = images.cat.categories
        return np.array([positions.get(str(name), -1) for name in names], np.int64)[images.cat.codes.to_numpy()]
    return images.astype(str).map(positions).to_numpy(np.int64)


def cell_means(frame: Any, column: str) -> Callable[[Cell], float]:
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
