"""Each natural kind against a slow reference written from its definition; what severities share."""

import io

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.color
import skimage.filters
import torch
from PIL import Image

from heatproof.errors import InvalidInput
from heatproof.perturbations import Perturber, natural

SEED = 7


def applied(x, ids, kind, severity):
    return Perturber(x, ids, SEED).apply(kind, severity)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.08), (5, 0.38)])
def test_gaussian_noise_is_x_plus_sigma_n(images, ids, field, severity, sigma):
    expected = [
        (x + sigma * field("normal", x.shape, i, "gaussian-noise")).clamp(0, 1)
        for x, i in zip(images, ids, strict=True)
    ]
    got = applied(images, ids, "gaussian-noise", severity)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("severity", "sigma"), [(2, 0.2), (4, 0.45)])
def test_speckle_is_x_plus_x_sigma_n(images, ids, field, severity, sigma):
    expected = [
        (x + x * sigma * field("normal", x.shape, i, "speckle")).clamp(0, 1) for x, i in zip(images, ids, strict=True)
    ]
    got = applied(images, ids, "speckle", severity)
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-6)
    assert (got[images == 0] == 0).all()


@pytest.mark.parametrize("kind", ["gaussian-noise", "speckle"])
def test_the_noise_field_is_the_same_at_every_severity(images, ids, kind):
    x = 0.45 + 0.1 * images  # far from both ends, so that most values are not clamped
    perturber = Perturber(x, ids, SEED)
    fields = []
    sigmas = {"gaussian-noise": (0.08, 0.12, 0.18), "speckle": (0.15, 0.2, 0.35)}[kind]
    for severity, sigma in zip((1, 2, 3), sigmas, strict=True):
        y = perturber.apply(kind, severity)
        scale = sigma * (x if kind == "speckle" else 1)
        fields.append(torch.where((y > 0) & (y < 1), (y - x) / scale, torch.nan))
    for other in fields[1:]:
        both = ~(fields[0].isnan() | other.isnan())
        assert both.float().mean() > 0.8
        torch.testing.assert_close(fields[0][both], other[both], rtol=0, atol=1e-5)
    assert fields[0].nanmean().abs() < 0.03
    assert abs(fields[0][~fields[0].isnan()].std() - 1) < 0.03


def test_salt_and_pepper_by_a_loop(images, ids, field):
    got = applied(images[:1], ids[:1], "salt-and-pepper", 4)[0]
    u = field("uniform", (3, 40, 48), ids[0], "salt-and-pepper")
    for channel, row, column in np.ndindex(3, 40, 48):
        draw = u[channel, row, column].item()
        expected = 0 if draw < 0.17 / 2 else 1 if draw >= 1 - 0.17 / 2 else images[0, channel, row, column].item()
        assert got[channel, row, column].item() == pytest.approx(expected, abs=0)


def test_salted_values_stay_salted_and_the_share_is_right(make_images):
    x = 0.3 + 0.4 * make_images(2, 150, 160)
    perturber = Perturber(x, ["p", "q"], SEED)
    before = torch.zeros_like(x, dtype=torch.bool)
    for severity, amount in zip((1, 2, 3, 4, 5), (0.03, 0.06, 0.09, 0.17, 0.27), strict=True):
        y = perturber.apply("salt-and-pepper", severity)
        salt, pepper = y == 1, y == 0
        assert torch.equal(y[~(salt | pepper)], x[~(salt | pepper)])
        assert ((salt | pepper) | ~before).all()
        for hit in (salt, pepper):
            spread = (amount / 2 * (1 - amount / 2) / x.numel()) ** 0.5
            assert abs(hit.float().mean().item() - amount / 2) < 4 * spread
        # Channels are hit by themselves: all three of a pixel together only by chance.
        together = (salt | pepper).all(1).float().mean().item()
        assert together == pytest.approx(amount**3, abs=0.003)
        before = salt | pepper


@pytest.mark.parametrize(("severity", "rate"), [(1, 60), (3, 12), (5, 3)])
def test_shot_is_the_poisson_quantile_of_one_field(images, ids, field, severity, rate):
    got = applied(images, ids, "shot", severity)
    for x, y, i in zip(images, got, ids, strict=True):
        u = field("uniform", x.shape, i, "shot").double().numpy()
        counts = scipy.stats.poisson.ppf(u, x.double().numpy() * rate)
        np.testing.assert_allclose(y, np.clip(counts / rate, 0, 1), atol=1e-6)


