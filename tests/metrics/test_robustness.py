"""Scores of pairs of maps beside NumPy, SciPy and scikit-image, and what constant maps give."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from heatproof.errors import InvalidInput
from heatproof.metrics.rankings import kappa, ranking, rbo, rbo_expectation
from heatproof.metrics.robustness import (
    SCORES,
    cosine,
    l1,
    pair_scores,
    reasons,
    reference,
    segment_means,
    ssim,
)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(height, width, n=17, seed=3):
    """A ragged label map: the nearest of n random points."""
    points = noise(n, 2, seed=seed) * torch.tensor([height, width])
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).float()
    return torch.unique(torch.cdist(places.view(-1, 2), points).argmin(1), return_inverse=True)[1].view(height, width)


def slow_area_means(maps, side=56):
    """Area means pixel share by pixel share, in float64."""

    def weights(length):
        small = min(side, length)
        w = np.zeros((small, length))
        for i in range(small):
            a, b = i * length / small, (i + 1) * length / small
            for j in range(length):
                w[i, j] = max(0.0, min(b, j + 1) - max(a, j)) / (b - a)
        return w

    maps = np.asarray(maps, np.float64)
    return weights(maps.shape[0]) @ maps @ weights(maps.shape[1]).T


@pytest.mark.parametrize("size", [(64, 64), (33, 90), (7, 9)])
def test_segment_means_are_means_of_segments(size):
    maps, labels = noise(2, 3, *size), blobs(*size)
    found = segment_means(maps, labels)
    for segment in range(int(labels.max()) + 1):
        expected = maps.double()[..., labels == segment].mean(-1)
        torch.testing.assert_close(found[..., segment], expected, rtol=0, atol=1e-14)


def test_segments_of_one_value_tie_whatever_their_size():
    """Summed in float32, .3 over 7 and over 1000 pixels would differ in the last place, and sometimes in the sixth."""
    labels = torch.zeros(40, 60, dtype=torch.int64)
    labels[3:5, 3:6], labels[20:, :] = 1, 2
    means = segment_means(torch.full((1, 40, 60), 0.3), labels)[0]
    assert (means - means[0]).abs().max() < 1e-12


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (60, 100), (41, 41)])
def test_ssim_is_scikit_images(size):
    one = noise(*size)
    other = (one + 0.3 * noise(*size, seed=1)).clamp(0, 1)
    small = [slow_area_means(m) for m in (one, other)]
    expected = structural_similarity(*small, win_size=7, data_range=1.0, gaussian_weights=False)
    assert ssim(one.double(), other.double()).item() == pytest.approx(expected, abs=1e-10)
    assert ssim(one, other).item() == pytest.approx(expected, abs=1e-6)
    assert ssim(one, one).item() == pytest.approx(1, abs=1e-12)


def test_a_picture_without_a_window_has_no_ssim():
    assert math.isnan(ssim(noise(6, 30), noise(6, 30)).item())


def test_l1_and_cosine_are_numpys():
    one, other = noise(3, 50, 70), noise(3, 50, 70, seed=1)
    a, b = (m.double().numpy().reshape(3, -1) for m in (one, other))
    np.testing.assert_allclose(l1(one, other), np.abs(a - b).mean(1), atol=1e-7)
    expected = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    np.testing.assert_allclose(cosine(one, other), expected, atol=1e-7)
    assert cosine(one, one).tolist() == pytest.approx([1, 1, 1], abs=1e-7)
    assert math.isnan(cosine(one[0], torch.zeros(50, 70)).item())


def test_pair_scores_are_the_single_scores():
    clean, perturbed, labels = noise(3, 48, 64), noise(4, 3, 48, 64, seed=1), blobs(48, 64)
    perturbed[2] = clean
    before = clean.clone(), perturbed.clone(), labels.clone()
    found = pair_scores(clean, perturbed, labels)
    assert tuple(found) == (*SCORES, "code") and all(v.shape == (4, 3) for v in found.values())
    for m in range(4):
        for n in range(3):
            means = segment_means(torch.stack([clean[n], perturbed[m, n]]), labels)
            one, other = ranking(means[0]), ranking(means[1])
            expected = {
                "rbo": rbo(one, other),
                "kappa": kappa(rbo(one, other), rbo_expectation(one, other)),
                "l1": l1(clean[n], perturbed[m, n]),
                "spearman": torch.tensor(spearmanr(*means.round(decimals=6)).statistic),
                "ssim": ssim(clean[n], perturbed[m, n]),
                "cosine": cosine(clean[n], perturbed[m, n]),
            }
            for name in SCORES:
                torch.testing.assert_close(found[name][m, n], expected[name], rtol=0, atol=1e-12)
    perfect = {"rbo": 1, "kappa": 1, "l1": 0, "spearman": 1, "ssim": 1, "cosine": 1}
    for name, value in perfect.items():
        assert found[name][2].tolist() == pytest.approx([value] * 3, abs=1e-7 if name == "cosine" else 1e-12)
    assert found["code"].eq(0).all()
    for old, new in zip(before, (clean, perturbed, labels), strict=True):
        assert torch.equal(old, new)


def test_several_pictures_with_ragged_segments():
    labels = torch.stack([blobs(40, 40, 6), blobs(40, 40, 25, seed=5)])
    clean, perturbed = noise(2, 40, 40), noise(3, 2, 40, 40, seed=1)
    together = pair_scores(clean, perturbed, labels)
    for i in range(2):
        alone = pair_scores(reference(clean[i : i + 1], labels[i]), perturbed[:, i : i + 1])
        for name in together:
            torch.testing.assert_close(together[name][:, i : i + 1], alone[name], rtol=0, atol=1e-13)


def test_the_metric_ignores_a_monotone_rescaling_of_segments():
    labels = blobs(40, 40)
    values = noise(2, int(labels.max()) + 1)
    painted, squared = values[:, labels], values.square()[:, labels]
    plain = pair_scores(painted[:1], painted[1:], labels, scores=["rbo", "kappa", "spearman"])
    scaled = pair_scores(painted[:1], squared[1:], labels, scores=["rbo", "kappa", "spearman"])
    for name in ("rbo", "kappa", "spearman"):
        torch.testing.assert_close(plain[name], scaled[name])


def test_maps_without_a_score_are_flagged():
    labels = torch.arange(4).view(2, 2).repeat_interleave(20, 0).repeat_interleave(20, 1)
    good, zeros, half = noise(40, 40), torch.zeros(40, 40), torch.full((40, 40), 0.5)
    broken = noise(40, 40, seed=2)
    broken[3, 3] = math.nan
    checkers = (torch.arange(40)[:, None] + torch.arange(40)) % 2  # equal in all segments, yet not constant
    clean = torch.stack([good, zeros, broken, checkers.float()])
    perturbed = torch.stack([torch.stack([m] * 4) for m in (good, half, broken, checkers.float())])
    found = pair_scores(clean, perturbed, labels)
    texts = reasons(found["code"])
    assert texts[0] == ["", "constant clean map", "non-finite clean map", "clean map equal in all segments"]
    assert [row[0] for row in texts] == [
        "", "constant perturbed map", "non-finite perturbed map", "perturbed map equal in all segments",
    ]  # fmt: skip
    assert reasons(found["code"], "l1")[3][0] == "" and reasons(found["code"], "l1")[1][0] == "constant perturbed map"
    for name in SCORES:
        flagged = torch.tensor([[bool(text) for text in row] for row in reasons(found["code"], name)])
        assert torch.equal(found[name].isnan(), flagged), name


def test_a_constant_pair_is_no_perfect_score():
    zeros = torch.zeros(1, 40, 40)
    found = pair_scores(zeros, zeros, blobs(40, 40))
    assert all(found[name].isnan().all() for name in SCORES)


def test_wrong_shapes_are_named():
    clean, labels = noise(2, 8, 8), blobs(8, 8, 3)
    with pytest.raises(InvalidInput, match="must be \\(M, 2, 8, 8\\)"):
        pair_scores(clean, noise(1, 3, 8, 8), labels)
    with pytest.raises(InvalidInput, match="Got None"):
        pair_scores(clean, clean)
    with pytest.raises(InvalidInput, match="'mse'"):
        pair_scores(clean, clean, labels, scores=["mse"])
    with pytest.raises(InvalidInput, match="no pixel with label 1"):
        pair_scores(clean, clean, labels * 2)
    with pytest.raises(InvalidInput, match="int64 label map"):
        reference(clean, labels[:4])
