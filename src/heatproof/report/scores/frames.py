"""Data frames from the rows of a score study: scores, points of curves, and what was flagged."""

import duckdb
import pandas as pd

from heatproof.errors import StoreError
from heatproof.report.frames import Frame
from heatproof.statistics.scores import CURVE

#: What names a row of tables/pictures.parquet.
KEY = ("model", "dataset", "layer", "target", "image", "method", "control", "metric")
#: Columns of tables/pictures.parquet, in order.
PICTURES = (*KEY, "value", "flag")


def scores(rows: duckdb.DuckDBPyConnection) -> Frame:
    """One row per picture, method and metric, columns as PICTURES; ordered by the key.

    Raises:
        StoreError: a score stored twice, as two studies in one folder would leave it.
    """
    key = ", ".join(KEY)
    frame: Frame = rows.execute(
        f"""SELECT {key}, any_value(value) AS value,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag,
                   count(*) AS copies
            FROM rows WHERE method <> '' AND NOT suffix(metric, '{CURVE}') GROUP BY {key} ORDER BY {key}"""
    ).df()
    double = frame[frame["copies"] != 1]
    if len(double):
        where = ", ".join(f"{name}={double.iloc[0][name]!r}" for name in KEY)
        raise StoreError(
            f"Expected one row per picture, method and metric. Got {int(double.iloc[0]['copies'])} for {where}. "
            "Two studies were written into one folder; run again into a new one."
        )
    return frame[list(PICTURES)].astype({"value": "float64", "control": "bool"})


def curves(rows: duckdb.DuckDBPyConnection) -> Frame:
    """The points of all curves: model, dataset, image, method, metric (`NAME-curve`), strength, value."""
    columns = "model, dataset, image, method, metric, strength"
    return rows.execute(
        f"""SELECT {columns}, any_value(value)::DOUBLE AS value FROM rows
            WHERE method <> '' AND suffix(metric, '{CURVE}') AND flag = '' GROUP BY {columns} ORDER BY {columns}"""
    ).df()


def reasons(rows: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Flags on scores of usable pictures: flag, metrics and methods as lists, pictures, rows."""
    return rows.execute(
        f"""WITH aside AS (SELECT dataset, image FROM rows GROUP BY dataset, image HAVING bool_and(flag <> ''))
           SELECT flag, list_sort(list(DISTINCT metric)) AS metrics, list_sort(list(DISTINCT method)) AS methods,
                  count(DISTINCT (dataset, image)) AS pictures, count(*) AS rows
           FROM rows ANTI JOIN aside USING (dataset, image)
           WHERE method <> '' AND flag <> '' AND NOT suffix(metric, '{CURVE}')
           GROUP BY flag ORDER BY rows DESC, flag"""
    ).df()
