"""The same user code on Captum 0.9.0 and on `heatproof.compat.captum` gives the same numbers."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from heatproof.compat import captum as ours

from .. import nets

peer = pytest.importorskip("captum.attr")
peer_metrics = pytest.importorskip("captum.metrics")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SIDE = 8
TARGET = [0, 4, 2]
THEIRS = SimpleNamespace(**{name: getattr(peer, name) for name in peer.__all__}, **vars(peer_metrics))
MASK = torch.arange(SIDE**2).reshape(1, 1, SIDE, SIDE).div(13, rounding_mode="floor")


class Chain(nn.Module):
    """Modules only, each used once, and a max pool that does not overlap: what Captum's rules are made for."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU())
        self.relu, self.two = nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.relu(self.two(self.body(x)))).flatten(1))


@pytest.fixture(scope="module")
def net():
    return nets.told_apart(nets.seeded(Chain), SIDE)


X, B = 4 * nets.images(3, SIDE) - 2, nets.images(3, SIDE, seed=5)


def ig(library, net, **more):
    return library.IntegratedGradients(net).attribute(X, target=TARGET, n_steps=5, **more)


def tunnel(library, net, kind, **more):
    torch.manual_seed(3)
    return library.NoiseTunnel(library.Saliency(net)).attribute(
        X, nt_type=kind, nt_samples=5, nt_samples_batch_size=2, stdevs=0.3, target=TARGET, **more
    )


def changed(z, *_):
    change = 0.1 * torch.cos(torch.arange(z.numel()).reshape(z.shape) * 1.0)
    return change, z - change


CASES = {
    "IG, tensor": lambda c, m: ig(c, m, baselines=B, return_convergence_delta=True),
    "IG, one row": lambda c, m: ig(c, m, baselines=B[:1], internal_batch_size=4),
    "IG, number": lambda c, m: ig(c, m, baselines=0.5),
    "IG, left": lambda c, m: ig(c, m, method="riemann_left"),
    "IG, middle": lambda c, m: ig(c, m, method="riemann_middle"),
    "IG, right": lambda c, m: ig(c, m, method="riemann_right"),
    "IG, function of two": lambda c, m: c.IntegratedGradients(lambda a, b, k: m(a) + k * m(b)).attribute(
        (X, B), (0, 0.5), TARGET, additional_forward_args=2, n_steps=3
    ),
    "IG, not multiplied": lambda c, m: c.IntegratedGradients(m, False).attribute((X,), target=(1,), n_steps=3),
    "DeepLift": lambda c, m: c.DeepLift(m).attribute(X, B, TARGET),
    "DeepLift, number": lambda c, m: c.DeepLift(m, multiply_by_inputs=False).attribute(X, 0.25, TARGET),
    "DeepLiftShap": lambda c, m: c.DeepLiftShap(m).attribute(X, B[:2], TARGET),
    "Occlusion": lambda c, m: c.Occlusion(m).attribute(
        X, (3, 3, 4), (3, 2, 3), B, target=TARGET, perturbations_per_eval=3
    ),
    "Occlusion, function": lambda c, m: c.Occlusion(lambda z: m(z).softmax(1)[:, 1]).attribute(X, (3, 4, 4), 3),
    "FeatureAblation": lambda c, m: c.FeatureAblation(m).attribute(X, B, TARGET, feature_mask=MASK),
    "LRP": lambda c, m: c.LRP(m).attribute(X, TARGET, return_convergence_delta=True),
    "GuidedGradCam": lambda c, m: c.GuidedGradCam(m, m.two).attribute(X, TARGET, interpolate_mode="bilinear"),
    "LayerActivation": lambda c, m: c.LayerActivation(m, [m.two, m.relu]).attribute(X, attribute_to_layer_input=True),
    "LayerGradientXActivation": lambda c, m: c.LayerGradientXActivation(m, m.two).attribute(X, TARGET),
    "LayerIntegratedGradients": lambda c, m: c.LayerIntegratedGradients(m, m.two).attribute(
        X, B, TARGET, n_steps=5, return_convergence_delta=True
    ),
    "LayerGradCam, channels": lambda c, m: c.LayerGradCam(m, m.two).attribute(X, TARGET, attr_dim_summation=False),
    "LayerGradCam, input": lambda c, m: c.LayerGradCam(m, m.relu).attribute(X, TARGET, attribute_to_layer_input=True),
    "interpolate": lambda c, m: c.LayerAttribution.interpolate(X, (5, 7), "bilinear"),
    "smoothgrad": lambda c, m: tunnel(c, m, "smoothgrad"),
    "smoothgrad_sq": lambda c, m: tunnel(c, m, "smoothgrad_sq"),
    "vargrad": lambda c, m: tunnel(c, m, "vargrad", abs=False),
    "NoiseTunnel, delta": lambda c, m: (
        torch.manual_seed(3),
        c.NoiseTunnel(c.IntegratedGradients(m)).attribute(
            X, nt_samples=2, stdevs=0.3, target=TARGET, baselines=B, n_steps=3, return_convergence_delta=True
        ),
    )[1],
    "their NoiseTunnel": lambda c, m: (
        torch.manual_seed(1),
        peer.NoiseTunnel(c.IntegratedGradients(m)).attribute(
            X, nt_samples=2, target=TARGET, n_steps=3, return_convergence_delta=True
        ),
    )[1],
    "Lime": lambda c, m: (
        torch.manual_seed(3),
        c.Lime(m).attribute(X[:1], B[:1], 1, feature_mask=MASK, n_samples=60, perturbations_per_eval=7),
    )[1],
    "infidelity": lambda c, m: c.infidelity(m, changed, X, 0.1 * X, target=TARGET, n_perturb_samples=3),
    "infidelity, scaled": lambda c, m: c.infidelity(m, changed, X, X, target=TARGET, normalize=True),
    "infidelity, decorated": lambda c, m: c.infidelity(
        m, c.infidelity_perturb_func_decorator(True)(lambda z, b: 0.3 * z + 0.7 * b), X, X, B, target=TARGET
    ),
    "sensitivity_max": lambda c, m: c.sensitivity_max(
        c.Saliency(m).attribute, X, lambda z: changed(z)[1], target=TARGET, norm_ord=1
    ),
    "sensitivity_max, default": lambda c, m: (
        torch.manual_seed(1),
        c.sensitivity_max(c.IntegratedGradients(m).attribute, X, target=TARGET, n_steps=3, n_perturb_samples=2),
    )[1],
}


