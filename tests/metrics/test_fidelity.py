"""Fidelity by hand: a network whose logit is a weighted sum of the pixels, and images of sixteen of them."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import InvalidInput, UnknownName
from heatproof.masking import blurred
from heatproof.metrics import METRICS, Curve
from heatproof.metrics.curves import area, shares
from heatproof.models import Model, wrap
from heatproof.models.probe import facts

from .. import nets


class Sum(nn.Module):
    """Two classes, logits (Σ w z, 0): the probability of the first is the sigmoid of the sum."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        total = (z * self.weights).flatten(1).sum(1)
        return torch.stack([total, torch.zeros_like(total)], 1)


def linear(weights: torch.Tensor, mean: float = 0.0) -> Model:
    """Weights `(H, W)` for all three channels; black is −mean in z."""
    return wrap(Sum(weights.expand(3, -1, -1).clone()), mean, 1.0, tuple(weights.shape))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def scored(model: Model, x: torch.Tensor, maps: torch.Tensor, metric: str, target: int = 0) -> list[float]:
    return heatproof.score(model, x, {"mine": maps}, metric, target=target).values("mine", metric).tolist()


RAMP = torch.arange(1.0, 17).view(4, 4)


def test_the_masked_image_by_hand():
    """All pixels 1/2, weights 1/8; the map shows the upper half: Σ over 3 channels goes from 3 to 3/2."""
    model, x = linear(torch.full((4, 4), 1 / 8)), torch.full((1, 3, 4, 4), 0.5)
    x[0, :, 3, 3] = 0.0  # so that black is known: Σ = 15/16 · 3
    maps = torch.zeros(1, 4, 4)
    maps[:, :2] = 1
    p, q = sigmoid(45 / 16), sigmoid(24 / 16)
    assert scored(model, x, maps, "average-drop") == pytest.approx([(p - q) / p])
    assert scored(model, x, maps, "local-accuracy") == pytest.approx([p - q])
    assert scored(model, x, maps, "average-increase") == scored(model, x, maps, "average-gain") == [0.0]
    assert scored(model, x, maps, "sufficiency") == [1.0]
    # The other class gains what the first loses.
    assert scored(model, x, maps, "average-drop", target=1) == [0.0]
    assert scored(model, x, maps, "average-increase", target=1) == [1.0]
    assert scored(model, x, maps, "average-gain", target=1) == pytest.approx([(p - q) / p])
    assert scored(model, x, maps, "local-accuracy", target=1) == pytest.approx([p - q])


def test_black_is_black_and_the_mean_is_the_mean():
    """With a mean of 1/2, black is −1/2 in z and the mean is 0."""
    weights = torch.zeros(4, 4)
    weights[0, 0] = 1.0
    model, x = linear(weights, mean=0.5), torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = 1.0
    maps = torch.ones(1, 4, 4)
    maps[0, 0, 0] = 0
    p = sigmoid(1.5)
    assert scored(model, x, maps, "average-drop") == pytest.approx([(p - sigmoid(-1.5)) / p], rel=1e-6)
    assert scored(model, x, maps, "average-drop[fill=mean]") == pytest.approx([(p - 0.5) / p])
    assert scored(model, x, maps, "sufficiency") == [0.0] and scored(model, x, maps, "sufficiency[fill=mean]") == [1.0]


def test_a_map_of_ones_but_for_a_pixel_fools_drop_and_increase_but_not_gain():
    """The pixel speaks against the class: hiding it is all it takes (Fake-CAM)."""
    weights = torch.full((4, 4), 0.01)
    weights[0, 0] = -0.05
    x = torch.full((1, 3, 4, 4), 0.8)
    x[0, :, 3, 3] = 0
    fake = torch.ones(1, 4, 4)
    fake[0, 0, 0] = 0
    model = linear(weights)
    assert scored(model, x, fake, "average-drop") == [0.0] and scored(model, x, fake, "average-increase") == [1.0]
    assert 0 < scored(model, x, fake, "average-gain")[0] < 0.1


def test_where_nothing_can_be_gained_and_where_nothing_can_be_lost():
    p, q = torch.tensor([1.0, 0.5, 0.0, math.nan]).double(), torch.tensor([0.2, 1.0, 0.3, 0.5]).double()
    asked = []

    def masked(fill: str) -> torch.Tensor:
        asked.append(fill)
        return q

    def value(name: str, **options) -> list[float]:
        values = {"values": False} if "values" in METRICS[name].needs else {}
        return METRICS[name].function(p, masked, **values, **options).tolist()

    assert value("average-gain") == pytest.approx([math.nan, 1.0, 0.3, math.nan], nan_ok=True)
    assert value("average-drop") == pytest.approx([0.8, 0.0, math.nan, math.nan], nan_ok=True)
    assert value("average-increase") == pytest.approx([0.0, 1.0, 1.0, math.nan], nan_ok=True)
    assert value("local-accuracy", fill="blur") == pytest.approx([0.8, 0.5, 0.3, math.nan], nan_ok=True)
    assert asked == ["black", "black", "black", "blur"], "black unless told otherwise"
    with pytest.raises(UnknownName, match=r"fill.*white"):
        value("average-drop", fill="white")


