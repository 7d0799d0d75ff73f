"""Guided backpropagation and its relatives against slow references, in every spelling of a ReLU."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import heatproof
from heatproof.attributions import backprop
from heatproof.errors import NotApplicable
from heatproof.models import wrap

from .. import nets

TARGET = torch.tensor([1, 3, 0])


class Layered(nn.Module):
    """Linear layers with a rectifier between, written as asked; the same weights for all."""

    def __init__(self, relu):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((12, 9), (9, 9), (9, 4)))
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(12)  # some pass 6
        self.relu = relu
        self.requires_grad_(False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z.flatten(1)
        for layer in self.layers[:-1]:
            z = self.relu(layer(z))
        return self.layers[-1](z)


def z_of(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(3))


def slow(net: Layered, z: torch.Tensor, rule, ceiling: float) -> np.ndarray:
    """Forward and back, one unit at a time, in float64; `rule(gradient, alive)` at every unit."""
    weights = [(layer.weight.double().numpy(), layer.bias.double().numpy()) for layer in net.layers]
    maps = []
    for one, target in zip(z, TARGET.tolist(), strict=False):
        value, alive = one.flatten().double().numpy(), []
        for weight, bias in weights[:-1]:
            before = weight @ value + bias
            alive.append([0 < unit < ceiling for unit in before])
            value = np.array([min(max(unit, 0), ceiling) for unit in before])
        gradient = weights[-1][0][target]
        for (weight, _), passed in zip(weights[-2::-1], alive[::-1], strict=True):
            gradient = weight.T @ np.array([rule(g, a) for g, a in zip(gradient, passed, strict=True)])
        maps.append(gradient.reshape(one.shape))
    return np.stack(maps)


RULES = {
    "guided-backprop": (backprop.guided_backprop, lambda g, alive: g if alive and g > 0 else 0.0),
    "deconvnet": (backprop.deconvnet, lambda g, alive: max(g, 0.0)),
}
SPELLINGS = {
    "one module, used twice": (nn.ReLU(), np.inf),
    "in place": (nn.ReLU(inplace=True), np.inf),
    "functional": (F.relu, np.inf),
    "functional in place": (lambda x: F.relu(x, inplace=True), np.inf),
    "method": (lambda x: x.relu(), np.inf),
    "method in place": (lambda x: x.relu_(), np.inf),
    "in place, and what it wrote is used": (lambda x: (x.relu_(), x)[1], np.inf),
    "clamp": (lambda x: x.clamp(min=0), np.inf),
    "by name": (lambda x: F.relu(input=x), np.inf),
    "nn.ReLU6": (nn.ReLU6(), 6.0),
    "nn.ReLU6 in place": (nn.ReLU6(inplace=True), 6.0),
    "functional relu6": (F.relu6, 6.0),
    "hardtanh": (nn.Hardtanh(0.0, 6.0), 6.0),
    "clamp to six": (lambda x: x.clamp(0, 6), 6.0),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", RULES)
def test_the_rule_holds_in_every_spelling(name, spelling):
    (method, rule), (relu, ceiling) = RULES[name], SPELLINGS[spelling]
    net, z = Layered(relu), z_of()
    expected = slow(net, z, rule, ceiling)
    got = method(z, net, nets.of_target(TARGET))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    plain = torch.func.grad(lambda at: net(at).gather(1, TARGET[:, None]).sum())(z)
    assert float((got - plain).abs().max()) > 0.1 * float(plain.abs().max())


def test_the_spellings_reach_the_ceiling():
    """Or ReLU6 would have been tested as ReLU."""
    net, z = Layered(F.relu), z_of()
    assert float((net.layers[0](z.flatten(1))).max()) > 6
    assert not torch.equal(
        backprop.guided_backprop(z, net, nets.of_target(TARGET)),
        backprop.guided_backprop(z, Layered(F.relu6), nets.of_target(TARGET)),
    )


@pytest.mark.parametrize("method", RULES)
def test_what_is_written_over_later_and_what_no_gradient_goes_through_do_not_matter(method):
    class Written(Layered):
        """The first layer's output is doubled in place after the ReLU has read it; a branch is cut off."""

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            first = self.layers[0](z.flatten(1))
            alive = F.relu(first)
            first.mul_(2)
            with torch.no_grad():
                F.relu(alive - 1)
            return self.layers[2](F.relu(self.layers[1](alive)))

    assert torch.equal(
        RULES[method][0](z_of(), Written(None), nets.of_target(TARGET)),
        RULES[method][0](z_of(), Layered(F.relu), nets.of_target(TARGET)),
    )


