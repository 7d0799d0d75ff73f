"""Every transformation against one written with plain loops; masks, seeds and batches."""

import math

import numpy as np
import pytest
import torch

from heatproof import seeds
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.transformations import TRANSFORMATIONS, transformed

IDS = ["cat", "dog", "hen"]


@pytest.fixture
def x() -> torch.Tensor:
    """Three images that no symmetry maps to themselves."""
    return torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def set_of(images):
    """`partners` as a study has them, with the image after this one as the partner."""
    return lambda ids, generators: torch.stack([images[(IDS.index(one) + 1) % len(IDS)] for one in ids])


def bilinear(image: np.ndarray, row: float, column: float, fill: float) -> float:
    """One channel of an image at a place in pixels (0 is the middle of the first); `fill` outside."""
    total, top, left = 0.0, math.floor(row), math.floor(column)
    for i in (top, top + 1):
        for j in (left, left + 1):
            inside = 0 <= i < image.shape[0] and 0 <= j < image.shape[1]
            total += (1 - abs(row - i)) * (1 - abs(column - j)) * (image[i, j] if inside else fill)
    return total


def slow_mixup(image, partner, share):
    mixed = np.zeros_like(image)
    for place in np.ndindex(image.shape):
        mixed[place] = share * image[place] + (1 - share) * partner[place]
    return mixed


def slow_rotation(image, degrees):
    """Each pixel of the result looks up where it came from: counter-clockwise on the screen, about the centre."""
    angle, (channels, height, width) = math.radians(degrees), image.shape
    turned = np.zeros_like(image)
    for c, i, j in np.ndindex(channels, height, width):
        y, x = i - (height - 1) / 2, j - (width - 1) / 2
        from_x, from_y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
        place = from_y + (height - 1) / 2, from_x + (width - 1) / 2
        turned[c, i, j] = bilinear(image[c], *place, image[c].mean())
    return turned


def slow_crop(image, drawn, smallest):
    """The part of the image with a share of its area, at a place drawn, stretched to the whole."""
    channels, height, width = image.shape
    side = math.sqrt(smallest + (1 - smallest) * drawn[0])
    left, top = ((2 * one - 1) * (1 - side) for one in drawn[1:])  # in halves of the image, from its middle
    cropped = np.zeros_like(image)
    for c, i, j in np.ndindex(channels, height, width):
        y, x = (2 * (i + 0.5) / height - 1) * side + top, (2 * (j + 0.5) / width - 1) * side + left
        place = (y + 1) / 2 * height - 0.5, (x + 1) / 2 * width - 0.5
        cropped[c, i, j] = bilinear(image[c], *place, image[c].mean())
    return cropped


def test_mixup_by_hand(x):
    found = transformed("mixup[seed=55]", x, IDS, 7, partners=set_of(x)).numpy()
    for row, name in enumerate(IDS):
        share = torch.rand(1, generator=seeds.generator(7, name, "transformation", "mixup 55")).item()
        expected = slow_mixup(x[row].numpy(), x[(row + 1) % 3].numpy(), share)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_shares_of_mixup_are_uniform():
    """Beta(1, 1): mean ½, variance 1/12; other seeds draw other shares."""
    ids = [str(number) for number in range(2000)]
    ones, zeros = torch.ones(2000, 1, 1, 1), torch.zeros(2000, 1, 1, 1)
    shares = [transformed(f"mixup[seed={seed}]", ones, ids, partners=lambda ids, generators: zeros).flatten()
              for seed in (44, 93)]  # fmt: skip
    for one in shares:
        assert abs(one.mean() - 0.5) < 0.02 and abs(one.var() - 1 / 12) < 0.005
    assert abs(np.corrcoef(*(one.numpy() for one in shares))[0, 1]) < 0.07


@pytest.mark.parametrize("degrees", [45, 135, 225, 315, 90])
def test_rotation_by_hand(x, degrees):
    """F's maps of transformed images were transposed: an oblong image without a symmetry tells."""
    found = transformed(f"rotation[degrees={degrees}]", x, IDS).numpy()
    np.testing.assert_allclose(found[0], slow_rotation(x[0].numpy().astype(np.float64), degrees), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 44])
def test_crop_by_hand(x, seed):
    found = transformed(f"crop[seed={seed}]", x, IDS, 3).numpy()
    for row, name in enumerate(IDS):
        drawn = torch.rand(3, generator=seeds.generator(3, name, "transformation", f"crop {seed}")).tolist()
        np.testing.assert_allclose(found[row], slow_crop(x[row].numpy().astype(np.float64), drawn, 0.08), atol=1e-5)


