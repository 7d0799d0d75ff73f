"""pytorch-grad-cam 1.5.7 and torchcam 0.5.0, the rest of the CAM family and FullGrad: agreement, and their defects."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import heatproof
from heatproof.attributions import eigen
from heatproof.models import Model, wrap

from .. import nets
from ..attributions import reference

peer = pytest.importorskip("pytorch_grad_cam")
targets_module = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
svd = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
timm = pytest.importorskip("timm")

SIDE, CLASSES = 16, [0, 4, 2]
NETS = [(nets.Plain, "one"), (nets.Plain, "two"), (nets.Signed, "two")]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """It prints progress, and a warning of its own."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def theirs(
    name: str, module: nn.Module, layer: str, z: torch.Tensor, classes: list[int], wanted: Any = None, **options
):
    """The peer's display maps."""
    wanted = wanted or targets_module.ClassifierOutputTarget
    with quiet(), getattr(peer, name)(module, [module.get_submodule(layer)] if layer else [], **options) as method:
        return method(z, [wanted(c) for c in classes])


def ours(model: Model, x: torch.Tensor, name: str, layer: str = "auto", target: Any = tuple(CLASSES), **options):
    return heatproof.explain(model, x, name, target if isinstance(target, str) else list(target), layer, **options)[
        name
    ]


def made(net: Any) -> tuple[nn.Module, Model, torch.Tensor, torch.Tensor]:
    module, x = nets.seeded(net), nets.images(3, SIDE)
    model = wrap(module, size=SIDE)
    return module, model, x, model.normalise(x)


def shown(raw: torch.Tensor, side: int = SIDE) -> np.ndarray:
    return heatproof.attributions.display_maps(raw, "cam", (side, side)).numpy()


# --- agreement ---


@pytest.mark.parametrize(("net", "layer"), NETS)
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("gradcam-elementwise", "GradCAMElementWise"),
        ("fem[compat=true]", "FEM"),
        ("shapleycam[utility=logit]", "ShapleyCAM"),
    ],
)
def test_maps_agree(name, other, net, layer):
    module, model, x, z = made(net)
    np.testing.assert_allclose(ours(model, x, name, layer), theirs(other, module, layer, z, CLASSES), atol=1e-4)


@pytest.mark.parametrize(("net", "layer"), NETS)
def test_shapleycam_agrees_with_the_papers_utility_too(net, layer):
    """Its default target is the logit; the paper's is `ClassifierOutputReST`, and ours by default."""
    module, model, x, z = made(net)
    other = theirs("ShapleyCAM", module, layer, z, CLASSES, targets_module.ClassifierOutputReST)
    np.testing.assert_allclose(ours(model, x, "shapleycam", layer), other, atol=1e-4)
    if net is nets.Signed:
        logit = theirs("ShapleyCAM", module, layer, z, CLASSES)
        assert np.abs(other - logit).max() > 0.01


