"""The curve engine against loops over single pixels, sums that can be done by hand, and what must not matter."""

import itertools

import numpy as np
import pytest
import torch

from heatproof import passes, seeds
from heatproof.errors import InvalidInput, UnknownName
from heatproof.metrics import curves


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return seeds.generators(seed, [f"image {i}" for i in range(count)], "ties")


def ranks_of(maps: torch.Tensor, ties: str = "jitter", seed: int = 0) -> torch.Tensor:
    return curves.pixel_ranks(maps, generators(len(maps), seed), ties)


class Weighted:
    """`f(z) = Σ w z` over channels and positions, with its own weights for each image; counts what it is asked."""

    def __init__(self, weights: torch.Tensor, square: bool = False):
        self.weights, self.square = weights.double(), square
        self.rows, self.passes, self.seen = 0, [], []

    def __call__(self, z: torch.Tensor, rows: torch.Tensor, of: str) -> torch.Tensor:
        self.rows += len(z)
        self.passes.append(len(z))
        self.seen.append((rows.tolist(), of))
        answers = (z.double() * self.weights[rows]).flatten(1).sum(1)
        return answers.square() if self.square else answers


def slow_curve(z, background, values, weights, steps, first, restore, square=False):
    """One image, one pixel at a time; values without ties."""
    positions = list(itertools.product(*(range(side) for side in values.shape)))
    positions.sort(key=lambda position: float(values[position]), reverse=first == "most")
    found = []
    for i in range(steps + 1):
        count = round(i * len(positions) / steps)
        total = 0.0
        for number, position in enumerate(positions):
            source = z if (number < count) == restore else background
            for channel in range(z.shape[0]):
                total += float(weights[(channel, *position)]) * float(source[(channel, *position)])
        found.append(total**2 if square else total)
    return found


def test_ranks_by_hand():
    maps = torch.tensor([[[0.1, 0.9], [0.5, 0.3]]])
    assert ranks_of(maps).tolist() == ranks_of(maps, "block").tolist() == [[[3, 0], [1, 2]]]
    tied = torch.tensor([[[3.0, 1.0], [1.0, 2.0]]])
    assert ranks_of(tied, "block").tolist() == [[[0, 2], [2, 1]]]
    assert sorted(ranks_of(tied)[0].flatten().tolist()) == [0, 1, 2, 3]
    assert curves.reversed_ranks(ranks_of(tied, "block")).tolist() == [[[3, 0], [0, 2]]]
    assert curves.reversed_ranks(ranks_of(maps)).tolist() == [[[0, 3], [2, 1]]]


@pytest.mark.parametrize("size", [(37,), (6, 5), (3, 4, 2)])
def test_with_jitter_exactly_k_pixels_have_a_rank_below_k(size):
    maps = torch.randint(0, 3, (4, *size), generator=torch.Generator().manual_seed(2)).float()
    ranks = ranks_of(maps)
    assert ranks.shape == maps.shape and ranks.dtype == torch.int64
    n = maps[0].numel()
    for k in range(n + 1):
        assert ((ranks < k).flatten(1).sum(1) == k).all()
    ordered = torch.gather(maps.flatten(1), 1, ranks.flatten(1).argsort(1))
    assert (ordered.diff(dim=1) <= 0).all(), "a larger value never comes later"


def test_the_order_among_ties_is_the_images_own_and_the_same_for_every_map():
    flat, other = torch.zeros(2, 8, 8), torch.ones(2, 8, 8)
    assert torch.equal(ranks_of(flat), ranks_of(other))
    assert not torch.equal(ranks_of(flat)[0], ranks_of(flat)[1])
    assert not torch.equal(ranks_of(flat), ranks_of(flat, seed=1))
    assert (ranks_of(flat, "block") == 0).all()
    mean = torch.stack([ranks_of(flat[:1], seed=seed)[0].double() for seed in range(400)]).mean(0)
    assert (mean - 31.5).abs().max() < 6, "no place is preferred: sd of a mean of 400 is 0.92"


