"""Which control fools which metric: the test of means held against SciPy, and scores that defeat one test each."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, permutation_test, wilcoxon
from statsmodels.stats.multitest import multipletests

from heatproof.statistics.fooled_matrix import (
    BOTH,
    BY_MEANS,
    BY_RANKS,
    FOOLED,
    UNTESTED,
    fooled_matrix,
    fooling_controls,
    untested_controls,
)
from heatproof.statistics.fooling import fooled
from heatproof.statistics.mean_test import mean_p


def rows(metric="gain", **arms):
    """Rows of one metric; `best` is the only method, the other arms are controls."""
    parts = []
    for name, values in arms.items():
        images = [f"{i:03d}" for i in range(len(values))]
        parts.append(pd.DataFrame({"image": images, "method": name, "value": values, "control": name != "best"}))
    return pd.concat(parts, ignore_index=True).assign(model="net", dataset="set", metric=metric)


def cells(frame, better="high"):
    rankings = {one.metric: one for one in fooled(frame, {"gain": better})}
    return {cell.control: cell for cell in fooled_matrix(frame, rankings)}


@pytest.mark.parametrize("size", [2, 6, 12])
def test_few_differences_are_tested_exactly(size):
    moves = np.round(np.random.default_rng(size).normal(0.4, 1, size), 3)
    expected = permutation_test((moves,), lambda x: abs(x.sum()), permutation_type="samples", n_resamples=np.inf,
                                alternative="greater").pvalue  # fmt: skip
    assert mean_p(moves) == pytest.approx(expected)


def test_many_differences_are_tested_by_drawn_signs():
    moves = np.random.default_rng(0).normal(0.15, 1, 200)
    z = moves.sum() / np.sqrt((moves**2).sum())
    assert mean_p(moves) == pytest.approx(2 * norm.sf(abs(z)), abs=0.01)
    assert mean_p(moves) == mean_p(moves) and mean_p(moves) == mean_p(-moves)
    assert mean_p(np.full(30, 1e-3)) == pytest.approx(1 / 10_000)


def test_nothing_to_test():
    assert np.isnan(mean_p(np.array([])))
    assert mean_p(np.zeros(20)) == 1
    assert mean_p(np.array([0.5, -0.5])) == 1


def test_scores_that_are_mostly_zero_defeat_ranks_and_not_means():
    """The control gains a trifle on most images, the method much on some, and both nothing on others."""
    best = np.r_[np.full(14, 0.9), np.zeros(46)]
    control = np.r_[np.zeros(14), np.full(30, 0.01), np.zeros(16)]
    found = cells(rows(best=best, control=control))["control"]
    assert found.verdict == BY_MEANS
    assert found.p_ranks > 0.05 > found.p_means


def test_wild_values_defeat_means_and_not_ranks():
    best = np.r_[np.full(40, 0.1), np.full(2, 0.0)]
    control = np.r_[np.zeros(40), np.full(2, 1.9)]
    found = cells(rows(best=best, control=control))["control"]
    assert found.verdict == BY_RANKS and found.p_means > 0.05


def test_apart_fooled_better_and_too_few():
    generator = np.random.default_rng(3)
    best = generator.random(60)
    frame = rows(best=best, worse=best - 0.3, same=generator.permutation(best), better=best + 0.2)
    found = cells(frame)
    assert {name: cell.verdict for name, cell in found.items()} == {"worse": BOTH, "same": FOOLED, "better": FOOLED}
    assert found["better"].ahead and not found["same"].ahead and not found["worse"].ahead
    assert fooling_controls(list(found.values())) == {"gain": ("better", "same")}
    few = cells(rows(best=best[:4], worse=best[:4] - 0.3))
    assert few["worse"].verdict == UNTESTED
    names = ("worse",)
    assert untested_controls(list(few.values()), ["gain", "other"], names) == {"gain": names, "other": names}
    assert untested_controls(list(found.values()), ["gain"], ("worse", "same")) == {}
    assert untested_controls(list(found.values()), ["gain"], ("worse", "ones")) == {"gain": ("ones",)}


def test_a_metric_of_which_low_is_good():
    best = np.random.default_rng(4).random(60)
    assert cells(rows(best=best, worse=best + 0.3), "low")["worse"].verdict == BOTH


def test_holm_counts_both_tests_of_all_controls():
    generator = np.random.default_rng(6)
    best = np.round(generator.random(40), 3)
    moves = {name: np.round(generator.normal(size, 0.3, 40), 3) for name, size in (("a", 0.05), ("b", 0.12))}
    found = cells(rows(best=best, **{name: best - move for name, move in moves.items()}))
    raw = [wilcoxon(move).pvalue for move in moves.values()] + [mean_p(move) for move in moves.values()]
    expected = multipletests(raw, method="holm")[1]
    assert [found["a"].p_ranks, found["b"].p_ranks] == pytest.approx(expected[:2], rel=1e-6)
    assert [found["a"].p_means, found["b"].p_means] == pytest.approx(expected[2:], rel=1e-6)