def test_poisson_quantile_is_the_smallest_count_whose_distribution_passes_u():
    u = torch.tensor([0.0, 1e-7, 0.01, 0.3, 0.5, 0.9, 0.9999, 1 - 2**-24], dtype=torch.float64)
    rates = torch.tensor([0.0, 1e-8, 0.2, 1.0, 3.7, 60.0, 499.5, 6000.0], dtype=torch.float64)
    got = natural.poisson_quantile(u[:, None].expand(8, 8), rates.expand(8, 8))
    for i, j in np.ndindex(8, 8):
        k, rate = got[i, j].item(), rates[j].item()
        assert k == int(k) >= 0
        assert scipy.stats.poisson.cdf(k, rate) > u[i].item() - 1e-12
        assert k == 0 or scipy.stats.poisson.cdf(k - 1, rate) <= u[i].item() + 1e-12


def test_poisson_quantile_has_the_mean_and_variance_of_its_rate():
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    for rate in (0.4, 7.0, 45.0):
        counts = natural.poisson_quantile(u, torch.full_like(u, rate))
        assert counts.mean().item() == pytest.approx(rate, rel=2e-3)
        assert counts.var().item() == pytest.approx(rate, rel=1e-2)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 1), (3, 3), (5, 6)])
def test_gaussian_blur_equals_skimage_at_224(make_images, severity, sigma):
    x = make_images(1, 224, 224)
    got = applied(x, ["p"], "gaussian-blur", severity)[0]
    expected = skimage.filters.gaussian(x[0].double().numpy(), sigma=sigma, truncate=4, mode="nearest", channel_axis=0)
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_gaussian_blur_scales_with_the_shorter_side(images, ids):
    got = applied(images.double(), ids, "gaussian-blur", 5)
    for x, y in zip(images.double().numpy(), got, strict=True):
        expected = skimage.filters.gaussian(x, sigma=6 * 40 / 224, truncate=4, mode="nearest", channel_axis=0)
        np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize(("radius", "alias"), [(3, 0.1), (8, 0.5), (10, 0.5)])
def test_defocus_by_a_disk_drawn_with_loops(make_images, radius, alias):
    x = make_images(1, 64, 56).double()
    got = natural.defocus_blur(x, radius=radius * 224 / 56, alias=alias)[0]
    reach, half = max(8, radius), 1 if radius <= 8 else 2
    disk = np.zeros((2 * reach + 1, 2 * reach + 1))
    for row, column in np.ndindex(disk.shape):
        disk[row, column] = (row - reach) ** 2 + (column - reach) ** 2 <= radius**2
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * alias**2))
    smoothing = np.outer(taps, taps) / taps.sum() ** 2
    kernel = scipy.ndimage.convolve(disk, smoothing, mode="mirror")
    kernel /= kernel.sum()
    for channel in range(3):
        expected = scipy.ndimage.convolve(x[0, channel].numpy(), kernel, mode="mirror")
        np.testing.assert_allclose(got[channel], expected.clip(0, 1), atol=1e-12)


def test_a_radius_between_whole_numbers_mixes_the_two_disks():
    small, large = natural.disk_kernel(2, 0.5), natural.disk_kernel(3, 0.5)
    torch.testing.assert_close(natural.disk_kernel(2.25, 0.5), 0.75 * small + 0.25 * large)
    across = natural.disk_kernel(8.5, 0.5)  # 17 and 19 wide: centred on each other
    assert across.shape == (19, 19)
    torch.testing.assert_close(across, across.flip(0))
    assert across.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("radius", "sigma"), [(5, 1.5), (3.5, 4)])
def test_motion_blur_by_a_loop_over_pixels(make_images, ids, field, radius, sigma):
    x = make_images(2, 28, 33).double()
    scale = 224 / 28
    generators = Perturber(x, ids[:2], SEED)._draws("motion-blur")
    got = natural.motion_blur(x, generators, radius=radius * scale, sigma=sigma * scale)
    for n in range(2):
        angle = np.deg2rad(-45 + 90 * field("uniform", (), ids[n], "motion-blur").item())
        length = 2 * radius + 1
        weights = [np.exp(-(i**2) / (2 * sigma**2)) * min(1, length - i) for i in range(int(np.ceil(length)))]
        for row, column in [(0, 0), (27, 32), (13, 0), (14, 20), (3, 31)]:
            total = 0
            for i, weight in enumerate(weights):
                there = (
                    row + int(np.ceil(i * np.sin(angle) - 0.5)),
                    column + int(np.ceil(i * np.cos(angle) - 0.5)),
                )
                total += weight * x[n, :, np.clip(there[0], 0, 27), np.clip(there[1], 0, 32)]
            torch.testing.assert_close(got[n, :, row, column], total / sum(weights), rtol=0, atol=1e-12)