def test_batch_equals_single_and_a_monotone_map_changes_nothing():
    maps = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(1)).mul(6).round()
    for ties in curves.TIES:
        together = ranks_of(maps, ties)
        for i in range(3):
            assert torch.equal(curves.pixel_ranks(maps[i : i + 1], [generators(3)[i]], ties)[0], together[i])
        assert torch.equal(ranks_of(torch.exp(3 * maps) - 7, ties), together)


def test_what_is_not_a_number_ranks_last_and_zero_has_no_sign():
    maps = torch.tensor([[0.0, torch.nan, -5.0, torch.inf, torch.nan]])
    for ties in curves.TIES:
        ranks = ranks_of(maps, ties)[0].tolist()
        assert ranks[3] == 0 and ranks[0] == 1 and ranks[2] == 2 and min(ranks[1], ranks[4]) == 3
    assert ranks_of(torch.tensor([[0.0, -0.0]]), "block").tolist() == [[0, 0]]


def test_counts_are_rounded_shares_with_both_ends():
    assert curves.pixel_counts(16, 4) == [0, 4, 8, 12, 16]
    assert curves.pixel_counts(10, 4) == [0, 2, 5, 8, 10]
    assert curves.pixel_counts(3, 5) == [0, 1, 1, 2, 2, 3]
    counts = curves.pixel_counts(224 * 224, 224)
    assert counts == list(range(0, 224 * 224 + 1, 224)), "one row of pixels a step, as in RISE"
    assert curves.shares(4).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_linear_network_by_hand():
    """4×4, f = the sum of all values; a ramp 1 … 16; four pixels a step; nothing in place of what went."""
    z = torch.arange(1.0, 17).view(1, 1, 4, 4)
    score = Weighted(torch.ones(1, 1, 4, 4))
    ranks = ranks_of(z[:, 0])
    points = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=4)
    assert points.tolist() == [[136, 78, 36, 10, 0]]
    back = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=4, restore=True)
    assert back.tolist() == [[0, 58, 100, 126, 136]]
    least = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=4, first="least")
    assert least.tolist() == [[136, 126, 100, 58, 0]]
    at = curves.shares(4)
    assert curves.area(points, at).tolist() == [(136 / 2 + 78 + 36 + 10) / 4]
    assert curves.area(torch.tensor([[1.0, 0.0, 4.0]]), torch.tensor([0.0, 0.25, 1.0])).tolist() == [0.125 + 1.5]


@pytest.mark.parametrize("size", [(11,), (4, 5), (2, 3, 3)])
@pytest.mark.parametrize(("first", "restore"), itertools.product(("most", "least"), (False, True)))
def test_curves_agree_with_a_loop_over_pixels(size, first, restore):
    generator = torch.Generator().manual_seed(4)
    z, background = (torch.randn(3, 2, *size, generator=generator) for _ in range(2))
    maps, weights = torch.rand(3, *size, generator=generator), torch.randn(3, 2, *size, generator=generator)
    for steps in (1, 3, 7, 40):
        score = Weighted(weights, square=True)
        points = curves.curve_points(
            z, background, ranks_of(maps), score, steps=steps, first=first, restore=restore, of="logit"
        )
        assert points.shape == (3, steps + 1) and points.dtype == torch.float64
        for i in range(3):
            expected = slow_curve(z[i], background[i], maps[i], weights[i], steps, first, restore, square=True)
            np.testing.assert_allclose(points[i], expected, rtol=1e-5, atol=1e-6)
        assert {of for _, of in score.seen} == {"logit"}