@pytest.mark.parametrize(("net", "layer"), NETS)
@pytest.mark.parametrize(("name", "other"), [("eigengradcam", "EigenGradCAM"), ("kpcacam", "KPCA_CAM")])
def test_principal_components_agree_up_to_their_sign(name, other, net, layer):
    module, model, x, z = made(net)
    raw = ours(model, x, name, layer, raw=True)
    for one, expected in zip(raw, theirs(other, module, layer, z, CLASSES), strict=True):
        assert min(np.abs(shown(sign * one[None])[0] - expected).max() for sign in (1, -1)) < 1e-4


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "linear"])
def test_kernel_components_agree_before_the_display(kernel):
    activations = torch.randn(2, 5, 17, 13, generator=torch.Generator().manual_seed(0))  # 221 positions: Lanczos there
    expected = svd.get_2d_projection_kernel(activations.numpy(), kernel, None)
    for one, other in zip(eigen.kpcacam(activations, kernel=kernel).numpy(), expected, strict=True):
        turned = one * np.sign((one * other).sum())
        np.testing.assert_allclose(turned, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(("net", "layer"), NETS)
@pytest.mark.parametrize(("alpha", "comparisons"), [(0.6, 3), (1.0, 1)])
def test_finercam_agrees_when_its_weights_are_differentiated_too(net, layer, alpha, comparisons):
    module, model, x, z = made(net)
    with quiet():
        found = peer.FinerCAM(module, [module.get_submodule(layer)])
        other = found(z, None, alpha=alpha, comparison_categories=list(range(1, 1 + comparisons)))
    name = f"finercam[compat=true,alpha={alpha},comparisons={comparisons}]"
    np.testing.assert_allclose(ours(model, x, name, layer, "predicted"), other, atol=1e-4)


class Biased(nets.Plain):
    """Gradients large enough for the peer's epsilon, and norms with statistics."""

    def __init__(self):
        super().__init__()
        norm = self.one[1]
        with torch.no_grad():
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
            self.head.weight.mul_(1e4)


def test_fullgrad_agrees_on_a_relu_network():
    """Of convolutions and batch norms, in the order in which they were made, with gradients far above 1e-7."""
    module, model, x, z = made(Biased)
    other = theirs("FullGrad", module, "", z, CLASSES)
    np.testing.assert_allclose(ours(model, x, "fullgrad"), other, atol=1e-4)


@pytest.mark.parametrize("target", [CLASSES, [1, 1, 3]])
def test_torchcams_cam_agrees(target):
    methods = pytest.importorskip("torchcam.methods")
    module, model, x, z = made(nets.Plain)
    with methods.CAM(module, "two", "head") as extractor:
        other = extractor(target, module(z), normalized=False)[0].detach().numpy()
    found = ours(model, x, "cam", "two", target, raw=True)
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5 * other.max())
    # Its page has a ReLU around the sum; its code has none, so its min-max shows what speaks against the class.
    assert other.min() < -0.01 and other.max() > 0


# --- defects, and what ours does ---


def test_torchcams_cam_does_not_ask_whether_the_head_is_linear():
    """A gate between the pooling and the classifier: theirs gives a map all the same."""
    methods = pytest.importorskip("torchcam.methods")

    class Gated(nets.Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(5 * self.two(self.one(x)).mean((2, 3))))

    module, model, x, z = made(Gated)
    with methods.CAM(module, "two", "head") as extractor:
        assert extractor(CLASSES, module(z))[0].isfinite().all()
    with pytest.raises(heatproof.errors.NotApplicable, match="not a linear layer on the average"):
        ours(model, x, "cam", "two")


def test_fem_weights_masks_by_means_as_its_paper_does():
    """Theirs weights the activations by how large a part of the masks is set, and draws no mask."""
    module, model, x, z = made(nets.Plain)
    activations = reference.quantities(module, z, "one", CLASSES)[0]
    masks = activations > activations.mean((2, 3), keepdims=True) + 2 * activations.std((2, 3), keepdims=True)
    paper = (masks * activations.mean((2, 3), keepdims=True)).sum(1)
    found = ours(model, x, "fem", "one", raw=True).numpy()
    np.testing.assert_allclose(found, paper, atol=1e-5)
    assert np.abs(shown(torch.from_numpy(paper).float()) - theirs("FEM", module, "one", z, CLASSES)).max() > 0.3


def test_the_weights_of_finercam_are_weights():
    """Theirs sends gradient through the probabilities that weigh the compared classes."""
    _, model, x, _ = made(nets.Plain)
    fixed, moving = (ours(model, x, name, "one", "predicted") for name in ("finercam", "finercam[compat=true]"))
    assert float((fixed - moving).abs().max()) > 0.01


def test_the_object_does_not_vanish_from_eigengradcam():
    """As in EigenCAM: the solver's sign is arbitrary, and the ReLU then takes away what speaks for the class."""
    vanished = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        blob = torch.zeros(6, 6)
        blob[2:4, 2:4] = 1
        activations = blob * (1 + torch.rand(1, 64, 1, 1, generator=generator))
        activations = activations + 0.3 * torch.rand(1, 64, 6, 6, generator=generator)
        gradients = 0.1 + torch.rand(1, 64, 6, 6, generator=generator)
        assert float(eigen.eigengradcam(activations, gradients)[0, 2:4, 2:4].min()) > 0
        assert float(eigen.kpcacam(activations)[0, 2:4, 2:4].min()) > 0
        vanished += float(svd.get_2d_projection((activations * gradients).numpy())[0, 2:4, 2:4].max()) < 0
    assert vanished > 3


