"""pytorch-grad-cam's metrics: the numbers of 1.5.7, except where it is wrong."""

import contextlib
import importlib
import io

import numpy as np
import pytest
import torch

from heatproof.errors import InvalidInput, InvalidTarget

from .. import nets

pytest.importorskip("pytorch_grad_cam")

SIDE = 16


def part(home: str, name: str):
    return importlib.import_module(f"{'heatproof.compat.' if home == 'ours' else ''}pytorch_grad_cam{name}")


@pytest.fixture(scope="module")
def given():
    """Images, maps and the network."""
    maps = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).numpy()
    return 4 * nets.images(3, SIDE) - 2, maps, nets.seeded(nets.Plain)


def both(code, given):
    """What the same function gives with each package, for softmax targets."""
    z, maps, module = given
    found = []
    for home in ("ours", "theirs"):
        kinds = part(home, ".utils.model_targets")
        targets = [kinds.ClassifierOutputSoftmaxTarget(c) for c in (0, 4, 2)]
        with contextlib.redirect_stderr(io.StringIO()):
            found.append(code(home, (z, maps, targets, module)))
    return found


@pytest.mark.parametrize("name", ["CamMultImageConfidenceChange", "DropInConfidence", "IncreaseInConfidence"])
def test_confidence_on_the_image_seen_through_the_map(name, given):
    found, expected = both(lambda home, a: getattr(part(home, ".metrics.cam_mult_image"), name)()(*a), given)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_images_and_the_outputs_themselves(given):
    def code(home, a):
        return part(home, ".metrics.cam_mult_image").CamMultImageConfidenceChange()(
            *a, return_visualization=True, return_diff=False
        )

    (found, images), (expected, theirs) = both(code, given)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    torch.testing.assert_close(images, theirs)


@pytest.mark.parametrize("percentile", [20, 75])
@pytest.mark.parametrize("order", ["RemoveMostRelevantFirst", "RemoveLeastRelevantFirst"])
def test_road_without_its_noise(order, percentile, given):
    def code(home, a):
        confidence, road = part(home, ".metrics.perturbation_confidence"), part(home, ".metrics.road")
        remove = getattr(confidence, order)(percentile, road.NoisyLinearImputer(noise=0.0))
        return confidence.PerturbationConfidenceMetric(remove)(*a, return_visualization=True)

    (found, images), (expected, theirs) = both(code, given)
    torch.testing.assert_close(images, theirs, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_road_combined_and_its_averages(given):
    """The noise of .01 moves it by some thousandths; ours is the same in every call."""
    code = lambda home, a: part(home, ".metrics.road").ROADCombined(percentiles=[30, 60])(*a)  # noqa: E731
    found, expected = both(code, given)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_array_equal(both(code, given)[0], found)


def test_an_average_runs_the_images_themselves_once_and_their_difference_not_at_all(given):
    """By hand from single thresholds, which run them each time."""
    z, maps, module = given
    road, kinds = part("ours", ".metrics.road"), part("ours", ".utils.model_targets")
    targets, counted = [kinds.ClassifierOutputTarget(c) for c in (0, 4, 2)], nets.Counted(module)
    most = [road.ROADMostRelevantFirst(p)(z, maps, targets, module) for p in (30, 60)]
    least = [road.ROADLeastRelevantFirst(p)(z, maps, targets, module) for p in (30, 60)]
    np.testing.assert_allclose(road.ROADMostRelevantFirstAverage((30, 60))(z, maps, targets, counted), np.mean(most, 0),
                               atol=1e-6)  # fmt: skip
    assert counted.calls == 2 + 1
    np.testing.assert_allclose(road.ROADCombined((30, 60))(z, maps, targets, counted),
                               (np.mean(least, 0) - np.mean(most, 0)) / 2, atol=1e-6)  # fmt: skip
    assert counted.calls == 3 + 4


def test_tied_pixels_are_removed_in_exact_numbers():
    """The peer removes every pixel of the tie group, here the whole image."""
    confidence = part("ours", ".metrics.perturbation_confidence")
    kept = []
    remove = confidence.RemoveMostRelevantFirst(75, lambda image, mask: kept.append(int(mask.sum())) or image)
    remove(torch.zeros(3, 8, 8), torch.full((8, 8), 0.5))
    assert kept == [48]  # ⌈63 · .75⌉


def test_otsus_threshold_removes_the_most_relevant_pixels():
    """The peer's `auto` keeps them."""
    confidence = part("ours", ".metrics.perturbation_confidence")
    image, heat = torch.zeros(1, 4, 4), torch.tensor([[0.9, 0.8, 0.1, 0.0]]).expand(4, 4)
    for name, stays in (("RemoveMostRelevantFirst", [0, 0, 1, 1]), ("RemoveLeastRelevantFirst", [1, 1, 0, 0])):
        masks = []
        getattr(confidence, name)("auto", lambda given, mask, kept=masks: kept.append(mask) or given)(image, heat)
        assert masks[0].tolist() == [stays] * 4


def test_parts_of_arcc(given):
    z, maps, module = given

    def code(home, a):
        arcc, cams = part(home, ".metrics.arcc"), part(home, "")
        cam = cams.LayerCAM(model=module, target_layers=[module.two])
        return arcc.Complexity()(maps), arcc.Coherency()(z, maps, a[2], module, cam)

    (complexity, coherency), expected = both(code, given)
    np.testing.assert_allclose(complexity, expected[0], atol=1e-6)
    np.testing.assert_allclose(coherency, expected[1], atol=1e-4)


def test_arcc_of_its_parts_and_of_a_constant_map(given):
    z, maps, module = given
    arcc, kinds = part("ours", ".metrics.arcc"), part("ours", ".utils.model_targets")
    targets = [kinds.ClassifierOutputSoftmaxTarget(c) for c in (0, 4, 2)]
    maps = maps.copy()
    maps[1] = 0.5
    metric = arcc.ARCC(part("ours", "").LayerCAM(model=module, target_layers=[module.two]))
    coherency = metric.coherency(z, maps, targets, module, metric.base_method)
    assert coherency[1] == 0  # .5 in the peer
    rest = [1 - metric.complexity(maps), (2 * metric.road(z, maps, targets, module)).clip(0, 1)]
    expected = 3 / sum(1 / (one + 1e-8) for one in (coherency, *rest))
    np.testing.assert_allclose(metric(z, maps, targets, module), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (lambda road, z, maps, k, m: road()(z, maps, k[:2], m), InvalidTarget, "3 images. Got 2"),
        (lambda road, z, maps, k, m: road()(z, maps[:2], k, m), InvalidInput, r"one map for each image.*Got \(2"),
        (lambda road, z, maps, k, m: road(percentile=120), InvalidInput, "0 … 100"),
        (lambda road, z, maps, k, m: road()(z, maps, [lambda row: row] * 3, m), InvalidTarget, "one number"),
    ],
)
def test_what_cannot_be_scored(code, error, said, given):
    z, maps, module = given
    kinds = part("ours", ".utils.model_targets")
    with pytest.raises(error, match=said):
        code(
            part("ours", ".metrics.road").ROADMostRelevantFirst, z, maps, [kinds.ClassifierOutputTarget(1)] * 3, module
        )
