"""Upsampling, min-max, degenerate maps, channels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from heatproof.tensors import degenerate, minmax, one_channel, per_image, upsampled

from .attributions import reference

MAPS = arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(-1e6, 1e6, width=32).map(np.float32))


def test_upsampling_is_bilinear_between_pixel_centres():
    small = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for height, width in ((7, 11), (12, 15), (3, 5), (2, 3)):
        found = upsampled(small, (height, width))
        for one, expected in zip(found, small.double().numpy(), strict=True):
            np.testing.assert_allclose(one, reference.bilinear(expected, height, width), atol=1e-5)


def test_upsampling_signals_and_volumes_by_hand():
    assert upsampled(torch.tensor([[0.0, 4.0]]), (4,)).tolist() == [[0, 1, 3, 4]]
    corners = torch.tensor([0.0, 8.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    found = upsampled(corners, (4, 2, 2))
    assert found[0, :, 0, 0].tolist() == [0, 2, 6, 8]
    assert (found == found[..., :1, :1]).all()


def test_a_map_of_the_right_size_is_not_touched():
    maps = torch.rand(1, 3, 3)
    assert upsampled(maps, (3, 3)) is maps


@given(MAPS)
def test_minmax_of_each_map_by_itself(values):
    maps = torch.from_numpy(values)
    before = maps.clone()
    found = minmax(maps)
    assert torch.equal(maps, before)
    for one, got, bad in zip(values.astype(np.float64), found, degenerate(maps), strict=True):
        span = one.max() - one.min()
        if bad:
            assert span <= 1e-6 * np.abs(one).max() * 1.001
            assert (got == 0).all()
        else:
            assert got.min() == 0 and got.max() == 1
            np.testing.assert_allclose(got, (one - one.min()) / span, atol=2e-6 * np.abs(one).max() / span + 1e-6)


@given(MAPS, st.sampled_from([1e-3, 1.0, 7.5, 1e4]))
def test_minmax_does_not_see_scale(values, scale):
    maps = torch.from_numpy(values)
    one, other = minmax(maps), minmax(maps * scale)
    rough = maps.flatten(1).abs().amax(1) / (maps.flatten(1).amax(1) - maps.flatten(1).amin(1))
    for a, b, r in zip(one, other, rough, strict=True):
        if r < 1e4:  # else rounding eats the range
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * float(r) + 1e-6)


def test_minmax_of_a_batch_with_bad_maps():
    nan, inf = float("nan"), float("inf")
    maps = torch.tensor(
        [[1.0, 3, 2], [nan, 1, 2], [inf, 1, 2], [-inf, 1, 2], [5, 5, 5], [0, 0, 0], [1e8, 1e8 + 8, 1e8]]
    )
    assert degenerate(maps).tolist() == [False, True, True, True, True, True, True]
    assert minmax(maps).tolist() == [[0, 1, 0.5]] + [[0, 0, 0]] * 6


def test_minmax_can_be_differentiated_beside_a_constant_map():
    maps = torch.tensor([[1.0, 3, 2], [5, 5, 5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(minmax(maps)[:, 2].sum(), maps)
    torch.testing.assert_close(gradient, torch.tensor([[-0.25, -0.25, 0.5], [0, 0, 0]]))


@pytest.mark.parametrize(("order", "expected"), [("abs-max", [3.0, 4.0]), ("sum-abs", [0.0, 6.0])])
def test_three_channels_to_one(order, expected):
    maps = torch.tensor([[1.0, 4.0], [2.0, 1.0], [-3.0, 1.0]])[None]
    assert one_channel(maps, order).tolist() == [expected]


def test_per_image_broadcasts():
    assert (torch.ones(2, 3, 4, 5) * per_image(torch.tensor([2.0, 3.0]), torch.ones(2, 3, 4, 5)))[1].unique() == 3
