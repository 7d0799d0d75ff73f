"""pytorch-grad-cam 1.5.7: agreement where its formula is right, and what it does where it is not.

It rectifies, scales to [0, 1], resizes with OpenCV and scales again; ours rectifies, resizes and scales once. Both are
bilinear between pixel centres, so the maps compare as they are.
"""

import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.errors import InvalidTarget
from heatproof.models import wrap

from .. import nets
from ..attributions import reference

peer = pytest.importorskip("pytorch_grad_cam")
targets_module = pytest.importorskip("pytorch_grad_cam.utils.model_targets")

PAIRS = {
    "gradcam": "GradCAM",
    "gradcam++[compat=true]": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
}
SIDE = 16


def theirs(name: str, module: nn.Module, layer: str, z: torch.Tensor, classes: list[int], **options) -> np.ndarray:
    """The peer's display maps; it would print a progress bar."""
    wanted = [targets_module.ClassifierOutputTarget(c) for c in classes]
    with contextlib.redirect_stderr(io.StringIO()):
        method = getattr(peer, name)(model=module, target_layers=[module.get_submodule(layer)], **options)
        with method as cam:
            return cam(input_tensor=z, targets=wanted)


def turned_to(ours: torch.Tensor, other: np.ndarray) -> np.ndarray:
    """Each map or its negative, whichever correlates with the other."""
    return np.stack(
        [a * np.sign(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(ours.numpy(), other, strict=True)]
    )


def shown(raw: np.ndarray, side: int) -> np.ndarray:
    return heatproof.attributions.display_maps(torch.from_numpy(raw), "cam", (side, side)).numpy()


# --- agreement ---


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("net", "layer"), [(nets.Plain, "one"), (nets.Plain, "two"), (nets.Signed, "two")])
def test_gradient_cams_agree(name, net, layer):
    module, x, classes = nets.seeded(net), nets.images(3, SIDE), [0, 4, 2]
    model = wrap(module, size=SIDE)
    ours = heatproof.explain(model, x, name, classes, layer)
    other = theirs(PAIRS[name], module, layer, model.normalise(x), classes)
    assert ours.flags[name] == [""] * 3
    np.testing.assert_allclose(ours[name], other, atol=1e-4)


@pytest.mark.parametrize(("layer", "wide"), [("one", False), ("two", True)])
def test_eigencam_agrees_up_to_its_sign(layer, wide):
    """Places × channels: 256 × 6 at `one`, 16 × 40 at `two`."""
    module, x = nets.seeded(lambda: nets.Plain(channels=40)), nets.images(3, 8 if wide else SIDE)
    model = wrap(module, size=SIDE)
    raw = heatproof.explain(model, x, "eigencam[sign=raw]", layer=layer, raw=True)["eigencam[sign=raw]"]
    activations = torch.from_numpy(reference.quantities(module, model.normalise(x), layer, [0] * 3)[0]).float()
    projection = peer.utils.svd_on_activations.get_2d_projection(activations.numpy())
    np.testing.assert_allclose(turned_to(raw, projection), projection, rtol=1e-3, atol=1e-4)
    other = theirs("EigenCAM", module, layer, model.normalise(x), [0] * 3)
    np.testing.assert_allclose(shown(turned_to(raw, projection), x.shape[-1]), other, atol=1e-4)


@pytest.mark.parametrize(("net", "layer"), [(nets.Plain, "one"), (nets.Plain, "two")])
def test_ablationcam_agrees_where_the_logit_is_positive(net, layer):
    module, x = nets.seeded(net), nets.images(3, SIDE)
    model = wrap(module, size=SIDE)
    ours = heatproof.explain(model, x, "ablationcam", layer=layer)
    assert (ours.logits.amax(1) > 0).all()
    other = theirs("AblationCAM", module, layer, model.normalise(x), ours.target.tolist())
    np.testing.assert_allclose(ours["ablationcam"], other, atol=1e-4)


@pytest.fixture(scope="module")
def real(assets) -> tuple[heatproof.Model, torch.Tensor]:
    """MobileNetV2 and three photographs."""
    model = heatproof.load_model(
        "timm:mobilenetv2_100",
        assets / "models" / "mobilenetv2_100_imagenet.safetensors",
        {"pad_type": "same"},
        mean=0.5,
        std=0.5,
        device="cpu",
    )
    paths = sorted((assets / "images").glob("*.JPEG"))[10:40:10]
    return model, torch.stack([model.geometry.image(Image.open(path).convert("RGB")) for path in paths])


@pytest.mark.assets
def test_gradient_cams_agree_on_photographs(real):
    model, x = real
    ours = heatproof.explain(model, x, list(PAIRS))
    for name, other in PAIRS.items():
        expected = theirs(other, model.module, ours.layer, model.normalise(x), ours.target.tolist())
        np.testing.assert_allclose(ours[name], expected, atol=1e-4, err_msg=name)


@pytest.mark.assets
def test_eigencam_agrees_on_photographs_up_to_its_sign(real):
    model, x = real
    ours = heatproof.explain(model, x, "eigencam", raw=True)
    other = theirs("EigenCAM", model.module, ours.layer, model.normalise(x), ours.target.tolist())
    for one, expected in zip(ours["eigencam"], other, strict=True):
        errors = [np.abs(shown(sign * one[None].numpy(), 224)[0] - expected).max() for sign in (1, -1)]
        assert min(errors) < 1e-4


