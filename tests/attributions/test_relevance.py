"""DeepLIFT and LRP against their papers' rules, unit by unit in float64; what they conserve; what they refuse."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import heatproof
from heatproof.attributions import relevance
from heatproof.attributions.functions import ELEMENTWISE, THROUGH_ZERO
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.models import wrap

from .. import nets

TARGET = torch.tensor([1, 3, 0])
TARGETS, FIRST = nets.of_target(TARGET), nets.of_target(torch.tensor([0]))
FUNCTIONS = {
    "relu": F.relu,
    "relu in place": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu in place": nn.SiLU(inplace=True),
    "leaky": nn.LeakyReLU(0.2),
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.3, dtype=x.dtype)),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.3, False),
    "elu": nn.ELU(),
    "hardswish": F.hardswish,
}
BENT_ELSEWHERE = {"sigmoid": torch.sigmoid, "softplus": F.softplus, "clamp": lambda x: x.clamp(-1, 2)}


class Layered(nn.Module):
    """Linear layers and one function between, used twice; the same weights for all."""

    def __init__(self, function, bias: bool = True):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias) for a, b in ((12, 9), (9, 9), (9, 4)))
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(3)
        self.function = function
        self.requires_grad_(False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z.flatten(1)
        for layer in self.layers[:-1]:
            z = self.function(layer(z))
        return self.layers[-1](z)


def z_of(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(3))


def applied(function, values: np.ndarray) -> np.ndarray:
    return function(torch.from_numpy(values).clone()).numpy()


def weights_of(net: Layered) -> list[tuple[np.ndarray, np.ndarray]]:
    zero = torch.zeros(1)
    return [
        (layer.weight.double().numpy(), (zero if layer.bias is None else layer.bias).double().numpy())
        for layer in net.layers
    ]


def slow_deeplift(net: Layered, one: np.ndarray, base: np.ndarray, target: int) -> np.ndarray:
    """Shrikumar et al. 2017, eq. 3 and §3.5.1: contributions `C = m Δ` handed back layer by layer, unit by unit."""
    weights = weights_of(net)
    before, after = [], [(one, base)]
    for weight, bias in weights[:-1]:
        pair = tuple(weight @ value + bias for value in after[-1])
        before.append(pair)
        after.append(tuple(applied(net.function, value) for value in pair))
    multiplier = weights[-1][0][target].copy()
    for at in range(len(weights) - 2, -1, -1):
        for unit in range(len(multiplier)):
            step_in = before[at][0][unit] - before[at][1][unit]
            step_out = after[at + 1][0][unit] - after[at + 1][1][unit]
            multiplier[unit] *= step_out / step_in
        multiplier = weights[at][0].T @ multiplier
    return multiplier * (one - base)


def slow_lrp(net: Layered, one: np.ndarray, target: int, epsilon: float) -> np.ndarray:
    """Bach et al. 2015, eq. 56–58: `R_i = Σ_j z_ij / (z_j + ε sign z_j) R_j`, one message at a time."""
    weights = weights_of(net)
    values = [one]
    for weight, bias in weights[:-1]:
        values.append(applied(net.function, weight @ values[-1] + bias))
    outputs = weights[-1][0] @ values[-1] + weights[-1][1]
    relevance_of = np.array([outputs[target] if j == target else 0.0 for j in range(len(outputs))])
    for (weight, bias), inputs in zip(weights[::-1], values[::-1], strict=True):
        found = np.zeros(len(inputs))
        for j, share in enumerate(relevance_of):
            total = sum(weight[j, i] * inputs[i] for i in range(len(inputs))) + (bias[j] if len(bias) > 1 else 0.0)
            for i in range(len(inputs)):
                found[i] += weight[j, i] * inputs[i] / (total + epsilon * (1 if total >= 0 else -1)) * share
        relevance_of = found
    return relevance_of


def agrees(got: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("baseline", ["zero", "black"])
@pytest.mark.parametrize("name", [*FUNCTIONS, *BENT_ELSEWHERE])
def test_deeplift_is_the_rescale_rule(name, baseline):
    net, z = Layered({**FUNCTIONS, **BENT_ELSEWHERE}[name]), z_of()
    x = (z - z.min()) / 7  # black is at the minimum of z, a constant
    start = np.full(12, float(z.min()) if baseline == "black" else 0.0)
    expected = [
        slow_deeplift(net, one.flatten().double().numpy(), start, target).reshape(one.shape)
        for one, target in zip(z, TARGET.tolist(), strict=True)
    ]
    agrees(relevance.deeplift(x, z, net, net, TARGETS, baseline=baseline), np.stack(expected))


@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 0.25])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lrp_is_the_epsilon_rule(name, epsilon):
    net, z = Layered(FUNCTIONS[name]), z_of()
    expected = [
        slow_lrp(net, one.flatten().double().numpy(), target, epsilon).reshape(one.shape).sum(0)
        for one, target in zip(z, TARGET.tolist(), strict=True)
    ]
    agrees(relevance.lrp(z, net, TARGETS, epsilon=epsilon), np.stack(expected), 1e-4)


def test_lrp_without_epsilon_is_the_gradient_times_the_image_on_a_relu_network():
    """Ancona et al. 2018, prop. 1; and ReLU6 is where it is not."""
    for function, equal in ((F.relu, True), (F.relu6, False)):
        net, z = Layered(function), 3 * z_of()
        plain = torch.func.grad(lambda at, net=net: net(at).gather(1, TARGET[:, None]).sum())(z) * z
        assert torch.allclose(relevance.lrp(z, net, TARGETS, epsilon=0.0), plain.sum(1), rtol=1e-3, atol=1e-3) is equal


# --- networks of images: what is conserved ---


class Residual(nn.Module):
    """What breaks the peers: a residual sum, overlapping max pools, one ReLU used all over, ReLU6, concatenation."""

    def __init__(self, bias: bool = True, act=None):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)
        self.relu, self.six = act or nn.ReLU(inplace=True), nn.ReLU6()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.one, self.two = (nn.Conv2d(6, 6, 3, padding=1, bias=bias) for _ in range(2))
        self.head = nn.Linear(12, 5, bias=bias)
        if not bias:
            self.norm = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.norm(self.stem(x))))
        x = self.relu(self.two(self.relu(self.one(x))) + x)
        x = torch.cat([self.six(4 * x), F.avg_pool2d(x, 3, 1, 1)], 1)
        return self.head(F.adaptive_max_pool2d(x, 2).mean((2, 3)))


def residual(bias: bool = True, act=None) -> nn.Module:
    return nets.told_apart(nets.seeded(lambda: Residual(bias, act)), 16).requires_grad_(False)


@pytest.mark.parametrize("baseline", ["zero", "black", "blur"])
@pytest.mark.parametrize("net", ["residual", "gelu", "dense", "plain"])
def test_deeplift_adds_up_to_the_difference_of_outputs(net, baseline):
    made = {
        "residual": residual,
        "gelu": lambda: residual(act=nn.GELU()),
        "dense": lambda: nets.told_apart(nets.seeded(nets.Dense), 16),
        "plain": lambda: nets.told_apart(nets.seeded(nets.Plain), 16),
    }[net]().requires_grad_(False)
    x = nets.images(3, 16)
    z = 2 * x - 1
    start = heatproof.masking.ground("mean" if baseline == "zero" else baseline, x, z)
    expected = (made(z) - made(start)).gather(1, TARGET[:, None])[:, 0]
    got = relevance.deeplift(x, z, made, made, TARGETS, baseline=baseline).sum((1, 2, 3))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_deeplift_of_an_overlapping_max_pool_by_hand():
    """Two windows share their winner: both gains are its own."""

    class Pool(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return F.max_pool2d(z, (1, 3), (1, 2)).flatten(1) @ torch.tensor([[1.0], [10.0]])

    z = torch.tensor([[[[1.0, 0.0, 5.0, -1.0, 2.0]]]])
    got = relevance.deeplift(z, z, Pool(), Pool(), FIRST)
    torch.testing.assert_close(got, torch.tensor([[[[0.0, 0, 55, 0, 0]]]]))
    # Below the baseline in all positions: what the maximum lost belongs to the winner on the baseline.
    got = relevance.deeplift(z, -z.abs() - 1, Pool(), Pool(), FIRST)
    torch.testing.assert_close(got.sum(), torch.tensor(-1.0 * 1 - 2.0 * 10))


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.GELU(), nn.Hardswish()], ids=["relu", "gelu", "hardswish"])
def test_lrp_conserves_the_output_without_biases_and_not_with(act):
    for bias in (False, True):
        net = residual(bias, act)
        z = 2 * nets.images(3, 16) - 1
        expected = net(z).gather(1, TARGET[:, None])[:, 0]
        got = relevance.lrp(z, net, TARGETS).sum((1, 2))
        assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4) is not bias


def test_a_dead_place_has_no_relevance_in_half_precision_either():
    """0 / (0 + ε) with an ε that half precision cannot hold."""
    model = wrap(residual(bias=False).to(torch.bfloat16), size=16)
    x = torch.full((1, 3, 16, 16), 0.5)
    x[..., :4, :4] = 1
    found = heatproof.explain(model, x, ["lrp", "deeplift"], 1, raw=True)
    assert found["lrp"].isfinite().all() and (found["lrp"][..., 8:, 8:] == 0).all()
    assert found["deeplift"].isfinite().all() and (found["deeplift"][..., 8:, 8:] == 0).all()


@pytest.mark.parametrize("relu", [F.relu, lambda x: x.clamp(min=0)], ids=["relu", "clamp"])
def test_the_secant_of_a_relu_is_that_of_any_function(relu):
    """Ends on both sides of the bend, on one, next to each other, equal, and at the bend."""
    some = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 0.7, 0.7 * (1 + 2e-7), 3.0])
    values, reference = (end.flatten() for end in torch.meshgrid(some, some, indexing="ij"))
    call = relevance._Call("relu", reference, relu(reference))
    got = relevance._secant_of_relu(values, relu(values), call, relu)
    assert torch.equal(got, relevance._secant(values, relu(values), call, relu))
    assert set(got[values == reference].tolist()) == {0.0, 1.0}


class Windows(Layered):
    """Several rows for each image, as in windows, on the way."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        rows = F.relu(z.flatten(1).reshape(len(z) * 4, 3) + torch.arange(3.0))
        return self.layers[-1](F.relu(self.layers[1](self.layers[0](rows.reshape(len(z), 12)))))


