"""From image to network input: torchvision's resize and crop, and masks the very same way."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from heatproof.geometry import Geometry, default_resize
from heatproof.models import wrap
from heatproof.pixels import from_array

MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
    "lanczos": InterpolationMode.LANCZOS,
}


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with sharp edges."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.asarray(coarse).copy()
    pixels[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = 250
    return Image.fromarray(pixels)


def torchvisions(image: Image.Image, size: tuple[int, int], resize: int, interpolation: str) -> torch.Tensor:
    steps = [transforms.Resize(resize, MODES[interpolation]), transforms.CenterCrop(size), transforms.ToTensor()]
    return transforms.Compose(steps)(image)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 40), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_images_equal_torchvisions(width, height, resize, less_height, less_width):
    """Odd sizes, both orientations, crops of all parities; crops within the image."""
    size = (max(1, resize - less_height), max(1, resize - less_width))
    image = photograph(width, height)
    found = Geometry(size, resize).image(image)
    assert torch.equal(found, torchvisions(image, size, resize, "bilinear"))


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("size", [(224, 224), (192, 160)])
def test_filters_equal_torchvisions(interpolation, size):
    image = photograph(333, 251)
    found = Geometry(size, 235, interpolation).image(image)
    assert found.dtype == torch.float32 and found.shape == (3, *size)
    assert torch.equal(found, torchvisions(image, size, 235, interpolation))


def test_the_longer_side_is_cut_to_an_integer_without_rounding_errors():
    """288 × 665 / 560 is 342 exactly; as 665 × (288 / 560) it falls to 341, and the crop moves by half a pixel."""
    assert Geometry((288, 288), 288)._scaled(560, 665) == (288, 342)
    for resize, short, long in ((288, 560, 665), (224, 350, 475), (256, 375, 500), (232, 333, 500)):
        wide = Geometry((64, 64), resize)._scaled(long, short)
        expected = transforms.functional.resize(Image.new("L", (long, short)), resize).size
        assert wide == expected


def test_without_a_resize_images_are_squashed_straight_to_size():
    image = photograph(50, 30)
    found = Geometry((20, 40), None).image(image)
    expected = transforms.functional.to_tensor(image.resize((40, 20), Image.Resampling.BILINEAR))
    assert torch.equal(found, expected)
    exact = photograph(40, 20)
    assert torch.equal(Geometry((20, 40), None).image(exact), transforms.functional.to_tensor(exact))


@pytest.mark.parametrize("side", [(1, 1), (1, 7), (7, 1), (2, 3)])
def test_tiny_images(side):
    found = Geometry((24, 24), 28).image(photograph(*side))
    assert found.shape == (3, 24, 24) and bool(found.isfinite().all())


def test_a_crop_larger_than_the_resized_image_is_filled_not_padded():
    """torchvision would put black bars around it."""
    found = Geometry((24, 40), 24).image(Image.new("RGB", (30, 30), (200, 100, 50)))
    assert (found == torch.tensor([200, 100, 50]).view(3, 1, 1) / 255).all()


def test_a_strip_does_not_grow_without_bounds(monkeypatch):
    """2 × 20,000 pixels would become 256 × 2,560,000 before a crop of 224: only the crop is computed."""
    calls: list[tuple] = []
    resize = Image.Image.resize

    def watched(image, size, resample=None, box=None, **more):
        calls.append(size)
        return resize(image, size, resample, box, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    strip = photograph(20_000, 2)
    found = Geometry((224, 224), 256).image(strip)
    assert max(w * h for w, h in calls) < 10**6
    # The same by hand: 224 of 256 rows, 224 of 2,560,000 columns, so the middle 1.75 source pixels.
    middle = resize(strip.crop((9_990, 0, 10_010, 2)), (2560, 256), Image.Resampling.BILINEAR)
    expected = transforms.functional.to_tensor(middle.crop((1168, 16, 1392, 240)))
    assert float((found - expected).abs().max()) <= 1 / 255 + 1e-6


def test_a_long_image_is_the_same_by_the_short_way_and_the_long_one(monkeypatch):
    image = photograph(301, 40)
    geometry = Geometry((48, 56), 64)
    long_way = geometry.image(image)
    monkeypatch.setattr("heatproof.geometry._ROOM", 1000)
    assert float((geometry.image(image) - long_way).abs().max()) <= 1 / 255 + 1e-6


@given(st.integers(20, 80), st.integers(20, 80), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_masks_go_where_the_image_goes(width, height, seed):
    """A white shape on black, sent as an image and as a mask: the mask is where the image is at least half white."""
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    mask = np.zeros((height, width), bool)
    mask[top : top + height // 3, left : left + width // 3] = True
    image = Image.fromarray(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255)
    for geometry in (Geometry((32, 32), 36), Geometry((32, 24), None), Geometry((20, 31), 33)):
        found = geometry.mask(mask)
        assert found.dtype == torch.bool and tuple(found.shape) == geometry.size
        assert torch.equal(found, geometry.image(image)[0] >= 128 / 255)


def test_a_mask_in_the_corner_leaves_with_the_crop():
    """Squashing the mask straight to the size, as the reference code of R does, would keep it."""
    mask = np.zeros((256, 512), bool)
    mask[:, :100] = True
    assert not Geometry((224, 224), 256).mask(mask).any()
    assert Geometry((224, 224), None).mask(mask)[:, :40].all()


@given(
    st.integers(5, 90), st.integers(5, 90), st.integers(8, 40), st.integers(8, 40), st.sampled_from([0.875, 0.9, 1.0])
)
@example(34, 51, 8, 33, 0.875)  # 51 × 37 / 34 is 55.5: which integer it becomes depends on the order of the division
@settings(max_examples=150, deadline=None)
def test_rectangles_equal_timms(width, height, high, wide, share):
    """timm's evaluation for a rectangle: the smallest image of the aspect that covers the box, then the crop."""
    from timm.data.transforms import ResizeKeepRatio

    box = default_resize((high, wide), share)
    image = photograph(width, height)
    box = box if isinstance(box, tuple) else (box, box)
    kept = ResizeKeepRatio(box, interpolation="bilinear")
    steps = [lambda given: kept(given), transforms.CenterCrop((high, wide)), transforms.ToTensor()]
    assert torch.equal(Geometry((high, wide), box).image(image), transforms.Compose(steps)(image))


