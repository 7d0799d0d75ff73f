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
    whole = known.all(1)
    columns = [(one[whole, j].mean(), truth[whole, j].mean()) for j in range(one.shape[1])]
    expected = {
        POOLED: scipy(one[known], truth[known]).statistic,
        WITHIN: np.mean(each),
        MEANS: scipy(*zip(*columns, strict=True)).statistic,
    }
    for way, value in expected.items():
        row = found.value(metric, way, coefficient)
        assert row["value"] == pytest.approx(value, abs=1e-4)
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["images"], row["methods"], row["why"]) == (whole.sum() if way == MEANS else 14, 5, "")
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


def by_hand(images, values):
    """Rows of the methods A, B, C: (image, method) → (metric, truth)."""
    rows = [(f"{i:02d}", m, name, value) for i in range(images) for m in "ABC"
            for name, value in zip(("good", TRUTH), values(i, m), strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["image", "method", "metric", "value"]).assign(control=False)


def test_means_of_methods_are_over_the_images_that_all_have():
    """A is the best everywhere and lacks the images with high values, which would make its mean the lowest."""
    size = {"A": 0.3, "B": 0.2, "C": 0.1}
    values = lambda i, m: (np.nan if m == "A" and i < 10 else size[m] + (i < 10), size[m])  # noqa: E731
    found = metric_validity(by_hand(20, values), DIRECTIONS, resamples=100)
    assert found.value("good", MEANS)["value"] == pytest.approx(1) and found.value("good", MEANS)["images"] == 10
    few = metric_validity(by_hand(19, values), DIRECTIONS, resamples=100).value("good", MEANS)
    assert np.isnan(few["value"]) and "9 of at least 10 images have a value for every method" in few["why"]


@pytest.mark.parametrize("moving", [5, 12])
def test_the_images_of_a_correlation_within_images_are_those_that_have_one(moving):
    size = {"A": 0.3, "B": 0.2, "C": 0.1}
    rows = by_hand(20, lambda i, m: (size[m] if i < moving else 0.5, size[m] + i / 100))
    found = metric_validity(rows, DIRECTIONS, resamples=100)
    within = found.value("good", WITHIN)
    assert found.value("good", POOLED)["images"] == 20 and within["images"] == moving
    assert ("5 of at least 10 images have a correlation" in within["why"]) == (moving == 5)
    assert ("good" in found.above_chance) == (moving == 12)


def test_a_family_holds_only_metrics_that_can_be_significant_and_do_not_read_the_truth():
    generator = np.random.default_rng(0)
    names = [f"m{i}" for i in range(30)]
    found = []
    for image in range(10):
        truth = generator.permutation(4) / 4
        found += [(f"{image:02d}", f"a{j}", name, truth[j]) for name in [TRUTH, *names] for j in range(4)]
    frame = pd.DataFrame(found, columns=["image", "method", "metric", "value"]).assign(control=False)
    directions = dict.fromkeys([TRUTH, *names], "high")
    tests = metric_validity(frame, directions, seeing={"m0"}, resamples=20).above_chance
    assert len(tests) == 25 and "m0" not in tests and all(test.p_holm < 0.05 for test in tests.values())


def test_images_without_ground_truth_are_not_counted():
    rows = by_hand(20, lambda i, m: (ord(m) + i, np.nan if i < 4 else ord(m)))
    assert metric_validity(rows, DIRECTIONS, resamples=20).known == 16


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_an_image_on_which_all_methods_tie_has_no_correlation(coefficient):
    """The mean of 0.1, 0.1 and 0.1 is not 0.1."""
    size = {"A": 0.3, "B": 0.2, "C": 0.1}
    rows = by_hand(20, lambda i, m: (size[m] if i < 12 else 0.1, size[m]))
    assert metric_validity(rows, DIRECTIONS, resamples=20).value("good", WITHIN, coefficient)["images"] == 12
