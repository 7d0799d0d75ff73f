"""Natural kinds against the package `imagecorruptions` 1.1.2 (extra `parity`): its constants and its outputs.

Its `gaussian_blur`, `glass_blur` and `fog` fail on current numpy and scikit-image, so blur meets
`skimage.filters.gaussian` instead. Known defect, a test below: its defocus kernel sums to more than 1.
"""

import ast
import inspect
import re

import numpy as np
import pytest
import skimage.filters
import torch
from PIL import Image

from heatproof import seeds
from heatproof.perturbations import Perturber, settings_at

corruptions = pytest.importorskip("imagecorruptions.corruptions")

SEVERITIES = (1, 2, 3, 4, 5)
PEERS = {
    "gaussian-noise": ("gaussian_noise", ("sigma",)),
    "shot": ("shot_noise", ("rate",)),
    "salt-and-pepper": ("impulse_noise", ("amount",)),
    "speckle": ("speckle_noise", ("sigma",)),
    "gaussian-blur": ("gaussian_blur", ("sigma",)),
    "defocus-blur": ("defocus_blur", ("radius", "alias")),
    "motion-blur": ("motion_blur", ("radius", "sigma")),
    "brightness": ("brightness", ("shift",)),
    "contrast": ("contrast", ("factor",)),
    "jpeg": ("jpeg_compression", ("quality",)),
}


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """A made 8-bit image at least 224 a side: waves, edges, black, white and grey."""
    rows, columns = np.mgrid[0:224, 0:240] / 224
    waves = [np.sin(9 * rows + k) * np.cos(7 * columns * (k + 1)) * 0.5 + 0.5 for k in range(3)]
    image = np.stack(waves, -1)
    image[40:90, 30:100] *= 0.3
    image[120:150, 150:200] = 1
    image[160:200, 20:60] = 0
    image[20:40, 180:220] = 0.5
    return Image.fromarray((image * 255).round().astype(np.uint8))


@pytest.fixture(scope="module")
def x(photograph) -> torch.Tensor:
    return torch.from_numpy(np.asarray(photograph).copy()).permute(2, 0, 1)[None].float() / 255


def ours(x, kind, severity) -> np.ndarray:
    """As the peer answers: (H, W, 3) in 0–255."""
    return Perturber(x, ["p"], 0).apply(kind, severity)[0].permute(1, 2, 0).double().numpy() * 255


def theirs(photograph, kind, severity) -> np.ndarray:
    return np.asarray(getattr(corruptions, PEERS[kind][0])(photograph, severity), dtype=float)


@pytest.mark.parametrize("kind", PEERS)
def test_constants_are_those_in_its_source(kind):
    function, options = PEERS[kind]
    source = inspect.getsource(getattr(corruptions, function))
    table = ast.literal_eval(re.search(r"c = (\[.*?\])\[severity - 1\]", source, re.DOTALL)[1])
    for severity, constants in zip(SEVERITIES, table, strict=True):
        constants = constants if isinstance(constants, tuple) else (constants,)
        assert tuple(settings_at(kind, severity)[option] for option in options) == constants


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", ["gaussian-noise", "speckle"])
def test_additive_noise_is_equal_on_the_same_field(photograph, x, kind, severity, monkeypatch):
    generator = seeds.generator(0, "p", "perturbation", kind)
    field = torch.randn(x.shape[1:], generator=generator).permute(1, 2, 0).double().numpy()
    monkeypatch.setattr(np.random, "normal", lambda size, scale: scale * field)
    np.testing.assert_allclose(ours(x, kind, severity), theirs(photograph, kind, severity), atol=1e-3)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", ["shot", "salt-and-pepper"])
def test_counted_noise_has_the_same_moments(photograph, x, kind, severity):
    """At every grey level: mean, spread, and the shares of black and white, to four standard errors."""
    np.random.seed(0)  # the peer draws from the global state
    clean = np.asarray(photograph)
    a, b = ours(x, kind, severity), theirs(photograph, kind, severity)
    for low in range(0, 255, 64):
        here = (clean >= low) & (clean < low + 64)
        assert here.sum() > 3000
        for moment in (
            lambda v: v,
            lambda v, low=low: (v - low) ** 2,
            lambda v: v < 0.01,
            lambda v: v > 254.99,
        ):
            mine, peers = (moment(values[here]).astype(float) for values in (a, b))
            error = ((mine.var() + peers.var()) / here.sum()) ** 0.5
            assert abs(mine.mean() - peers.mean()) <= 4 * error + 1e-4


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur_is_equal_at_the_same_angle(photograph, x, severity, monkeypatch):
    share = torch.rand((), generator=seeds.generator(0, "p", "perturbation", "motion-blur")).item()
    monkeypatch.setattr(np.random, "uniform", lambda low, high: low + (high - low) * share)
    np.testing.assert_allclose(ours(x, "motion-blur", severity), theirs(photograph, "motion-blur", severity), atol=1e-2)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_equal_but_for_the_sum_of_its_kernel(photograph, x, severity):
    settings = settings_at("defocus-blur", severity)
    total = corruptions.disk(radius=int(settings["radius"]), alias_blur=settings["alias"]).sum()
    assert total == pytest.approx(1, abs=1e-6) if severity <= 3 else 1.01 < total < 1.014
    peer = theirs(photograph, "defocus-blur", severity)
    # Its brightening clips near white, where its sum cannot be taken out again.
    unclipped = peer < 254.9
    assert unclipped.mean() > 0.9
    got = ours(x, "defocus-blur", severity)
    np.testing.assert_allclose(got[unclipped], peer[unclipped] / total, atol=1e-2)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", ["brightness", "contrast"])
def test_light_is_equal(photograph, x, kind, severity):
    np.testing.assert_allclose(ours(x, kind, severity), theirs(photograph, kind, severity), atol=1e-3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_is_equal_to_the_bit(photograph, x, severity):
    assert np.array_equal(ours(x, "jpeg", severity).round(), theirs(photograph, "jpeg", severity))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_skimages(photograph, x, severity):
    """What `imagecorruptions.gaussian_blur` asks skimage for, in the spelling that skimage now has."""
    sigma = settings_at("gaussian-blur", severity)["sigma"]
    expected = skimage.filters.gaussian(np.asarray(photograph) / 255.0, sigma=sigma, channel_axis=-1)
    np.testing.assert_allclose(ours(x, "gaussian-blur", severity), expected.clip(0, 1) * 255, atol=1e-3)
