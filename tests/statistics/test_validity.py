"""Agreement of metrics with the ground truth, held against SciPy on repeated rows and against cases made by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from heatproof.statistics.intervals import multiplicities
from heatproof.statistics.special_rows import TRUTH
from heatproof.statistics.validity import (
    COEFFICIENTS,
    MEANS,
    PEARSON,
    POOLED,
    SPEARMAN,
    WITHIN,
    metric_validity,
    over_models,
    weighted_correlations,
)

SCIPY = {PEARSON: pearsonr, SPEARMAN: spearmanr}
DIRECTIONS = {TRUTH: "high", "good": "high", "low": "low", "noise": "high", "constant": "high"}


def scores(images=14, methods=5, seed=0, holes=()):
    """Rows of a good metric, the same turned over, noise with ties, and a constant, beside the ground truth."""
    generator = np.random.default_rng(seed)
    rows = []
    for image in range(images):
        easy = generator.random()
        for method in range(methods):
            truth = 0.1 * method + 0.3 * easy + 0.2 * generator.random()
            good = truth**2 + 0.1 * generator.random()
            values = {TRUTH: truth, "good": good, "low": -good, "noise": float(generator.integers(4)), "constant": 1.0}
            for metric, value in values.items():
                hole = (metric, image, method) in holes
                rows.append((f"{image:02d}", f"m{method}", metric, np.nan if hole else value))
    return pd.DataFrame(rows, columns=["image", "method", "metric", "value"]).assign(control=False)


def wide(rows, metric):
    return rows[rows["metric"] == metric].pivot(index="image", columns="method", values="value").to_numpy()


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("metric", ["good", "noise"])
def test_the_three_ways_are_scipys(metric, coefficient):
    rows = scores(holes={("good", 3, 1), ("noise", 3, 1), ("noise", 5, 0)})
    found = metric_validity(rows, DIRECTIONS, resamples=100)
    one, truth, scipy = wide(rows, metric), wide(rows, TRUTH), SCIPY[coefficient]
    known = ~np.isnan(one)
    each = [scipy(a[k], b[k]).statistic for a, b, k in zip(one, truth, known, strict=True)]
    columns = [(one[known[:, j], j].mean(), truth[known[:, j], j].mean()) for j in range(one.shape[1])]
    expected = {
        POOLED: scipy(one[known], truth[known]).statistic,
        WITHIN: np.mean(each),
        MEANS: scipy(*zip(*columns, strict=True)).statistic,
    }
    for way, value in expected.items():
        row = found.value(metric, way, coefficient)
        assert row["value"] == pytest.approx(value, abs=1e-4)
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["images"], row["methods"], row["why"]) == (14, 5, "")
    assert found.value(metric, WITHIN, coefficient)["std"] == pytest.approx(np.std(each, ddof=1), abs=1e-4)


def test_a_metric_of_which_low_is_good_is_turned():
    found = metric_validity(scores(), DIRECTIONS, resamples=100)
    for way in (POOLED, WITHIN, MEANS):
        assert found.value("low", way)["value"] == found.value("good", way)["value"] > 0


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_a_resample_counts_each_image_as_often_as_it_is_drawn(coefficient):
    generator = np.random.default_rng(1)
    image = np.repeat(np.arange(6), 4)
    first, second = generator.integers(5, size=24).astype(float), generator.random(24)
    drawn = multiplicities(6, 30, 0)
    found = weighted_correlations(first, second, drawn, image, coefficient)
    for column in range(30):
        times = drawn[image, column].astype(int)
        expected = SCIPY[coefficient](np.repeat(first, times), np.repeat(second, times)).statistic
        assert found[column] == pytest.approx(expected, abs=1e-9)


def test_a_resample_without_two_values_has_no_correlation():
    image, drawn = np.array([0, 0, 1, 1]), np.array([[2.0], [0.0]])
    first, second = np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert np.isnan(weighted_correlations(first, second, drawn, image, SPEARMAN)).all()


@pytest.mark.parametrize(
    "rows, metric, why",
    [
        (scores(), "constant", "the metric is constant"),
        (scores(images=9), "good", "9 of at least 10 images"),
        (scores(methods=2), "good", "2 of at least 3 methods"),
        (scores(holes={("good", i, m) for i in range(14) for m in range(3)}), "good", "2 of at least 3 methods"),
    ],
)
def test_why_nothing_is_computed_is_said(rows, metric, why):
    found = metric_validity(rows, DIRECTIONS, resamples=100)
    for way in (POOLED, WITHIN, MEANS):
        row = found.value(metric, way)
        assert np.isnan(row["value"]) and np.isnan(row["low"]) and why in row["why"]
    assert metric not in found.within


def test_agreement_beyond_chance_and_the_order_of_the_metrics():
    found = metric_validity(scores(images=40), DIRECTIONS, resamples=100)
    assert found.above_chance["good"].p_holm < 0.001 and found.above_chance["good"].effect == 1
    assert found.above_chance["noise"].p_holm > 0.05
    assert found.comparison is not None
    assert found.comparison.order[-1] == "noise" and frozenset(("good", "noise")) in found.comparison.apart
    assert frozenset(("good", "low")) not in found.comparison.apart


def test_the_last_bits_decide_nothing():
    rows = scores()
    moved = rows.assign(value=rows["value"] * (1 + 1e-8 * np.sin(np.arange(len(rows)))))
    one, other = (metric_validity(frame, DIRECTIONS, resamples=100).table for frame in (rows, moved))
    pd.testing.assert_frame_equal(one, other, atol=1e-4)
    ranked = [table[table["coefficient"] == SPEARMAN]["value"].to_numpy() for table in (one, other)]
    np.testing.assert_array_equal(*ranked)


def test_mean_and_deviation_over_models():
    tables = [metric_validity(scores(seed=seed), DIRECTIONS, resamples=100).table for seed in range(3)]
    found = over_models(tables).set_index(["metric", "way", "coefficient"]).loc[("good", POOLED, SPEARMAN)]
    values = [t.set_index(["metric", "way", "coefficient"]).loc[("good", POOLED, SPEARMAN), "value"] for t in tables]
    assert (found["mean"], found["std"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert found["models"] == 3
