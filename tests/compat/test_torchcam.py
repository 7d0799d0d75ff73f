"""The same user code on torchcam 0.5.0 and on heatproof's adapter gives the same maps; no hook outlives it."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from heatproof.attributions import ATTRIBUTIONS
from heatproof.compat.torchcam import methods as ours
from heatproof.compat.torchcam import utils
from heatproof.errors import InvalidInput, InvalidTarget, LayerError, UnknownName

from .. import nets

peer = pytest.importorskip("torchcam.methods")
peer_utils = importlib.import_module("torchcam.utils")

SIDE = 16


@pytest.fixture
def z():
    return 4 * nets.images(3, SIDE) - 2


def run(library, name, net: nn.Module, layer, z, classes, **call) -> list[torch.Tensor]:
    """What a user writes."""
    with getattr(library, name)(net, layer) as extractor:
        scores = net(z)
        return [cam.detach() for cam in extractor(classes, scores, **call)]


def agree(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance * float(theirs.abs().max()), rtol=10 * tolerance)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("name", ["GradCAM", "XGradCAM", "LayerCAM", "ScoreCAM", "CAM"])
@pytest.mark.parametrize("classes", [3, [0, 4, 2]])
def test_the_same_maps(name, classes, normalized, z):
    if getattr(ours, name).method not in ATTRIBUTIONS:
        pytest.skip("not there yet")
    module = nets.seeded(nets.Plain)
    found, expected = (run(m, name, module, "two", z, classes, normalized=normalized) for m in (ours, peer))
    agree(found, expected, 5e-3 if name == "ScoreCAM" else 1e-4)  # theirs scales masks before it upsamples them


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM"])
def test_several_layers_and_their_fusion(name, z):
    module = nets.seeded(nets.Signed)
    layers = ["one", module.two]
    found, expected = (run(m, name, module, layers, z, [0, 4, 2]) for m in (ours, peer))
    assert [cam.shape for cam in found] == [(3, 16, 16), (3, 8, 8)]
    agree(found, expected)
    for shape in (None, (11, 13)):
        mine, theirs = (getattr(m, name).fuse_cams(found, shape) for m in (ours, peer))
        torch.testing.assert_close(mine, theirs)
    assert ours.GradCAM.fuse_cams(found[:1]) is found[0]


def test_refinecam(z):
    module = nets.seeded(nets.Signed)

    def code(library):
        with library.RefineCAM(module, ["one", "two"], base_method=library.LayerCAM) as extractor:
            return extractor([0, 4, 2], module(z))

    agree(code(ours), code(peer))


def test_targets_of_ones_own(z):
    module = nets.seeded(nets.Signed)
    for targets in (lambda row: row[1] - row[2], [lambda row, c=c: row[c] ** 2 for c in range(3)]):
        found, expected = (run(m, "GradCAM", module, "two", z, None, targets=targets) for m in (ours, peer))
        agree(found, expected)


def test_gradcam_plus_plus_is_the_papers(z):
    """torchcam 0.5.0 edits a copy in place: its weights are not divided."""
    module = nets.seeded(nets.Plain)
    found, expected = (run(m, "GradCAMpp", module, "one", z, 1)[0] for m in (ours, peer))
    assert (found - expected).abs().max() > 0.01


def test_scores_may_come_from_inference_mode(z):
    module = nets.seeded(nets.Plain)
    with ours.GradCAM(module, "two") as extractor:
        with torch.inference_mode():
            scores = module(z)
            inside = extractor(2, scores)
        outside = extractor(2, scores)
    agree(inside, outside)
    agree(outside, run(ours, "GradCAM", module, "two", z, 2))


def test_the_layer_is_found(z):
    module = nets.seeded(nets.Plain)
    with ours.GradCAM(module, input_shape=(3, SIDE, SIDE)) as extractor:
        assert extractor.target_names == ["two"]
        assert repr(extractor) == "GradCAM(target_layer=['two'])"


def test_an_input_by_name_is_remembered(z):
    module = nets.seeded(nets.Plain)
    with ours.GradCAM(module, "two") as extractor:
        module(x=z)
        agree(extractor(1), run(ours, "GradCAM", module, "two", z, 1))


def test_the_last_input_is_explained_and_not_one_of_heatproofs(z):
    module = nets.seeded(nets.Signed)
    with ours.LayerCAM(module, "two") as extractor:
        module(torch.zeros_like(z))
        module(z)
        first = extractor([0, 4, 2])
        agree(first, extractor([0, 4, 2]))
        z.zero_()  # what was shown is kept, whatever becomes of the tensor
        agree(first, extractor([0, 4, 2]))
        extractor.disable_hooks()
        module(z)
        agree(first, extractor([0, 4, 2]))
        extractor.enable_hooks()
        module(z)
        assert (first[0] - extractor([0, 4, 2])[0]).abs().max() > 1e-3


def test_no_hook_outlives_it(z):
    module = nets.seeded(nets.Failing)
    before = nets.traces(module)
    with ours.GradCAM(module, "layer") as extractor:
        module(z)
        open_ = nets.traces(module)
        extractor(1)
        assert nets.traces(module) == open_
        module.fails = "after"
        with pytest.raises(FloatingPointError):
            extractor(1)
        assert nets.traces(module) == open_
    assert nets.traces(module) == before
    module.fails = None
    with pytest.raises(KeyError), ours.GradCAM(module, "layer"):
        raise KeyError
    assert nets.traces(module) == before
    for make in (lambda: ours.GradCAM(module, "laier"), lambda: ours.GradCAM(module, "layer", eps=1)):
        with pytest.raises(UnknownName):
            make()
    assert nets.traces(module) == before


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda e, m, z: e(1), InvalidInput, "Run the model on an input while"),
        (lambda e, m, z: e(1, m(z)[:2]), InvalidInput, "3 images. Got 2"),
        (lambda e, m, z: e(scores=m(z)), InvalidTarget, "Got none"),
        (lambda e, m, z: e(1, m(z), targets=lambda row: row[0]), InvalidTarget, "Got both"),
        (lambda e, m, z: e([1, 2], m(z)), InvalidTarget, "each of the 3 images. Got"),
        (lambda e, m, z: e(5, m(z)), InvalidTarget, "0 … 4"),
        (lambda e, m, z: e(-1, m(z)), InvalidTarget, "Got -1"),
        (lambda e, m, z: e(None, m(z), targets=[lambda row: row[0]]), InvalidTarget, "batch size, 3 images"),
        (lambda e, m, z: e.fuse_cams([]), InvalidInput, "at least one map"),
        (lambda e, m, z: ours.GradCAM(m, [nn.ReLU()]), LayerError, "part of Plain"),
        (lambda e, m, z: ours.GradCAM(m, ["two", m.two]), InvalidInput, "every layer once"),
        (lambda e, m, z: ours.RefineCAM(m, ["two"]), InvalidInput, "at least two"),
        (lambda e, m, z: ours.GradCAMplus, UnknownName, "Did you mean 'GradCAM"),
    ],
)
def test_what_cannot_be(call, error, said, z):
    module = nets.seeded(nets.Plain)
    with pytest.raises(error, match=said), ours.GradCAM(module, "two") as extractor:
        call(extractor, module, z)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("alpha", [0.7, 0.0])
def test_overlay_mask(mode, alpha):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)).convert(mode)
    mask = Image.fromarray(rng.random((5, 4)).astype(np.float32), mode="F")
    found, expected = (m.overlay_mask(image, mask, alpha=alpha) for m in (utils, peer_utils))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_overlay_of_a_map_in_bytes():
    """theirs squares bytes, which overflow: 16² is 0."""
    image, shares = Image.new("RGB", (8, 8)), np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    whole, bytes_ = Image.fromarray(shares, mode="F"), Image.fromarray((255 * shares).round().astype(np.uint8))
    a, b = (np.asarray(utils.overlay_mask(image, mask)).astype(int) for mask in (whole, bytes_))
    assert np.abs(a - b).max() <= 4
    theirs = np.asarray(peer_utils.overlay_mask(image, bytes_)).astype(int)
    assert np.abs(a - theirs).max() > 30
    with pytest.raises(InvalidInput, match="`alpha`"):
        utils.overlay_mask(image, whole, alpha=1.0)
    with pytest.raises(InvalidInput, match="`mask` must be a PIL image"):
        utils.overlay_mask(image, shares)
