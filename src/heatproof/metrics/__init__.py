"""Scores of maps: one small function each, tensor in, tensor out (see CONTRIBUTING).

A module of metrics is imported here; that is what puts them into the registry.
"""

# ruff: noqa: F401 - imported for what they register
from heatproof.metrics import (
    coherency,
    completeness,
    complexity,
    composites,
    correlation,
    fidelity,
    flipping,
    infidelity,
    information,
    localisation,
    monotonicity,
    part_checks,
    road,
    sanity,
    sensitivity,
    stability,
)
from heatproof.metrics.catalogue import FAMILIES, METRICS, Curve, composite, metric

__all__ = ["FAMILIES", "METRICS", "Curve", "composite", "metric"]
