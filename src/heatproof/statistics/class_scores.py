"""Scores by the class explained, where images are explained for different classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from heatproof.class_names import name_of
from heatproof.statistics.score_tables import COLUMNS, Directions, score_table

#: Columns of tables/classes.csv.
CLASSES = ("model", "dataset", "class_index", "class", *COLUMNS[1:])


def class_table(
    rows: Any,
    directions: Directions,
    methods: Sequence[str],
    metrics: Sequence[str],
    names: Mapping[str, Sequence[str]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of every metric and method over the images explained for a class; columns as CLASSES, as `score_table`.

    Empty where there is one class. Classes come by their number of images, then by index.

    Args:
        rows: a row per image, method, metric and class: `explained` is its index.
        methods, metrics: their order. names: model → the names of its classes by index.
    """
    tables = []
    for (model, dataset), setting in rows.groupby(["model", "dataset"], sort=False, observed=True):
        counts = setting.groupby("explained")["image"].nunique().sort_index()
        counts = counts.sort_values(ascending=False, kind="stable")
        for index in counts.index if len(counts) > 1 else ():
            table: Any = score_table(setting[setting["explained"] == index], directions, resamples=resamples, seed=seed)
            order = {name: position for position, name in enumerate((*methods, *metrics))}
            table = table.sort_values(["method", "metric"], key=lambda column: column.map(order), kind="stable")
            name = name_of(names.get(model) or (), int(index))
            tables.append(table.assign(dataset=dataset, class_index=int(index), **{"class": name}))
    found: Any = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(CLASSES))
    return found[list(CLASSES)]
