"""Rows of a study, gathered column by column and turned into one Arrow table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

#: Columns of a row, in order; a row is one (model, dataset, image, method, layer, condition, segmenter, metric).
SCHEMA = pa.schema(
    [
        ("study", pa.string()),
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("layer", pa.string()),
        ("segmenter", pa.string()),
        ("layers", pa.string()),
        ("operator", pa.string()),
        ("method", pa.string()),
        ("control", pa.bool_()),
        ("perturbation", pa.string()),
        ("severity", pa.int16()),
        ("strength", pa.float64()),
        ("transformation", pa.string()),
        ("target", pa.string()),
        ("state", pa.string()),
        ("reference", pa.bool_()),
        ("image", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("flag", pa.string()),
        ("n", pa.int32()),
        ("seed", pa.int64()),
        ("options", pa.string()),
        ("version", pa.string()),
        ("changed", pa.bool_()),
        ("clean_class", pa.int32()),
        ("perturbed_class", pa.int32()),
        ("clean_probability", pa.float64()),
        ("perturbed_probability", pa.float64()),
    ]
)

_DEFAULTS: Mapping[str, Any] = {
    "segmenter": "",
    "layers": "",
    "operator": "",
    "method": "",
    "control": False,
    "perturbation": "",
    "severity": 0,
    "strength": 0.0,
    "transformation": "",
    "state": "",
    "reference": False,
    "flag": "",
    "n": 0,
    "options": "",
    "changed": None,
    "clean_class": None,
    "perturbed_class": None,
    "clean_probability": None,
    "perturbed_probability": None,
}

#: Columns by which rows are sorted.
ORDER = (*("image", "transformation", "target", "state", "perturbation", "severity", "segmenter", "method", "metric"),)


class Rows:
    """Blocks of rows; a block is columns of one length, and single values that hold for the whole block."""

    def __init__(self, **common: Any):
        self._common = {**_DEFAULTS, **common}
        self._blocks: list[tuple[int, dict[str, Any]]] = []

    def add(self, images: Sequence[str], **columns: Any) -> None:
        """Adds one row per image; a column is a list or array of that length, or one value for all."""
        self._blocks.append((len(images), {**columns, "image": list(images)}))

    def extend(self, other: "Rows") -> None:
        """Adds the blocks of another set of rows of the same study."""
        self._blocks += [(count, {**other._common, **columns}) for count, columns in other._blocks]

    def table(self) -> pa.Table:
        """All rows in a fixed order, so that the same rows give the same bytes in whatever order they were added."""
        columns = {field.name: self._column(field) for field in SCHEMA}
        table = pa.table(columns, schema=SCHEMA)
        return table.sort_by([(name, "ascending") for name in ORDER])

    def _column(self, field: pa.Field) -> pa.Array:
        parts = [_fill_column(columns.get(field.name, self._common.get(field.name)), count, field)
                 for count, columns in self._blocks]  # fmt: skip
        return pa.chunked_array(parts, type=field.type) if parts else pa.chunked_array([[]], type=field.type)


def _fill_column(value: Any, count: int, field: pa.Field) -> pa.Array:
    if isinstance(value, list | tuple | np.ndarray):
        return pa.array(value, type=field.type, from_pandas=False)
    if value is None:
        return pa.nulls(count, field.type)
    return pa.repeat(pa.scalar(value, field.type), count)