def test_motion_has_one_angle_per_image_over_all_severities(ids):
    x = torch.zeros(3, 3, 224, 224)
    x[:, :, 112, 112] = 1
    perturber, angles = Perturber(x, ids, SEED), []
    for severity in (1, 2, 3, 4, 5):
        y = perturber.apply("motion-blur", severity)[:, 0]
        rows, columns = torch.meshgrid(torch.arange(224) - 112.0, torch.arange(224) - 112.0, indexing="ij")
        angles.append(torch.atan2((y * rows).sum((1, 2)), (y * columns).sum((1, 2))).rad2deg())
    angles = torch.stack(angles)
    assert (angles - angles[0]).abs().max() < 3
    assert (angles[0][:, None] - angles[0]).abs().max() > 5  # and images differ


@pytest.mark.parametrize(("severity", "shift"), [(1, 0.1), (3, 0.3), (5, 0.5)])
def test_brightness_equals_the_way_through_hsv(images, ids, severity, shift):
    got = applied(images, ids, "brightness", severity)
    for x, y in zip(images, got, strict=True):
        hsv = skimage.color.rgb2hsv(x.permute(1, 2, 0).double().numpy())
        hsv[..., 2] = np.clip(hsv[..., 2] + shift, 0, 1)
        np.testing.assert_allclose(y.permute(1, 2, 0), skimage.color.hsv2rgb(hsv), atol=1e-6)


def test_contrast_by_hand():
    x = torch.tensor([0.0, 0.4, 0.8, 0.8]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    x[:, 1] = 0.3  # another channel, another mean
    y = natural.contrast(x, factor=0.2)
    torch.testing.assert_close(y[0, 0].flatten(), torch.tensor([0.4, 0.48, 0.56, 0.56]))
    torch.testing.assert_close(y[0, 1], x[0, 1])


@pytest.mark.parametrize(("severity", "quality"), [(1, 25), (5, 7)])
def test_jpeg_is_pillows_at_420(images, ids, severity, quality):
    got = applied(images, ids, "jpeg", severity)
    for x, y in zip(images, got, strict=True):
        file = io.BytesIO()
        image = Image.fromarray((x.permute(1, 2, 0) * 255).round().byte().numpy())
        image.save(file, "JPEG", quality=quality, subsampling=2)
        assert np.array_equal((y * 255).round().byte().permute(1, 2, 0), np.asarray(Image.open(file)))


@pytest.mark.parametrize("kind", ["gaussian-blur", "defocus-blur", "motion-blur", "jpeg", "shot", "brightness"])
@pytest.mark.parametrize("size", [(1, 1), (2, 7)])
def test_tiny_images_survive(kind, size):
    x = torch.full((1, 3, *size), 0.4)
    y = Perturber(x, ["p"], SEED).apply(kind, 5)
    assert y.shape == x.shape
    if kind.endswith("blur"):  # a flat image stays as it is
        torch.testing.assert_close(y, x)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("gaussian_noise", {"sigma": -0.1}, r"`sigma` must be at least 0\. Got -0\.1"),
        ("salt_and_pepper", {"amount": 1.2}, r"`amount` must be in \[0, 1\]\. Got 1\.2"),
        ("shot", {"rate": 0}, "`rate` must be at least"),
        ("jpeg", {"quality": 101}, r"`quality` must be in \[1, 100\]\. Got 101"),
        ("gaussian_blur", {"sigma": float("nan")}, "`sigma` must be at least 0. Got nan"),
        ("contrast", {"factor": "much"}, "`factor` must be at least 0. Got 'much'"),
    ],
)
def test_strengths_out_of_range_are_refused(images, ids, kind, options, said):
    function = getattr(natural, kind)
    generators = [torch.Generator() for _ in ids]
    arguments = [images, generators] if kind in ("gaussian_noise", "salt_and_pepper", "shot") else [images]
    with pytest.raises(InvalidInput, match=said):
        function(*arguments, **options)
