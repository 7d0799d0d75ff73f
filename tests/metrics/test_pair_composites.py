"""Composites of pairs: against the formulas of paper N written out, and equal to the columns of the table."""

import numpy as np
import pandas as pd
import pytest

from heatproof.errors import InvalidInput
from heatproof.metrics.composites import PAIR_COMPOSITES, of_pairs
from heatproof.metrics.metric_request import requested_metrics
from heatproof.statistics.robustness_tables import robustness_table


def pairs(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    severity = np.repeat([1, 3, 5], n // 3)
    changed = rng.random(n) < severity / 8
    rbo = np.clip(rng.normal(0.8 - 0.05 * severity - 0.2 * changed, 0.1), 0, 1).round(2)
    return pd.DataFrame({"severity": severity, "changed": changed, "rbo": rbo, "kappa": 2 * rbo - 1})


def slow_area(rbo, changed) -> float:
    """P(a changed pair has the lower RBO) + ½ P(equal)."""
    wins = [(a < b) + 0.5 * (a == b) for a in rbo[changed] for b in rbo[~changed]]
    return float(np.mean(wins))


def test_they_are_the_formulas():
    frame = pairs()
    rbo, kappa, changed, severity = (frame[name].to_numpy() for name in ("rbo", "kappa", "changed", "severity"))
    area, held, middle = slow_area(rbo, changed), np.median(rbo[~changed]), np.median(kappa[~changed])
    parts = [(changed[severity == s], rbo[severity == s]) for s in (1, 3, 5)]
    weights = [c.sum() * (~c).sum() for c, _ in parts]
    within = np.average([slow_area(r, c) for c, r in parts], weights=weights)
    expected = {
        "consistency": held,
        "responsiveness": area,
        "responsiveness-within": within,
        "rm": held * area,
        "rm0": middle * max(0, 2 * area - 1),
        "rm0-within": middle * max(0, 2 * within - 1),
    }
    found = {name: of_pairs(name, rbo, kappa, changed, severity) for name in PAIR_COMPOSITES}
    assert found == pytest.approx(expected)
    assert len(set(expected.values())) == len(expected)


def test_the_table_has_the_same_numbers():
    frame = pairs().assign(model="m", dataset="d", layer="l", segmenter="grid", method="a", control=False,
                           perturbation="jpeg", image=[f"{i:03d}" for i in range(120)])  # fmt: skip
    whole = robustness_table(frame, resamples=100).set_index("severity").loc["all"]
    rbo, kappa, changed, severity = (frame[name].to_numpy() for name in ("rbo", "kappa", "changed", "severity"))
    for name in PAIR_COMPOSITES:
        column = name.replace("-", "_")
        assert of_pairs(name, rbo, kappa, changed, severity) == pytest.approx(whole[column]), name


def test_too_few_of_a_kind_have_no_value_and_a_map_has_none_at_all():
    frame = pairs()
    changed = np.zeros(120, bool)
    changed[:9] = True
    assert np.isnan(of_pairs("rm0", frame["rbo"].to_numpy(), frame["kappa"].to_numpy(), changed))
    with pytest.raises(InvalidInput, match=r"'RM0' has one value for many pairs of maps.*noise-robustness"):
        requested_metrics("RM0")


def test_a_metric_of_ones_own_may_have_such_a_name():
    from heatproof.metrics.foreign import PLUGIN_METRICS, register_metric

    register_metric("consistency", lambda maps: maps.flatten(1).mean(1).double(), better="high")
    try:
        assert [one.key for one in requested_metrics("consistency")] == ["consistency"]
    finally:
        PLUGIN_METRICS.unregister("consistency")
