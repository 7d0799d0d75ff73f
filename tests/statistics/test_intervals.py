"""DeLong's interval compared with its structural components; the bootstrap compared with repeated images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from heatproof.errors import InvalidInput
from heatproof.statistics.intervals import (
    QUANTITIES,
    bootstrap,
    delong,
    multiplicities,
    percentiles,
    weighted_aucs,
    weighted_medians,
)
from heatproof.statistics.robustness import auc, robustness_of, stratified_auc


def slow_delong(scores, positive):
    """AUC and its variance from the m × n comparisons, DeLong, DeLong & Clarke-Pearson 1988."""
    high, low = scores[positive], scores[~positive]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in low] for a in high])
    area = psi.mean()
    v10 = sum((row.mean() - area) ** 2 for row in psi) / (len(high) - 1)
    v01 = sum((column.mean() - area) ** 2 for column in psi.T) / (len(low) - 1)
    return area, v10 / len(high) + v01 / len(low)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_delong_is_its_structural_components(seed, level):
    generator = np.random.default_rng(seed)
    positive = generator.random(60) < 0.3
    scores = np.round(generator.standard_normal(60) + positive, 1)
    area, variance = slow_delong(scores, positive)
    found = delong(scores, positive, level)
    logit, error = math.log(area / (1 - area)), math.sqrt(variance) / (area * (1 - area))
    reach = norm.ppf(0.5 + level / 2) * error
    assert found.value == pytest.approx(area) and found.n == 60
    assert found.low == pytest.approx(1 / (1 + math.exp(-(logit - reach))))
    assert found.high == pytest.approx(1 / (1 + math.exp(-(logit + reach))))
    assert 0 < found.low < found.value < found.high < 1


def test_delong_covers_the_truth():
    generator = np.random.default_rng(0)
    truth = norm.cdf(1 / math.sqrt(2))
    hit = 0
    for _ in range(400):
        positive = np.arange(80) < 25
        found = delong(generator.standard_normal(80) + positive, positive)
        hit += found.low <= truth <= found.high
    assert 0.92 <= hit / 400 <= 0.98


def test_delong_says_where_it_has_no_interval():
    separated = delong(np.arange(20.0), np.arange(20) >= 10)
    assert separated.value == 1 and math.isnan(separated.low) and math.isnan(separated.high)
    constant = delong(np.ones(20), np.arange(20) >= 10)
    assert (constant.low, constant.value, constant.high) == pytest.approx((0.5, 0.5, 0.5))
    assert math.isnan(delong(np.ones(3), np.ones(3, bool)).value)
    assert math.isnan(delong(np.arange(4.0), np.array([False, True, False, False])).low)


weighted = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 4)), min_size=1, max_size=25
)  # value, positive, image


@given(pairs=weighted, seed=st.integers(0, 20))
@settings(deadline=None, max_examples=80)
def test_weights_are_repetitions(pairs, seed):
    values, positive, image = (np.array(x) for x in zip(*pairs, strict=True))
    drawn = multiplicities(5, 6, seed)
    medians = weighted_medians(values.astype(float), drawn, image)
    areas = weighted_aucs(values.astype(float), positive, drawn, image)
    inside = weighted_aucs(values.astype(float), positive, drawn, image, image % 2)
    for resample in range(6):
        times = drawn[image, resample].astype(int)
        repeated, kinds = np.repeat(values, times), np.repeat(positive, times)
        expected = np.median(repeated) if len(repeated) else np.nan
        np.testing.assert_allclose(medians[resample], expected)
        np.testing.assert_allclose(areas[resample], auc(repeated, kinds), atol=1e-12)
        expected = stratified_auc(repeated, kinds, np.repeat(image % 2, times))
        np.testing.assert_allclose(inside[resample], expected, atol=1e-12)


@pytest.mark.parametrize(("values", "images"), [(3, 3), (60, 60), (900, 900), (900, 30), (900, 2), (0, 5)])
def test_medians_of_many_values_are_those_of_the_values_repeated(values, images):
    """Values of one image are drawn together: then medians lie far from the middle."""
    generator = np.random.default_rng(values + images)
    image = np.sort(generator.integers(0, images, values)) if values != images else generator.permutation(values)
    found, drawn = np.round(generator.random(values), 2), multiplicities(images, 50, 0)
    if images < 40:
        found = np.sort(found)
    repeated = [np.repeat(found, drawn[image, resample].astype(int)) for resample in range(50)]
    expected = [np.median(one) if len(one) else np.nan for one in repeated]
    assert np.array_equal(weighted_medians(found, drawn, image), expected, equal_nan=True)


def data(images=40, severities=3, seed=0):
    generator = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), severities)
    changed = generator.random(len(image)) < 0.35
    rbo = np.clip(0.7 - 0.2 * changed + 0.2 * generator.standard_normal(len(image)), 0, 1)
    return rbo, (rbo - 0.1) / 0.9, changed, image


def test_a_resample_is_the_cell_of_the_images_drawn():
    rbo, kappa, changed, image = data()
    drawn, severity = multiplicities(40, 12, 7), np.tile(np.arange(3), 40)
    found = bootstrap(rbo, kappa, changed, image, drawn, 7, severity)
    for resample in range(12):
        times = drawn[image, resample].astype(int)
        rows = np.repeat(np.arange(len(rbo)), times)
        expected = robustness_of(rbo[rows], kappa[rows], changed[rows], stratum=severity[rows])
        for quantity in QUANTITIES:
            assert found.values[quantity][resample] == pytest.approx(getattr(expected, quantity), abs=1e-12)


def test_the_bootstrap_is_seeded_and_blind_to_order():
    rbo, kappa, changed, image = data()
    drawn = multiplicities(40, 200, 3, "pets")
    first = bootstrap(rbo, kappa, changed, image, drawn, 3)
    order = np.random.default_rng(1).permutation(len(rbo))
    again = bootstrap(rbo[order], kappa[order], changed[order], image[order], multiplicities(40, 200, 3, "pets"), 3)
    for quantity in QUANTITIES:
        assert first.interval(quantity).low == pytest.approx(again.interval(quantity).low, abs=1e-12)
        assert first.interval(quantity).low < first.interval(quantity).value < first.interval(quantity).high
        assert first.interval(quantity).seed == 3
    assert not np.array_equal(drawn, multiplicities(40, 200, 4, "pets"))
    assert not np.array_equal(drawn, multiplicities(40, 200, 3, "birds"))
    assert (drawn.sum(0) == 40).all()


def test_drawing_images_is_wider_than_drawing_pairs_when_severities_agree():
    """Five copies of every image's pair are no more evidence than one; drawing pairs would believe so."""
    rbo, kappa, changed, _ = data(60, 1)
    rows = np.tile(np.arange(60), 5)
    copies = rbo[rows], kappa[rows], changed[rows]
    by_image = bootstrap(*copies, rows, multiplicities(60, 600, 0)).interval("responsiveness")
    by_pair = bootstrap(*copies, np.arange(300), multiplicities(300, 600, 0)).interval("responsiveness")
    once = bootstrap(rbo, kappa, changed, np.arange(60), multiplicities(60, 600, 0)).interval("responsiveness")
    assert by_image.high - by_image.low == pytest.approx(once.high - once.low)
    assert by_pair.high - by_pair.low < 0.6 * (by_image.high - by_image.low)