def flat(found):
    return [one for part in found for one in flat(part)] if isinstance(found, tuple | list) else [found.detach()]


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_captum(case, net):
    before = nets.traces(net)
    found, expected = (CASES[case](library, net) for library in (ours, THEIRS))
    assert type(found) is type(expected)
    assert nets.traces(net) == before
    for one, other in zip(flat(found), flat(expected), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1e-3, float(other.abs().max())))


def test_kernel_shap_estimates_the_values_of_captum(net):
    given = {"feature_mask": MASK, "n_samples": 1200, "perturbations_per_eval": 60, "return_input_shape": False}
    values = []
    for library in (ours, peer):
        torch.manual_seed(0)
        values.append(library.KernelShap(net).attribute(X[:1], B[:1], 0, **given))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0.15 * float(values[1].abs().max()))


def test_their_trapezoid_is_too_small(net):
    """Captum divides by the number of points, not of intervals: the weights sum to (n − 1) / n."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 1))
    found, expected = (
        library.IntegratedGradients(linear).attribute(X, n_steps=5, method="riemann_trapezoid")
        for library in (ours, peer)
    )
    torch.testing.assert_close(expected, 0.8 * found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum((1, 2, 3)), (linear(X) - linear(0 * X))[:, 0], rtol=1e-4, atol=1e-5)


def test_attributions_of_deep_lift_are_complete(net):
    """They sum to the change of the output, to rounding."""
    for name in ("DeepLift", "DeepLiftShap"):
        _, delta = getattr(ours, name)(net).attribute(X, B, TARGET, return_convergence_delta=True)
        assert delta.shape == ((3,) if name == "DeepLift" else (9,))
        assert delta.abs().max() < 1e-4 * float(net(X).abs().max())


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
def test_deeplift_through_a_max_pool_is_complete_and_theirs_is_not(name):
    """The larger of 1, 2, 3, 0 less that of 0, 5, 0, 0: the output changes by −2, and so does our sum."""
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()).eval()
    z, start = (torch.tensor(v).view(1, 1, 2, 2) for v in ([1.0, 2, 3, -1], [0.0, 5, -1, -2]))
    start = torch.cat([start] * 2) if name == "DeepLiftShap" else start
    sums = [float(getattr(of, name)(net).attribute(z, start, target=0).sum()) for of in (ours, THEIRS)]
    assert sums == pytest.approx([-2, 3])
