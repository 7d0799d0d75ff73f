"""Scores of pairs of maps beside NumPy, SciPy and scikit-image, and what constant maps give."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

import heatproof
from heatproof.errors import InvalidInput
from heatproof.metrics import METRICS, metric
from heatproof.metrics.metric_request import parsed_metric, requested_metrics
from heatproof.metrics.pairs import Pair, Reference, segment_means
from heatproof.metrics.rankings import kappa, ranking, rbo, rbo_expectation
from heatproof.metrics.similarity import cosine, l1, ssim
from heatproof.models import wrap
from heatproof.segments import segment

from .. import nets

SCORES = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(height, width, n=17, seed=3):
    """A ragged label map: the nearest of n random points."""
    points = noise(n, 2, seed=seed) * torch.tensor([height, width])
    positions = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).float()
    return torch.unique(torch.cdist(positions.view(-1, 2), points).argmin(1), return_inverse=True)[1].view(
        height, width
    )


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
    for label in range(int(labels.max()) + 1):
        expected = maps.double()[..., labels == label].mean(-1)
        torch.testing.assert_close(found[..., label], expected, rtol=0, atol=1e-14)


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


def test_an_image_without_a_window_has_no_ssim():
    assert math.isnan(ssim(noise(6, 30), noise(6, 30)).item())


def test_l1_and_cosine_are_numpys():
    one, other = noise(3, 50, 70), noise(3, 50, 70, seed=1)
    a, b = (m.double().numpy().reshape(3, -1) for m in (one, other))
    np.testing.assert_allclose(l1(one, other), np.abs(a - b).mean(1), atol=1e-7)
    expected = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    np.testing.assert_allclose(cosine(one, other), expected, atol=1e-7)
    assert cosine(one, one).tolist() == pytest.approx([1, 1, 1], abs=1e-7)
    assert math.isnan(cosine(one[0], torch.zeros(50, 70)).item())


def pair_values(clean, perturbed, labels, names=SCORES):
    """Metric → values `(M,)` of maps `(M, H, W)` beside their reference, on one image with a label map."""
    pair = Pair(Reference(clean, lambda segmenter: labels), perturbed)
    return {name: pair.value(parsed_metric(name)) for name in names}


def test_metrics_of_pairs_are_the_single_formulas():
    clean, perturbed, labels = noise(3, 48, 64), noise(4, 3, 48, 64, seed=1), blobs(48, 64)
    perturbed[2] = clean
    before = clean.clone(), perturbed.clone(), labels.clone()
    for m in range(4):
        found = pair_values(clean, perturbed[m], labels)
        assert tuple(found) == SCORES and all(v.shape == (3,) and v.dtype == torch.float64 for v in found.values())
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
                torch.testing.assert_close(found[name][n], expected[name], rtol=0, atol=1e-12)
    perfect = {"rbo": 1, "kappa": 1, "l1": 0, "spearman": 1, "ssim": 1, "cosine": 1}
    same = pair_values(clean, perturbed[2], labels)
    for name, value in perfect.items():
        assert same[name].tolist() == pytest.approx([value] * 3, abs=1e-7 if name == "cosine" else 1e-12)
    for old, new in zip(before, (clean, perturbed, labels), strict=True):
        assert torch.equal(old, new)


def scored(maps, reference, x=None, metrics=SCORES, **more):
    """Maps made elsewhere beside their reference maps, through the engine."""
    height, width = maps.shape[1:]
    net = nets.told_apart(nets.seeded(nets.Plain), width)
    model = wrap(net, size=(height, width), layer="two")
    x = nets.images(len(maps), height, width) if x is None else x
    named = {name: {"segmenter": "grid"} if name in ("rbo", "kappa", "spearman") else {} for name in metrics}
    given = {"reference": {"mine": reference}, **more}
    return heatproof.score(model, x, {"mine": maps}, named, **given)


def test_images_with_ragged_segments():
    """Each image has segments of its own: together or alone, the values are the same."""
    maps, reference = noise(2, 40, 40), noise(2, 40, 40, seed=1)
    together = scored(maps, reference)
    for i in range(2):
        model_input = nets.images(2, 40, 40)[i : i + 1]
        alone = scored(maps[i : i + 1], reference[i : i + 1], model_input)
        for name in together.metrics:
            torch.testing.assert_close(
                together.values("mine", name)[i : i + 1], alone.values("mine", name), rtol=0, atol=1e-13
            )


def test_the_metric_ignores_a_monotone_rescaling_of_segments():
    labels = blobs(40, 40)
    values = noise(2, int(labels.max()) + 1)
    painted, squared = values[:, labels], values.square()[:, labels]
    names = ["rbo", "kappa", "spearman"]
    plain = pair_values(painted[:1], painted[1:], labels, names)
    scaled = pair_values(painted[:1], squared[1:], labels, names)
    for name in names:
        torch.testing.assert_close(plain[name], scaled[name])


def test_maps_without_a_value_are_flagged():
    """A constant or non-finite map, and one that is equal in all segments though it is not constant."""
    good, half = noise(44, 44), torch.full((44, 44), 0.5)
    broken = noise(44, 44, seed=2)
    broken[3, 3] = math.nan
    checkers = ((torch.arange(44)[:, None] + torch.arange(44)) % 2).float()  # equal in segments of 4 × 4
    maps = torch.stack([good, half, broken, checkers])
    fine = torch.stack([good.flip(0)] * 4)
    x = nets.images(4, 44, 44)
    equal = "one of the two maps is equal in all segments"
    for mine, reference, expected in (
        (maps, fine, ["", "constant map", "non-finite map", equal]),
        (fine, maps, ["", "clean: constant map", "clean: non-finite map", equal]),
    ):
        found = scored(mine, reference, x)
        for name in found.metrics:
            ranked = name.partition("[")[0] in ("rbo", "kappa", "spearman")
            flags = [row.flag for row in found.rows if row.metric == name]
            assert flags == (expected if ranked else [*expected[:3], ""]), name
            assert found.values("mine", name).isnan().tolist() == [bool(flag) for flag in flags], name


def test_a_constant_pair_is_no_perfect_score():
    zeros = torch.zeros(1, 40, 40)
    found = scored(zeros, zeros)
    assert all(found.values("mine", name).isnan().all() for name in found.metrics)


def test_a_methods_maps_beside_those_of_the_clean_images():
    """`heatproof.score(…, reference=images)` is the formula on the display maps of `explain`."""
    model = wrap(nets.told_apart(nets.seeded(nets.Plain), 44), size=(44, 44), layer="two")
    clean = nets.images(3, 44, 44)
    x = (clean + 0.2 * noise(3, 3, 44, 44, seed=4)).clamp(0, 1)
    names = {"rbo": {"segmenter": "slic"}, "ssim": {}, "l1": {}}
    found = heatproof.score(model, x, ["gradcam", "centre"], names, reference=clean, batch_size=2)
    before, after = (heatproof.explain(model, images, ["gradcam", "centre"]) for images in (clean, x))
    for method in ("gradcam", "centre"):
        torch.testing.assert_close(found.values(method, "l1"), l1(before[method], after[method]), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.values(method, "ssim"), ssim(before[method], after[method]), rtol=0, atol=1e-5)
        for i, labels in enumerate(segment(clean, "slic")):
            one, other = (ranking(segment_means(maps[method][i], labels)) for maps in (before, after))
            assert found.values(method, "rbo[segmenter=slic]")[i].item() == pytest.approx(
                rbo(one, other).item(), abs=1e-6
            )
    assert found.values("centre", "l1").tolist() == [0.0] * 3, "a map that ignores the image does not move"
    assert (found.values("gradcam", "l1") > 1e-4).all()


def test_a_metric_of_pairs_without_a_reference_is_refused():
    model, x = wrap(nets.seeded(nets.Plain), size=(44, 44), layer="two"), nets.images(2, 44, 44)
    with pytest.raises(InvalidInput, match=r"'rbo' compares maps with reference maps\. Got none"):
        heatproof.score(model, x, "gradcam", "rbo")
    with pytest.raises(InvalidInput, match=r"one reference image for each of 2. Got 1"):
        heatproof.score(model, x, "gradcam", "l1", reference=x[:1])
    with pytest.raises(InvalidInput, match=r"`reference` must name gradcam. Got 'other'"):
        heatproof.score(model, x, "gradcam", "l1", reference={"other": noise(2, 44, 44)})
    assert not {r.key for r in requested_metrics("all", reference=False)} & set(SCORES)
    given = heatproof.score(model, x, {"mine": noise(2, 44, 44), "gradcam": None}, "l1", reference=x)
    flags = {row.method: row.flag for row in given.rows}
    assert flags == {"gradcam": "", "mine": "there is no reference map"}


def test_a_family_of_nothing_but_pairs_is_refused_too():
    """Leaving all of them out would give an empty table without a word."""
    model, x = wrap(nets.seeded(nets.Plain), size=(44, 44), layer="two"), nets.images(2, 44, 44)
    with pytest.raises(InvalidInput, match="'stability' compares maps with reference maps"):
        heatproof.score(model, x, "gradcam", "stability")
    found = heatproof.score(model, x, "gradcam", ["stability", "complexity"])
    assert found.metrics == ["complexity"]


def test_a_mapping_may_hold_references_of_some_methods():
    """What is given is used, whatever the others lack; equal maps are as alike as can be."""
    model, x = wrap(nets.told_apart(nets.seeded(nets.Plain), 44), size=(44, 44), layer="two"), nets.images(2, 44, 44)
    own = heatproof.explain(model, x, "gradcam")["gradcam"]
    found = heatproof.score(model, x, ["hirescam", "gradcam"], ["l1", "ssim"], reference={"gradcam": own})
    assert found.values("gradcam", "l1").tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found.values("gradcam", "ssim").tolist() == pytest.approx([1, 1], abs=1e-5)
    assert {row.flag for row in found.rows if row.method == "hirescam"} == {"there is no reference map"}


def test_random_maps_are_drawn_anew_for_the_reference():
    """The control would otherwise look perfectly stable: its numbers come from the image's name."""
    model, x = wrap(nets.told_apart(nets.seeded(nets.Plain), 44), size=(44, 44), layer="two"), nets.images(2, 44, 44)
    found = heatproof.score(model, x, ["random", "gradcam"], "l1", reference=x)
    assert found.values("random", "l1").tolist() == pytest.approx([1 / 3] * 2, abs=0.03), "two maps of U[0, 1]"
    assert found.values("gradcam", "l1").tolist() == pytest.approx([0, 0], abs=1e-6)


