"""The agreement of metrics, compared with SciPy and with values by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from heatproof.statistics.metric_agreement import metric_agreement

DIRECTIONS = {"up": "high", "down": "low", "noise": "high"}


def frame(images=6, methods=5, seed=0):
    generator = np.random.default_rng(seed)
    records = []
    for image in range(images):
        quality = generator.permutation(methods)
        for method in range(methods):
            values = {"up": quality[method] ** 3.0, "down": -quality[method], "noise": generator.integers(3)}
            for metric, value in values.items():
                where = {"image": f"{image}", "method": f"m{method}", "metric": metric, "control": False}
                records.append(where | {"value": float(value)})
            control = {"image": f"{image}", "method": "random", "metric": "up", "control": True, "value": 99.0}
            records += [control] if not method else []
    return pd.DataFrame(records)


def test_it_is_the_mean_of_spearman_over_the_images():
    rows = frame()
    found = metric_agreement(rows, DIRECTIONS)
    assert list(found.columns) == ["up", "down", "noise"] == list(found.index)
    real = rows[~rows["control"]]
    each = []
    for _, image in real.groupby("image"):
        wide = image.pivot(index="method", columns="metric", values="value")
        each.append(spearmanr(wide["up"], wide["noise"]).statistic)
    assert found.loc["up", "noise"] == pytest.approx(np.mean(each))
    np.testing.assert_allclose(np.diag(found), 1)
    np.testing.assert_allclose(found, found.T)


def test_directions_are_turned():
    rows = frame()
    assert metric_agreement(rows, DIRECTIONS).loc["up", "down"] == pytest.approx(1)
    assert metric_agreement(rows, DIRECTIONS | {"down": "high"}).loc["up", "down"] == pytest.approx(-1)
    assert "noise" not in metric_agreement(rows, {"up": "high", "down": "low"})


def test_images_without_a_number_or_a_difference_take_no_part():
    rows = frame()
    rows.loc[(rows["image"] == "0") & (rows["method"] == "m0"), "value"] = np.nan
    fewer = metric_agreement(rows[rows["image"] != "0"], DIRECTIONS)
    pd.testing.assert_frame_equal(metric_agreement(rows, DIRECTIONS), fewer)
    rows.loc[rows["metric"] == "noise", "value"] = 0.1
    assert math.isnan(metric_agreement(rows, DIRECTIONS).loc["up", "noise"])


def test_two_methods_agree_on_nothing():
    assert metric_agreement(frame(methods=2), DIRECTIONS).empty
