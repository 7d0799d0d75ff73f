"""Parity with Captum 0.9.0 where it is right, and its defects where it is not, each with its evidence."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import heatproof
from heatproof.attributions import backprop, relevance
from heatproof.attributions import input_gradients as methods
from heatproof.models import wrap

from .. import nets

captum = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SIDE = 16
TARGET = torch.tensor([1, 3, 0])
TARGETS = nets.of_target(TARGET)


class Chain(nn.Module):
    """What Captum is made for: modules only, each used once, max pools that do not overlap nor touch a ReLU."""

    def __init__(self, act=nn.ReLU, pool: int = 2):
        super().__init__()
        self.body = nn.Sequential(
            *[nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(pool, 2), nn.BatchNorm2d(6), act()],
            *[nn.Conv2d(6, 8, 3, padding=1), act(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)],
        )
        self.hidden, self.act, self.head = nn.Linear(32, 9), act(), nn.Linear(9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.hidden(self.body(x).flatten(1))))


def chain(**settings) -> nn.Module:
    return nets.told_apart(nets.seeded(lambda: Chain(**settings)), SIDE).requires_grad_(False)


def x_of(count: int = 3) -> torch.Tensor:
    return nets.images(count, SIDE)


def z_of(count: int = 3) -> torch.Tensor:
    return 2 * x_of(count) - 1


def seeds(count: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + i) for i in range(count)]


def same(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    theirs = theirs.detach()
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=tolerance * float(theirs.abs().max()))


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((ours - theirs.detach()).abs().max() / theirs.detach().abs().max())


# --- agreement ---


@pytest.mark.parametrize(
    "net", [chain, lambda: nets.seeded(nets.Signed).requires_grad_(False)], ids=["chain", "signed"]
)
def test_gradients_agree(net):
    module, z, x = net(), z_of(), x_of()
    same(
        methods.gradient(methods.gradient_at(module, z, TARGET)),
        captum.Saliency(module).attribute(z, TARGET, abs=False),
    )
    same(
        methods.input_x_gradient(z, methods.gradient_at(module, z, TARGET)),
        captum.InputXGradient(module).attribute(z, TARGET),
    )
    peer = captum.IntegratedGradients(module)
    same(methods.integrated_gradients(x, z, module, TARGET, module(z)), peer.attribute(z, target=TARGET))
    black = peer.attribute(z, baselines=-1, target=TARGET, n_steps=7)
    same(methods.integrated_gradients(x, z, module, TARGET, module(z), steps=7, baseline="black"), black)


def test_smoothgrad_agrees_on_the_same_noise(monkeypatch):
    """Captum draws from the global generator, for all images at once: it is handed our draws."""
    module, z = chain(), z_of()
    spreads = 0.15 * (z.flatten(1).amax(1) - z.flatten(1).amin(1))
    noise = torch.stack([torch.stack([torch.randn(z[0].shape, generator=one) for _ in range(4)]) for one in seeds()])
    drawn = (spreads[:, None, None, None, None] * noise).flatten(0, 1)
    monkeypatch.setattr(torch, "normal", lambda *_: drawn)
    peer = captum.NoiseTunnel(captum.Saliency(module))
    theirs = peer.attribute(z, nt_type="smoothgrad", nt_samples=4, stdevs=1.0, target=TARGET, abs=False)
    same(methods.smoothgrad(z, module, TARGET, seeds(), samples=4), theirs)


def test_gradientshap_agrees_on_the_same_points(monkeypatch):
    module, z = chain(), z_of()
    alphas = np.array([[float(torch.rand((), generator=one)) for _ in range(4)] for one in seeds()]).ravel()
    monkeypatch.setattr(np.random, "uniform", lambda *_: alphas)
    theirs = captum.GradientShap(module).attribute(z, baselines=0 * z[:1], n_samples=4, stdevs=0.0, target=TARGET)
    same(methods.gradientshap(x_of(), z, module, TARGET, seeds(), samples=4), theirs)


PEERS = {
    "guided-backprop": (backprop.guided_backprop, "GuidedBackprop"),
    "deconvnet": (backprop.deconvnet, "Deconvolution"),
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("pool", [2, 3])
def test_rectifier_rules_are_equal_on_relu_modules(name, pool):
    module, z = chain(pool=pool), z_of()
    ours, theirs = PEERS[name][0](z, module, TARGETS), getattr(captum, PEERS[name][1])(module).attribute(z, TARGET)
    assert torch.equal(ours, theirs)
    assert apart(ours, methods.gradient(methods.gradient_at(module, z, TARGET))) > 0.1


def test_guided_gradcam_agrees():
    """Captum upsamples with `nearest` unless told otherwise."""
    module = chain()
    model, x = wrap(module, size=SIDE, layer="body.5"), x_of()
    ours = heatproof.explain(model, x, "guided-gradcam", TARGET, raw=True)["guided-gradcam"]
    peer = captum.GuidedGradCam(module, module.body[5])
    same(ours, peer.attribute(model.normalise(x), TARGET, interpolate_mode="bilinear"))


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Softplus])
def test_deeplift_agrees_where_every_module_runs_once(act):
    """In float64: in float32 theirs divides differences that are all rounding."""
    module, z, x = chain(act=act).double(), z_of().double(), x_of().double()
    peer = captum.DeepLift(copy.deepcopy(module))
    same(relevance.deeplift(x, z, module, module, TARGETS), peer.attribute(z, target=TARGET), 1e-6)
    black = peer.attribute(z, baselines=-torch.ones_like(z), target=TARGET)
    same(relevance.deeplift(x, z, module, module, TARGETS, baseline="black"), black, 1e-6)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("pool", [2, 3])
def test_lrp_agrees_where_every_module_runs_once(act, pool):
    module, z = chain(act=act, pool=pool), z_of()
    theirs = captum.LRP(copy.deepcopy(module)).attribute(z, TARGET).sum(1)
    same(relevance.lrp(z, module, TARGETS), theirs, 1e-4)


# --- its defects, and what ours does ---


class Functional(nn.Module):
    """A network with ReLU6, or with ReLU as a function."""

    def __init__(self, relu):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Linear(8, 5)
        self.relu = relu
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.two(self.relu(self.one(x)))).mean((2, 3)))


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("relu", [F.relu, nn.ReLU6(), torch.relu], ids=["F.relu", "ReLU6", "torch.relu"])
def test_guided_rules_hold_for_functions_and_relu6(name, relu):
    """Theirs: the plain gradient, bit for bit, and not a word. ReLU6 is what MobileNetV2 is made of."""
    net, z = Functional(relu).eval(), z_of()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        theirs = getattr(captum, PEERS[name][1])(net).attribute(z.clone(), TARGET)
    assert torch.equal(theirs, methods.gradient(methods.gradient_at(net, z, TARGET)))
    assert not any("ReLU6" in str(one.message) or "functional" in str(one.message) for one in said)
    right = getattr(captum, PEERS[name][1])(Functional(nn.ReLU()).eval()).attribute(z.clone(), TARGET)
    same(PEERS[name][0](z, net, TARGETS), right)  # nothing reaches 6 here
    assert apart(theirs, right) > 0.3


def test_deeplift_of_overlapping_max_pools_adds_up():
    """Theirs writes the shares of windows that have the same winner over each other (`max_unpool`)."""
    module, z = chain(pool=3), z_of()
    expected = (module(z) - module(0 * z)).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(
        relevance.deeplift(x_of(), z, module, module, TARGETS).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-4
    )
    theirs = captum.DeepLift(copy.deepcopy(module)).attribute(z, target=TARGET).sum((1, 2, 3))
    assert float(((theirs - expected) / expected).abs().max()) > 0.05


def test_deeplift_of_a_max_pool_after_a_relu_adds_up():
    """Theirs loses the rule of the pool: the ReLU's hook on the tensor between them sees the gradient before the pool's
    hook replaces it. With a baseline that is the same all over, the sum hides it; VGG is built like this."""
    net = once(lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    z, x = z_of(), x_of()
    start = heatproof.masking.ground("blur", x, z)
    expected = (net(z) - net(start)).gather(1, TARGET[:, None])[:, 0]
    ours = relevance.deeplift(x, z, net, net, TARGETS, baseline="blur").sum((1, 2, 3))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    theirs = captum.DeepLift(copy.deepcopy(net)).attribute(z, baselines=start, target=TARGET).sum((1, 2, 3))
    assert float(((theirs - expected) / expected).abs().max()) > 0.05


def test_deeplift_serves_functions_relu6_and_a_module_used_twice():
    """Theirs: functions and ReLU6 are taken for linear, silently; a module used twice is an error in the middle."""
    z = 9 * z_of()
    for relu in (F.relu, nn.ReLU6()):
        net = Functional(relu).eval()
        expected = (net(z) - net(0 * z)).gather(1, TARGET[:, None])[:, 0]
        theirs = captum.DeepLift(net).attribute(z.clone(), target=TARGET)
        same(methods.input_x_gradient(z, methods.gradient_at(net, z, TARGET)), theirs)
        assert float(((theirs.sum((1, 2, 3)) - expected) / expected).abs().max()) > 0.05
        torch.testing.assert_close(
            relevance.deeplift(z, z, net, net, TARGETS).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-4
        )
    twice = Functional(nn.ReLU()).eval()
    with pytest.raises(RuntimeError, match="more than once"):
        captum.DeepLift(twice).attribute(z.clone(), target=TARGET)
    expected = (twice(z) - twice(0 * z)).gather(1, TARGET[:, None])[:, 0]
    ours = relevance.deeplift(z, z, Functional(nn.ReLU()).eval(), Functional(nn.ReLU()).eval(), TARGETS)
    torch.testing.assert_close(ours.sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-4)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one = (nn.Conv2d(c, 6, 3, padding=1, bias=False) for c in (3, 6))
        self.relu, self.last, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(6, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        return self.head(self.last(self.one(x) + x).mean((2, 3)))


def test_lrp_of_a_residual_sum_is_conserved():
    """No bias takes a share here. Theirs hands what is a relevance to one branch of a functional sum, and what is a
    relevance over an activation to the other, and adds them."""
    net, z = nets.seeded(Residual).requires_grad_(False), z_of()
    expected = net(z).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(relevance.lrp(z, net, TARGETS).sum((1, 2)), expected, rtol=1e-4, atol=1e-5)
    theirs = captum.LRP(copy.deepcopy(net)).attribute(z, TARGET).sum((1, 2, 3))
    assert float(((theirs - expected) / expected).abs().min()) > 0.1


def test_lrp_serves_relu6_and_leaves_no_attribute():
    """Theirs refuses ReLU6 (a TypeError in the middle, rules left behind), and leaves activations where it succeeds."""
    net, z = Functional(nn.ReLU6()).eval(), z_of()
    with pytest.raises(TypeError, match="no rule"):
        captum.LRP(net).attribute(z, TARGET)
    assert any("rule" in vars(part) for part in net.modules())
    module = chain()
    names = [sorted(vars(part)) for part in module.modules()]
    relevance.lrp(z, module, TARGETS), relevance.deeplift(x_of(), z, module, module, TARGETS)
    assert [sorted(vars(part)) for part in module.modules()] == names
    captum.LRP(module).attribute(z, TARGET)
    assert any("activations" in vars(part) for part in module.modules())
    expected = captum.LRP(once(nn.ReLU)).attribute(z, TARGET).sum(1)
    same(relevance.lrp(z, once(nn.ReLU6), TARGETS), expected, 1e-4)  # nothing reaches 6 here


def test_an_exception_leaves_no_activations_in_the_modules():
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise FloatingPointError

    net, z = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), Fails()).eval().requires_grad_(False), z_of()
    names = [sorted(vars(part)) for part in net.modules()]
    with pytest.raises(FloatingPointError):
        relevance.deeplift(x_of(), z, net, net, TARGETS)
    assert [sorted(vars(part)) for part in net.modules()] == names
    with pytest.raises(FloatingPointError):
        captum.DeepLift(net).attribute(z, target=TARGET)
    assert isinstance(net[1].input, torch.Tensor)  # theirs: for as long as the network lives


def once(act) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), act(), nn.Conv2d(6, 8, 3), act(), nn.AdaptiveAvgPool2d(1)]

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(*layers), nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x).flatten(1))

    return Once().eval().requires_grad_(False)


def test_noise_does_not_depend_on_the_neighbours_or_the_global_generator():
    """Theirs draws for all images at once: a map depends on its place in the batch, and a global state moves."""
    module, z = chain(), z_of()
    peer = captum.NoiseTunnel(captum.Saliency(module))

    def theirs(batch: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return peer.attribute(batch, nt_samples=4, stdevs=0.3, target=target, abs=False)

    assert apart(theirs(z, TARGET)[1:2], theirs(z[1:2], TARGET[1:2])) > 0.1
    state = torch.get_rng_state()
    together = methods.smoothgrad(z, module, TARGET, seeds(), samples=4)
    alone = methods.smoothgrad(z[1:2], module, TARGET[1:2], seeds()[1:2], samples=4)
    torch.testing.assert_close(together[1:2], alone)
    assert torch.equal(torch.get_rng_state(), state)
