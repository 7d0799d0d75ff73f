"""The controls, value by value."""

import numpy as np
import pytest
import torch

import heatproof
from heatproof import seeds
from heatproof.attributions import ATTRIBUTIONS, controls
from heatproof.models import wrap

from .. import nets
from . import reference


@pytest.fixture
def x() -> torch.Tensor:
    return nets.images(2, 9, 6)


@pytest.mark.parametrize(
    ("control", "slow"),
    [(controls.half_map, reference.half), (controls.ones_map, reference.ones), (controls.centre_map, reference.centre)],
)
def test_controls_that_look_at_nothing(control, slow, x):
    found = control(x)
    for one in found:
        np.testing.assert_allclose(one, slow(9, 6), atol=1e-6)


def test_centre_is_highest_in_the_middle_and_even_on_all_sides():
    bell = controls.centre_map(torch.zeros(1, 3, 7, 11))[0]
    assert bell.argmax() == 3 * 11 + 5
    torch.testing.assert_close(bell, bell.flip(0))
    torch.testing.assert_close(bell, bell.flip(1))


def test_edges_are_sobels_magnitude(x):
    found = controls.edge_map(x)
    for one, image in zip(found, x, strict=True):
        np.testing.assert_allclose(one, reference.edges(image.double().numpy()), rtol=1e-5, atol=1e-6)


def test_edges_of_a_step_are_on_the_step():
    image = torch.zeros(1, 3, 5, 8)
    image[..., 4:] = 1
    found = controls.edge_map(image)[0]
    assert (found[:, 3:5] == 4).all()
    assert (found[:, :3] == 0).all() and (found[:, 5:] == 0).all()


def test_edges_of_a_flat_image_can_be_differentiated():
    x = torch.full((1, 3, 5, 5), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(controls.edge_map(x).sum(), x)
    assert gradient.isfinite().all()


def test_random_is_drawn_from_the_seed_the_image_and_the_condition(x):
    generators = seeds.generators(3, ["a", "b"], "random", "clean")
    found = controls.random_map(x, generators)
    for one, name in zip(found, "ab", strict=True):
        expected = torch.rand(9, 6, generator=seeds.generator(3, name, "random", "clean"))
        torch.testing.assert_close(one, expected, rtol=0, atol=0)
    other = controls.random_map(x, seeds.generators(3, ["a", "b"], "random", "gaussian-noise:1"))
    assert (other != found).float().mean() > 0.99


def test_random_is_uniform():
    values = controls.random_map(torch.zeros(4, 3, 64, 64), seeds.generators(0, list("abcd"), "random"))
    assert abs(float(values.mean()) - 0.5) < 0.01
    assert abs(float(values.std()) - 12**-0.5) < 0.01
    assert float(values.min()) >= 0 and float(values.max()) < 1


def test_what_counts_as_a_control():
    assert [name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]] == [
        "random",
        "half",
        "ones",
        "centre",
        "edges",
    ]


def test_controls_are_shown_as_they_are(x):
    """Display maps of controls: min-max of themselves at the image's size, and the network is not asked."""
    found = heatproof.explain(wrap(nets.seeded(nets.Plain), size=8), x, ["half", "ones", "all1scam"])
    np.testing.assert_allclose(found["half"][0], reference.half(9, 6), atol=1e-6)
    np.testing.assert_allclose(found["all1scam"][0], reference.ones(9, 6), atol=1e-6)
    assert found.flags["ones"] == ["", ""]
