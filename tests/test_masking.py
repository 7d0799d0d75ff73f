"""Fills and masked images: against the definition in `x`, torchvision's blur, and by hand."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv

from heatproof import masking
from heatproof.errors import InvalidInput, UnknownName
from heatproof.models import wrap

from . import nets

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def model():
    return wrap(nets.seeded(nets.Plain), MEAN, STD, size=16)


def volume(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return x, (x - 0.4) / 0.2


@pytest.mark.parametrize("fill", masking.FILLS)
def test_masking_in_z_is_masking_in_x(fill, model):
    """The definition: x ⊙ m + fill ⊙ (1 − m) in [0, 1], then normalised."""
    x = nets.images(3, 20, 14)
    mask = torch.rand(3, 20, 14, generator=torch.Generator().manual_seed(2))
    colours = {
        "mean": torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(x),
        "black": torch.zeros_like(x),
        "blur": tv.gaussian_blur(x, [11, 11], [5.0, 5.0]),
    }
    expected = model.normalise(x * mask[:, None] + colours[fill] * (1 - mask[:, None]))
    z = model.normalise(x)
    got = masking.masked(z, mask, masking.ground(fill, x, z))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("low", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("span", [1 / 255, 0.05])
def test_black_is_read_off_images_of_hardly_any_contrast(low, span, model):
    x = low + span * nets.images(2, 9)
    got = masking.black(x, model.normalise(x))[:, :, 0, 0]
    expected = model.normalise(torch.zeros_like(x))[:, :, 0, 0]
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-3 if span < 0.01 else 5e-5)


def test_black_of_an_image_does_not_depend_on_its_neighbours(model):
    x = nets.images(4, 9)
    x[1] = 0  # black all over
    x[2, 0] = 0.5  # one channel without a line to read
    x[3] = float("nan")
    black = masking.black(x, model.normalise(x))[:, :, 0, 0]
    expected = model.normalise(torch.zeros(1, 3, 1, 1))[0, :, 0, 0]
    torch.testing.assert_close(black[:2], expected.expand(2, 3))
    assert black[2, 0].isnan() and black[3].isnan().all()
    torch.testing.assert_close(black[2, 1:], expected[1:])
    for i, one in enumerate(x):
        alone = masking.black(one[None], model.normalise(one[None]))[0, :, 0, 0]
        assert torch.equal(alone.nan_to_num(7), black[i].nan_to_num(7))


def test_a_mask_of_ones_and_zeros_gives_the_image_and_the_fill_bit_for_bit(model):
    x = nets.images(2, 8)
    z = model.normalise(x)
    keep = torch.zeros(2, 8, 8)
    keep[:, :4] = 1
    for fill in masking.FILLS:
        ground = masking.ground(fill, x, z)
        for mask in (keep, keep.bool(), keep.double()):
            got = masking.masked(z, mask, ground)
            assert torch.equal(got[:, :, :4], z[:, :, :4]) and torch.equal(got[:, :, 4:], ground[:, :, 4:])
            assert got.dtype == z.dtype


def test_masks_can_be_learned(model):
    """Methods that optimise a mask differentiate through it: d/dm of z m + f (1 − m) is z − f, over the channels."""
    x = nets.images(2, 8)
    z = model.normalise(x)
    ground = masking.ground("blur", x, z)
    mask = torch.full((2, 8, 8), 0.3, requires_grad=True)
    masking.masked(z, mask, ground).sum().backward()
    torch.testing.assert_close(mask.grad, (z - ground).sum(1))


@pytest.mark.parametrize(("height", "width"), [(20, 13), (6, 31)])
@pytest.mark.parametrize(("taps", "sigma"), [(11, 5.0), (5, 5.0), (1, 2.0)])
def test_the_blur_is_torchvisions(height, width, taps, sigma):
    images = nets.images(2, height, width)
    expected = tv.gaussian_blur(images, [taps, taps], [sigma, sigma])
    torch.testing.assert_close(masking.blurred(images, taps, sigma), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 25), (1, 2, 12, 13, 14), (1, 3, 4, 30)])
def test_the_blur_of_any_dimensions_by_loops(shape):
    """Signals, volumes, and a side too short to be mirrored, whose border is repeated."""
    x, _ = volume(*shape)
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 5.0) ** 2)
    bell /= bell.sum()

    def line(values: np.ndarray) -> np.ndarray:
        n = len(values)
        padded = np.pad(values, 5, mode="reflect" if n > 5 else "edge")
        return np.array([sum(bell[t] * padded[i + t] for t in range(11)) for i in range(n)])

    expected = x.double().numpy()
    for dim in range(2, len(shape)):
        expected = np.apply_along_axis(line, dim, expected)
    np.testing.assert_allclose(masking.blurred(x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 17), (1, 3, 6, 7, 8)])
@pytest.mark.parametrize("fill", masking.FILLS)
def test_signals_and_volumes(shape, fill):
    x, z = volume(*shape)
    ground = masking.ground(fill, x, z)
    mask = torch.full((shape[0], *shape[2:]), 0.25)
    torch.testing.assert_close(masking.masked(z, mask, ground), 0.25 * z + 0.75 * ground)
    if fill == "black":
        torch.testing.assert_close(ground, torch.full_like(z, -2.0), rtol=1e-4, atol=1e-4)


def test_a_flat_image_stays_flat_under_the_blur():
    flat = torch.full((1, 3, 9, 9), 0.7)
    torch.testing.assert_close(masking.blurred(flat), flat)


def test_what_cannot_be():
    x, z = volume(2, 3, 8, 8)
    with pytest.raises(UnknownName, match=r"No `fill` is called 'blurr'. Did you mean 'blur'"):
        masking.ground("blurr", x, z)
    with pytest.raises(InvalidInput, match=r"`x` and `z` must be the same images. Got \(2, 3, 8, 8\) and \(1, 3"):
        masking.ground("mean", x, z[:1])
    with pytest.raises(InvalidInput, match=r"`taps` must be odd, and `sigma` above 0. Got 4 and 5.0."):
        masking.blurred(z, 4)
