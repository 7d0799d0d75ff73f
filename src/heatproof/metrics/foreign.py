"""Metrics from elsewhere under the same roof: functions of the user's, and those of Quantus."""

from heatproof.errors import InvalidInput
from heatproof.metrics.catalogue import METRICS

PYTHON, QUANTUS = "python:", "quantus:"


def by_name(name: str) -> bool:
    """Whether the name itself says where the metric is."""
    return name.startswith((PYTHON, QUANTUS))


def register_from(spec: str) -> str:
    """`python:package.module:fn` or `quantus:Name` → its registered name; again is free."""
    if spec in METRICS:
        return METRICS[spec].name
    raise InvalidInput(f"Expected python:package.module:function, or quantus:Metric. Got {spec!r}.")
