"""Score-CAM beside pytorch-grad-cam 1.5.7 and torchcam 0.5.0.

Where layer and image are of one size nothing is resized, and all three agree. Elsewhere the peers' masks are others:
pytorch-grad-cam upsamples with the corners aligned (masks are off by up to half a cell at the border), and
torchcam scales to [0, 1] before it upsamples, so that its masks reach neither 0 nor 1. Each is shown to be just that.
"""

import contextlib
import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from heatproof.attributions import display_maps
from heatproof.attributions.scorecam import scorecam
from heatproof.models import wrap

from .. import nets
from ..attributions import reference_masks as slow

SIDE = 16
CLASSES = [0, 4, 2]


def shown(raw: np.ndarray | torch.Tensor) -> np.ndarray:
    return display_maps(torch.as_tensor(raw).float(), "cam", (SIDE, SIDE)).numpy()


def layer_output(module: nn.Module, layer: str, z: torch.Tensor) -> torch.Tensor:
    kept = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        module(z)
    handle.remove()
    return kept[0]


def ours(module: nn.Module, layer: str, x: torch.Tensor, z: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        raw = scorecam(layer_output(module, layer, z), x, z, slow.Selection(module, CLASSES[: len(x)]))
    return shown(raw)


def images(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = nets.images(count, SIDE)
    return x, wrap(nn.Identity(), size=SIDE).normalise(x)


def grad_cam(module: nn.Module, layer: str, z: torch.Tensor) -> tuple[np.ndarray, int]:
    """Its display maps, and how many outputs its hooks have kept at the end; it prints a progress bar."""
    peer = pytest.importorskip("pytorch_grad_cam")
    wanted = [peer.utils.model_targets.ClassifierOutputTarget(c) for c in CLASSES[: len(z)]]
    method = peer.ScoreCAM(model=module, target_layers=[module.get_submodule(layer)])
    with contextlib.redirect_stderr(io.StringIO()), method as cam:
        return cam(input_tensor=z, targets=wanted), len(cam.activations_and_grads.activations)


def torchcam(module: nn.Module, layer: str, z: torch.Tensor) -> np.ndarray:
    """Its maps at the layer's resolution, after the ReLU."""
    methods = pytest.importorskip("torchcam.methods")
    with methods.ScoreCAM(module, layer) as extractor, torch.no_grad():
        scores = module(z)
        return extractor(CLASSES[: len(z)], scores, normalized=False)[0].numpy()


def by_reference(module: nn.Module, layer: str, z: torch.Tensor, **options) -> np.ndarray:
    activations = layer_output(module, layer, z).double().numpy()
    double = copy.deepcopy(module)
    maps = []
    for i, target in enumerate(CLASSES[: len(z)]):
        image = z[i].double().numpy()
        maps.append(slow.scorecam(activations[i], image, np.zeros_like(image), slow.game_of(double, target), **options))
    return np.stack(maps)


# --- agreement ---


def test_all_agree_where_nothing_is_resized():
    module, (x, z) = nets.seeded(nets.Plain), images()
    found = ours(module, "one", x, z)
    assert found.max() == 1
    np.testing.assert_allclose(grad_cam(module, "one", z)[0], found, atol=1e-5)
    np.testing.assert_allclose(shown(torchcam(module, "one", z)), found, atol=1e-5)


@pytest.mark.parametrize("net", [nets.Plain, nets.Signed])
def test_pytorch_grad_cam_aligns_the_corners(net):
    module, (x, z) = nets.seeded(net), images()
    other, _ = grad_cam(module, "two", z)
    np.testing.assert_allclose(other, shown(by_reference(module, "two", z, aligned=True)), atol=1e-4)
    np.testing.assert_allclose(ours(module, "two", x, z), shown(by_reference(module, "two", z)), atol=1e-4)


@pytest.mark.parametrize("net", [nets.Plain, nets.Signed])
def test_torchcam_scales_before_it_upsamples(net):
    """So a mask of what it enlarges is within [0, 1] but does not fill it: the paper's alg. 1 normalises last."""
    module, z = nets.seeded(net), images()[1]
    other = torchcam(module, "two", z)
    activations = layer_output(module, "two", z).double().numpy()
    low, high = activations.min((2, 3), keepdims=True), activations.max((2, 3), keepdims=True)
    early = (activations - low) / np.where(high > low, high - low, 1)
    masks = np.stack([[slow.enlarged(channel, (SIDE, SIDE)) for channel in one] for one in early])
    reach = masks.max((2, 3)) - masks.min((2, 3))
    assert reach[reach > 0].min() < 0.95  # of 1
    expected, double = [], copy.deepcopy(module)
    for i, target in enumerate(CLASSES):
        game = slow.game_of(double, target)
        scores = np.array([game(z[i].double().numpy() * mask) for mask in masks[i]])
        weights = np.exp(scores - scores.max())
        expected.append(np.tensordot(weights / weights.sum(), activations[i], 1))
    np.testing.assert_allclose(other, np.maximum(expected, 0), rtol=1e-3, atol=1e-5)


# --- their defects, and what ours does ---


def test_a_layer_in_other_units_has_the_same_map():
    """The layer's output times 1e-8, the head's weights divided by it: the same function. Both peers add 1e-8 to the
    range of every channel, so their masks fade, the network sees nothing, and the map is the mean activation."""
    module, (x, z) = nets.seeded(nets.Plain), images()
    with torch.no_grad():
        module.head.weight.mul_(20)
    small = copy.deepcopy(module)
    with torch.no_grad():
        small.two[0].weight.mul_(1e-8), small.two[0].bias.mul_(1e-8), small.head.weight.div_(1e-8)
        torch.testing.assert_close(small(z), module(z), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours(small, "two", x, z), ours(module, "two", x, z), atol=1e-4)
    mean_map = shown(layer_output(module, "two", z).mean(1))
    for maps in (lambda net: grad_cam(net, "two", z)[0], lambda net: torchcam(net, "two", z)):
        one, other = (shown(found / found.max((1, 2), keepdims=True)) for found in (maps(module), maps(small)))
        assert np.abs(one - other).max() > 0.02
        assert np.abs(other - mean_map).mean() < np.abs(one - mean_map).mean()


def test_no_pass_is_kept_and_the_images_of_all_channels_are_never_one_tensor():
    """pytorch-grad-cam makes N × C × 3 × H × W at once, and its hooks keep the layer's output of every pass."""
    module, (x, z) = nets.seeded(lambda: nets.Plain(channels=100)), images(2)
    sizes: list[int] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.shape[-2:] == z.shape[-2:] and made.shape[-3] in (1, 3):
                sizes.append(made.numel())
            return made

    with Watch():
        _, kept = grad_cam(module, "two", z)
    assert max(sizes) >= z.numel() * 100
    assert kept == 1 + 2 * -(-100 // 16)
    sizes.clear()
    before = nets.traces(module)
    with Watch():
        ours(module, "two", x, z)
    assert max(sizes) == 64 * z[0].numel()  # one pass
    assert nets.traces(module) == before


def test_an_image_without_numbers_is_said():
    """torchcam sums what is not NaN, so its map of a broken image is zeros, as of an image without evidence."""
    module, (x, z) = nets.seeded(nets.Plain), images()
    z = z.clone()
    z[1] = float("nan")
    assert (torchcam(module, "two", z)[1] == 0).all()
    with torch.no_grad():
        found = scorecam(layer_output(module, "two", z), x, z, slow.Selection(module, CLASSES))
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()