def test_sufficiency_looks_at_the_networks_own_class():
    logits = torch.tensor([[3.0, 1, 0], [0, 1, 2], [0, math.nan, 0]])
    masked = torch.tensor([[0.4, 0.3, 0.3], [0.5, 0.2, 0.3], [0.1, 0.8, 0.1]]).double()
    found = METRICS["sufficiency"].function(logits, lambda fill: masked)
    assert found.tolist() == pytest.approx([1.0, 0.0, math.nan], nan_ok=True)


def test_a_constant_map_has_the_worst_value_of_each():
    model, x = linear(torch.full((4, 4), -0.1)), nets.images(1, 4)
    stated = {"average-drop": 1, "average-increase": 0, "average-gain": 0, "local-accuracy": 1, "sufficiency": 0}
    found = heatproof.score(model, x, {"mine": torch.full((1, 4, 4), 0.3)}, list(stated), target=0)
    for metric, worst in stated.items():
        assert found.values("mine", metric).tolist() == [worst]
    assert {row.flag for row in found.rows} == {"constant map"}


def test_deletion_and_insertion_by_hand():
    """Weights are the ramp / 100, pixels 1, four pixels a step: sums of what is left are 78, 36 and 10 hundredths."""
    model, x = linear(RAMP / 100), torch.ones(1, 3, 4, 4)
    x[0, :, 0, 0] = 0  # so that black is known; it weighs 1, and goes last
    left = [sigmoid(3 * total / 100) for total in (135, 77, 35, 9, 0)]
    expected = sum((a + b) / 2 for a, b in pairwise(left)) / 4
    assert scored(model, x, RAMP[None], "deletion[steps=4]") == pytest.approx([expected], rel=1e-6)
    found = heatproof.score(model, x, {"mine": RAMP[None]}, "deletion[steps=4]", target=0)
    at, points = found.curves["mine", "deletion[steps=4]"]
    assert at.tolist() == [0, 0.25, 0.5, 0.75, 1] and points[0].tolist() == pytest.approx(left, rel=1e-6)
    back = [sigmoid(3 * total / 100) for total in (0, 58, 100, 126, 135)]
    expected = sum((a + b) / 2 for a, b in pairwise(back)) / 4
    assert scored(model, x, RAMP[None], "insertion[fill=black,steps=4]") == pytest.approx([expected], rel=1e-6)


class Selection:
    """A curve that is written down, and the questions that were put."""

    def __init__(self, points: torch.Tensor):
        self.points, self.questions = points, []

    def __call__(self, **question) -> torch.Tensor:
        self.questions.append(question)
        return self.points


def test_each_area_asks_for_its_own_curve():
    points = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.2, 0.2]]).double()
    for name, fill, restore in (
        ("deletion", "black", False),
        ("deletion-mean", "mean", False),
        ("insertion", "blur", True),
    ):
        curve = Selection(points)
        found = METRICS[name].function(curve, steps=2)
        assert isinstance(found, Curve) and found.value.tolist() == pytest.approx([0.5, 0.2])
        assert found.at.tolist() == [0, 0.5, 1] and torch.equal(found.points, points)
        assert curve.questions == [{"fill": fill, "steps": 2, "first": "most", "restore": restore, "ties": "jitter"}]
        assert METRICS[name].options["steps"] == 28
        for steps, said in ((0, "at least 1. Got 0"), (2.5, "whole number. Got 2.5")):
            with pytest.raises(InvalidInput, match=f"`steps` must be .*{said}"):
                METRICS[name].function(curve, steps=steps)