def test_few_flips_have_no_resamples():
    rbo, kappa, _, image = data()
    found = bootstrap(rbo, kappa, np.arange(len(rbo)) < 9, image, multiplicities(40, 50, 0))
    assert np.isnan(found.values["rm"]).all() and math.isnan(found.interval("rm").low)
    assert found.interval("consistency").low < found.interval("consistency").high


def test_missing_pairs_are_left_out():
    rbo, kappa, changed, image = data()
    drawn = multiplicities(40, 50, 0)
    holes = np.where(np.arange(len(rbo)) % 7 == 0, np.nan, rbo)
    keep = ~np.isnan(holes)
    found = bootstrap(holes, kappa, changed, image, drawn)
    expected = bootstrap(rbo[keep], kappa[keep], changed[keep], image[keep], drawn)
    for quantity in QUANTITIES:
        np.testing.assert_array_equal(found.values[quantity], expected.values[quantity])


def test_percentiles_need_half_of_the_resamples():
    nothing = pytest.approx((np.nan, np.nan), nan_ok=True)
    assert percentiles(np.array([0.0, 1.0, np.nan, np.nan, np.nan]), 40) == nothing
    assert percentiles(np.arange(101.0), 1) == nothing, "one image has no spread"
    assert percentiles(np.arange(101.0), 10**9, 0.9) == pytest.approx((5, 95))


def test_few_images_have_a_wider_interval_by_students_factor():
    """Of normal resamples, the bounds are those of Student's interval with the unbiased standard deviation."""
    resamples = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    for n, quantile in ((5, 2.776), (10, 2.262), (30, 2.045)):  # t tables, n − 1 degrees of freedom
        wanted = quantile * math.sqrt(n / (n - 1))
        assert percentiles(resamples, n) == pytest.approx((-wanted, wanted), rel=1e-3)


def test_wrong_arguments_are_named():
    with pytest.raises(InvalidInput, match="Got 0 and 10"):
        multiplicities(0, 10, 0)