@pytest.mark.assets
@pytest.mark.slow
def test_ablationcam_agrees_on_a_photograph(real):
    """1280 whole forward passes of theirs."""
    model, x = real[0], real[1][:1]
    ours = heatproof.explain(model, x, "ablationcam")
    other = theirs("AblationCAM", model.module, ours.layer, model.normalise(x), ours.target.tolist())
    np.testing.assert_allclose(ours["ablationcam"], other, atol=1e-4)


# --- its defects (protocols, section 12), and what ours does ---


def test_too_few_targets_are_an_error_not_maps_of_zeros():
    module, x = nets.seeded(nets.Plain), nets.images(3, SIDE)
    model = wrap(module, size=SIDE)
    other = theirs("GradCAM", module, "two", model.normalise(x), [0])
    assert (other[0] > 0).any() and (other[1:] == 0).all()  # silently
    with pytest.raises(InvalidTarget, match=r"one target for each of the 3 images. Got \(1,\)"):
        heatproof.explain(model, x, "gradcam", [0], "two")


def test_no_hook_and_no_layer_of_ours_outlives_an_exception():
    """Theirs: the hooks stay until the object is collected, every later pass adds to its lists, and an exception in the
    middle of AblationCAM leaves its own layer in the user's model."""

    def module_that_fails_later() -> nn.Module:
        module = nets.Failing().eval()
        module.fails = "second pass"
        return module

    module = module_that_fails_later()
    cam = peer.AblationCAM(model=module, target_layers=[module.layer])
    with pytest.raises(FloatingPointError), contextlib.redirect_stderr(io.StringIO()):
        module.passes = -1  # the two plain passes succeed, the first ablated one fails
        cam(torch.rand(1, 3, SIDE, SIDE), [targets_module.ClassifierOutputTarget(0)])
    assert type(module.layer).__name__ == "AblationLayer"

    module = nets.Failing().eval()
    cam = peer.GradCAM(model=module, target_layers=[module.layer])
    module.fails = "after"
    with pytest.raises(FloatingPointError):
        cam(torch.rand(1, 3, SIDE, SIDE), None)
    assert len(module.layer._forward_hooks) == 2
    module.fails = None
    for _ in range(3):
        module(torch.rand(1, 3, SIDE, SIDE))
    assert len(cam.activations_and_grads.activations) == 4

    module = nets.Failing().eval()
    heatproof.explain(wrap(module, size=SIDE), nets.images(2, SIDE), "gradcam", layer="layer")  # the probe, once
    module.fails, module.passes = "second pass", 0
    before = nets.traces(module)
    with pytest.raises(FloatingPointError), pytest.warns(heatproof.errors.HeatproofWarning):
        heatproof.explain(wrap(module, size=SIDE), nets.images(2, SIDE), "ablationcam", layer="layer")
    assert nets.traces(module) == before


def test_the_object_does_not_vanish_from_eigencam():
    """A bright blob in 64 channels that all rise there. Theirs takes the sign that the solver happens to give, and its
    ReLU then removes the object: here in most of the cases, with other numbers of channels in few."""
    vanished = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        blob = torch.zeros(6, 6)
        blob[2:4, 2:4] = 1
        activations = blob * (1 + torch.rand(1, 64, 1, 1, generator=generator))
        activations = activations + 0.3 * torch.rand(1, 64, 6, 6, generator=generator)
        ours = heatproof.attributions.eigen.eigencam(activations)[0]
        assert float(ours[2:4, 2:4].min()) > 0
        vanished += float(peer.utils.svd_on_activations.get_2d_projection(activations.numpy())[0, 2:4, 2:4].max()) < 0
    assert vanished > 6


def test_ablationcam_keeps_its_side_where_the_logit_is_negative():
    module, x = nets.seeded(nets.Plain), nets.images(3, SIDE)
    model = wrap(module, size=SIDE)
    ours = heatproof.explain(model, x, ["ablationcam", "ablationcam[compat=true]"], "least", "one")
    assert (ours.logits.amin(1) < 0).all()
    other = theirs("AblationCAM", module, "one", model.normalise(x), ours.target.tolist())
    np.testing.assert_allclose(ours["ablationcam[compat=true]"], other, atol=1e-4)
    raw = heatproof.explain(model, x, "ablationcam", "least", "one", raw=True)["ablationcam"]
    np.testing.assert_allclose(other, shown(-raw.numpy(), SIDE), atol=1e-4)  # the map turned over
    assert np.abs(ours["ablationcam"].numpy() - other).max() > 0.5


def test_ablated_channels_are_zero_also_where_the_layer_is_signed():
    """Theirs sets a channel to the minimum less ten million, and the next one of the batch to the minimum of that."""
    module, x = nets.seeded(nets.Signed), nets.images(2, SIDE)
    model = wrap(module, size=SIDE)
    ours = heatproof.explain(model, x, "ablationcam", layer="two", raw=True)
    z, classes = model.normalise(x), ours.target.tolist()
    expected = reference.ablationcam(module, z, "two", classes)
    np.testing.assert_allclose(ours["ablationcam"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    layer = peer.ablation_layer.AblationLayer()
    layer.indices = np.arange(4)
    layer.activations = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    ablated = layer(None)
    values = [float(ablated[k, k].max()) for k in range(4)]
    np.testing.assert_allclose(values, [-1e7, -2e7, -3e7, -4e7], rtol=1e-5)
    other = theirs("AblationCAM", module, "two", z, classes)
    assert np.abs(shown(ours["ablationcam"].numpy(), SIDE) - other).max() > 0.5