def slow_areas(model: Model, x: torch.Tensor, one: torch.Tensor, target: int, step: int) -> tuple[float, float]:
    """RISE's causal metric, from the paper: `step` pixels a time, ends included; deletion on the mean, insertion."""
    z = model.normalise(x[None])
    n = one.numel()
    order = torch.argsort(one.flatten(), descending=True).tolist()

    def answer(image: torch.Tensor) -> float:
        return float(model.of_normalised(image).detach().double().softmax(1)[0, target])

    areas = []
    for start, finish in ((z, torch.zeros_like(z)), (blurred(z), z)):
        current, scores = start.clone(), []
        for i in range(-(-n // step) + 1):
            scores.append(answer(current))
            for position in order[i * step : (i + 1) * step]:
                current[..., position // one.shape[1], position % one.shape[1]] = finish[
                    ..., position // one.shape[1], position % one.shape[1]
                ]
        areas.append((sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))
    return areas[0], areas[1]


def test_rise_curves_one_row_of_pixels_a_step():
    side = 14
    model = wrap(nets.told_apart(nets.seeded(nets.Plain), side), size=side)
    x = nets.images(3, side)
    maps = torch.rand(3, side, side, generator=torch.Generator().manual_seed(3))
    found = heatproof.score(model, x, {"mine": maps}, [f"deletion-mean[steps={side}]", f"insertion[steps={side}]"])
    expected = [slow_areas(model, x[i], maps[i], int(found.target[i]), side) for i in range(3)]
    deleted, inserted = zip(*expected, strict=True)
    torch.testing.assert_close(found.values("mine", f"deletion-mean[steps={side}]"), torch.tensor(deleted).double())
    torch.testing.assert_close(found.values("mine", f"insertion[steps={side}]"), torch.tensor(inserted).double())
    assert len({round(value, 6) for value in deleted + inserted}) == 6, "the images are told apart"


def test_ranks_are_all_that_curves_look_at():
    model = wrap(nets.told_apart(nets.seeded(nets.Signed), 16), size=16)
    x, maps = nets.images(3, 16), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(3))
    metrics = ["deletion", "deletion-mean", "insertion"]
    found = heatproof.score(model, x, {"one": maps, "other": (4 * maps).exp(), "back": -maps}, metrics)
    for metric in metrics:
        torch.testing.assert_close(found.values("one", metric), found.values("other", metric))
        assert (found.values("one", metric) - found.values("back", metric)).abs().min() > 1e-6


def test_insertion_of_a_map_is_deletion_of_its_reverse_on_the_same_fill():
    model = wrap(nets.told_apart(nets.seeded(nets.Signed), 16), size=16)
    x, maps = nets.images(3, 16), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(3))
    for fill in ("black", "mean", "blur"):
        inserted = f"insertion[fill={fill},steps=7]" if fill != "blur" else "insertion[steps=7]"
        deleted = f"deletion[fill={fill},steps=7]" if fill != "black" else "deletion[steps=7]"
        found = heatproof.score(model, x, {"one": maps, "back": 1 - maps}, [inserted, deleted])
        # 256 pixels are no multiple of 7, but half-way cases, where rounding could differ, are none either.
        torch.testing.assert_close(found.values("one", inserted), found.values("back", deleted), rtol=1e-5, atol=1e-7)
        assert (found.values("one", inserted) - found.values("one", deleted)).abs().max() > 1e-6


def test_the_order_of_a_linear_network_is_the_best_there_is():
    """No other map deletes faster or inserts faster than the contributions themselves."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(6, 6, generator=generator) / 4
    model, x = linear(weights), torch.rand(1, 3, 6, 6, generator=generator)
    x[0, :, 0, 0] = 0
    truth = (weights * x[0].sum(0))[None]
    others = {f"random {i}": torch.rand(1, 6, 6, generator=generator) for i in range(20)}
    metrics = ["deletion[steps=36]", "insertion[fill=black,steps=36]"]
    found = heatproof.score(model, x, {"truth": truth, "worst": -truth, **others}, metrics, target=0)
    deleted = {name: float(found.values(name, metrics[0])) for name in found.methods}
    inserted = {name: float(found.values(name, metrics[1])) for name in found.methods}
    assert min(deleted, key=deleted.get) == "truth" == max(inserted, key=inserted.get)
    assert max(deleted, key=deleted.get) == "worst" == min(inserted, key=inserted.get)


def test_passes_are_shared_and_no_more_than_needed():
    """Five metrics of the masked image: one row. Deletion and monotonicity on black: the same ones."""
    counted = nets.Counted(nets.told_apart(nets.seeded(nets.Plain), 16))
    rows = []
    counted.register_forward_pre_hook(lambda _module, inputs: rows.append(len(inputs[0])))
    model = wrap(counted, size=16)
    maps = {f"map {i}": torch.rand(2, 16, 16) for i in range(3)}
    metrics = ["average-drop", "average-increase", "average-gain", "local-accuracy", "sufficiency"]
    facts(model, model.input_shape)  # a network is probed once
    rows.clear()
    heatproof.score(model, nets.images(2, 16), maps, metrics)
    assert sum(rows) == 2 * (1 + 3), "the image, and each map's masked image"
    rows.clear()
    curves = [
        "deletion[steps=8]",
        "monotonicity[steps=8]",
        "monotonicity-strict[steps=8]",
        "insertion[fill=black,steps=8]",
    ]
    heatproof.score(model, nets.images(2, 16), maps, curves)
    assert sum(rows) == 2 * (1 + 1 + 3 * (7 + 7)), "monotonicity reads deletion backwards; insertion is another order"


def test_area_is_the_mean_over_a_fine_curve():
    at = shares(1000)
    assert float(area(at[None] ** 2, at)) == pytest.approx(1 / 3, abs=1e-6)