def test_other_functions_keep_their_derivative():
    class Mixed(Layered):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.layers[2](F.relu(self.layers[1](torch.tanh(self.layers[0](z.flatten(1))))))

    net, z = Mixed(None), z_of()
    one, two, three = (layer.weight.double() for layer in net.layers)
    for n, target in enumerate(TARGET.tolist()):
        inner = torch.tanh(one @ z[n].flatten().double() + net.layers[0].bias.double())
        alive = two @ inner + net.layers[1].bias.double() > 0
        back = one.T @ ((1 - inner**2) * (two.T @ (three[target].relu() * alive)))
        got = backprop.guided_backprop(z, net, nets.of_target(TARGET))[n].flatten().double()
        torch.testing.assert_close(got, back, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", [nets.Plain, nets.Dense], ids=lambda net: net.__name__)
def test_guided_gradcam_is_the_product(net):
    """Dense writes in place, on the layer's output too."""
    module = nets.seeded(net)
    layer = "two" if net is nets.Plain else "convs.1"
    model, x = wrap(module, size=16, layer=layer), nets.images(2, 16, 12)
    found = heatproof.explain(model, x, ["guided-backprop", "gradcam", "guided-gradcam"], 2, layer, raw=True)
    positions = F.interpolate(found["gradcam"].relu()[:, None], size=(16, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found["guided-gradcam"], found["guided-backprop"] * positions)
    assert float(found["guided-gradcam"].abs().max()) > 0


class Bend(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.one, self.head, self.function = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.function(self.one(x)).mean((2, 3)))


@pytest.mark.parametrize("name", ["guided-backprop", "deconvnet", "guided-gradcam"])
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (F.gelu, r"it uses no ReLU \(it uses GELU\)"),
        (lambda x: F.silu(torch.tanh(x)), r"it uses no ReLU \(it uses SiLU and Tanh\)"),
        (lambda x: x, "it uses no ReLU"),
        (F.leaky_relu, r"it uses no ReLU \(it uses LeakyReLU\)"),
    ],
)
def test_a_network_without_relu_is_refused_before_any_work(name, function, said):
    model = wrap(Bend(function).eval(), size=16, layer="one")
    with pytest.raises(NotApplicable, match=said + r"\."):
        heatproof.explain(model, nets.images(2, 16), name)


def test_a_network_that_cannot_be_seen_into_is_refused():
    class Scripted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    model = wrap(Bend(torch.jit.script(Scripted())).eval(), size=16, layer="one")
    with pytest.raises(NotApplicable, match="what function computes with cannot be seen"):
        heatproof.explain(model, nets.images(2, 16), "guided-backprop")


@pytest.mark.parametrize("name", ["guided-backprop", "deconvnet", "guided-gradcam"])
def test_nothing_is_left_behind_after_an_exception(name):
    module = nets.Failing().eval()
    model, x = wrap(module, size=16, layer="layer"), nets.images(2, 16)
    heatproof.explain(model, x, name)
    before = nets.traces(module)
    module.fails = "after"
    with pytest.raises(FloatingPointError):
        heatproof.explain(model, x, name)
    assert nets.traces(module) == before
    assert torch.equal(torch.relu(torch.tensor([-1.0, 1.0], requires_grad=True)).detach(), torch.tensor([0.0, 1.0]))
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision(dtype):
    x, maps = nets.images(2, 16), []
    for kind in (torch.float32, dtype):
        model = wrap(nets.seeded(nets.Plain).to(kind), size=16, layer="two")
        maps.append(heatproof.explain(model, x, "guided-backprop", 2, raw=True)["guided-backprop"])
    assert maps[1].dtype == torch.float32
    scale = float(maps[0].abs().max())
    median = float((maps[0] - maps[1]).abs().median())  # a unit near zero may be alive in one and dead in the other
    assert median < (1e-6 if dtype is torch.float64 else 0.02) * scale