def test_deeplift_of_a_batch_is_that_of_its_images_also_in_windows():
    net, z = Windows(F.relu), z_of()
    together = relevance.deeplift(z, z, net, net, TARGETS)
    for n in range(3):
        alone = relevance.deeplift(z[n : n + 1], z[n : n + 1], net, net, nets.of_target(TARGET[n : n + 1]))
        torch.testing.assert_close(together[n : n + 1], alone)
    expected = (net(z) - net(0 * z)).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(together.sum((1, 2, 3)), expected)


def test_deeplift_runs_the_baseline_once():
    rows = []
    net = Layered(F.relu)
    handle = net.register_forward_pre_hook(lambda _module, inputs: rows.append(len(inputs[0])))
    relevance.deeplift(z_of(), z_of(), net, net, TARGETS)
    handle.remove()
    assert rows == [1, 3]


# --- refusals ---


class Bend(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.one, self.head, self.function = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.function(self.one(x)).mean((2, 3)))


REFUSED = {
    "softmax": (lambda x: x.softmax(1), "no rule for softmax"),
    "layer norm": (nn.LayerNorm([14, 14]), r"no rule for layer_norm \(in function\)"),
    "a gate": (lambda x: x * x.sigmoid(), "no rule for .*mul of two activations"),
    "one over": (lambda x: 1 / (x.exp() + 1), "no rule for .*rdiv"),
    "attention": (lambda x: x @ x.transpose(2, 3), "no rule for matmul of two activations"),
    "statistics of the batch": (nn.BatchNorm2d(4, track_running_stats=False), "no rule for batch_norm by the batch"),
    "out of sight": (torch.jit.script(nn.ReLU()), "what function computes with cannot be seen"),
}


