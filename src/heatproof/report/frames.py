"""Data frames pivoted from the rows with DuckDB: pairs, noise, segments, masks, scores, and what was flagged."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pandas as pd

from heatproof.errors import StoreError
from heatproof.report.source import open_source
from heatproof.statistics.peaks import Peaks
from heatproof.statistics.special_rows import CURVE, GROUND_TRUTH, PARTS, PEAK, PROJECTION
from heatproof.studies.store import SAME_TARGET

#: A pandas DataFrame. Any to the type checker, as pandas' annotations let every selection be a Series.
Frame = Any

KEY = ("model", "dataset", "layer", "segmenter", "image", "method", "control", "perturbation", "severity")
COMPANIONS = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")
#: Columns of tables/pairs.parquet, in order.
PAIRS = (*KEY, *COMPANIONS, "changed", "clean_class", "perturbed_class", "flag")
CONDITION = ("model", "dataset", "image", "perturbation", "severity")
#: The key of tables/pictures.parquet.
SCORE = ("model", "dataset", "layer", "target", "image", "method", "control", "metric")
#: Columns of tables/pictures.parquet, in order.
SCORES = (*SCORE, "value", "flag")
#: Rows that hold a number for readers, not one that the report works with.
SHOWN = f"metric NOT IN ('{PROJECTION}', '{PEAK}') AND method <> '{GROUND_TRUTH}'"
#: Rows of metrics under the reference condition.
REFERENCE = f"method <> '' AND reference AND {SHOWN}"
#: The rows under conditions that change the image alone. `perturbation` names all that was done to the image.
DISTURBED = f"""disturbed AS (
    SELECT * REPLACE (CASE WHEN transformation = '' THEN perturbation WHEN perturbation = '' THEN transformation
                      ELSE perturbation || ' after ' || transformation END AS perturbation)
    FROM rows WHERE NOT reference AND state = '' AND (perturbation <> '' OR transformation <> '') AND {SAME_TARGET})"""


def pairs(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """One row per image × method × perturbation × severity (and segmenter, layer, dataset, model).

    `source` is a study folder or a connection with the view `rows`. Columns as in `tables/pairs.parquet`:
    numbers float64 (NaN where a flagged image or a constant map has none), `changed` a nullable boolean,
    classes nullable integers; flagged rows are kept. Ordered by the key, so equal rows give equal frames.
    """
    key = ", ".join(KEY)
    values = ", ".join(f"any_value(value) FILTER (metric = '{m}') AS {m}" for m in COMPANIONS)
    frame = _frame(
        source,
        f"""WITH {DISTURBED}
            SELECT {key}, {values}, bool_or(changed) AS changed,
                   max(clean_class) AS clean_class, max(perturbed_class) AS perturbed_class,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag,
                   count(*) AS copies, count(DISTINCT metric) AS kinds
            FROM disturbed WHERE method <> '' AND metric IN {COMPANIONS} GROUP BY {key} ORDER BY {key}""",
    )
    refuse_copies(frame, frame["copies"] != frame["kinds"], KEY, "metric of a pair")
    types: dict[str, str] = dict.fromkeys(COMPANIONS, "float64") | {"changed": "boolean", "control": "bool"}
    types |= {"clean_class": "Int32", "perturbed_class": "Int32", "severity": "int16"}
    return pd.DataFrame(frame[list(PAIRS)].astype(types))


def psnr(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Peak signal-to-noise ratio in dB of each perturbed image: columns of CONDITION and `psnr`."""
    key = ", ".join(CONDITION)
    return _frame(
        source,
        f"""WITH {DISTURBED} SELECT {key}, any_value(value) AS psnr FROM disturbed
            WHERE metric = 'psnr' GROUP BY {key} ORDER BY {key}""",
    ).astype({"severity": "int16", "psnr": "float64"})


