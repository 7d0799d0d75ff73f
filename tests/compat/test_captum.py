"""The same user code on Captum 0.9.0 and on heatproof's adapter; more numbers: tests/parity/test_captum_adapter.py."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.compat import captum as ours
from heatproof.errors import InvalidInput, InvalidTarget, NotApplicable, UnknownName

from .. import nets

peer = pytest.importorskip("captum.attr")

SIDE = 16


class NoRule(nn.Module):
    """A product of two activations, and no ReLU."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3 * SIDE**2, 5), nn.Linear(3 * SIDE**2, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x.flatten(1)) * self.two(x.flatten(1))


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
    """A tuple where the layer gives one, not where the inputs are one."""
    module = nets.seeded(lambda: nets.Signed(classes=1))
    found, expected = (
        library.LayerGradCam(module, module.two).attribute((z,), relu_attributions=True) for library in (ours, peer)
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    (found,) = ours.Saliency(module).attribute((z,))
    assert found.shape == z.shape


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


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution", "DeepLift", "LRP"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_functions_that_cannot_be_seen_are_refused(name, z):
    """Their rules would be left out silently."""
    scripted = torch.jit.trace(nets.seeded(nets.Plain), z)
    with pytest.raises(NotApplicable, match="cannot be seen"):
        getattr(ours, name)(scripted).attribute(z, target=1)
    with pytest.raises(NotApplicable, match=r"no rule for|needs a ReLU"):
        getattr(ours, name)(nets.seeded(NoRule)).attribute(z, target=1)


@pytest.mark.parametrize("name", sorted(ours.ABSENT))
def test_every_name_of_captum_is_here_or_says_what_to_use(name):
    assert name in peer.__all__ and name not in ours.__all__
    assert not hasattr(ours, name) and not hasattr(ours.attr, name)
    with pytest.raises(ImportError, match=f"heatproof has no {name}: "):
        exec(f"from heatproof.compat.captum.attr import {name}")


def test_nothing_of_captum_is_left_out():
    assert set(peer.__all__) == {*ours.ABSENT, *ours.attr.__all__} & set(peer.__all__)


def test_argument_errors_are_assertion_errors_as_in_captum(z):
    module = nets.seeded(nets.Plain)
    with pytest.raises(AssertionError, match="Give `target`"):
        ours.IntegratedGradients(module).attribute(z)
    with pytest.raises(AssertionError, match="Strides"):
        ours.Occlusion(module).attribute(z, (3, 2, 2), 3, target=0)


def test_deltas_and_what_a_method_says_of_itself(z):
    """What Captum's own classes ask of a method that they wrap."""
    module = nets.seeded(nets.Plain)
    for name, delta, multiplies in [("Saliency", False, False), ("InputXGradient", False, True), ("LRP", True, True),
                                    ("IntegratedGradients", True, True), ("Occlusion", False, True)]:  # fmt: skip
        method = getattr(ours, name)(module)
        assert method.forward_func is module
        assert (method.has_convergence_delta(), method.multiplies_by_inputs) == (delta, multiplies)
        assert ours.NoiseTunnel(method).is_delta_supported is delta
    maps, delta = ours.IntegratedGradients(module).attribute(z, target=1, n_steps=64, return_convergence_delta=True)
    expected = maps.sum((1, 2, 3)) - (module(z) - module(0 * z))[:, 1]
    torch.testing.assert_close(delta, expected, rtol=0, atol=1e-5)
    twice = ours.Saliency(module)
    twice.gradient_func = lambda *given: tuple(2 * one for one in ours.Saliency(module).gradient_func(*given))
    torch.testing.assert_close(twice.attribute(z, 1), 2 * ours.Saliency(module).attribute(z, 1))


def test_modules_are_explained_in_eval_mode_and_left_as_they_were(z):
    module = nets.seeded(nets.Plain).train()
    before = nets.traces(module)
    found = ours.Occlusion(module).attribute(z, (3, 8, 8), (3, 8, 8), target=1)
    assert nets.traces(module) == before and module.training
    torch.testing.assert_close(found, ours.Occlusion(module.eval()).attribute(z, (3, 8, 8), (3, 8, 8), target=1))


def test_threads_on_one_network(z):
    """As one after the other: rules, hooks and modes of one thread do not reach another."""
    module = nets.seeded(nets.Plain).train()
    module.head.rule = ours.GammaRule()
    before = nets.traces(module)
    calls = [
        lambda: ours.LRP(module).attribute(z, 1),
        lambda: ours.LayerGradCam(module, "two").attribute(z, 1),
        lambda: ours.LayerIntegratedGradients(module, "one").attribute(z, target=1, n_steps=4),
        lambda: ours.DeepLift(module).attribute(z, target=1),
    ] * 3
    serial = [call() for call in calls]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda call: call(), calls))
    for one, other in zip(found, serial, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert nets.traces(module) == before


def test_rules_of_lrp(z):
    """Against the rules written out: `R_i = Σ_j x_i w'_ij R_j / Σ_i x_i w'_ij`, biases in the denominator."""
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1, bias=False)).eval()
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    with torch.no_grad():
        for number, part in enumerate((net[0], net[2])):
            generator = torch.Generator().manual_seed(number)
            part.weight.copy_(torch.rand(part.weight.shape, generator=generator) - 0.3)
    rules = {
        ours.EpsilonRule(0.01): (lambda w: w, 0.01),
        ours.GammaRule(0.5): (lambda w: w + 0.5 * w.clamp(min=0), 1e-9),
        ours.Alpha1_Beta0_Rule(): (lambda w: w.clamp(min=0), 1e-9),
    }
    for rule, (weights, epsilon) in rules.items():
        net[0].rule = rule
        with torch.no_grad():
            hidden = net[0](x).relu()
            relevance = hidden * net[2].weight
            parts = x[:, None] * weights(net[0].weight)
            total = parts.sum(2) + weights(net[0].bias)
            total = total + epsilon * torch.where(total < 0, -1, 1)
            expected = (parts * (relevance / total)[:, :, None]).sum(1)
        torch.testing.assert_close(ours.LRP(net).attribute(x), expected, rtol=1e-4, atol=1e-6)
    net[0].rule = 1
    with pytest.raises(TypeError, match="must be a rule of heatproof"):
        ours.LRP(net)


