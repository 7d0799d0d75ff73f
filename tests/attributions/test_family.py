"""The rest of the CAM family against slow references, and where two of them are one."""

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, cam, eigen
from heatproof.attributions.smoothgradcam import smoothgradcam_plus_plus
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.models import wrap

from .. import nets
from . import reference, reference_family

SPATIAL = [(5, 4), (7,), (2, 3, 4)]
CLASSES = [0, 3, 1]


def made(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Bent(nn.Module):
    """What follows a layer of three channels: a smooth curve, a LayerNorm, a linear head; any spatial dims."""

    def __init__(self, activation: type[nn.Module] = nn.GELU, norm: bool = True):
        super().__init__()
        self.mix, self.curve = nn.Linear(3, 6), activation()
        self.norm = nn.LayerNorm(6) if norm else nn.Identity()
        self.head = nn.Linear(6, 5)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.curve(self.mix(activations.flatten(2).transpose(1, 2))).mean(1)))


def after(seed: int = 0, **options) -> nn.Module:
    net = nets.seeded(lambda: Bent(**options), seed).double()
    with torch.no_grad():
        net.head.weight.mul_(4)
    return net.requires_grad_(False)


class Layer:
    """`gradients_of` and `hvp` for activations and what follows them, as the engine hands them over."""

    def __init__(self, net: nn.Module, activations: torch.Tensor, classes: list[int]):
        self.net, self.activations, self.target = net, activations, torch.tensor(classes)

    def utility(self, utility, leaf: torch.Tensor) -> torch.Tensor:
        from heatproof.explained_output import of_target

        return of_target(utility, self.net(leaf), self.target).sum()

    def gradients_of(self, utility) -> torch.Tensor:
        leaf = self.activations.clone().requires_grad_()
        return torch.autograd.grad(self.utility(utility, leaf), leaf)[0]

    def hvp(self, utility) -> torch.Tensor:
        return torch.autograd.functional.vhp(lambda a: self.utility(utility, a), self.activations, self.activations)[1]


# --- ShapleyCAM ---


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("utility", ["rest", "logit"])
def test_shapleycam_is_the_gradient_less_half_its_slope_along_the_activations(utility, spatial):
    net, activations = after(), made(3, 3, *spatial)
    layer = Layer(net, activations, CLASSES)
    got = cam.shapleycam(activations, layer.gradients_of, layer.hvp, utility=utility)
    expected = reference_family.shapleycam(net, activations, CLASSES, getattr(reference_family, utility))
    np.testing.assert_allclose(got, expected, atol=1e-7 * np.abs(expected).max())


def test_shapleycam_of_the_logit_of_a_relu_network_is_gradcam_and_the_hessian_counts_elsewhere():
    """The reference code of paper R lost the Hessian term, so that the two were equal everywhere (protocols, §12)."""
    activations = made(3, 3, 4, 4)

    def gap(net: nn.Module, utility: str) -> float:
        layer = Layer(net, activations, CLASSES)
        plain = cam.gradcam(activations, layer.gradients_of(utility))
        found = cam.shapleycam(activations, layer.gradients_of, layer.hvp, utility=utility)
        return float((found - plain).abs().max() / plain.abs().max())

    assert gap(after(activation=nn.ReLU, norm=False), "logit") == 0
    assert gap(after(activation=nn.ReLU, norm=False), "rest") > 0.01
    assert gap(after(activation=nn.GELU, norm=False), "logit") > 0.01
    assert gap(after(activation=nn.ReLU, norm=True), "logit") > 0.01


def test_shapleycam_keeps_its_hessian_through_the_engine():
    """At an inner layer, with the paper's utility; and at a ReLU network the logit has none."""
    x = nets.images(3, 12, 8)
    for net, layer, option, differs in [
        (nets.Plain, "one", "[utility=logit]", False),
        (nets.Plain, "one", "", True),
        (nets.Signed, "one", "[utility=logit]", True),
        (nets.Signed, "two", "", True),
    ]:
        module = nets.seeded(net)
        model = wrap(module, size=12)
        name = f"shapleycam{option}"
        output = "logit" if option else "rest"
        found = heatproof.explain(model, x, name, CLASSES, layer, raw=True)[name]
        plain = heatproof.explain(model, x, "gradcam", CLASSES, layer, raw=True, output=output)["gradcam"]
        gap = float((found - plain).abs().max() / plain.abs().max())
        assert gap > 1e-3 if differs else gap < 1e-5, (net, layer, option, gap)