def test_resize_to_a_multiple_and_to_a_part():
    """Twice the size weighs neighbours ¾ and ¼; half the size with antialiasing weighs four of them 1, 3, 3, 1."""
    x = torch.tensor([0.0, 0.2, 0.8, 0.4]).expand(1, 1, 4, 4)
    larger = transformed("resize[size=8]", x, ["a"])
    assert larger.shape == (1, 1, 8, 8)
    torch.testing.assert_close(larger[0, 0, 3], torch.tensor([0, 0.05, 0.15, 0.35, 0.65, 0.7, 0.5, 0.4]))
    smaller = transformed("resize[size=2]", x, ["a"])[0, 0, 0]
    torch.testing.assert_close(smaller, torch.tensor([(3 * 0 + 3 * 0.2 + 0.8) / 7, (0.2 + 3 * 0.8 + 3 * 0.4) / 7]))


@pytest.mark.parametrize("size", [32, 6])
def test_resize_is_torch_interpolate_by_the_shorter_side(x, size):
    interpolate = torch.nn.functional.interpolate
    given = {"mode": "bilinear", "align_corners": False, "antialias": True}
    small = interpolate(x, (size, round(size * 16 / 12)), **given)
    torch.testing.assert_close(transformed(f"resize[size={size}]", x, IDS), small.clamp(0, 1))
    back = transformed(f"resize-back[size={size}]", x, IDS)
    torch.testing.assert_close(back, interpolate(small, (12, 16), **given).clamp(0, 1))


@pytest.mark.parametrize("name", [*TRANSFORMATIONS, "rotation[degrees=135]", "resize[size=20]", "crop[seed=32]"])
def test_a_batch_has_no_part_in_it(x, name):
    together = transformed(name, x, IDS, 5, partners=set_of(x))
    alone = [transformed(name, x[i : i + 1], IDS[i : i + 1], 5, partners=set_of(x)) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
    torch.testing.assert_close(transformed(name, x.flip(0), IDS[::-1], 5, partners=set_of(x)).flip(0), together,
                               rtol=0, atol=1e-6)  # fmt: skip
    assert together.shape[:2] == x.shape[:2] and (together >= 0).all() and (together <= 1).all()


@pytest.mark.parametrize("name", ["mixup", "crop"])
def test_seeds_draw_differently_and_the_same_again(x, name):
    found = [transformed(f"{name}[seed={seed}]", x, IDS, partners=set_of(x)) for seed in (44, 55, 93, 32)]
    for number, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-3 for other in found[:number])
    torch.testing.assert_close(transformed(f"{name}[seed=44]", x, IDS, partners=set_of(x)), found[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["rotation[degrees=45]", "crop[seed=55]", "resize[size=24]", "resize-back[size=6]"])
def test_masks_go_through_the_same_geometry(name):
    """The mask of a white object on black, under a transformation, is where the object is."""
    image = torch.zeros(1, 3, 48, 64)
    image[:, :, 12:30, 30:50] = 1
    seen = transformed(name, image - 0 * image, ["cat"])[0, 0] > 0.5
    mask = transformed(name, image, ["cat"], mask=True)[0, 0] > 0.5
    differ = (seen != mask).sum() / mask.numel()
    assert mask.any() and differ < 0.02  # an image has its mean colour beyond the border, and a mask nothing


def test_the_mask_of_a_mixed_image_stays():
    mask = torch.zeros(1, 3, 8, 8)
    mask[:, :, 2:4, 1:7] = 1
    assert transformed("mixup", mask, ["cat"], mask=True) is mask


def test_refusals(x):
    with pytest.raises(InvalidInput, match=r"`partners` must give other images to mix with. Got none for 'mixup'"):
        transformed("mixup", x, IDS)
    with pytest.raises(InvalidInput, match=r"`size` must be at least 1\. Got 0"):
        transformed("resize[size=0]", x, IDS)
    with pytest.raises(InvalidInput, match=r"`smallest` must lie in \(0, 1\]"):
        transformed("crop[smallest=0]", x, IDS)
    with pytest.raises(NotApplicable, match=r"Images .* can be resized"):
        transformed("resize", torch.rand(1, 3, 4, 4, 4), ["a"])
    with pytest.raises(UnknownName, match="Did you mean 'mixup'"):
        transformed("mix-up2", x, IDS)