def test_the_reference_is_explained_only_for_metrics_of_pairs():
    net = nets.told_apart(nets.seeded(nets.Plain), 44)
    model, x = wrap(net, size=(44, 44), layer="two"), nets.images(2, 44, 44)
    heatproof.explain(model, x, "gradcam")  # what a network is asked once and for all
    passes = []
    handle = net.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    try:
        heatproof.score(model, x, "gradcam", "complexity", reference=x)
        assert passes == [2]
        heatproof.score(model, x, "gradcam", ["complexity", "l1"], reference=x)
        assert passes == [2, 2, 2]
    finally:
        handle.remove()


def test_a_metric_of_pairs_names_nothing_else():
    with pytest.raises(InvalidInput, match="'mixed' names 'p' too"):
        metric("mixed", family="stability", better="high", range=(0, 1), passes="none")(lambda reference, p: p)
    assert "mixed" not in METRICS


def test_wrong_shapes_are_named():
    clean, labels = noise(2, 8, 8), blobs(8, 8, 3)
    with pytest.raises(InvalidInput, match="the shape of their reference"):
        pair_values(clean, noise(3, 8, 8), labels)
    with pytest.raises(InvalidInput, match="no pixel with label 1"):
        pair_values(clean, clean, labels * 2)
    with pytest.raises(InvalidInput, match="int64 label map"):
        pair_values(clean, clean, labels[:4])