def test_shapleycam_through_the_engine_is_the_reference():
    module, x = nets.seeded(nets.Signed), nets.images(3, 12, 8)
    model = wrap(module, size=12)
    found = heatproof.explain(model, x, "shapleycam", CLASSES, "two", raw=True)["shapleycam"]

    class After(nn.Module):
        def forward(self, activations: torch.Tensor) -> torch.Tensor:
            bent = nn.functional.gelu(activations + 2 * double.three(activations)).mean((2, 3))
            return double.head(torch.tanh(3 * double.hidden(bent)))

    double = nets.seeded(nets.Signed).double()
    activations = double.two(double.one(model.normalise(x).double())).detach()
    expected = reference_family.shapleycam(After(), activations, CLASSES, reference_family.rest)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


# --- Finer-CAM ---


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize(("alpha", "comparisons"), [(0.6, 3), (1.0, 1), (1.0, 40)])
def test_finercam_is_the_base_of_a_difference_of_logits(alpha, comparisons, compat, spatial):
    net, activations = after(), made(3, 3, *spatial)
    layer = Layer(net, activations, CLASSES)
    slopes = [
        reference_family.gradient(net, one, c, reference_family.finer(alpha, comparisons, fixed=not compat))
        for one, c in zip(activations, CLASSES, strict=True)
    ]
    gradients = torch.stack(slopes).numpy()
    for base, slow in [("gradcam", reference.gradcam), ("layercam", reference.layercam)]:
        got = cam.finercam(
            activations, layer.gradients_of, alpha=alpha, comparisons=comparisons, base=base, compat=compat
        )
        expected = slow(activations.numpy(), gradients)
        np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())


def test_finercam_without_comparison_is_its_base():
    net, activations = after(), made(3, 3, 4, 4)
    layer = Layer(net, activations, CLASSES)
    for base, function in cam.BASES.items():
        got = cam.finercam(activations, layer.gradients_of, alpha=0.0, base=base)
        torch.testing.assert_close(got, function(activations, layer.gradients_of("logit")))


def test_what_two_classes_share_is_gone_from_finercam():
    """Two channels: the first speaks for classes 0 and 1 alike, the second tells them apart."""
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.0], [-9.0, -9.0]], dtype=torch.float64)

    def gradients_of(utility) -> torch.Tensor:
        leaf = activations.clone().requires_grad_()
        logits = leaf.mean((2, 3)) @ weights.T
        return torch.autograd.grad(utility(logits, torch.tensor([0])).sum(), leaf)[0]

    activations = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    activations[0, 0, 0, 0] = activations[0, 1, 1, 1] = 1
    found = cam.finercam(activations, gradients_of, alpha=1.0, comparisons=1)[0]
    assert float(found[0, 0]) == pytest.approx(0, abs=1e-12) and float(found[1, 1]) > 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": -0.1}, r"`alpha` must be at least 0\. Got -0\.1"),
        ({"comparisons": 0}, r"`comparisons` must be a whole number of at least 1\. Got 0"),
        ({"comparisons": 1.5}, r"`comparisons` must be a whole number of at least 1\. Got 1\.5"),
        ({"base": "gradcamm"}, "Did you mean 'gradcam'"),
    ],
)
def test_finercam_refuses_options_that_mean_nothing(options, said):
    with pytest.raises((InvalidInput, UnknownName), match=said):
        cam.finercam(made(1, 3, 2, 2), None, **options)


# --- FEM ---


@pytest.mark.parametrize("spatial", [(5, 6), (23,), (2, 3, 5)])
@pytest.mark.parametrize("k", [0.5, 2.0])
def test_fem_is_the_papers(k, spatial):
    activations = made(3, 6, *spatial).relu()
    expected = reference_family.fem(activations.numpy(), k)
    assert expected.any()
    np.testing.assert_allclose(cam.fem(activations, k=k), expected, atol=1e-12)


def test_fem_of_a_flat_channel_has_nothing_strong():
    assert float(cam.fem(torch.full((1, 2, 3, 3), 0.1)).abs().max()) == 0


# --- CAM ---