@pytest.mark.parametrize("method", ["deeplift", "lrp"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_rule_is_refused_by_name_before_any_work(what, method):
    function, said = REFUSED[what]
    model = wrap(Bend(function).eval(), size=16, layer="one")
    with pytest.raises(NotApplicable, match=said):
        heatproof.explain(model, nets.images(2, 16), method)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_transformers_are_refused(name):
    model = wrap(nets.seeded(getattr(nets, name)), size=32)
    with pytest.raises(NotApplicable, match="LRP has no rule for layer_norm"):
        heatproof.explain(model, nets.images(1, 32), "lrp")


def test_lrp_refuses_functions_that_do_not_go_through_zero():
    assert torch.sigmoid(torch.zeros(())) > 0 and ELEMENTWISE > THROUGH_ZERO
    model = wrap(Bend(torch.sigmoid).eval(), size=16, layer="one")
    with pytest.raises(NotApplicable, match="LRP has no rule for sigmoid"):
        heatproof.explain(model, nets.images(2, 16), "lrp")
    heatproof.explain(model, nets.images(2, 16), "deeplift")


@pytest.mark.parametrize("method", ["deeplift", "lrp"])
def test_a_probability_is_refused(method):
    model = wrap(nets.seeded(nets.Plain), size=16, layer="two")
    with pytest.raises(NotApplicable, match="it explains logits alone"):
        heatproof.explain(model, nets.images(2, 16), method, output="probability")


def test_a_network_that_goes_another_way_on_the_baseline_is_refused():
    net = (
        Bend(lambda x: F.relu(x) if float(x.detach().abs().max()) > 1.5 else torch.tanh(x)).eval().requires_grad_(False)
    )
    z = 9 * (2 * nets.images(1, 16) - 1)
    with pytest.raises(NotApplicable, match="computes the same way on the image and the baseline"):
        relevance.deeplift(z, z, net, net, FIRST)


@pytest.mark.parametrize("method", ["deeplift", "lrp"])
def test_nothing_is_left_behind_after_an_exception(method):
    module = nets.Failing().eval()
    model, x = wrap(module, size=16, layer="layer"), nets.images(2, 16)
    heatproof.explain(model, x, method)
    before, names = nets.traces(module), [sorted(vars(part)) for part in module.modules()]
    module.fails = "after"
    with pytest.raises(FloatingPointError):
        heatproof.explain(model, x, method)
    assert nets.traces(module) == before and [sorted(vars(part)) for part in module.modules()] == names


def test_bad_options():
    model, x = wrap(nets.seeded(nets.Plain), size=16, layer="two"), nets.images(2, 16)
    with pytest.raises(InvalidInput, match=r"`epsilon` must be at least 0\. Got -1\."):
        heatproof.explain(model, x, "lrp[epsilon=-1]")
    with pytest.raises(UnknownName, match="Did you mean 'zero'"):
        heatproof.explain(model, x, "deeplift[baseline=zeros]")