SIZES = [(256, 128), (128, 256), (64, 256), (32, 512), (512, 32)]


def share_seen(geometry: Geometry, height: int, width: int) -> tuple[float, float]:
    """The shares of an image's rows and columns that the network sees, by ramps of grey along each."""
    down = np.broadcast_to(np.linspace(0, 1, height)[:, None], (height, width)).astype(np.float32)
    across = np.broadcast_to(np.linspace(0, 1, width)[None], (height, width)).astype(np.float32)
    return tuple(float(np.ptp(geometry.image(from_array(ramp)).numpy())) for ramp in (down, across))


@pytest.mark.parametrize("size", SIZES)
def test_a_rectangle_sees_as_much_of_each_side_as_a_square(size):
    """An image of the input's own aspect: 7/8 of each side by default, all of it with `crop=1`, whatever its size."""
    for times in (1, 2, 3.5):
        height, width = (round(side * times) for side in size)
        for found in share_seen(wrap(nn.Conv2d(3, 2, 1), size=size).geometry, height, width):
            assert found == pytest.approx(0.875, abs=0.035)
        for found in share_seen(wrap(nn.Conv2d(3, 2, 1), size=size, crop=1).geometry, height, width):
            assert found > 0.96  # the outermost pixels are averaged
    exact = photograph(size[1], size[0])
    found = wrap(nn.Conv2d(3, 2, 1), size=size, crop=1).geometry.image(exact)
    assert torch.equal(found, transforms.functional.to_tensor(exact))


@pytest.mark.parametrize("size", SIZES)
def test_masks_and_maps_of_rectangles_go_where_the_image_goes(size):
    geometry = wrap(nn.Conv2d(3, 2, 1), size=size).geometry
    for height, width in ((size[0] * 2, size[1] * 2), (90, 140), (140, 90)):
        mask = np.zeros((height, width), bool)
        mask[height // 3 : height // 2, width // 4 : 2 * width // 3] = True
        image = Image.fromarray(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255)
        assert torch.equal(geometry.mask(mask), geometry.image(image)[0] >= 128 / 255)
        assert float((geometry.map(mask.astype(np.float32)) - geometry.image(image)[0]).abs().max()) <= 1.5 / 255


def test_a_length_too_short_for_a_rectangular_crop_keeps_the_aspect():
    """A square of 128 for a crop of 256 × 128 is enlarged to 256, not stretched to 256 × 128."""
    assert Geometry((256, 128), 128)._scaled(300, 300) == (256, 256)
    assert Geometry((256, 128), 128)._scaled(128, 256) == (128, 256)


def test_the_argument_stays_as_it_is():
    image = photograph(31, 17)
    before = image.tobytes()
    found = Geometry((16, 16), 17).image(image)
    found.zero_()
    Geometry((17, 31), None).image(image).zero_()
    assert image.tobytes() == before
