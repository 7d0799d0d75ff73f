"""The pairs of a study as cells: a table in DuckDB with numbers in place of names, read a perturbation at a time.

A study of many images has too many pairs to hold. So they stay in DuckDB: `pair_cells` has a row for each method under
each condition, `pair_images` one for each image, `pair_values` the numbers of each pair. What is read at once are the
pairs of one setting under one perturbation, with names as categories.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from heatproof.report.frames import COMPANIONS, DISTURBED, KEY, Frame, refuse_copies
from heatproof.statistics.robustness_tables import BLOCK

#: What identifies a cell in the order of the table; one setting's cells of one perturbation lie together.
CELL = ("model", "dataset", "layer", "segmenter", "perturbation", "severity", "control", "method")
SETTING = CELL[:4]
#: SQL: whether a pair has an RBO and a known prediction.
USABLE = "NOT isnan(rbo) AND changed >= 0"
#: A cell with its counts: pairs, those with an RBO, and those that are usable too.
COUNTS = ("pairs", "known", "usable")
_OF_PAIRS = f"{DISTURBED}, of_pairs AS (SELECT * FROM disturbed WHERE method <> '' AND metric IN {COMPANIONS})"


@dataclass(frozen=True)
class Pairs:
    """The pairs of a study. `cells`: a row for each cell, columns cell, CELL and COUNTS."""

    rows: duckdb.DuckDBPyConnection
    cells: Frame

    @classmethod
    def of(cls, rows: duckdb.DuckDBPyConnection) -> "Pairs":
        """The pairs of a connection with the view `rows`, in which their tables are made once.

        Raises:
            StoreError: a number is stored twice, as by two studies in one folder.
        """
        known = {name for (name,) in rows.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        if "pair_values" not in known:
            _make(rows)
        counts = f"count(*) AS pairs, count(*) FILTER (NOT isnan(rbo)) AS known, count(*) FILTER ({USABLE}) AS usable"
        cells = rows.execute(
            f"SELECT * FROM pair_cells JOIN (SELECT cell, {counts} FROM pair_values GROUP BY cell) USING (cell) "
            "ORDER BY cell"
        ).df()
        types: dict[str, str] = {"severity": "int16", "control": "bool"}
        return cls(rows, cells.astype(types))

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return self.cells.empty

    def of_setting(self, setting: Sequence[str], kept: Callable[[Frame], Frame] = lambda cells: cells) -> "Pairs":
        """The pairs of one setting; kept: which of its cells remain, as `EqualMaps.kept`."""
        cells = self.cells
        for name, value in zip(SETTING, setting, strict=True):
            cells = cells[cells[name] == value]
        return Pairs(self.rows, kept(cells))

    def together(self, settings: Sequence[Sequence[str]], kept: Callable[[Frame], Frame]) -> "Pairs":
        """The pairs of several settings."""
        return Pairs(self.rows, kept(pd.concat([self.of_setting(one).cells for one in settings])))

    # --- blocks ---

    def blocks(self, columns: Collection[str] = COMPANIONS) -> Iterator[Frame]:
        """The pairs of each setting and perturbation, a frame as of `robustness_tables`, ordered by cell and image."""
        for _, cells in self.cells.groupby([*SETTING, "perturbation"], sort=True):
            yield self._block(cells, columns)

    def _block(self, cells: Frame, columns: Collection[str]) -> Frame:
        names = ", ".join(("cell", "image", *columns))
        found = self.rows.execute(
            f"SELECT {names}, changed FROM pair_values WHERE cell IN ({_listed(cells['cell'])}) ORDER BY cell, image"
        ).fetchnumpy()
        number = np.zeros(int(cells["cell"].max()) + 1, np.int64)
        number[cells["cell"]] = np.arange(len(cells))
        at = number[found["cell"]]
        dataset = str(cells["dataset"].iloc[0])
        first, images = self.images[dataset]
        data: dict[str, Any] = {}
        for name in (*SETTING, "method", "perturbation"):
            codes, kinds = pd.factorize(cells[name], sort=True)
            data[name] = pd.Categorical.from_codes(codes[at], [str(kind) for kind in kinds])
        data["control"], data["severity"] = (cells[name].to_numpy()[at] for name in ("control", "severity"))
        data["image"] = pd.Categorical.from_codes(np.asarray(found["image"]) - first, images)
        data |= {name: np.asarray(found[name]) for name in columns}
        changed = np.asarray(found["changed"])
        data["changed"] = pd.arrays.BooleanArray(changed == 1, changed < 0)
        return pd.DataFrame(data)

    @cached_property
    def images(self) -> dict[str, tuple[int, list[str]]]:
        """Dataset → the number of its first image, and its images by name."""
        found = self.rows.execute("SELECT dataset, image, name FROM pair_images ORDER BY image").fetchnumpy()
        datasets = np.asarray(found["dataset"], str)
        return {
            str(dataset): (
                int(found["image"][datasets == dataset][0]),
                list(map(str, found["name"][datasets == dataset])),
            )
            for dataset in dict.fromkeys(datasets)
        }

    # --- counts and sums ---

    @property
    def usable_images(self) -> dict[str, list[str]]:
        """Dataset → the images with a usable pair, by name."""
        found: dict[str, list[str]] = {}
        for dataset, name in self._of_values(f"SELECT DISTINCT image FROM here WHERE {USABLE}", images=True):
            found.setdefault(dataset, []).append(name)
        return dict(sorted(found.items()))

    def count_images(self, where: str) -> int:
        """The number of images with a pair for which a condition holds (columns of a pair and of its cell)."""
        return self._of_values(f"SELECT count(DISTINCT image) FROM here WHERE {where}")[0][0]

    def images_by_method(self, where: str) -> dict[str, int]:
        """Method → the number of images with such a pair; without those that have none."""
        return dict(self._of_values(f"SELECT method, count(DISTINCT image) FROM here WHERE {where} GROUP BY method"))

    def overlaps(self, method: str, changed: bool) -> np.ndarray:
        """The RBOs of a method over the pairs whose prediction changed, or did not."""
        here = Pairs(self.rows, self.cells[self.cells["method"] == method])
        found = here._run(f"SELECT rbo FROM here WHERE NOT isnan(rbo) AND changed = {int(changed)}").fetchnumpy()
        return np.asarray(found["rbo"])

    def mild(self) -> Frame:
        """The pairs under the lowest severity of each perturbation: image, method, condition, rbo, changed."""
        lowest = self.cells.groupby("perturbation")["severity"].transform("min")
        parts = list(Pairs(self.rows, self.cells[self.cells["severity"] == lowest]).blocks(("rbo",)))
        found = pd.concat([part.astype({"image": str, "method": str, "perturbation": str}) for part in parts])
        return found.rename(columns={"perturbation": "condition"})[["image", "method", "condition", "rbo", "changed"]]

    def held_means(self, value: str, key: Sequence[str]) -> Frame:
        """The mean of a number of each image and method over the pairs whose prediction held: columns `key`, value."""
        parts = []
        for block in self.blocks((value,)):
            held: Any = block[(block["changed"] == False) & block[value].notna()]  # noqa: E712 - a nullable column
            parts.append(held.groupby(list(key), observed=True)[value].agg(["sum", "count"]).reset_index())
        if not parts:
            return pd.DataFrame(columns=[*key, "value"])
        names = [name for name in key if name != "control"]
        every: Any = pd.concat([part.astype(dict.fromkeys(names, str)) for part in parts])
        sums = every.groupby(list(key))[["sum", "count"]].sum().reset_index()
        return sums.assign(value=sums["sum"] / sums["count"])[[*key, "value"]]

    def _of_values(self, query: str, images: bool = False) -> list[tuple]:
        if images:
            query = f"SELECT dataset, name FROM pair_images SEMI JOIN ({query}) USING (image) ORDER BY image"
        return self._run(query).fetchall()

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        """A query on `here`: these pairs with the columns of their cells."""
        cells = _listed(self.cells["cell"]) or "NULL"
        here = f"SELECT * FROM pair_values JOIN pair_cells USING (cell) WHERE cell IN ({cells})"
        return self.rows.execute(f"WITH here AS ({here}) {query}")

    def image_blocks(self, value: str = "rbo") -> Frame:
        """`robustness_tables.image_blocks` of these pairs: unchanged ones of real methods."""
        parts = [self._image_means(key, Pairs(self.rows, cells), value)
                 for key, cells in self.cells.groupby(list(SETTING), sort=True)]  # fmt: skip
        return pd.concat(parts).sort_index().sort_index(axis=1) if parts else pd.DataFrame()

    def _image_means(self, key: Sequence[str], every: "Pairs", value: str) -> Frame:
        """The means of one setting, over the conditions of an image in which every method has a value."""
        held = f"NOT isnan({value}) AND changed = 0 AND NOT control"
        methods = sorted(every.images_by_method(held))
        first, names = self.images[str(key[1])]
        sums, counts = np.zeros((len(names), len(methods))), np.zeros(len(names))
        mine = Pairs(self.rows, every.cells[every.cells["method"].isin(methods)])
        for block in mine.blocks((value,)):
            block = block[block[value].notna() & (block["changed"] == False)]  # noqa: E712 - a nullable column
            columns = np.array([methods.index(name) for name in block["method"].cat.categories], np.int64)
            for _, part in block.groupby("severity", sort=True):
                table = np.full(sums.shape, np.nan)
                table[part["image"].cat.codes, columns[part["method"].cat.codes]] = part[value]
                whole = ~np.isnan(table).any(1)
                sums[whole] += table[whole]
                counts += whole
        given = every._of_values("SELECT DISTINCT image FROM here ORDER BY image")
        there = np.array([image for (image,) in given], np.int64) - first
        means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)[there]
        index = pd.MultiIndex.from_tuples([(*key, names[image]) for image in there], names=list(BLOCK))
        return pd.DataFrame(means, index=index, columns=pd.Index(methods, name="method"))

    # --- the file ---

    def write(self, path: Path, names: Frame) -> None:
        """Writes all pairs as Parquet, columns PAIRS and the names of the two classes; ordered by the key.

        names: the names of classes: model, class, name.
        """
        numbers = ", ".join(f"nullif({name}, 'nan'::DOUBLE) AS {name}" for name in COMPANIONS)
        key = ", ".join("pair_images.name AS image" if name == "image" else f"pair_cells.{name}" for name in KEY)
        self.rows.register("pair_class_names", names)
        self.rows.execute(
            f"""COPY (
                SELECT {key}, {numbers}, CASE WHEN changed >= 0 THEN changed = 1 END AS changed, clean_class,
                       perturbed_class, coalesce(flag, '') AS flag, coalesce(clean.name, '') AS clean_name,
                       coalesce(perturbed.name, '') AS perturbed_name
                FROM pair_values JOIN pair_cells USING (cell) JOIN pair_images USING (image)
                     LEFT JOIN pair_flags USING (cell, image)
                     LEFT JOIN pair_class_names AS clean
                         ON clean.model = pair_cells.model AND clean.class = clean_class
                     LEFT JOIN pair_class_names AS perturbed
                         ON perturbed.model = pair_cells.model AND perturbed.class = perturbed_class
                ORDER BY setting, pair_values.image, place
            ) TO '{str(path).replace("'", "''")}'
            (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{pandas: '{_pandas()}'}})"""
        )


def _pandas() -> str:
    """What pandas reads of a Parquet file beside its types: which columns are nullable booleans and integers."""
    kinds = {"changed": ("bool", "boolean"), "clean_class": ("int32", "Int32"), "perturbed_class": ("int32", "Int32")}
    columns = [{"name": name, "field_name": name, "pandas_type": kind, "numpy_type": made, "metadata": None}
               for name, (kind, made) in kinds.items()]  # fmt: skip
    return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns})


def _make(rows: duckdb.DuckDBPyConnection) -> None:
    """Makes the tables of cells, images, numbers and flags."""
    names = ", ".join(CELL)
    rows.execute(
        f"""CREATE TABLE pair_cells AS WITH {_OF_PAIRS}, kinds AS (SELECT DISTINCT {names} FROM of_pairs)
            SELECT (row_number() OVER (ORDER BY {names}) - 1)::INTEGER AS cell, *,
                   dense_rank() OVER (ORDER BY {", ".join(SETTING)})::INTEGER AS setting,
                   row_number() OVER (ORDER BY {", ".join(SETTING)}, method, control, perturbation, severity)::INTEGER
                       AS place
            FROM kinds"""
    )
    rows.execute(
        f"""CREATE TABLE pair_images AS WITH {_OF_PAIRS}, kinds AS (SELECT DISTINCT dataset, image FROM of_pairs)
            SELECT (row_number() OVER (ORDER BY dataset, image) - 1)::INTEGER AS image, dataset, image AS name
            FROM kinds"""
    )
    of_cells = f"""{_OF_PAIRS}, numbered AS (
        SELECT cell, pair_images.image AS image, metric, value, flag, changed, clean_class, perturbed_class
        FROM of_pairs
        JOIN pair_cells USING ({names})
        JOIN pair_images ON pair_images.dataset = of_pairs.dataset AND pair_images.name = of_pairs.image)"""
    values = ", ".join(
        f"coalesce(any_value(value) FILTER (metric = '{name}'), 'nan'::DOUBLE) AS {name}" for name in COMPANIONS
    )
    seen = " + ".join(f"(count(*) FILTER (metric = '{name}') > 0)::INTEGER" for name in COMPANIONS)
    rows.execute(
        f"""CREATE TABLE pair_values AS WITH {of_cells}
            SELECT cell, image, {values}, coalesce(bool_or(changed)::TINYINT, -1)::TINYINT AS changed,
                   max(clean_class) AS clean_class, max(perturbed_class) AS perturbed_class,
                   count(*)::INTEGER AS copies, ({seen})::TINYINT AS kinds
            FROM numbered GROUP BY cell, image ORDER BY cell, image"""
    )
    rows.execute(
        f"""CREATE TABLE pair_flags AS WITH {of_cells}
            SELECT cell, image, string_agg(DISTINCT flag, '; ' ORDER BY flag) AS flag FROM numbered
            WHERE flag <> '' GROUP BY cell, image"""
    )
    key = ", ".join("name AS image" if name == "image" else f"pair_cells.{name}" for name in KEY)
    twice: Frame = rows.execute(
        f"""SELECT {key}, copies FROM pair_values JOIN pair_cells USING (cell) JOIN pair_images USING (image)
            WHERE copies <> kinds ORDER BY setting, pair_values.image, place LIMIT 1"""
    ).df()
    refuse_copies(twice, twice["copies"] > 0, KEY, "metric of a pair")


def _listed(cells: Any) -> str:
    return ", ".join(map(str, cells))