def test_kpcacam_leaves_the_global_generator_alone():
    """Theirs starts its solver from numpy's global generator where there are more than 200 positions."""
    activations = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def state() -> list[int]:
        found = np.random.get_state()
        return [*map(int, found[1]), int(found[2])]

    before = state()
    assert torch.equal(eigen.kpcacam(activations), eigen.kpcacam(activations))
    assert state() == before
    svd.get_2d_projection_kernel(activations.numpy())
    assert state() != before


class Reversed(nn.Module):
    """Two convolutions of one shape, made in one order and run in the other."""

    def __init__(self):
        super().__init__()
        self.late, self.early = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.stem, self.head = nn.Conv2d(3, 4, 1, bias=False), nn.Linear(4, 5)
        with torch.no_grad():
            self.late.bias.fill_(2.0), self.early.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]))
            self.head.weight.mul_(1e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.late(F.relu(self.early(self.stem(x))))).mean((2, 3)))


def test_fullgrad_pairs_every_bias_with_its_own_gradient():
    """Theirs takes the n-th bias made and the n-th gradient to arrive; a layer that runs twice is an assertion."""
    module, model, x, z = made(Reversed)
    wrong = theirs("FullGrad", module, "", z, CLASSES)
    found = ours(model, x, "fullgrad").numpy()
    module._modules = {name: module._modules[name] for name in ("stem", "early", "late", "head")}
    right = theirs("FullGrad", module, "", z, CLASSES)
    np.testing.assert_allclose(found, right, atol=1e-4)
    assert np.abs(wrong - right).max() > 0.05
    module, model, x, z = made(nets.Shared)
    with pytest.raises(AssertionError):
        theirs("FullGrad", module, "", z, CLASSES)
    assert heatproof.explain(model, x, "fullgrad", CLASSES).flags["fullgrad"] == [""] * 3


def test_fullgrad_sees_norms_of_any_class():
    """timm's norms are subclasses, with an activation inside: theirs finds no bias in the whole network, and what is
    left is the gradient times the input."""
    torch.manual_seed(0)
    module = nets.told_apart(timm.create_model("mobilenetv2_100", num_classes=5), 32)
    with quiet():
        method = peer.FullGrad(module, [])
    assert method.bias_data == []
    x = nets.images(1, 32)
    model = wrap(module, size=32)
    with torch.no_grad():
        module.classifier.weight.mul_(1e4)
    z = model.normalise(x)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(leaf)[0, 2], leaf)
    share = (gradient * z).abs()[0]
    span = share.amax((1, 2), keepdim=True) - share.amin((1, 2), keepdim=True)
    alone = ((share - share.amin((1, 2), keepdim=True)) / span).sum(0)
    alone = ((alone - alone.min()) / (alone.max() - alone.min())).numpy()
    np.testing.assert_allclose(theirs("FullGrad", module, "", z, [2])[0], alone, atol=1e-3)
    assert np.abs(ours(model, x, "fullgrad", target=[2])[0].numpy() - alone).max() > 0.2


def test_fullgrad_does_not_depend_on_the_size_of_the_gradients():
    """Theirs adds 1e-7 to each channel's maximum, so that shares of small gradients fade: here of a thousandth."""
    maps, other = [], []
    for size in (1.0, 1e-8):
        module, model, x, z = made(Biased)
        with torch.no_grad():
            module.head.weight.mul_(size)
        maps.append(ours(model, x, "fullgrad").numpy())
        other.append(theirs("FullGrad", module, "", z, CLASSES))
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)
    assert np.abs(other[0] - other[1]).max() > 0.02


def test_fullgrad_counts_the_biases_of_what_is_curved():
    """Of a ReLU6 that cuts off, six; theirs, and the authors', have no such share and are not complete."""

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.six, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6(), nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.six(40 * self.conv(x)).mean((2, 3)))

    module, model, x, z = made(Cut)
    leaf = z.clone().requires_grad_()
    features = module.conv(leaf)
    output = module.head(module.six(40 * features).mean((2, 3)))[:, 1]
    slopes = torch.autograd.grad(output.sum(), [leaf, features])
    total = (slopes[0] * z).flatten(1).sum(1) + (slopes[1] * module.conv.bias[:, None, None]).flatten(1).sum(1)
    missing = (output - module.head.bias[1] - total).detach().abs()
    assert float(missing.min()) > 0.1 * float(output.detach().abs().max())
    found, other = ours(model, x, "fullgrad").numpy(), theirs("FullGrad", module, "", z, CLASSES)
    assert np.abs(found - other).max() > 0.1