def test_kernel_shap_and_lime_with_exact_values():
    """Three features, where the Shapley values are written out; a linear function, where LIME's are its weights."""
    x = torch.tensor([[2.0, 3.0, 5.0]])

    def game(z):
        return z[:, 0] * z[:, 1] + z[:, 2]

    found = ours.KernelShap(game).attribute(x, n_samples=40, perturbations_per_eval=8)
    torch.testing.assert_close(found, torch.tensor([[3.0, 3.0, 5.0]]), rtol=1e-3, atol=1e-3)
    model = ours.lime.LinearModel(LinearRegression())
    found = ours.Lime(lambda z: z @ torch.tensor([1.0, -2.0, 4.0]), model).attribute(x, baselines=1, n_samples=30)
    torch.testing.assert_close(found, torch.tensor([[1.0, -4.0, 16.0]]), rtol=1e-3, atol=1e-3)


def test_gradient_shap_of_a_square():
    """The integral of `2 α x · x` is `x²`; 4000 draws of α leave an error of 1 %."""
    x = torch.tensor([[2.0, -3.0], [1.0, 0.5]])
    torch.manual_seed(0)
    method = ours.GradientShap(lambda z: (z**2).sum(1))
    found, delta = method.attribute(x, torch.zeros(1, 2), n_samples=4000, return_convergence_delta=True)
    torch.testing.assert_close(found, x**2, rtol=0.05, atol=0)
    assert delta.shape == (8000,)
    torch.testing.assert_close(delta.reshape(2, -1).mean(1), found.sum(1) - (x**2).sum(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (lambda m, z: ours.LayerGradCam(m, nn.ReLU()), Exception, "part of Plain"),
        (lambda m, z: ours.LayerGradCam(lambda x: m(x), "two"), InvalidInput, "`layer` must be a module"),
        (lambda m, z: ours.Saliency("net"), InvalidInput, "a torch.nn.Module or a function. Got str"),
        (lambda m, z: ours.DeepLift(lambda x: m(x)), InvalidInput, "`model` must be a torch.nn.Module"),
        (lambda m, z: ours.Attribution("gradcam", "net"), InvalidInput, "`model` must be a torch.nn.Module"),
        (lambda m, z: ours.Attribution("gradcam", m).attribute((z, z), 1), InvalidInput, "one input tensor. Got 2"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z, [1, 2]), InvalidTarget, "each of the 3 images"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z, 5), InvalidTarget, "0 … 4"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z, (1, 2)), InvalidTarget, "at most 1 indices"),
        (lambda m, z: ours.LayerGradCam(m, "two").attribute(z), InvalidTarget, "Give `target`"),
        (lambda m, z: ours.Saliency(m).attribute(z.long(), 1), InvalidInput, "inputs of floats. Got torch.int64"),
        (lambda m, z: ours.Saliency(m).attribute([1, 2], 1), InvalidInput, "Expected a tensor"),
        (lambda m, z: ours.IntegratedGradients(m).attribute(z, z[:2], 1), InvalidInput, "must have the input's shape"),
        (
            lambda m, z: ours.IntegratedGradients(m).attribute(z, "blur", 1),
            InvalidInput,
            "a tensor or a number. Got str",
        ),
        (
            lambda m, z: ours.IntegratedGradients(m).attribute(z, target=1, method="simpson"),
            InvalidInput,
            "riemann_left",
        ),
        (lambda m, z: ours.GradientShap(m).attribute(z, 0.0, target=1), InvalidInput, "a tensor of baselines"),
        (lambda m, z: ours.NoiseTunnel(ours.Saliency(m)).attribute(z, "var", target=1), InvalidInput, "vargrad"),
        (lambda m, z: ours.Occlusion(m).attribute(z, (3, 4), target=1), InvalidInput, "must have 3 entries"),
        (lambda m, z: ours.Occlusion(m).attribute(z, (3, 4, 4), 5, target=1), InvalidInput, "at most the window"),
        (lambda m, z: ours.FeatureAblation(m).attribute(z, perturbations_per_eval=2), InvalidInput, "must be 1. Got 2"),
        (lambda m, z: ours.infidelity(m, lambda x: (x, x), z, z[:2], target=1), InvalidInput, "shapes of the inputs"),
        (lambda m, z: ours.Saliency(m).attribute_future(z), NotImplementedError, "take `attribute`"),
        (lambda m, z: ours.Attribution("gradcan", m), UnknownName, "Did you mean 'gradcam'"),
        (lambda m, z: ours.Attribution("xgradcam", m, ep=1), UnknownName, "Did you mean 'eps'"),
        (lambda m, z: ours.Attribution("gradcam", m, power=0.5), InvalidInput, "`power` rescales .* display maps"),
        (lambda m, z: ours.Attribution("gradcam", m).attribute(z, 1, power=0.5), InvalidInput, "`power` rescales"),
        (lambda m, z: ours.Attribution("gradcam", m).attribute(z, 1, baselines=0), UnknownName, "option of 'gradcam'"),
    ],
)
def test_what_cannot_be(code, error, said, z):
    with pytest.raises(error, match=said):
        code(nets.seeded(nets.Plain), z)
