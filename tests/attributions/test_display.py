"""Raw maps to display maps: the order of the steps, and what says nothing."""

import numpy as np
import pytest
import torch

from heatproof.attributions import display_maps, flags

from . import reference


def test_relu_then_upsampling_then_minmax():
    raw = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = display_maps(raw, "cam", (11, 9))
    for one, small in zip(found, raw, strict=True):
        np.testing.assert_allclose(one, reference.display(small.double().numpy(), 11, 9), atol=1e-5)


def test_by_hand():
    """ReLU first: the −8 must not pull its neighbours down. 2 → 4 places at offsets ¼ and ¾."""
    found = display_maps(torch.tensor([[-8.0, 4.0]]), "cam", (4,))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.25, 0.75, 1.0]]))


def test_maps_that_are_made_at_the_images_size_keep_their_negative_side():
    raw = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]])
    torch.testing.assert_close(display_maps(raw, "display", (2, 2))[0], torch.tensor([[0.0, 0.5], [0.75, 1.0]]))


@pytest.mark.parametrize("spatial", [(3,), (3, 4), (2, 3, 4)])
def test_signals_images_and_volumes(spatial):
    size = tuple(2 * side for side in spatial)
    found = display_maps(torch.rand(2, *spatial), "cam", size)
    assert found.shape == (2, *size)
    assert found.flatten(1).amin(1).tolist() == [0, 0] and found.flatten(1).amax(1).tolist() == [1, 1]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "cam", "display"),
    [
        ([0.0, 1, 2, 3], "", ""),
        ([5.0, 5, 5, 5], "constant map", "constant map"),
        ([5.0, 5, 5, 5 + 1e-6], "constant map", "constant map"),
        ([-1.0, -2, -3, -4], "constant map", ""),
        ([0.0, 0, 0, 0], "constant map", "constant map"),
        ([0.0, 1, NAN, 3], "non-finite map", "non-finite map"),
        ([0.0, 1, INF, 3], "non-finite map", "non-finite map"),
        ([0.0, 1, -INF, 3], "non-finite map", "non-finite map"),
        ([0.0, 0, 0, 1e-30], "", ""),
    ],
)
def test_what_says_nothing_is_flagged_and_zero(values, cam, display):
    fine = [0.0, 1, 2, 4]
    raw = torch.tensor([fine, values]).view(2, 2, 2)
    for form, reason in (("cam", cam), ("display", display)):
        assert flags(raw, form) == ["", reason]
        found = display_maps(raw, form, (2, 2))
        torch.testing.assert_close(found[0].flatten(), torch.tensor(fine) / 4)
        if reason:
            assert (found[1] == 0).all()
        else:
            assert found[1].amin() == 0 and found[1].amax() == 1
