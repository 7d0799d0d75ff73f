"""ROAD in pytorch-grad-cam 1.5.7 and Quantus 0.6.0: agreement where they are right, and what they do where not.

Both solve one image at a time with a direct sparse solver, from the code of ROAD's authors. pytorch-grad-cam makes
sixteen forwards for four fractions where eight are needed: it subtracts the score of the image each time, which
cancels in the combined score. Its noise cannot be turned off in the ready-made classes, so they are put together here.
"""

import functools
import warnings

import numpy as np
import pytest
import torch

from heatproof.imputation import imputed
from heatproof.metrics.curves import pixel_ranks
from heatproof.metrics.road import removal_scores, road

from .. import nets

KEPT, SIDE, CLASSES = (20, 40, 60, 80), 24, [0, 3, 1]


@pytest.fixture
def peer():
    return pytest.importorskip("pytorch_grad_cam.metrics.road")


@functools.cache
def network():
    return nets.told_apart(nets.seeded(nets.Plain), SIDE)


def normalised(count=3):
    return 4 * nets.images(count, SIDE) - 2


def maps(count=3, seed=1):
    """Smooth, without ties."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)[:, 0]
    return smooth + 1e-3 * torch.rand(smooth.shape, generator=torch.Generator().manual_seed(seed + 1))


def ours(z, shown, ties="jitter", noise=0.0, seed=0):
    net, target = network(), torch.tensor(CLASSES[: len(z)])

    def score(images, rows):
        return net(images).double().softmax(1).gather(1, target[rows][:, None])[:, 0]

    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(z))]
    with torch.no_grad():
        return removal_scores(z, pixel_ranks(shown, generators, ties), score, generators, kept=KEPT, noise=noise)


def theirs(peer, z, shown, noise=0.0, images=False):
    """`(2, N, P)`: the probability most and least relevant first, or the imputed images."""
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        PerturbationConfidenceMetric,
        RemoveLeastRelevantFirst,
        RemoveMostRelevantFirst,
    )
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    wanted = [ClassifierOutputSoftmaxTarget(c) for c in CLASSES[: len(z)]]
    found = []
    for remove in (RemoveMostRelevantFirst, RemoveLeastRelevantFirst):
        for percent in KEPT:
            measure = PerturbationConfidenceMetric(remove(percent, peer.NoisyLinearImputer(noise=noise)))
            values, filled = measure(z, shown.numpy(), wanted, network(), return_visualization=True, return_diff=False)
            found.append(filled if images else torch.from_numpy(values).double())
    return torch.stack(found).unflatten(0, (2, len(KEPT)))


# --- agreement ---


def test_both_directions_agree_with_pytorch_grad_cam(peer):
    z, shown = normalised(), maps()
    found, expected = ours(z, shown), theirs(peer, z, shown)
    torch.testing.assert_close(found.morf, expected[0].T, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.lerf, expected[1].T, rtol=0, atol=1e-4)
    assert (found.morf.amax(0) - found.morf.amin(0)).min() > 0.01  # the networks tells the images apart


def test_the_ready_made_combination_agrees_up_to_its_noise(peer):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    z, shown = normalised(), maps()
    wanted = [ClassifierOutputSoftmaxTarget(c) for c in CLASSES]
    expected = peer.ROADCombined(list(KEPT))(z, shown.numpy(), wanted, network())
    value = road(lambda **asked: ours(z, shown, noise=0.01)).value
    np.testing.assert_allclose(value, expected, atol=5e-3)


def test_imputed_images_agree_with_the_direct_solution(peer):
    """Largest difference seen: 1e-4, a hundredth of the noise that goes on top."""
    z, shown = normalised(), maps()
    expected = theirs(peer, z, shown, images=True)
    for p, percent in enumerate(KEPT):
        removed = torch.stack([one >= np.percentile(one.numpy(), percent) for one in shown])
        torch.testing.assert_close(imputed(z, removed).images, expected[0, p], rtol=0, atol=5e-4)


def test_block_is_what_pytorch_grad_cam_does_with_ties(peer):
    """Maps in nine steps, so that every threshold cuts through a group of equals."""
    z, shown = normalised(), (maps() * 8).round() / 8
    found, expected = ours(z, shown, ties="block"), theirs(peer, z, shown)
    torch.testing.assert_close(found.morf, expected[0].T, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.lerf, expected[1].T, rtol=0, atol=1e-4)
    assert (found.morf - ours(z, shown).morf).abs().max() > 1e-3


# --- what the peers get wrong (protocols §12) ---


def gone(filled, z):
    """How many pixels of each image are no longer its own."""
    return (filled != z).any(1).flatten(1).sum(1).tolist()


def test_pytorch_grad_cam_removes_tied_pixels_all_together(peer):
    """Of a map that is zero on three quarters, as CAMs after a ReLU may be, all zeros go whenever one has to."""
    z, shown = normalised(1), maps(1)
    shown = torch.where(shown >= np.percentile(shown.numpy(), 75), shown, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = theirs(peer, z, shown, noise=0.01, images=True)
    # of the 576 pixels, 432 of them zero, it should remove 461, 346, 231, 116
    assert [gone(each, z)[0] for each in filled[1]] == [461, 432, 432, 432]
    assert [gone(each, z)[0] for each in filled[0]] == [576, 576, 576, 116]


def test_pytorch_grad_cam_removes_every_pixel_of_a_constant_map(peer):
    """Then nothing is left to fill from, and the system is singular. Ours removes exactly as many as asked for."""
    z, shown = normalised(1), torch.full((1, SIDE, SIDE), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = theirs(peer, z, shown, images=True)
    kept = (filled - z).abs().amax(2) < 1e-3
    assert not kept.any()
    found = ours(z, shown)
    assert found.morf.isfinite().all() and found.lerf.isfinite().all() and (found.residual <= 1e-4).all()
    assert ours(z, shown, ties="block").morf.isnan().all()


def test_the_noise_of_pytorch_grad_cam_is_not_seeded(peer):
    z, shown = normalised(1), maps(1)
    first, second = (theirs(peer, z, shown, noise=0.01) for _ in range(2))
    assert not torch.equal(first, second)  # differences of up to 1e-3
    one, other = (ours(z, shown, noise=0.01) for _ in range(2))
    assert torch.equal(one.morf, other.morf) and torch.equal(one.lerf, other.lerf)


def quantus_road(z, shown, batch_size=64):
    """Accuracy after the most relevant pixels went, by percent removed."""
    quantus = pytest.importorskip("quantus")
    metric = quantus.ROAD(percentages=[20, 60], noise=0.0, disable_warnings=True, display_progressbar=False)
    target = np.array(CLASSES * len(z))[: len(z)]
    return metric(network(), z.numpy(), target, shown[:, None].numpy(), batch_size=batch_size, device="cpu")


def test_quantus_breaks_on_three_channels():
    """Its flattened attributions are three times as long as the image has positions."""
    with pytest.raises(IndexError):
        quantus_road(normalised(), maps())


def test_quantus_keeps_its_first_batch_only():
    """`evaluation_scores[0].mean(axis=0)`: of four batches three are lost, so the result depends on the batch size."""
    quantus = pytest.importorskip("quantus")
    metric = quantus.ROAD(percentages=[20], disable_warnings=True)
    metric.evaluation_scores = [np.array([[1.0]]), np.array([[0.0]]), np.array([[0.0]]), np.array([[0.0]])]
    metric.custom_postprocess()
    assert metric.evaluation_scores == {20: 1.0}  # should be .25
    z, shown = normalised(), maps()
    together = ours(z, shown)
    torch.testing.assert_close(ours(z[:1], shown[:1]).morf, together.morf[:1], rtol=0, atol=1e-6)
