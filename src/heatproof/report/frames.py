"""Data frames pivoted from the rows with DuckDB: pairs, noise, segments, masks, and what was flagged."""

import os
from typing import Any

import duckdb
import pandas as pd

from heatproof.errors import StoreError
from heatproof.report.source import open_source

#: A pandas DataFrame. Any to the type checker, as pandas' annotations let every selection be a Series.
Frame = Any

KEY = ("model", "dataset", "layer", "segmenter", "image", "method", "control", "perturbation", "severity")
COMPANIONS = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")
#: Columns of tables/pairs.parquet, in order.
PAIRS = (*KEY, *COMPANIONS, "changed", "clean_class", "perturbed_class", "flag")
CONDITION = ("model", "dataset", "image", "perturbation", "severity")


def pairs(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """One row per image × method × perturbation × severity (and segmenter, layer, dataset, model).

    `source` is a study folder or a connection with the view `rows`. Columns as in `tables/pairs.parquet`:
    numbers float64 (NaN where a flagged picture or a constant map has none), `changed` a nullable boolean,
    classes nullable integers; flagged rows are kept. Ordered by the key, so equal rows give equal frames.
    """
    key = ", ".join(KEY)
    values = ", ".join(f"any_value(value) FILTER (metric = '{m}') AS {m}" for m in COMPANIONS)
    frame = _frame(
        source,
        f"""SELECT {key}, {values}, bool_or(changed) AS changed,
                   max(clean_class) AS clean_class, max(perturbed_class) AS perturbed_class,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag,
                   count(*) AS copies, count(DISTINCT metric) AS kinds
            FROM rows WHERE method <> '' AND perturbation <> '' GROUP BY {key} ORDER BY {key}""",
    )
    _refuse_doubles(frame)
    types = dict.fromkeys(COMPANIONS, "float64") | {"changed": "boolean", "control": "bool"}
    types |= {"clean_class": "Int32", "perturbed_class": "Int32", "severity": "int16"}
    return pd.DataFrame(frame[list(PAIRS)].astype(types))


def psnr(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Peak signal-to-noise ratio in dB of each perturbed picture: columns of CONDITION and `psnr`."""
    key = ", ".join(CONDITION)
    return _frame(
        source,
        f"""SELECT {key}, any_value(value) AS psnr FROM rows
            WHERE metric = 'psnr' AND perturbation <> '' GROUP BY {key} ORDER BY {key}""",
    ).astype({"severity": "int16", "psnr": "float64"})


def flagged(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Pictures that could not be used at all, with the reason: dataset, image, reason."""
    return _frame(
        source,
        """SELECT dataset, image, string_agg(DISTINCT flag, '; ' ORDER BY flag) AS reason
           FROM rows GROUP BY dataset, image
           HAVING bool_and(flag <> '') ORDER BY dataset, image""",
    )


def truth(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Cosine similarity with the mask for each picture and method; empty where no picture has a mask."""
    key = "model, dataset, layer, image, method, control"
    return _frame(
        source,
        f"""SELECT {key}, any_value(value) AS cosine,
                   coalesce(string_agg(DISTINCT flag, '; ' ORDER BY flag) FILTER (flag <> ''), '') AS flag
            FROM rows WHERE metric = 'mask-cosine' AND perturbation = '' GROUP BY {key} ORDER BY {key}""",
    ).astype({"cosine": "float64", "control": "bool"})


def strengths(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """The main parameter of every severity: model, dataset, perturbation, severity, strength."""
    key = "model, dataset, perturbation, severity"
    return _frame(
        source,
        f"""SELECT {key}, max(strength) FILTER (NOT isnan(strength) AND flag = '') AS strength FROM rows
            WHERE perturbation <> '' GROUP BY {key} ORDER BY {key}""",
    ).astype({"strength": "float64"})


def segments(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """How many segments each picture was cut into: model, dataset, segmenter, image, segments."""
    key = "model, dataset, segmenter, image"
    return _frame(
        source,
        f"""SELECT {key}, max(n)::DOUBLE AS segments FROM rows
            WHERE metric = 'rbo' AND n > 0 GROUP BY {key} ORDER BY {key}""",
    )


def correct(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Share of right predictions on the clean pictures that have a label: model, dataset, n, correct."""
    return _frame(
        source,
        """SELECT model, dataset, count(*) AS n, avg(value) AS correct FROM rows
           WHERE metric = 'correct' AND perturbation = '' AND NOT isnan(value)
           GROUP BY model, dataset ORDER BY model, dataset""",
    )


def remarks(source: duckdb.DuckDBPyConnection | str | os.PathLike) -> pd.DataFrame:
    """Flags on single maps of usable pictures, counted in pairs: method, flag, pairs."""
    return _frame(
        source,
        """WITH aside AS (SELECT dataset, image FROM rows GROUP BY dataset, image HAVING bool_and(flag <> ''))
           SELECT method, flag, count(DISTINCT (model, dataset, image, perturbation, severity)) AS pairs
           FROM rows ANTI JOIN aside USING (dataset, image)
           WHERE method <> '' AND perturbation <> '' AND flag <> ''
           GROUP BY method, flag ORDER BY method, flag""",
    )


def _frame(source: duckdb.DuckDBPyConnection | str | os.PathLike, query: str) -> pd.DataFrame:
    if isinstance(source, str | os.PathLike):
        source = open_source(source).connection
    return source.execute(query).df()


def _refuse_doubles(frame: pd.DataFrame) -> None:
    """The same number stored twice means that two studies share a folder: averaging them would hide it."""
    double = frame[frame["copies"] != frame["kinds"]]
    if len(double):
        where = ", ".join(f"{name}={double.iloc[0][name]!r}" for name in KEY)
        raise StoreError(
            f"Expected one row per metric of a pair. Got {int(double.iloc[0]['copies'])} for {where}. "
            "Two studies were written into one folder; run again into a new one."
        )
