"""Friedman, Kendall's W, Wilcoxon with Holm, Nemenyi: compared with SciPy, statsmodels, scikit-posthocs, by hand."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy.stats import friedmanchisquare, wilcoxon
from statsmodels.stats.multitest import multipletests

from heatproof.errors import InvalidInput
from heatproof.statistics.agreement import cliques, kendall_w, nemenyi_distance, segmenter_agreement
from heatproof.statistics.paired import (
    MOST_EXACT_TIED,
    by_mean,
    can_be_significant,
    compared,
    friedman,
    holm,
    is_worse,
    signed_ranks,
    wilcoxon_pairs,
)


def values(blocks=30, methods=5, seed=0, ties=False):
    generator = np.random.default_rng(seed)
    found = generator.standard_normal((blocks, methods)) + np.linspace(2, 0, methods)
    return np.round(found) if ties else found


@pytest.mark.parametrize("ties", [False, True])
def test_friedman_is_scipys(ties):
    table = values(ties=ties)
    found = friedman(table)
    expected = friedmanchisquare(*table.T)
    assert found.statistic == pytest.approx(expected.statistic) and found.p == pytest.approx(expected.pvalue)
    assert found.w == pytest.approx(expected.statistic / (30 * 4))
    assert found.ranks[0] == min(found.ranks) and found.ranks.sum() == pytest.approx(15)


def test_any_number_of_images_can_be_told_to_be_enough():
    assert can_be_significant(10_000, 100, 0.95) and not can_be_significant(3, 100, 0.95)


def test_kendalls_w_by_hand():
    # three raters, four items: rank sums 4 5 9 12, S = (3.5² + 2.5² + 1.5² + 4.5²) = 41, W = 12 · 41 / (9 · 60)
    ranks = np.array([[1, 2, 3, 4], [2, 1, 3, 4], [1, 2, 3, 4]])
    assert kendall_w(ranks).w == pytest.approx(12 * 41 / 540)
    # two raters, three items, the second ties two: ranks (1 2 3) and (1 2.5 2.5), sums 2 4.5 5.5,
    # S = 4 + .25 + 2.25 = 6.5, W = 12 · 6.5 / (4 · 24 − 2 · 6)
    assert kendall_w(np.array([[1, 2, 3], [1, 2, 2]])).w == pytest.approx(78 / 84)


@pytest.mark.parametrize("ties", [False, True])
def test_kendalls_w_is_friedmans(ties):
    table = values(8, 6, ties=ties)
    assert kendall_w(table).w == pytest.approx(friedman(table).w)
    assert kendall_w(table).p == pytest.approx(friedman(table).p)


def test_kendalls_w_at_its_ends():
    same = np.tile(np.arange(5.0), (3, 1))
    assert kendall_w(same).w == pytest.approx(1)
    assert kendall_w(np.stack([same[0], same[0][::-1]])).w == pytest.approx(0)
    for nothing in (same[:1], np.ones((3, 5))):
        assert math.isnan(kendall_w(nothing).w)
    holes = same.copy()
    holes[1, 2] = np.nan
    assert kendall_w(holes).items == 4


@pytest.mark.parametrize("seed", range(3))
def test_wilcoxon_is_scipys_with_holm(seed):
    table = values(25, 4, seed)
    table[:, 1] = np.where(np.arange(25) < 6, table[:, 0], table[:, 1])  # zeros
    names = ["a", "b", "c", "d"]
    found = wilcoxon_pairs(table, names)
    differences = [table[:, i] - table[:, j] for i in range(4) for j in range(i + 1, 4)]
    raw = [wilcoxon(d[d != 0]).pvalue for d in differences]  # exact: with zeros SciPy would go asymptotic
    assert [t.p for t in found] == pytest.approx(raw)
    assert [t.p_holm for t in found] == pytest.approx(multipletests(raw, method="holm")[1])
    assert found[0].ties == 6 and found[0].n == 25 and (found[0].first, found[0].second) == ("a", "b")


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13, 14, 50, 51])
@pytest.mark.parametrize("tied", [False, True])
def test_the_p_of_any_number_of_differences_is_scipys(n, tied):
    """Exact, by all signs, and by the normal law: each where SciPy takes it."""
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.4, 1.5) if n != MOST_EXACT_TIED else (0.4,):  # SciPy takes a second there
        moves = generator.standard_normal(n) + shift
        if tied:
            moves = np.sign(moves) * np.ceil(3 * np.abs(moves))
        assert signed_ranks(moves)[1] == pytest.approx(wilcoxon(moves).pvalue, rel=1e-12, abs=1e-15)


def test_the_effect_is_rank_biserial():
    # |d| = 1 2 3 4 ranks 1 to 4; down only the 2: (1 + 3 + 4 − 2) / 10
    statistic, _, effect, ties = signed_ranks(np.array([1.0, -2.0, 3.0, 4.0, 0.0]))
    assert statistic == 2 and effect == pytest.approx(0.6) and ties == 1
    assert signed_ranks(np.array([0.5, 0.1, 2.0]))[2] == 1 and signed_ranks(-np.array([0.5, 0.1, 2.0]))[2] == -1


def test_equal_methods_and_no_blocks():
    assert signed_ranks(np.zeros(8))[1:] == (1.0, 0.0, 8)
    assert all(math.isnan(x) for x in signed_ranks(np.empty(0))[:3])
    tied = friedman(np.ones((6, 3)))
    assert math.isnan(tied.p) and tied.ranks.tolist() == [2, 2, 2]
    empty = compared(pd.DataFrame(np.full((3, 2), np.nan), columns=["a", "b"]))
    assert empty.friedman.n == 0 and empty.friedman.dropped == 3 and math.isnan(empty.distance) and empty.cliques == ()
    assert math.isnan(empty.pairs[0].p_holm)


def test_two_methods_have_no_friedman_test():
    found = friedman(values(20, 2))
    assert math.isnan(found.statistic) and math.isnan(found.p) and math.isnan(found.w)
    assert found.n == 20 and found.ranks.sum() == pytest.approx(3)


def test_incomplete_blocks_are_dropped_and_counted():
    table = values(20, 3)
    holes = np.vstack([table, [[1.0, np.nan, 2.0], [np.nan] * 3]])
    found, expected = friedman(holes), friedman(table)
    assert found.dropped == 2 and found.n == 20 and found.statistic == expected.statistic
    pairs = {(test.first, test.second): test for test in wilcoxon_pairs(holes, "abc")}
    assert [pairs[pair].n for pair in (("a", "b"), ("a", "c"), ("b", "c"))] == [20, 21, 20]
    assert pairs["a", "b"].p == wilcoxon_pairs(table, "abc")[0].p


def test_lower_can_be_better():
    frame = pd.DataFrame(values(), columns=list("abcde"))
    up, down = compared(frame), compared(-frame, higher_is_better=False)
    assert up.ranks == down.ranks and next(iter(up.ranks)) == "a"
    assert up.pair("a", "e").effect == pytest.approx(-up.pair("e", "a").effect) and up.pair("a", "e").effect > 0
    with pytest.raises(InvalidInput, match="two of a, b"):
        up.pair("a", "z")


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_nemenyis_table(k, q):
    """Demšar 2006, table 5a."""
    assert nemenyi_distance(k, 14) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=6e-4)


def test_nemenyi_agrees_with_scikit_posthocs():
    table = values(12, 5, seed=4)
    found = compared(pd.DataFrame(table, columns=list("abcde")))
    p = scikit_posthocs.posthoc_nemenyi_friedman(table).to_numpy()
    ranks = found.friedman.ranks
    apart = np.abs(ranks[:, None] - ranks) > found.distance
    assert apart.any() and not apart.all()
    assert np.array_equal(apart, (p < 0.05) & ~np.eye(5, dtype=bool))


def slow_cliques(order, apart):
    """Every subset of at least two without a pair that is apart, which no larger one holds."""
    free = [set(s) for n in range(2, len(order) + 1) for s in combinations(order, n)
            if not any(frozenset(pair) in apart for pair in combinations(s, 2))]  # fmt: skip
    return {tuple(sorted(s, key=order.index)) for s in free if not any(s < other for other in free)}


@pytest.mark.parametrize("seed", range(8))
def test_cliques_are_all_the_largest_groups(seed):
    generator, order = np.random.default_rng(seed), list("fadbce")
    pairs = list(combinations(order, 2))
    apart = {frozenset(pair) for pair, far in zip(pairs, generator.random(len(pairs)) < seed / 8, strict=True) if far}
    found = cliques(order, apart)
    assert set(found) == slow_cliques(order, apart) and len(set(found)) == len(found)
    together = {frozenset(pair) for group in found for pair in combinations(group, 2)}
    assert together == {frozenset(pair) for pair in pairs} - apart, "a bar joins two exactly where they are not apart"
    assert list(found) == sorted(found, key=lambda group: [order.index(name) for name in group])


@pytest.mark.parametrize("seed", range(4))
def test_the_top_the_bars_and_the_table_are_one_decision(seed):
    generator = np.random.default_rng(seed)
    table = generator.standard_normal((14, 6)) + np.array([0.0, 0.3, 0.6, 0.9, 1.5, 1.6])
    found = compared(pd.DataFrame(table, columns=list("abcdef")))
    significant = {frozenset((t.first, t.second)) for t in found.pairs if t.p_holm < 0.05 and t.gap * t.effect > 0}
    assert found.apart == significant and significant
    best = list("abcdef")[int(table.mean(0).argmax())]
    near = {name for name in "abcdef" if frozenset((best, name)) not in significant}
    assert found.best == best == found.top[0] and set(found.top) == near
    assert near == {best}.union(*(set(group) for group in found.cliques if best in group))


def test_another_decision_can_take_the_place_of_wilcoxons():
    frame = pd.DataFrame(values(), columns=list("abcde"))
    found = compared(frame, apart=[frozenset("ab")])
    assert found.top == ("a", "c", "d", "e") and frozenset("ab") not in map(frozenset, found.cliques)


def test_agreement_of_segmenters():
    rows = [
        {"model": "m", "dataset": "d", "layer": "l", "perturbation": "blur", "severity": "all", "segmenter": s,
         "method": method, "control": method == "half", "rm": value}
        for s, order in (("quickshift", (3, 2, 1)), ("slic", (30, 20, 10)), ("grid", (3, 1, 2)))
        for method, value in zip(("a", "b", "c", "half"), (*order, 9), strict=True)
    ]  # fmt: skip
    found = segmenter_agreement(pd.DataFrame(rows))
    assert found.loc[0, ["segmenters", "methods"]].tolist() == [3, 3]
    assert found.loc[0, "w"] == pytest.approx(kendall_w(np.array([[3, 2, 1], [3, 2, 1], [3, 1, 2]])).w)
    two = segmenter_agreement(pd.DataFrame([row for row in rows if row["method"] in ("a", "b")]))
    assert two["methods"].tolist() == [2] and two["w"].isna().all() and two["p"].isna().all(), "two are too few"


def test_wrong_arguments_are_named():
    with pytest.raises(InvalidInput, match="at least two methods"):
        friedman(np.ones((4, 1)))
    with pytest.raises(InvalidInput, match="Got 1 and 3"):
        nemenyi_distance(1, 3)


def slow_holm(p):
    """In order of size, each times the number of those not smaller, at least what came before, at most 1."""
    order, found, reached = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for done, i in enumerate(order):
        reached = max(reached, min(1.0, (len(p) - done) * p[i]))
        found[i] = reached
    return found


def test_holm_is_the_formula_and_statsmodels():
    for p in ([0.04, 0.01, 0.03], [0.001, 0.5, 0.6, 0.02], [0.2], [0.01, 0.01, 0.01], [0.9, 0.8]):
        np.testing.assert_array_equal(holm(p), slow_holm(p))
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    assert holm([0.04, math.nan, 1.0])[[0, 2]].tolist() == [0.08, 1.0], "what is not a number is no test"
    assert np.isnan(holm([math.nan])).all() and math.isnan(holm([0.04, math.nan, 1.0])[1]) and not len(holm([]))


def test_worse_takes_both_the_corrected_p_and_the_direction():
    rng = np.random.default_rng(0)
    good, bad = rng.random(30) + 1, rng.random(30)
    (test,) = wilcoxon_pairs(np.stack([good, bad], 1), ["good", "bad"])
    (turned,) = wilcoxon_pairs(np.stack([bad, good], 1), ["bad", "good"])
    assert is_worse(test, 0.95) and not is_worse(turned, 0.95) and not is_worse(test, 1 - test.p_holm / 2)


def test_a_method_with_few_values_does_not_order_the_others():
    """It has values on three of forty blocks, where the better of the other two happens to be the worse."""
    good, fair = np.linspace(0.6, 0.9, 40), np.linspace(0.3, 0.6, 40)
    good[:3], few = 0.1, np.full(40, np.nan)
    few[:3] = 0.5
    frame = pd.DataFrame({"good": good, "fair": fair, "few": few})
    assert compared(frame).order == ("good", "fair", "few")
    assert compared(frame).best == "good"
    half = frame.assign(few=np.where(np.arange(40) < 20, 0.5, np.nan))
    assert compared(half).order[0] == "good" and by_mean(half.to_numpy(), ["good", "fair", "few"])[1] == "few"