def psnr_blocks(rows: duckdb.DuckDBPyConnection) -> Callable[[str, str, str], Frame]:
    """(model, dataset, perturbation) → the PSNR of each image there: perturbation, severity, psnr."""
    rows.execute(
        f"""CREATE OR REPLACE TEMP TABLE psnr_values AS WITH {DISTURBED}
            SELECT {", ".join(CONDITION)}, any_value(value)::DOUBLE AS psnr FROM disturbed
            WHERE metric = 'psnr' GROUP BY ALL"""
    )
    query = """SELECT perturbation, severity, psnr FROM psnr_values WHERE model = ? AND dataset = ? AND perturbation = ?
               ORDER BY image, severity"""
    return lambda *where: rows.execute(query, list(where)).df().astype({"severity": "int16", "psnr": "float64"})


def left_out(rows: duckdb.DuckDBPyConnection) -> list[str]:
    """Conditions that change more than the image, by their names: those that DISTURBED does not hold."""
    query = f"""SELECT DISTINCT transformation, target, state, perturbation, severity, NOT ({SAME_TARGET}) AS other
                FROM rows WHERE NOT reference AND NOT (state = '' AND {SAME_TARGET}) ORDER BY ALL"""
    return [
        " ".join(
            [
                *([f"{kind}:{severity}"] if kind else []),
                *([turned] if turned else []),
                *([f"target {target}"] if other else []),
                *([state] if state else []),
            ]
        )
        for turned, target, state, kind, severity, other in rows.execute(query).fetchall()
    ]


