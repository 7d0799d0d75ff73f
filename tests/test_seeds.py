"""Seeds: the same for the same four parts, for ever, and different for different ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heatproof.seeds import derived_seed, generator, generators

PARTS = st.tuples(st.integers(-5, 2**63), st.text(max_size=6), st.text(max_size=6), st.text(max_size=6))


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((0, "", "", ""), 6291598092776052994),
        ((0, "cats/a.jpg", "random", "clean"), 8709983697595982244),
        ((7, "cats/a.jpg", "perturbation", "gaussian-noise"), 3333852631949417756),
    ],
)
def test_seeds_are_what_they_always_were(parts, seed):
    """Were one of these to change, every stored study would stop being reproducible."""
    assert derived_seed(*parts) == seed


@given(PARTS, PARTS)
def test_different_parts_have_different_seeds(one, other):
    assert (derived_seed(*one) == derived_seed(*other)) == (one == other)


def test_parts_do_not_run_into_each_other():
    found = {derived_seed(1, *parts) for parts in [("ab", "c", ""), ("a", "bc", ""), ("a", "b", "c"), ("abc", "", "")]}
    assert len(found) == 4
    assert derived_seed(1, "1:a", "b") != derived_seed(1, "1", "a1:b")


@given(PARTS)
def test_seeds_fit_a_generator(parts):
    seed = derived_seed(*parts)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_file_names_that_are_no_text_have_a_seed():
    assert derived_seed(0, "caf\udce9.jpg", "random") != derived_seed(0, "café.jpg", "random")


def test_generators_do_not_depend_on_order_or_company():
    alone = torch.rand(4, generator=generator(3, "b", "noise", "k"))
    for images in (["a", "b", "c"], ["c", "b"], ["b"]):
        made = generators(3, images, "noise", "k")
        drawn = [torch.rand(4, generator=one) for one in made]
        assert torch.equal(drawn[images.index("b")], alone)
    assert not torch.equal(torch.rand(4, generator=generator(4, "b", "noise", "k")), alone)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(5, generator=generator(1, "a", "b"))
    assert torch.equal(torch.rand(3), expected)