@pytest.mark.parametrize("spatial", SPATIAL)
def test_cam_is_the_papers(spatial):
    activations, head = made(3, 6, *spatial), made(5, 6, seed=1)
    expected = reference_family.cam(activations.numpy(), head.numpy(), CLASSES)
    np.testing.assert_allclose(cam.cam(activations, head, torch.tensor(CLASSES)), expected, atol=1e-12)


def test_cam_is_gradcam_times_the_number_of_places():
    x = nets.images(3, 12, 8)
    found = heatproof.explain(wrap(nets.seeded(nets.Plain), size=12), x, ["cam", "gradcam"], CLASSES, "two", raw=True)
    torch.testing.assert_close(found["cam"], 24 * found["gradcam"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("net", "layer", "served"), [(nets.Plain, "two", True), (nets.Plain, "one", False),
                                                      (nets.Signed, "two", False)])  # fmt: skip
def test_cam_says_before_any_work_where_it_cannot_serve(net, layer, served):
    module = nets.seeded(lambda: nets.Counted(net()))
    model = wrap(module, size=12)
    layer = f"inner.{layer}"
    applies = ATTRIBUTIONS["cam"].traits["applies"]
    said = applies(model, layer, {})
    assert (said == "") is served
    assert served or said == f"its logits are not a linear layer on the average of the activations at {layer!r}"
    assert applies(model, layer, {}) == said and module.calls == 1  # asked once


def test_cam_without_a_head_names_another_method():
    with pytest.raises(NotApplicable, match="Take 'gradcam'"):
        cam.cam(made(1, 2, 2, 2), None, torch.tensor([0]))


# --- principal components ---


@pytest.mark.parametrize("shape", [(3, 4, 5, 4), (3, 30, 3, 3), (2, 4, 17), (2, 9, 2, 2, 2)])
def test_eigengradcam_is_eigencam_of_the_product(shape):
    activations, gradients = made(*shape), 1e-4 * made(*shape, seed=1)
    expected = reference.eigencam((activations * gradients).numpy())
    np.testing.assert_allclose(eigen.eigengradcam(activations, gradients), expected, atol=1e-9 * np.abs(expected).max())


def test_eigengradcam_is_positive_where_the_product_adds_to_the_output():
    for seed in range(20):
        activations, gradients = made(1, 5, 4, 4, seed=seed), made(1, 5, 4, 4, seed=100 + seed)
        product = (activations * gradients).sum(1).flatten()
        for turn in (1, -1):
            found = eigen.eigengradcam(activations, turn * gradients).flatten()
            assert float(torch.corrcoef(torch.stack([found, turn * product]))[0, 1]) >= -1e-9


KERNELS = {
    "sigmoid": lambda gamma: lambda a, b: np.tanh(gamma * (a @ b) + 1),
    "rbf": lambda gamma: lambda a, b: np.exp(-gamma * ((a - b) ** 2).sum()),
    "polynomial": lambda gamma: lambda a, b: (gamma * (a @ b) + 1) ** 3,
    "linear": lambda _gamma: lambda a, b: a @ b,
}


@pytest.mark.parametrize("shape", [(3, 4, 5, 4), (2, 3, 11), (2, 5, 2, 3, 2)])
@pytest.mark.parametrize("gamma", [0.0, 0.7])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kpcacam_is_kernel_pca_over_the_places(kernel, gamma, shape):
    activations = made(*shape)
    slow = KERNELS[kernel](gamma or 1 / shape[1])
    expected = reference_family.kpcacam(activations.numpy(), slow)
    got = eigen.kpcacam(activations, kernel=kernel, gamma=gamma)
    np.testing.assert_allclose(got, expected, atol=1e-8 * np.abs(expected).max())


def test_kpcacam_with_a_linear_kernel_is_eigencam():
    activations = made(3, 6, 5, 4)
    torch.testing.assert_close(eigen.kpcacam(activations, kernel="linear"), eigen.eigencam(activations))


def test_kpcacam_finds_the_same_by_lanczos(monkeypatch):
    activations = made(2, 6, 9, 7)
    dense = eigen.kpcacam(activations)
    monkeypatch.setattr(eigen, "DENSE_PLACES", 10)
    torch.testing.assert_close(eigen.kpcacam(activations), dense, rtol=1e-6, atol=1e-8)
    assert torch.equal(eigen.kpcacam(activations), eigen.kpcacam(activations))


@pytest.mark.parametrize("dense", [10, 512])
def test_kpcacam_of_a_flat_and_of_a_bad_image(dense, monkeypatch):
    monkeypatch.setattr(eigen, "DENSE_PLACES", dense)
    activations = made(3, 5, 4, 4)
    alone = eigen.kpcacam(activations)
    activations[0], activations[1, 2, 0, 0] = 2.5, float("nan")
    together = eigen.kpcacam(activations)
    assert float(together[0].abs().max()) == 0 and together[1].isnan().all()
    torch.testing.assert_close(together[2], alone[2])


def test_kpcacam_refuses_more_places_than_a_matrix_may_hold():
    with pytest.raises(NotApplicable, match=r"at most 4096 positions\. Got 4160\. Choose a deeper layer"):
        eigen.kpcacam(torch.zeros(1, 2, 64, 65))
    with pytest.raises(InvalidInput, match=r"`gamma` must be above 0"):
        eigen.kpcacam(made(1, 2, 2, 2), gamma=-1.0)
    with pytest.raises(UnknownName, match="Did you mean 'sigmoid'"):
        eigen.kpcacam(made(1, 2, 2, 2), kernel="sigmod")


@pytest.mark.parametrize("turn", [1, -1])
def test_segeigencam_is_the_projection_of_the_weighted_activations_with_its_peak_above_zero(turn):
    activations, gradients = turn * made(2, 5, 4, 3).exp(), made(2, 5, 4, 3, seed=1)
    found = eigen.segeigencam(activations, gradients).numpy()
    for i, one in enumerate((gradients.abs() * activations).numpy()):
        positions = one.reshape(5, -1).T
        centred = positions - positions.mean(0)
        expected = centred @ np.linalg.svd(centred)[2][0]
        expected = expected if expected.max() > -expected.min() else -expected
        np.testing.assert_allclose(found[i].ravel(), expected, atol=1e-9 * np.abs(expected).max())


def test_randomcam_weighs_the_channels_between_minus_one_and_one():
    activations = torch.eye(60, dtype=torch.float64).view(1, 60, 60, 1).expand(2, -1, -1, -1)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    weights = cam.randomcam(activations, generators)[..., 0]
    assert weights.min() >= -1 and weights.max() <= 1 and weights.std() == pytest.approx(3**-0.5, abs=0.08)
    expected = 2 * torch.rand(60, generator=torch.Generator().manual_seed(3)) - 1
    torch.testing.assert_close(weights[0], expected.double())
    assert not torch.equal(weights[0], weights[1])


def test_smoothgradcam_averages_the_derivatives_over_noise():
    """By loops: α of the mean second and third power, the weight of the mean gradient."""
    activations, slope = made(1, 3, 4, 2), made(1, 3, 4, 2, seed=1)
    z, draw = torch.zeros(1, 3, 4, 2, dtype=torch.float64), torch.Generator().manual_seed(2)
    noises = [0.4 * torch.randn(3, 4, 2, generator=draw)[None] for _ in range(5)]
    drawn = [(slope * (1 + noise)).numpy()[0] for noise in noises]
    found = smoothgradcam_plus_plus(
        activations, z, [torch.Generator().manual_seed(2)], lambda noise: slope * (1 + noise), samples=5, std=0.4
    )
    expected = 0.0
    for k, channel in enumerate(activations.numpy()[0]):
        weight = 0.0
        for at in np.ndindex(channel.shape):
            powers = [np.mean([one[k][at] ** p for one in drawn]) for p in (1, 2, 3)]
            below = 2 * powers[1] + max(0.0, powers[2] * channel.sum())
            weight += powers[1] / below * max(0.0, powers[0])
        expected = expected + weight * channel
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    still = smoothgradcam_plus_plus(activations, z, [torch.Generator()], lambda noise: slope + noise, std=0.0)
    torch.testing.assert_close(still, cam.gradcam_plus_plus(activations, slope))


@pytest.mark.parametrize("function", [eigen.eigengradcam, eigen.kpcacam])
def test_an_unknown_sign_is_an_error(function):
    given = [made(1, 3, 2, 2)] * (2 if function is eigen.eigengradcam else 1)
    with pytest.raises(UnknownName, match=r"No `sign` is called 'plus'"):
        function(*given, sign="plus")
