"""Monotonicity: AIX360's loop, networks that grow with every pixel, and correlations by hand."""

import math

import numpy as np
import pytest
import torch

import heatproof
from heatproof import tensors
from heatproof.errors import InvalidInput
from heatproof.metrics import METRICS
from heatproof.metrics.curves import reversed_ranks
from heatproof.metrics.monotonicity import set_sums
from heatproof.models import wrap

from .. import nets
from .test_fidelity import RAMP, linear, sigmoid

THREE = ["monotonicity", "monotonicity-strict", "monotonicity-pearson"]


def all_three(model, x, maps, target: int = 0, **options) -> list[list[float]]:
    found = heatproof.score(model, x, {"mine": maps}, dict.fromkeys(THREE, options), target=target)
    return [found.values("mine", metric).tolist() for metric in found.metrics]


def single(points: list[float], name: str, **options) -> float:
    return float(
        _value(METRICS[name].function(lambda **_: torch.tensor([points], dtype=torch.float64), False, **options))[0]
    )


def _value(found):
    return getattr(found, "value", found)


def test_shares_of_steps_by_hand():
    up, down, mixed = [0.1, 0.2, 0.2, 0.9], [0.9, 0.5, 0.4, 0.1], [0.1, 0.4, 0.2, 0.3, 0.3]
    assert single(up, "monotonicity") == single(up, "monotonicity-strict") == 1
    assert single(down, "monotonicity") == single(down, "monotonicity-strict") == 0
    assert single(mixed, "monotonicity") == 0.75 and single(mixed, "monotonicity-strict") == 0
    assert single(mixed, "monotonicity-strict", tolerance=0.25) == 1
    rounding = [0.3, 0.3 - 1e-9, 0.5]
    assert single(rounding, "monotonicity") == 1 and single(rounding, "monotonicity", tolerance=0.0) == 0.5
    assert math.isnan(single([0.1, math.nan, 0.2], "monotonicity"))
    assert math.isnan(single([0.1, math.nan, 0.2], "monotonicity-strict"))


def test_a_network_that_grows_with_every_pixel():
    """All weights positive: whatever the order, nothing falls. Reversed, for the other class, nothing rises."""
    model, x = linear(RAMP / 200), torch.ones(1, 3, 4, 4)
    x[0, :, 0, 0] = 0
    for steps in (4, 5, 16):
        assert all_three(model, x, RAMP[None], steps=steps)[:2] == [[1.0], [1.0]]
    share, strict, _ = all_three(model, x, RAMP[None], target=1, steps=4)
    assert share == [0.0] and strict == [0.0]


def test_a_linear_network_is_monotone_in_one_order_only_at_first():
    """Half the weights speak against the class. Least first, f falls and then rises: the share counts the pixels."""
    weights = torch.linspace(-1, 1, 16).view(4, 4) / 10
    model, x = linear(weights), torch.ones(1, 3, 4, 4)
    x[0, :, 1, 3] = x[0, :, 2, 0] = 0  # black is known
    share, strict, _ = all_three(model, x, weights[None], steps=16)
    assert share == [9 / 16] and strict == [0.0], "seven pixels pull down, two are black, seven push up"


def aix360(model, x, one, target, positions):
    """Luss et al. as AIX360 has it, one pixel a time; with the first step, from nothing, in front."""
    z = model.normalise(x[None])
    current = model.normalise(torch.zeros_like(x)[None])
    answers = [float(model.of_normalised(current).detach().double().softmax(1)[0, target])]
    order = np.argsort(one.flatten().numpy(), kind="stable")
    for group in np.array_split(order, positions):
        for position in group:
            row, column = divmod(int(position), one.shape[1])
            current[..., row, column] = z[..., row, column]
        answers.append(float(model.of_normalised(current).detach().double().softmax(1)[0, target]))
    rises = np.diff(answers) >= 0
    return rises.mean(), float(rises.all()), answers


