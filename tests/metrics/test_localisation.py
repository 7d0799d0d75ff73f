"""Localisation: by hand on 4×4 images, slow references over all orders of ties, and nothing for nothing."""

import itertools
import math

import numpy as np
import pytest
import torch

from heatproof.errors import InvalidInput
from heatproof.metrics import METRICS
from heatproof.metrics.curves import pixel_ranks
from heatproof.metrics.localisation import (
    average_precision,
    energy,
    grid_pointing_game,
    iou,
    mask_cosine,
    pointing_game,
    relevance_rank,
    roc_auc,
    top_k_intersection,
)

NAMES = [name for name, entry in METRICS.items() if entry.traits["family"] == "localisation"]
every_metric = pytest.mark.parametrize("name", NAMES)


def ranks_of(maps: torch.Tensor):
    return lambda ties: pixel_ranks(maps, [torch.Generator() for _ in maps], ties)


def value(name: str, maps: torch.Tensor, mask: torch.Tensor, **options) -> torch.Tensor:
    given = {"maps": maps, "raw": maps, "mask": mask, "ranks": ranks_of(maps)}
    return METRICS[name](given, {**METRICS[name].options, **options})


def grey(*rows: str) -> torch.Tensor:
    """Digits as tenths: `"0159"` → .0 .1 .5 .9."""
    return torch.tensor([[int(digit) / 10 for digit in row] for row in rows])[None]


def truth(*rows: str) -> torch.Tensor:
    return torch.tensor([[letter == "#" for letter in row] for row in rows])[None]


MAP = grey("9800", "7610", "0000", "0005")
MASK = truth("##..", "#...", "....", "...#")


def test_by_hand_on_four_by_four():
    """The object holds .9 .8 .7 and .5; .6 and .1 lie beside it; ten zeros."""
    ranks = ranks_of(MAP)
    assert pointing_game(MAP, MASK).item() == 1
    assert energy(MAP, MASK).item() == pytest.approx(2.9 / 3.6)
    assert relevance_rank(ranks, MASK).item() == 3 / 4
    assert top_k_intersection(ranks, MASK, k=3).item() == 1
    assert top_k_intersection(ranks, MASK, k=5).item() == 4 / 5
    assert top_k_intersection(ranks, MASK, k=0.25).item() == 3 / 4
    assert top_k_intersection(ranks, MASK, k=1000).item() == 4 / 16, "all pixels, where there are fewer"
    assert iou(MAP, MASK).item() == 4 / 5
    assert iou(MAP, MASK, threshold=0.55).item() == 3 / 5
    assert roc_auc(ranks, MASK).item() == pytest.approx((3 * 12 + 11) / (4 * 12))
    assert average_precision(ranks, MASK).item() == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    assert mask_cosine(MAP, MASK).item() == pytest.approx(2.9 / math.sqrt(2.56 * 4), rel=1e-6)


def test_a_plateau_counts_by_the_share_of_it_that_is_inside():
    plateau = grey("9990", "0000", "0000", "0000")
    mask = truth("#...", "#...", "....", "....")
    assert pointing_game(plateau, mask).item() == pytest.approx(1 / 3)
    assert top_k_intersection(ranks_of(plateau), mask, k=1).item() == pytest.approx(1 / 3)
    assert relevance_rank(ranks_of(plateau), mask).item() == pytest.approx((2 * 1 / 3) / 2)
    assert average_precision(ranks_of(plateau), mask).item() == pytest.approx((1 / 3 + 2 / 16) / 2)


def test_a_point_near_the_object_hits_where_that_is_allowed():
    point, mask = grey("0000", "0009", "0000", "0000"), truth("....", "#...", "....", "....")
    assert pointing_game(point, mask).item() == 0
    assert pointing_game(point, mask, tolerance=2).item() == 0
    assert pointing_game(point, mask, tolerance=3).item() == 1
    corner = truth("....", "....", "....", ".#..")
    assert pointing_game(point, corner, tolerance=2).item() == 0, "a ball, not a square: √8 away"
    assert pointing_game(point, corner, tolerance=3).item() == 1


