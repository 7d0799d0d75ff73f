"""Consistency, responsiveness, RM and RM₀ of a cell: other libraries, cases by hand, cells with few flips."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from heatproof.errors import InvalidInput
from heatproof.statistics.robustness import (
    auc,
    fitted_auc,
    responsiveness,
    robustness_of,
    stratified_auc,
)

scored = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30)


@given(pairs=scored)
@settings(deadline=None)
def test_auc_is_mann_whitney(pairs):
    scores, positive = (np.array(x) for x in zip(*pairs, strict=True))
    if positive.all() or not positive.any():
        assert math.isnan(auc(scores, positive))
        return
    u = mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()), abs=1e-12)
    assert auc(scores, positive) + auc(-scores, positive) == pytest.approx(1)
    assert auc(np.exp(scores), positive) == auc(scores, positive)


def slow_logistic_slope(x, y):
    """Newton's method on intercept and slope, with a grain of ridge against separable data."""
    beta = np.zeros(2)
    design = np.stack([np.ones_like(x), x], 1)
    for _ in range(60):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        beta = beta + np.linalg.solve(hessian, design.T @ (y - p) - 1e-6 * beta)
    return beta[1]


@pytest.mark.parametrize("seed", range(6))
def test_the_papers_classifier_is_the_auc_up_to_the_slopes_sign(seed):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal(40), generator.random(40) < 0.3
    slope = slow_logistic_slope(x, y.astype(float))
    assert fitted_auc(x, y) == pytest.approx(auc(slope * x, y))


def test_fitting_in_sample_is_biased_when_flips_are_rare():
    """Protocols §5: .607 instead of .5 at 5 flips in 200, without any relation."""
    generator = np.random.default_rng(0)
    flips = np.arange(200) < 5
    draws = generator.random((1200, 200))
    assert np.mean([fitted_auc(x, flips) for x in draws]) == pytest.approx(0.607, abs=0.015)
    assert np.mean([auc(x, flips) for x in draws]) == pytest.approx(0.5, abs=0.012)


def test_a_constant_score_is_chance_for_the_papers_classifier():
    assert fitted_auc(np.ones(30), np.arange(30) < 12) == 0.5


def cell(flips, kept, rbo_flip=0.2, rbo_kept=0.8):
    rbo = np.concatenate([np.full(flips, rbo_flip), np.full(kept, rbo_kept)])
    return rbo, (rbo - 0.1) / 0.9, np.arange(flips + kept) < flips


def test_a_hand_computed_cell():
    rbo, _, changed = cell(20, 40)
    rbo[:10] = 0.8  # half of the flips look like the rest: AUC ½ + ½ · ½
    rbo[20:30] = 0.9  # ten of the forty unchanged pairs are higher still
    found = robustness_of(rbo, (rbo - 0.1) / 0.9, changed)
    area = (10 * 40 + 10 * (10 + 30 / 2)) / (20 * 40)
    assert found.n == 60 and found.flips == 20 and found.reliable and found.reason == ""
    assert found.consistency == pytest.approx(0.8)
    assert found.responsiveness == pytest.approx(area)
    assert found.rm == pytest.approx(0.8 * area)
    assert found.rm0 == pytest.approx(0.7 / 0.9 * (2 * area - 1))


def test_stratified_auc_compares_like_with_like():
    """Within each stratum the score says nothing; pooled it seems to, as the high stratum has more positives."""
    stratum = np.repeat([1, 2], 20)
    scores = np.where(stratum == 1, 0.1, 0.9)
    positive = np.concatenate([np.arange(20) < 4, np.arange(20) < 16])
    assert auc(scores, positive) == pytest.approx(0.8)
    assert stratified_auc(scores, positive, stratum) == 0.5
    found = robustness_of(1 - scores, 1 - scores, positive, stratum=stratum)
    assert found.responsiveness == pytest.approx(0.8) and found.within == 0.5
    assert found.rm0 == pytest.approx(0.9 * 0.6) and found.rm0_within == 0


@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 2)), min_size=1, max_size=30))
@settings(deadline=None)
def test_stratified_auc_counts_pairs_of_one_stratum(pairs):
    won = [
        (a > b) + (a == b) / 2
        for a, positive, one in pairs
        for b, other, two in pairs
        if positive and not other and one == two
    ]
    found = stratified_auc(*(np.array(x) for x in zip(*pairs, strict=True)))
    assert found == pytest.approx(np.mean(won)) if won else math.isnan(found)


def test_a_map_that_ignores_its_input_fools_rm_but_not_rm0():
    found = robustness_of(*cell(30, 70, 1.0, 1.0))
    assert found.consistency == 1 and found.responsiveness == 0.5 and found.rm == 0.5 and found.rm0 == 0


def test_a_map_that_moves_the_wrong_way_has_no_rm0():
    assert robustness_of(*cell(30, 70, 0.9, 0.5)).rm0 == 0


@pytest.mark.parametrize(("flips", "kept"), [(0, 50), (9, 50), (50, 9), (50, 0)])
def test_few_flips_are_nan_with_the_count(flips, kept):
    found = robustness_of(*cell(flips, kept))
    assert math.isnan(found.responsiveness) and math.isnan(found.rm) and math.isnan(found.rm0)
    assert not found.reliable and found.flips == flips and found.n == flips + kept
    assert math.isnan(found.consistency) == (kept == 0)
    rare = "changed" if flips < kept else "unchanged"
    assert found.reason == f"{min(flips, kept)} {rare} predictions among {found.n} pairs; 10 are needed"


def test_ten_of_each_kind_are_computed_twenty_are_reliable():
    few, enough = robustness_of(*cell(10, 60)), robustness_of(*cell(20, 20))
    assert few.responsiveness == 1 and not few.reliable and "20 make it reliable" in few.reason
    assert enough.reliable


def test_pairs_without_a_value_are_left_out_and_not_counted():
    rbo, kappa, changed = cell(20, 40)
    holes = rbo.copy()
    holes[::5] = np.nan
    keep = ~np.isnan(holes)
    assert robustness_of(holes, kappa, changed) == robustness_of(rbo[keep], kappa[keep], changed[keep])
    nothing = robustness_of(np.full(3, np.nan), np.full(3, np.nan), np.array([True, False, False]))
    assert nothing.n == 0 and math.isnan(nothing.consistency)


def test_wrong_arguments_are_named():
    with pytest.raises(InvalidInput, match="`fit` must be 'none' or 'paper'\\. Got 'svm'"):
        responsiveness(np.ones(3), np.array([True, False, True]), "svm")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="one length"):
        robustness_of(np.ones(3), np.ones(2), np.ones(3, bool))