def test_numbers_do_not_depend_on_how_many_go_at_a_time(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    z, background, weights = (torch.randn(5, 3, 6, 6, generator=generator) for _ in range(3))
    ranks = ranks_of(torch.rand(5, 6, 6, generator=generator))
    expected = None
    for rows in (1, 3, 7, 64):
        monkeypatch.setattr(passes, "CPU_ROWS", rows)
        score = Weighted(weights)
        points = curves.curve_points(z, background, ranks, score, steps=9)
        assert max(score.passes) <= rows and score.rows == 50
        assert len(score.passes) == -(-50 // rows), "images and steps share the passes"
        expected = points if expected is None else expected
        assert torch.equal(points, expected)


def test_known_ends_and_steps_that_are_equal_take_no_pass():
    z = torch.rand(2, 3, 3, 3)
    ranks = ranks_of(torch.rand(2, 3, 3))
    score = Weighted(torch.ones(2, 3, 3, 3))
    start, end = torch.tensor([5.0, 6.0]), torch.tensor([-1.0, -2.0])
    points = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=4, start=start, end=end)
    assert score.rows == 2 * 3 and points[:, 0].tolist() == [5, 6] and points[:, -1].tolist() == [-1, -2]
    score = Weighted(torch.ones(2, 3, 3, 3))
    points = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=100)
    assert score.rows == 2 * 10, "nine pixels: ten images, however many steps"
    assert points.shape == (2, 101)


def test_restoring_is_removing_in_the_other_order_read_backwards():
    generator = torch.Generator().manual_seed(4)
    z, background, weights = (torch.randn(2, 3, 5, 5, generator=generator) for _ in range(3))
    maps = torch.rand(2, 5, 5, generator=generator)
    score = Weighted(weights, square=True)
    inserted = curves.curve_points(z, background, ranks_of(maps), score, steps=25, restore=True)
    for other in (
        curves.curve_points(z, background, ranks_of(-maps), score, steps=25),
        curves.curve_points(z, background, ranks_of(maps), score, steps=25, first="least"),
    ):
        torch.testing.assert_close(other.flip(1), inserted)


def test_a_block_of_ties_goes_at_once():
    z = torch.ones(1, 1, 4)
    ranks = ranks_of(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), "block")
    score = Weighted(torch.tensor([[[1.0, 10.0, 100.0, 1000.0]]]))
    gone = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=4)
    assert gone.tolist() == [[1111, 1110, 1000, 1000, 0]]
    back = curves.curve_points(z, torch.zeros_like(z), ranks, score, steps=4, restore=True, first="least")
    assert back.tolist() == [[0, 1000, 1110, 1110, 1111]]


def test_thresholds_of_each_images_own_and_no_argument_changed():
    z, background = torch.ones(2, 1, 3), torch.zeros(2, 1, 3)
    ranks = torch.tensor([[0, 1, 2], [2, 1, 0]])
    counts = torch.tensor([[1, 2, 3], [0, 2, -1]])
    copies = [one.clone() for one in (z, background, ranks, counts)]
    found = curves.threshold_scores(z, background, ranks, counts, Weighted(torch.tensor([[[1.0, 2, 4]]] * 2)))
    assert found[0].tolist() == [6, 4, 0] and found[1, :2].tolist() == [7, 1] and found[1, 2].isnan()
    assert all(torch.equal(one, copy) for one, copy in zip((z, background, ranks, counts), copies, strict=True))


def test_an_answer_that_is_not_a_number_stays_in_its_image():
    z = torch.ones(3, 1, 4)
    z[1] = torch.nan
    points = curves.curve_points(
        z, torch.zeros_like(z), ranks_of(torch.rand(3, 4)), Weighted(torch.ones(3, 1, 4)), steps=2
    )
    assert points[[0, 2]].tolist() == [[4, 2, 0]] * 2 and points[1, :2].isnan().all()


def test_what_cannot_be_is_refused():
    z, maps = torch.ones(1, 1, 4), torch.rand(1, 4)
    score = Weighted(torch.ones(1, 1, 4))
    with pytest.raises(UnknownName, match=r"ties.*blocks"):
        ranks_of(maps, "blocks")
    with pytest.raises(InvalidInput, match="One generator for each of 1 maps"):
        curves.pixel_ranks(maps, [])
    with pytest.raises(UnknownName, match="first"):
        curves.curve_points(z, z, ranks_of(maps), score, steps=2, first="last")
    for steps, said in ((0, "at least 1"), (2.5, "whole number")):
        with pytest.raises(InvalidInput, match=f"`steps` must be .*{said}"):
            curves.curve_points(z, z, ranks_of(maps), score, steps=steps)