def test_the_grid_game_is_played_on_what_is_positive_in_the_raw_map():
    """The display map moves its zero to the minimum: −1 … 1 and 0 … 2 look alike there."""
    cell = truth("##..", "##..", "....", "....")
    signed = torch.full((1, 4, 4), -1.0)
    signed[0, 0, 0], signed[0, 3, 3] = 3, 1
    assert grid_pointing_game(signed, cell).item() == 3 / 4
    three = torch.stack([2 * signed, -signed, torch.zeros_like(signed)], 1)
    assert grid_pointing_game(three, cell).item() == 3 / 4
    assert grid_pointing_game(-signed.abs(), cell).isnan().all()
    coarse = torch.tensor([[[4.0, -9.0], [0.0, 0.0]]])
    expected = torch.nn.functional.interpolate(coarse.relu()[None], (4, 4), mode="bilinear")[0]
    assert grid_pointing_game(coarse, cell).item() == pytest.approx((expected[cell].sum() / expected.sum()).item())


def orders(values: list[float]):
    """All orders of pixels, highest first, that the values allow."""
    groups = [[i for i, v in enumerate(values) if v == one] for one in sorted(set(values), reverse=True)]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [i for part in parts for i in part]


def slow_top(values, inside, k):
    """Mean over all orders of ties."""
    found = [sum(inside[i] for i in order[:k]) / k for order in orders(values)]
    return sum(found) / len(found)


def slow_auc(values, inside):
    pairs = [(a, b) for a, x in zip(values, inside, strict=True) for b, y in zip(values, inside, strict=True)
             if x and not y]  # fmt: skip
    return sum(1 if a > b else 0.5 if a == b else 0 for a, b in pairs) / len(pairs)


def slow_precision(values, inside):
    found, recall = 0.0, 0.0
    for cut in sorted(set(values), reverse=True):
        above = [truth for v, truth in zip(values, inside, strict=True) if v >= cut]
        now = sum(above) / sum(inside)
        found, recall = found + (now - recall) * sum(above) / len(above), now
    return found


def test_ranking_metrics_are_their_slow_references():
    rng = np.random.default_rng(0)
    for _ in range(30):
        values = rng.integers(0, 4, 7).astype(float).tolist()
        inside = (rng.permutation(7) < rng.integers(1, 7)).tolist()
        maps, mask = torch.tensor([values])[:, None], torch.tensor([inside])[:, None]
        ranks = ranks_of(maps)
        assert relevance_rank(ranks, mask).item() == pytest.approx(slow_top(values, inside, sum(inside)))
        assert top_k_intersection(ranks, mask, k=2).item() == pytest.approx(slow_top(values, inside, 2))
        assert roc_auc(ranks, mask).item() == pytest.approx(slow_auc(values, inside))
        assert average_precision(ranks, mask).item() == pytest.approx(slow_precision(values, inside))


@every_metric
def test_the_mask_itself_is_the_best_map_and_its_reverse_the_worst(name):
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(1, 12, 10, dtype=torch.bool)
    mask[0, 2:8, 3:7] = True
    slope = torch.arange(120.0).view(1, 12, 10) / 1000  # below the object in order, each pixel its own value
    best, worst = value(name, mask.float(), mask).item(), value(name, (~mask).float() + slope, mask).item()
    if name == "iou":
        worst = 0.0  # what is beside the object reaches half of the maximum, the object does not
    assert best == pytest.approx(1)
    for _ in range(20):
        other = value(name, torch.rand(1, 12, 10, generator=generator), mask).item()
        assert worst - 1e-12 <= other <= best + 1e-12
        assert other < best or name == "pointing-game"  # where a hit or two by chance is as it must be


@every_metric
def test_an_empty_mask_is_no_hit(name):
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 6, 6, dtype=torch.bool)
    mask[1, 2:5] = True
    found = value(name, maps, mask)
    assert found[0].isnan() and found[1].isfinite()


def test_a_mask_of_everything_leaves_nothing_to_tell_apart():
    maps, mask = torch.rand(1, 6, 6), torch.ones(1, 6, 6, dtype=torch.bool)
    assert roc_auc(ranks_of(maps), mask).isnan().all()
    for name in set(NAMES) - {"roc-auc", "iou", "mask-cosine"}:
        assert value(name, maps, mask).item() == pytest.approx(1)


