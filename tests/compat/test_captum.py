"""The same user code on Captum 0.9.0 and on heatproof's adapter gives the same attributions."""

import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.compat import captum as ours
from heatproof.errors import InvalidInput, InvalidTarget, NotApplicable, UnknownName

from .. import nets

peer = pytest.importorskip("captum.attr")

SIDE = 16


@pytest.fixture
def z():
    return 4 * nets.images(3, SIDE) - 2


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("target", [3, [0, 4, 2], torch.tensor([0, 4, 2]), torch.tensor(3), torch.tensor([3])])
@pytest.mark.parametrize("net", [nets.Plain, nets.Signed])
def test_layer_gradcam(net, target, relu, z):
    module = nets.seeded(net)
    before = nets.traces(module)
    found, expected = (
        library.LayerGradCam(module, module.two).attribute(z, target, relu_attributions=relu)
        for library in (ours, peer)
    )
    assert found.shape == (3, 1, 8, 8)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    assert nets.traces(module) == before


def test_tuples_and_one_output(z):
    module = nets.seeded(lambda: nets.Signed(classes=1))
    (found,), (expected,) = (
        library.LayerGradCam(module, module.two).attribute((z,), relu_attributions=True) if library is ours
        else (library.LayerGradCam(module, module.two).attribute((z,), relu_attributions=True),)
        for library in (ours, peer)
    )  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Saliency", {}),
        ("Saliency", {"abs": False}),
        ("InputXGradient", {}),
        ("GuidedBackprop", {}),
        ("Deconvolution", {}),
        ("IntegratedGradients", {"n_steps": 8}),
    ],
)
def test_attributions_of_the_input(name, options, z):
    methods = {"Saliency": "gradient", "InputXGradient": "input-x-gradient", "GuidedBackprop": "guided-backprop",
               "Deconvolution": "deconvnet", "IntegratedGradients": "integrated-gradients"}  # fmt: skip
    if methods[name] not in ATTRIBUTIONS:
        pytest.skip("not there yet")
    module = nets.seeded(nets.Plain)
    found = getattr(ours, name)(module).attribute(z, target=[0, 4, 2], **options)
    expected = getattr(peer, name)(module).attribute(z.clone().requires_grad_(), target=[0, 4, 2], **options)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-3)


def test_any_method_by_name(z):
    module = nets.seeded(nets.Signed)
    model = heatproof.wrap(module, mean=0.5, std=0.25, size=SIDE)
    x = nets.images(3, SIDE)
    for method, options in (("layercam", {}), ("eigencam", {"sign": "raw"}), ("random", {})):
        found = ours.Attribution(method, module, module.two, **options).attribute(z, 2)
        expected = heatproof.explain(model, x, {method: options}, 2, "two", raw=True)[method]
        assert found.shape == (3, 1, *expected.shape[1:])
        if method != "random":
            torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-4)
    assert ours.Attribution("gradcam", module).attribute(z).shape[:2] == (3, 1)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (lambda m, z: ours.LayerGradCam(m, nn.ReLU()), Exception, "part of Plain"),
        (lambda m, z: ours.LayerGradCam(lambda x: m(x), "two"), InvalidInput, "`model` must be a torch.nn.Module"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z, [1, 2]), InvalidTarget, "each of the 3 images"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z, 5), InvalidTarget, "0 … 4"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z, (1, 2, 3, 4)), InvalidTarget, "each of the 3 images"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute((z, z), 1), InvalidInput, "one input tensor. Got 2"),
        (
            lambda m, z: ours.LayerGradCam(m, "two").attribute(z, 1, attribute_to_layer_input=True),
            NotApplicable,
            "`attribute_to_layer_input` is not served",
        ),
        (
            lambda m, z: ours.LayerGradCam(m, "two").attribute(z, 1, attr_dim_summation=False),
            NotApplicable,
            "`attr_dim_summation` is not served",
        ),
        (lambda m, z: ours.Attribution("gradcan", m), UnknownName, "Did you mean 'gradcam'"),
        (lambda m, z: ours.Attribution("xgradcam", m, ep=1), UnknownName, "Did you mean 'eps'"),
        (lambda m, z: ours.Attribution("gradcam", m).attribute(z, 1, baselines=0), UnknownName, "option of 'gradcam'"),
    ],
)
def test_what_cannot_be(code, error, said, z):
    with pytest.raises(error, match=said):
        code(nets.seeded(nets.Plain), z)