def test_the_loop_of_aix360():
    model = wrap(nets.told_apart(nets.seeded(nets.Signed), 8), size=8)
    x, maps = nets.images(4, 8), torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(7))
    for steps in (64, 16):
        found = heatproof.score(model, x, {"mine": maps}, {name: {"steps": steps} for name in THREE})
        rows = [aix360(model, x[i], maps[i], int(found.target[i]), steps) for i in range(4)]
        share, strict, answers = zip(*rows, strict=True)
        names = found.metrics
        np.testing.assert_allclose(found.values("mine", names[0]), share, atol=1e-12)
        np.testing.assert_allclose(found.values("mine", names[1]), strict)
        at, points = found.curves["mine", names[0]]
        np.testing.assert_allclose(points, answers, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(at, np.arange(steps + 1) / steps)
        ordered = np.sort(tensors.minmax(maps).flatten(1).double().numpy(), 1)
        for i in range(4):
            sums = [0.0, *(ordered[i][: round(k * 64 / steps)].sum() for k in range(1, steps + 1))]
            expected = np.corrcoef(sums, answers[i])[0, 1]
            assert float(found.values("mine", names[2])[i]) == pytest.approx(expected, abs=1e-4)


def test_pearson_is_one_where_the_map_says_what_each_pixel_adds():
    """f is nearly linear for small weights, and the map is the contribution; for the other class it is the contrary."""
    model, x = linear(RAMP / 1e4), torch.ones(1, 3, 4, 4)
    x[0, :, 0, 0] = 0
    truth = RAMP[None].clone()
    truth[0, 0, 0] = 0
    assert all_three(model, x, truth, steps=15)[2] == pytest.approx([1.0], abs=1e-3)
    assert all_three(model, x, truth, target=1, steps=15)[2] == pytest.approx([-1.0], abs=1e-3)


def test_pearson_by_hand():
    """Map 0, 1/3, 2/3, 1; pixels 1; f of the sets: sums of the weights 0, 8, 0, 0."""
    maps = torch.tensor([[[0.0, 1 / 3], [2 / 3, 1.0]]])
    x = torch.ones(1, 3, 2, 2)
    x[0, :, 0, 0] = 0
    weights = torch.tensor([[0.0, 8.0], [0.0, 0.0]]) / 3
    sums, answers = [0, 0, 1 / 3, 1, 2], [0.5, 0.5, *[sigmoid(8)] * 3]
    expected = np.corrcoef(sums, answers)[0, 1]
    assert all_three(linear(weights), x, maps, steps=4)[2] == pytest.approx([expected], rel=1e-5)


def test_where_nothing_moves_there_is_no_correlation():
    x = nets.images(2, 4)
    found = all_three(linear(torch.zeros(4, 4)), x, torch.rand(2, 4, 4), steps=4)
    assert found[:2] == [[1.0, 1.0], [1.0, 1.0]] and all(map(math.isnan, found[2]))
    constant = all_three(linear(RAMP / 100), x, torch.full((2, 4, 4), 0.4), steps=4)
    assert constant[:2] == [[0.0, 0.0], [0.0, 0.0]] and all(map(math.isnan, constant[2]))


def test_sums_of_growing_sets():
    maps, counts = torch.tensor([[0.5, 0.25, 1.0, 0.25]]), torch.tensor([0, 1, 2, 4])
    assert set_sums(maps, torch.tensor([[1, 2, 0, 3]]), counts).tolist() == [[0, 1, 1.5, 2]]
    blocks = torch.tensor([[1, 2, 0, 2]])
    assert set_sums(maps, reversed_ranks(blocks), counts).tolist() == [[0, 0.5, 0.5, 2]]


def test_neighbours_and_monotone_maps_change_nothing():
    model = wrap(nets.told_apart(nets.seeded(nets.Signed), 8), size=8)
    x, maps = nets.images(3, 8), torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(7))
    together, stretched = all_three(model, x, maps), all_three(model, x, maps.exp())
    alone = [all_three(model, x[i : i + 1], maps[i : i + 1]) for i in range(3)]
    for number in range(3):
        one = [single[number][0] for single in alone]
        np.testing.assert_allclose(together[number], one, atol=1e-6)
    assert stretched[:2] == together[:2]


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidInput, match=r"`tolerance` must be at least 0"):
        single([0.1, 0.2], "monotonicity", tolerance=-1.0)
    with pytest.raises(InvalidInput, match=r"`steps` must be at least 1. Got 0"):
        single([0.1, 0.2], "monotonicity-strict", steps=0)
