"""Sensitivity: by hand on maps that are linear in the image, by loops, and with the same method on both sides."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import heatproof
from heatproof.errors import InvalidInput
from heatproof.metrics.sensitivity import average_sensitivity, max_sensitivity, relative_shifts
from heatproof.models import wrap
from heatproof.seeds import generator

from .. import nets
from .scored import scored

STD = (0.5, 0.25, 0.125)
SIDE = 6


def linear(x: torch.Tensor, rows=None, condition: str = "") -> torch.Tensor:
    """The first channel in units of z: a method that is linear in the image."""
    return x[:, 0] / STD[0]


def generators(count: int, seed: int = 5) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def shifts_of(explain, x: torch.Tensor, samples: int = 4, radius: float = 0.2, seed: int = 5) -> torch.Tensor:
    model = wrap(torch.nn.Identity(), mean=(0.1, 0.2, 0.3), std=STD, size=SIDE)
    return relative_shifts(
        x, model, explain(x), explain, generators(len(x), seed), samples=samples, radius=radius
    )  # fmt: skip


def test_each_draw_is_the_norm_of_its_change_over_the_norm_of_the_map():
    x = nets.images(3, SIDE)
    found = shifts_of(linear, x)
    for i in range(3):
        drawn = torch.Generator().manual_seed(5 + i)
        norm = math.sqrt(sum((v / STD[0]) ** 2 for v in x[i, 0].double().flatten().tolist()))
        for draw in range(4):
            noise = (2 * torch.rand(3, SIDE, SIDE, generator=drawn) - 1)[0].double().flatten().tolist()
            change = math.sqrt(sum((0.2 * v) ** 2 for v in noise))
            assert found[i, draw].item() == pytest.approx(change / norm, rel=1e-5)


def test_the_noise_is_uniform_in_z_and_within_the_radius():
    seen = []

    def noted(x, rows=None, condition=""):
        seen.append(x)
        return linear(x)

    x = nets.images(2, SIDE)
    shifts_of(noted, x, samples=60, radius=0.3)
    noise = (torch.stack(seen[1:]) - x) / torch.tensor(STD).view(1, 1, 3, 1, 1)
    assert 0.298 < noise.abs().max() <= 0.3 + 1e-5
    assert abs(noise.mean()) < 0.005 and noise.std().item() == pytest.approx(0.3 / math.sqrt(3), rel=0.02)


def test_the_shift_grows_with_the_radius_and_is_zero_without_noise():
    x = nets.images(2, SIDE)
    one, two = shifts_of(linear, x, radius=0.1), shifts_of(linear, x, radius=0.2)
    torch.testing.assert_close(two, 2 * one, rtol=1e-4, atol=0)
    assert (shifts_of(linear, x, radius=0) == 0).all()


def test_maximum_and_mean_are_of_the_same_draws():
    drawn = torch.tensor([[0.1, 0.4, 0.1], [2.0, 1.0, 0.0]], dtype=torch.float64)
    asked = []

    def shifts(**options):
        asked.append(options)
        return drawn

    assert max_sensitivity(shifts).tolist() == [0.4, 2.0]
    assert average_sensitivity(shifts).tolist() == pytest.approx([0.2, 1.0])
    assert asked == [{"samples": 10, "radius": 0.2}] * 2


def test_a_map_of_zeros_has_no_relative_change():
    found = shifts_of(lambda x, rows=None, condition="": torch.zeros_like(x[:, 0]), nets.images(2, SIDE))
    assert found.isnan().all()


def test_every_draw_has_a_condition_of_its_own():
    """So that a method's own random numbers are new each time."""
    seen = []

    def noted(x, rows=None, condition=""):
        seen.append(condition)
        return linear(x)

    shifts_of(noted, nets.images(1, SIDE), samples=3)
    assert seen[1:] == ["sensitivity-0", "sensitivity-1", "sensitivity-2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "`samples` must be at least 1. Got 0"),
        ({"samples": 2.5}, "`samples` must be a whole number"),
        ({"radius": -0.1}, "`radius` must be at least 0. Got -0.1"),
        ({"radius": math.nan}, "`radius` must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(InvalidInput, match=said):
        shifts_of(linear, nets.images(1, SIDE), **options)


@pytest.fixture
def asked():
    model = wrap(nets.told_apart(nets.seeded(nets.Signed), 20), size=(24, 20), layer="two")
    return SimpleNamespace(model=model, x=nets.images(3, 24, 20))


def test_without_noise_a_method_is_compared_with_itself(asked):
    """F's code compared it with another method: all scores were near .92."""
    methods = ["gradcam", "eigencam", "gradient", "refine:layercam", "smoothgrad[samples=3]"]
    found = heatproof.score(asked.model, asked.x, methods, {"max-sensitivity": {"radius": 0, "samples": 2}})
    for method in found.methods[:4]:
        assert (found.values(method, found.metrics[0]) == 0).all(), method
    assert (found.values(found.methods[4], found.metrics[0]) > 0).all(), "its own noise is new in each draw"


def test_by_the_public_call_that_explains(asked):
    """Noise by hand, `heatproof.explain`, numpy: the whole path, `refine` with all its layers."""
    metrics = {"max-sensitivity": {"samples": 3}, "average-sensitivity": {"samples": 3}}
    methods, x = ["gradcam", "refine:gradcam"], 0.3 + 0.4 * asked.x
    found = scored(asked.model, x, methods, metrics, list("abc"), seed=7)
    clean = heatproof.explain(asked.model, x, methods)
    std = torch.tensor(asked.model.std).view(3, 1, 1)
    drawn = [generator(7, name, "metric shifts") for name in "abc"]
    shifts = {method: [] for method in methods}
    for _ in range(3):
        noise = torch.stack([0.2 * std * (2 * torch.rand(3, 24, 20, generator=one) - 1) for one in drawn])
        moved = heatproof.explain(asked.model, x + noise, methods, target=clean.target)
        for method in methods:
            one, other = (np.asarray(maps[method], dtype=float).reshape(3, -1) for maps in (clean, moved))
            shifts[method].append(np.linalg.norm(other - one, axis=1) / np.linalg.norm(one, axis=1))
    for method in methods:
        expected = np.array(shifts[method])
        np.testing.assert_allclose(found[method]["max-sensitivity[samples=3]"], expected.max(0), rtol=1e-3)
        np.testing.assert_allclose(found[method]["average-sensitivity[samples=3]"], expected.mean(0), rtol=1e-3)


def test_both_metrics_share_their_explanations(asked):
    counted = nets.Counted(asked.model.module)
    model = wrap(counted, size=(24, 20), layer="inner.two")
    heatproof.score(model, asked.x, "gradcam", ["max-sensitivity", "average-sensitivity"])
    assert counted.calls == 2 + 1 + 10  # two of the probe
