"""Rank-biased overlap beside references written from the definition, one item and one depth at a time."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from heatproof.errors import InvalidInput
from heatproof.metrics.rankings import kappa, ranking, ranking_of, rbo, rbo_expectation, spearman

TIES = ("b", "a", "stable")
#: Score lists with ties at the top, in the middle, at the end, and none.
PATTERNS = [(3, 2, 1, 0), (3, 3, 1, 0), (2, 1, 1, 0), (1, 0, 0, 0), (1, 1, 1, 0), (2, 2, 1, 1)]


def slow_rbo(one, other, p=0.9, ties="b", extrapolated=True):
    """Corsi & Urbano 2024: memberships item by item, straight from protocols §5."""
    n = len(one)

    def membership(scores, item, depth):
        above = sum(s > scores[item] for s in scores)
        same = [i for i in range(n) if scores[i] == scores[item]]
        if ties == "stable":
            return float(above + same.index(item) + 1 <= depth)
        top, bottom = above + 1, above + len(same)
        return min(1.0, max(0.0, (depth - top + 1) / (bottom - top + 1)))

    total = 0.0
    for depth in range(1, n + 1):
        c1 = [membership(one, i, depth) for i in range(n)]
        c2 = [membership(other, i, depth) for i in range(n)]
        agreement = sum(a * b for a, b in zip(c1, c2, strict=True))
        if ties == "b":
            agreement /= math.sqrt(sum(a * a for a in c1) * sum(b * b for b in c2))
        else:
            agreement /= depth
        total += (1 - p) * p ** (depth - 1) * agreement
    return total + (p**n if extrapolated else 0.0)


def of(scores):
    return ranking(torch.tensor(scores, dtype=torch.float64))


lists = st.integers(2, 9).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n) for _ in range(2)])
)


@pytest.mark.parametrize("ties", TIES)
@given(pair=lists, p=st.sampled_from([0.5, 0.9, 0.98]), extrapolated=st.booleans())
@settings(max_examples=60, deadline=None)
def test_rbo_is_its_definition(ties, pair, p, extrapolated):
    one, other = pair
    if len(set(one)) == 1 or len(set(other)) == 1:
        return
    ours = rbo(of(one), of(other), p, ties, extrapolated).item()
    assert ours == pytest.approx(slow_rbo(one, other, p, ties, extrapolated), abs=1e-12)


def test_a_hand_computed_case():
    # a > b = c against a = b > c, p = .5. Memberships at depths 1, 2, 3:
    # list 1: a 1 1 1, b and c 0 ½ 1; list 2: a and b ½ 1 1, c 0 0 1.
    # Σc¹c² = ½, 3/2, 3; norms² of list 1: 1, 3/2, 3; of list 2: ½, 2, 3.
    agreements = [0.5 / math.sqrt(1 * 0.5), 1.5 / math.sqrt(1.5 * 2), 1.0]
    expected = 0.5 * (agreements[0] + 0.5 * agreements[1] + 0.25 * agreements[2]) + 0.125
    assert rbo(of([2, 1, 1]), of([2, 2, 1]), p=0.5).item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("first", PATTERNS)
@pytest.mark.parametrize("second", PATTERNS[1:])
def test_the_expectation_is_the_mean_over_all_shufflings(first, second, ties):
    ones = torch.tensor(list(itertools.permutations(first)), dtype=torch.float64)
    others = torch.tensor(list(itertools.permutations(second)), dtype=torch.float64)
    values = rbo(ranking(ones[:, None].expand(-1, len(others), -1)), ranking(others[None].expand(len(ones), -1, -1)),
                 p=0.8, ties=ties)  # fmt: skip
    expected = rbo_expectation(of(first), of(second), p=0.8, ties=ties)
    assert values.mean().item() == pytest.approx(expected.item(), abs=1e-13)


@pytest.mark.parametrize(("n", "chance"), [(20, 0.439), (50, 0.199), (120, 0.083)])
def test_chance_of_permutations(n, chance):
    one, other = of(list(range(n))), of(list(range(n))[::-1])
    for ties in TIES:
        assert rbo_expectation(one, other, ties=ties).item() == pytest.approx(chance, abs=6e-4)


@pytest.mark.parametrize(
    ("n", "marked", "ties", "chance"),
    [(50, 2, "b", 0.44), (120, 4, "b", 0.21), (50, 2, "a", 0.20), (120, 4, "a", 0.083),
     (50, 2, "stable", 0.61), (120, 4, "stable", 0.41)],
)  # fmt: skip
def test_chance_of_sparse_maps(n, marked, ties, chance):
    """97 % zero segments, unrelated: protocols §5. A Monte-Carlo mean agrees with the exact figure."""
    generator = torch.Generator().manual_seed(n)
    scores = torch.zeros(2, 600, n)
    scores[..., :marked] = torch.rand(2, 600, marked, generator=generator) + 0.1
    shuffle = torch.rand(scores.shape, generator=generator).argsort(-1)
    one, other = map(ranking, scores.gather(-1, shuffle))
    exact = rbo_expectation(one, other, ties=ties)[0].item()
    assert exact == pytest.approx(chance, abs=6e-3)
    values = rbo(one, other, ties=ties)
    assert abs(values.mean().item() - exact) < 4 * values.std().item() / math.sqrt(600)


def test_identical_tied_maps_score_low_only_with_a():
    scores = of([0.0] * 119 + [1.0])
    assert rbo(scores, scores, ties="b").item() == pytest.approx(1, abs=1e-12)
    assert rbo(scores, scores, ties="stable").item() == pytest.approx(1, abs=1e-12)
    assert rbo(scores, scores, ties="a").item() < 0.4


@given(pair=lists, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_properties(pair, seed):
    one, other = (torch.tensor(x, dtype=torch.float64) for x in pair)
    if len(one.unique()) == 1 or len(other.unique()) == 1:
        return
    a, b = ranking(one), ranking(other)
    value = rbo(a, b).item()
    assert 0 <= value <= 1
    assert rbo(a, a).item() == pytest.approx(1, abs=1e-12)
    assert rbo(b, a).item() == pytest.approx(value, abs=1e-14)
    assert rbo(ranking(one.exp() * 3 + 1), b).item() == pytest.approx(value, abs=1e-14)
    order = torch.randperm(len(one), generator=torch.Generator().manual_seed(seed))
    assert rbo(ranking(one[order]), ranking(other[order])).item() == pytest.approx(value, abs=1e-14)
    assert rbo_expectation(ranking(one[order]), b).item() == pytest.approx(rbo_expectation(a, b).item(), abs=1e-14)
    assert kappa(rbo(a, a), rbo_expectation(a, a)).item() == pytest.approx(1, abs=1e-10)


@given(pair=lists)
@settings(max_examples=40, deadline=None)
def test_spearman_is_scipys(pair):
    one, other = pair
    if len(set(one)) == 1 or len(set(other)) == 1:
        return
    assert spearman(of(one), of(other)).item() == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


def test_lower_p_is_more_top_weighted():
    base, n = list(range(40, 0, -1)), 40
    top_swapped, end_swapped = base.copy(), base.copy()
    top_swapped[0], top_swapped[1] = base[1], base[0]
    end_swapped[n - 2], end_swapped[n - 1] = base[n - 1], base[n - 2]
    loss = {p: [1 - rbo(of(base), of(x), p).item() for x in (top_swapped, end_swapped)] for p in (0.5, 0.9)}
    assert loss[0.5][0] > loss[0.9][0] > loss[0.9][1] > loss[0.5][1]


def test_rounding_makes_noise_a_tie():
    clean = torch.tensor([0.5, 0.5, 0.1])
    noisy = ranking(clean.double() + torch.tensor([0.0, 3e-8, 0.0]))
    assert noisy.top.tolist() == [1, 1, 3] and noisy.bottom.tolist() == [2, 2, 3]
    assert ranking_of(clean.double() + torch.tensor([0.0, 3e-8, 0.0])).top.tolist() == [2, 1, 3]


def test_a_map_without_a_ranking_is_nan():
    good, constant, broken = of([1.0, 2.0, 3.0]), of([1.0, 1.0, 1.0]), of([1.0, math.nan, 0.0])
    for bad in (constant, broken):
        for function in (rbo, rbo_expectation, spearman):
            assert math.isnan(function(good, bad).item()) and math.isnan(function(bad, bad).item())
    assert math.isnan(rbo(of([1.0]), of([1.0])).item())


def test_batches_do_not_mix():
    scores = torch.rand(2, 3, 5, 12, generator=torch.Generator().manual_seed(0)).mul(4).round()
    clean, moved = ranking(scores[0, :, 0]), ranking(scores[1])
    for ties in TIES:
        whole = rbo(ranking(scores[0]), moved, ties=ties), rbo_expectation(ranking(scores[0]), moved, ties=ties)
        for i, j in ((0, 0), (1, 4), (2, 3)):
            one, other = ranking(scores[0, i, j]), ranking(scores[1, i, j])
            torch.testing.assert_close(whole[0][i, j], rbo(one, other, ties=ties), rtol=0, atol=1e-14)
            torch.testing.assert_close(whole[1][i, j], rbo_expectation(one, other, ties=ties), rtol=0, atol=1e-13)
    # broadcasting one clean ranking over many
    shared = rbo(ranking(scores[0, :, 0][:, None]), moved)
    torch.testing.assert_close(shared[1, 2], rbo(ranking(scores[0, 1, 0]), ranking(scores[1, 1, 2])))
    assert clean.top.shape == (3, 12)


@pytest.mark.parametrize("options", [{"p": 1.0}, {"p": 0.0}, {"ties": "c"}])
def test_wrong_options_are_named(options):
    with pytest.raises(InvalidInput, match=f"`{next(iter(options))}` must"):
        rbo(of([1, 2]), of([2, 1]), **options)
    with pytest.raises(InvalidInput, match="at least one item"):
        ranking(torch.empty(3, 0))