@every_metric
def test_a_map_of_zeros_is_never_good(name):
    """Chance, zero or nothing; the engine states the value where that is declared."""
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, :5, :4] = True
    stated = METRICS[name].traits["degenerate"]
    found = value(name, torch.zeros(1, 10, 10), mask).item() if stated is None else stated
    assert found == pytest.approx({"roc-auc": 0.5}.get(name, 0.2 if stated is None else 0))


@every_metric
def test_images_do_not_see_each_other(name):
    """Quantus divides by the maximum of the whole batch first."""
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand(3, 8, 8, generator=generator) * torch.tensor([1.0, 100.0, 0.01]).view(3, 1, 1)
    if name == "iou":
        maps = maps / maps.amax((1, 2), keepdim=True)
    mask = torch.rand(3, 8, 8, generator=generator) > 0.7
    alone = torch.cat([value(name, maps[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(value(name, maps, mask), alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["pointing-game", "relevance-rank", "top-k-intersection", "roc-auc",
                                  "average-precision"])  # fmt: skip
def test_only_the_order_counts(name):
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(3, 8, 8, generator=generator).mul(20).round() / 20
    mask = torch.rand(3, 8, 8, generator=generator) > 0.6
    assert torch.equal(value(name, maps, mask), value(name, maps**3 / 7, mask))


def test_the_reverse_of_a_map_has_the_rest_of_the_area():
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(4)).mul(9).round() / 9
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, 2:5, 1:7] = True
    total = roc_auc(ranks_of(maps), mask) + roc_auc(ranks_of(1 - maps), mask)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))


@every_metric
@pytest.mark.parametrize("shape", [(60,), (5, 4, 3)])
def test_signals_and_volumes(name, shape):
    """The value is that of the same pixels laid out in a row."""
    generator = torch.Generator().manual_seed(5)
    maps, mask = torch.rand(2, *shape, generator=generator), torch.rand(2, *shape, generator=generator) > 0.6
    flat = value(name, maps.reshape(2, 1, 60), mask.reshape(2, 1, 60))
    torch.testing.assert_close(value(name, maps, mask), flat, rtol=1e-6, atol=1e-7)


def test_tolerance_in_one_and_three_dimensions():
    signal, near = torch.zeros(1, 9), torch.zeros(1, 9, dtype=torch.bool)
    signal[0, 6], near[0, 3] = 1, True
    assert pointing_game(signal, near, tolerance=3).item() == 1 and pointing_game(signal, near, tolerance=2).item() == 0
    volume, corner = torch.zeros(1, 5, 5, 5), torch.zeros(1, 5, 5, 5, dtype=torch.bool)
    volume[0, 2, 2, 2], corner[0, 3, 3, 3] = 1, True
    assert pointing_game(volume, corner, tolerance=1).item() == 0, "√3 away"
    assert pointing_game(volume, corner, tolerance=2).item() == 1


def test_the_cosine_is_what_the_noise_study_reports():
    """The published number: a map and a mask of another image get no more than their overlap."""
    maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(6))
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[0, 2:4] = mask[1, :, 1] = True
    expected = torch.nn.functional.cosine_similarity(maps.flatten(1).double(), mask.flatten(1).double())
    torch.testing.assert_close(mask_cosine(maps, mask)[:2], expected[:2], rtol=1e-6, atol=0)
    assert mask_cosine(maps, mask)[2].isnan()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("top-k-intersection", {"k": 0}, "`k` must be above 0"),
        ("top-k-intersection", {"k": math.nan}, "`k` must be above 0"),
        ("top-k-intersection", {"k": 2.5}, "`k` must be a whole number"),
        ("iou", {"threshold": 0}, "`threshold` must be above 0"),
        ("iou", {"threshold": 1.5}, "at most 1. Got 1.5"),
        ("pointing-game", {"tolerance": -1}, "`tolerance` must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, said):
    with pytest.raises(InvalidInput, match=said):
        value(name, MAP, MASK, **options)