def flips(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Share of changed predictions: model, dataset, perturbation, severity (as text, and "all"), n, flip_rate."""
    key = "model, dataset, perturbation"
    counts = "count(*) AS n, avg(changed::INT) AS flip_rate"
    return _frame(
        source,
        f"""WITH {DISTURBED}, predictions AS (
              SELECT * FROM disturbed WHERE metric IN ('probability', 'value') AND flag = '' AND changed IS NOT NULL)
            SELECT {key}, severity::TEXT AS severity, {counts} FROM predictions GROUP BY {key}, severity
            UNION ALL SELECT {key}, 'all', {counts} FROM predictions GROUP BY {key} ORDER BY ALL""",
    ).astype({"flip_rate": "float64"})


def flagged(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Images that could not be used at all, with the reason: dataset, image, reason."""
    return _frame(
        source,
        """SELECT dataset, image, string_agg(DISTINCT flag, '; ' ORDER BY flag) AS reason
           FROM rows GROUP BY dataset, image
           HAVING bool_and(flag <> '') ORDER BY dataset, image""",
    )


def one_coloured(rows: duckdb.DuckDBPyConnection) -> list[str]:
    """The images that are nearly one colour after preprocessing."""
    query = "SELECT DISTINCT image FROM rows WHERE metric = 'contrast' AND method = '' AND reference ORDER BY image"
    return [image for (image,) in rows.execute(query).fetchall()]


def mask_cosines(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Cosine similarity with the mask for each image and method; empty where no image has a mask."""
    key = "model, dataset, layer, image, method, control"
    return _frame(
        source,
        f"""SELECT {key}, any_value(value) AS cosine,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag
            FROM rows WHERE metric = 'mask-cosine' AND {REFERENCE} GROUP BY {key} ORDER BY {key}""",
    ).astype({"cosine": "float64", "control": "bool"})


def strengths(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """The main parameter of every severity: model, dataset, perturbation, severity, strength."""
    key = "model, dataset, perturbation, severity"
    return _frame(
        source,
        f"""WITH {DISTURBED}
            SELECT {key}, max(strength) FILTER (isfinite(strength) AND flag = '') AS strength FROM disturbed
            GROUP BY {key} ORDER BY {key}""",
    ).astype({"strength": "float64"})


def segments(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """How many segments each image was cut into: model, dataset, segmenter, image, segments."""
    key = "model, dataset, segmenter, image"
    return _frame(
        source,
        f"""SELECT {key}, max(n)::DOUBLE AS segments FROM rows
            WHERE metric = 'rbo' AND n > 0 GROUP BY {key} ORDER BY {key}""",
    )


def correct(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Share of right predictions on the reference images with a label and a prediction: model, dataset, n, correct."""
    return _frame(
        source,
        """SELECT model, dataset, count(*) AS n, avg(value) AS correct FROM rows
           WHERE metric = 'correct' AND reference AND flag = '' AND isfinite(value)
           GROUP BY model, dataset ORDER BY model, dataset""",
    )


def scores(rows: duckdb.DuckDBPyConnection, pooled: Sequence[str] = ()) -> Frame:
    """One row per image, method and metric under the reference, columns as SCORES; ordered by the key.

    pooled: the classes of an image over which its score is the mean; a class that two targets name counts once. Scores
    of classes that have none are left out, and the flags of all are kept.

    Raises:
        StoreError: a score is stored twice, as by two studies in one folder.
    """
    frame = scores_by_class(rows, pooled) if pooled else _scores_by_target(rows, pooled)
    if pooled:
        key = [name for name in SCORE if name != "target"]
        cells = frame.groupby(key, sort=False, observed=True)
        values, flags = cells["value"].mean(), cells["flag"].agg(lambda each: "; ".join(sorted(set(each) - {""})))
        frame = values.to_frame().assign(flag=flags, target="; ".join(pooled)).reset_index()
    return frame[list(SCORES)].astype({"value": "float64", "control": "bool"})


def scores_by_class(rows: duckdb.DuckDBPyConnection, pooled: Sequence[str] = ()) -> Frame:
    """One row per image, method, metric and class explained, columns as SCORES, with `explained`, the class's index.

    An image without a class, as one without a label, has the index missing. Of two targets of one class the first
    stays.
    """
    found = _scores_by_target(rows, pooled).merge(_classes(rows, pooled), how="left")
    found = _first_of_class(found, [name for name in SCORE if name != "target"], pooled)
    return found.sort_values(list(SCORE), kind="stable").reset_index(drop=True)


def _classes(rows: duckdb.DuckDBPyConnection, pooled: Sequence[str]) -> Frame:
    """The class that each target is of each image: model, dataset, target, image, explained."""
    key = "model, dataset, target, image"
    return rows.execute(
        f"""SELECT {key}, any_value(value)::BIGINT AS explained FROM rows
            WHERE method = '' AND metric = 'target-class' AND flag = '' AND isfinite(value) AND {_explained(pooled)}
            GROUP BY {key} ORDER BY {key}"""
    ).df()


def _first_of_class(frame: Frame, key: Sequence[str], pooled: Sequence[str]) -> Frame:
    """The rows of the first target, in the order of `pooled`, of those that name one class."""
    order = {target: position for position, target in enumerate(pooled)}
    frame = frame.sort_values("target", key=lambda names: names.map(order), kind="stable") if pooled else frame
    return frame.drop_duplicates([*key, "explained"])


def _explained(pooled: Sequence[str]) -> str:
    """The condition on rows of the reference and, of several classes of each image, of the others."""
    if not pooled:
        return "reference"
    named = ", ".join("'" + target.replace("'", "''") + "'" for target in pooled)
    return f"(reference OR (perturbation = '' AND transformation = '' AND state = '' AND target IN ({named})))"


def _scores_by_target(rows: duckdb.DuckDBPyConnection, pooled: Sequence[str]) -> Frame:
    key = ", ".join(SCORE)
    frame: Frame = rows.execute(
        f"""SELECT {key}, any_value(value) AS value,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag,
                   count(*) AS copies
            FROM rows WHERE method <> '' AND {_explained(pooled)} AND {SHOWN} AND NOT suffix(metric, '{CURVE}')
            GROUP BY {key} ORDER BY {key}"""
    ).df()
    refuse_copies(frame, frame["copies"] != 1, SCORE, "image, method and metric")
    return frame.drop(columns="copies")


def ground_truth_scores(rows: duckdb.DuckDBPyConnection) -> Frame:
    """The scores of the ground truth itself as a map: model, dataset, image, metric, value."""
    return rows.execute(
        f"""SELECT model, dataset, image, metric, any_value(value)::DOUBLE AS value FROM rows
            WHERE reference AND method = '{GROUND_TRUTH}' AND NOT suffix(metric, '{CURVE}')
            GROUP BY model, dataset, image, metric ORDER BY ALL"""
    ).df()


def correct_images(rows: duckdb.DuckDBPyConnection) -> Frame:
    """Whether each reference image with a label and a prediction is classified right: model, dataset, image, right."""
    return rows.execute(
        """SELECT model, dataset, image, any_value(value) = 1 AS right FROM rows
           WHERE metric = 'correct' AND reference AND flag = '' AND isfinite(value)
           GROUP BY model, dataset, image ORDER BY ALL"""
    ).df()


def condition_scores(rows: duckdb.DuckDBPyConnection) -> Frame:
    """One row per image, method and metric under every condition that is the reference or has no perturbation.

    Columns as SCORES, with `transformation` and `reference`. Conditions with another state of the model are left out.

    Raises:
        StoreError: a score is stored twice, as by two studies in one folder.
    """
    key = (*SCORE, "transformation", "reference")
    columns = ", ".join(key)
    frame: Frame = rows.execute(
        f"""SELECT {columns}, any_value(value) AS value,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag,
                   count(*) AS copies
            FROM rows WHERE method <> '' AND {SHOWN} AND NOT suffix(metric, '{CURVE}')
                 AND (reference OR (perturbation = '' AND state = ''))
            GROUP BY {columns} ORDER BY {columns}"""
    ).df()
    refuse_copies(frame, frame["copies"] != 1, key, "image, method, metric and condition")
    return frame[[*key, "value", "flag"]].astype({"value": "float64", "control": "bool", "reference": "bool"})


def confidences(rows: duckdb.DuckDBPyConnection) -> Frame:
    """The probability of each class explained on the images as they are: model, dataset, target, image, value."""
    key = "model, dataset, target, image"
    return rows.execute(
        f"""SELECT {key}, any_value(value)::DOUBLE AS value FROM rows
            WHERE method = '' AND metric = 'probability' AND flag = '' AND isfinite(value)
                  AND transformation = '' AND perturbation = '' AND state = ''
            GROUP BY {key} ORDER BY {key}"""
    ).df()


def classified_right(frame: Frame, right: Frame) -> tuple[Frame, float | None]:
    """The rows whose image is classified right, and the accuracy; all rows and None where there are no labels.

    frame, right (`correct_images`): of one model and dataset.
    """
    if not len(right):
        return frame, None
    return frame[frame["image"].isin(right.loc[right["right"], "image"])], float(right["right"].mean())


def projections(rows: duckdb.DuckDBPyConnection, pooled: Sequence[str] = ()) -> Frame:
    """The projection of each map on the reference images: model, dataset, target, image, method, control, value.

    pooled: as for `scores`.
    """
    key = "model, dataset, target, image, method, control"
    return rows.execute(
        f"""SELECT {key}, any_value(value)::DOUBLE AS value FROM rows
            WHERE {_explained(pooled)} AND metric = '{PROJECTION}' GROUP BY {key} ORDER BY {key}"""
    ).df()


def peaks(rows: duckdb.DuckDBPyConnection, model: str, dataset: str) -> dict[str, Peaks]:
    """How often the peak of each method lies on the mask, on the reference images of a model and a dataset."""
    frame: Frame = rows.execute(
        f"""SELECT method, value, flag <> '' AS flat FROM rows
            WHERE metric = '{PEAK}' AND reference AND model = ? AND dataset = ? ORDER BY method, image""",
        [model, dataset],
    ).df()
    found: dict[str, list[tuple[float, bool]]] = {}
    for method, value, flat in frame.itertuples(index=False):
        found.setdefault(method, []).append((value, flat))
    return {method: Peaks.of(decisions) for method, decisions in found.items()}


def curves(rows: duckdb.DuckDBPyConnection, pooled: Sequence[str] = ()) -> Frame:
    """The points of all curves: model, dataset, image, method, metric (`NAME-curve`), strength, value.

    Without those of parts, which go over thresholds (`part_findings`). pooled: as for `scores`.
    """
    columns = ["model", "dataset", "image", "method", "metric", "strength"]
    named = ", ".join((*columns, "target"))
    points: Frame = rows.execute(
        f"""SELECT {named}, any_value(value)::DOUBLE AS value FROM rows
            WHERE method <> '' AND {_explained(pooled)} AND {SHOWN} AND suffix(metric, '{CURVE}')
                  AND NOT starts_with(metric, '{PARTS}') AND isfinite(value)
            GROUP BY {named} ORDER BY {named}"""
    ).df()
    if pooled:
        points = _first_of_class(points.merge(_classes(rows, pooled), how="left"), columns, pooled)
    return points.groupby(columns, as_index=False)["value"].mean()


def reasons(rows: duckdb.DuckDBPyConnection) -> Frame:
    """Flags on values of usable images: flag, metrics and methods as lists, images, rows."""
    return rows.execute(
        f"""WITH aside AS (SELECT dataset, image FROM rows GROUP BY dataset, image HAVING bool_and(flag <> ''))
           SELECT flag, list_sort(list(DISTINCT metric)) AS metrics, list_sort(list(DISTINCT method)) AS methods,
                  count(DISTINCT (dataset, image)) AS images, count(*) AS rows
           FROM rows ANTI JOIN aside USING (dataset, image)
           WHERE method <> '' AND flag <> '' AND {SHOWN} AND NOT suffix(metric, '{CURVE}')
           GROUP BY flag ORDER BY rows DESC, flag"""
    ).df()


def distinct(rows: duckdb.DuckDBPyConnection, *columns: str) -> list[tuple]:
    """The different values of some columns."""
    names = ", ".join(columns)
    return rows.execute(f"SELECT DISTINCT {names} FROM rows ORDER BY {names}").fetchall()


def layers_of(rows: duckdb.DuckDBPyConnection, model: str) -> dict[str, str]:
    """Method → the layers of a model that it read, empty where it reads none."""
    query = "SELECT method, max(layers) FROM rows WHERE method <> '' AND model = ? GROUP BY method"
    return dict(rows.execute(query, [model]).fetchall())


def count_images(rows: duckdb.DuckDBPyConnection, dataset: str) -> int:
    """How many images of a dataset have rows."""
    found = rows.execute("SELECT count(DISTINCT image) FROM rows WHERE dataset = ?", [dataset]).fetchone()
    return found[0] if found else 0


# --- names in order ---


def names(given: Any) -> list[str]:
    """Names from a list of names, or of mappings with a name."""
    given = [given] if isinstance(given, str) else given or ()
    return [str(item.get("name")) if isinstance(item, Mapping) else str(item) for item in given]


def ordered(there: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """The names in `there`: those of `wanted` in that order, then the others sorted."""
    there = set(there)
    return list(dict.fromkeys([name for name in wanted if name in there] + sorted(there)))


def slug(text: str) -> str:
    """A name as part of a file name: at most 40 lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def _frame(source: duckdb.DuckDBPyConnection | str | os.PathLike, query: str) -> pd.DataFrame:
    if isinstance(source, str | os.PathLike):
        source = open_source(source).connection
    return source.execute(query).df()


def refuse_copies(frame: Frame, double: Any, key: Collection[str], of: str) -> None:
    """StoreError for a number stored twice: two studies share the folder, which averaging would hide."""
    found = frame[double]
    if len(found):
        where = ", ".join(f"{name}={found.iloc[0][name]!r}" for name in key)
        raise StoreError(
            f"Expected one row per {of}. Got {int(found.iloc[0]['copies'])} for {where}. "
            "Two studies were written into one folder; run again into a new one."
        )
