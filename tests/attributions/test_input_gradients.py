"""Gradient methods against slow references in float64: differences for derivatives, sums for integrals."""

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import input_gradients as methods
from heatproof.errors import HeatproofWarning, InvalidInput, LayerError, NotApplicable, UnknownName
from heatproof.models import wrap

from .. import nets

SIDE = 6


@pytest.fixture(scope="module")
def smooth() -> nn.Module:
    return frozen(nets.seeded(nets.Signed))


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + i) for i in range(count)]


def z_of(count: int = 2, side: int = SIDE) -> torch.Tensor:
    return 2 * nets.images(count, side) - 1


def x_of(count: int = 2, side: int = SIDE) -> torch.Tensor:
    return nets.images(count, side)


TARGET = torch.tensor([1, 3])


def output(net: nn.Module, one: np.ndarray, target: int) -> float:
    """The target's logit of one image, in float64."""
    return float(net.double()(torch.from_numpy(one)[None])[0, target])


def slow_gradient(net: nn.Module, one: np.ndarray, target: int, step: float = 1e-5) -> np.ndarray:
    """Central differences, one number of the image at a time."""
    found = np.zeros_like(one)
    for position in np.ndindex(one.shape):
        up, down = one.copy(), one.copy()
        up[position] += step
        down[position] -= step
        found[position] = (output(net, up, target) - output(net, down, target)) / (2 * step)
    return found


def slow(net: nn.Module, z: torch.Tensor, formula) -> np.ndarray:
    """`formula(net, image, target, n)` for every image, in float64; the network is put back to float32."""
    try:
        return np.stack([formula(net, one.double().numpy(), int(TARGET[n]), n) for n, one in enumerate(z)])
    finally:
        net.float()


def agrees(got: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def by_autograd(net: nn.Module, one: np.ndarray, target: int) -> np.ndarray:
    """For the references that average many gradients; checked by differences below."""
    at = torch.from_numpy(one)[None].requires_grad_()
    return torch.autograd.grad(net.double()(at)[0, target], at)[0][0].numpy()


def test_the_gradient_is_the_limit_of_differences(smooth):
    z = z_of()
    expected = slow(smooth, z, lambda net, one, target, n: slow_gradient(net, one, target))
    agrees(methods.gradient(methods.gradient_at(smooth, z, TARGET)), expected)
    agrees(methods.input_x_gradient(z, methods.gradient_at(smooth, z, TARGET)), expected * z.numpy())
    agrees(torch.from_numpy(slow(smooth, z, lambda net, one, t, n: by_autograd(net, one, t))), expected)


def test_smoothgrad_is_the_mean_over_noisy_copies_each_by_its_own_range(smooth):
    z = z_of()
    z[1] *= 3

    def formula(net, one, target, n):
        generator, spread = seeds(2)[n], 0.2 * (one.max() - one.min())
        noise = [torch.randn(one.shape, generator=generator).double().numpy() for _ in range(5)]
        return np.mean([by_autograd(net, one + spread * e, target) for e in noise], 0)

    got = methods.smoothgrad(z, smooth, TARGET, seeds(2), samples=5, noise=0.2)
    agrees(got, slow(smooth, z, formula))


def test_smoothgrad_without_noise_is_the_gradient(smooth):
    got = methods.smoothgrad(z_of(), smooth, TARGET, seeds(2), samples=3, noise=0)
    torch.testing.assert_close(got, methods.gradient_at(smooth, z_of(), TARGET))


@pytest.mark.parametrize("baseline", ["zero", "black", "blur"])
def test_integrated_gradients_are_the_integral(smooth, baseline):
    """A midpoint sum of 400 steps, for the quadrature of 20."""
    z, x = z_of(), x_of()
    start = {"zero": 0 * z, "black": torch.full_like(z, -1), "blur": heatproof.masking.blurred(z)}[baseline]

    def formula(net, one, target, n):
        begin, steps, total = start[n].double().numpy(), 400, 0
        for step in range(steps):
            alpha = (step + 0.5) / steps
            total = total + by_autograd(net, begin + alpha * (one - begin), target) / steps
        return (one - begin) * total

    agrees(
        methods.integrated_gradients(x, z, smooth, TARGET, smooth(z), steps=20, baseline=baseline),
        slow(smooth, z, formula),
    )


@pytest.mark.parametrize("net", [nets.Signed, nets.Plain, nets.Dense], ids=lambda net: net.__name__)
def test_integrated_gradients_add_up_to_the_difference_of_outputs(net):
    """Completeness; where the network bends, the quadrature has an error that falls with the steps."""
    module, z = frozen(nets.seeded(net)), z_of(side=16)
    outputs = [module(at)[torch.arange(2), TARGET] for at in (z, 0 * z)]
    got = methods.integrated_gradients(x_of(side=16), z, module, TARGET, module(z), steps=200)
    tolerance = 1e-5 if net is nets.Signed else 2e-3
    torch.testing.assert_close(got.sum((1, 2, 3)), outputs[0] - outputs[1], rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("error:.*miss completeness")
def test_a_gap_in_completeness_is_said_and_only_there():
    """`relu(Σz − c)` bends at .6 of the way: its map must sum to .4 of the whole, and two nodes find half."""
    z, target = torch.ones(2, 3, 4, 4), torch.tensor([0, 1])
    x, whole = torch.full_like(z, 0.5), 3 * 4 * 4

    def network(at):
        total = at.sum((1, 2, 3))
        return torch.stack([(total - 0.6 * whole).relu(), total], 1)

    with pytest.warns(HeatproofWarning, match=r"with 2 steps miss completeness by more than 5%.*\[steps=8\]"):
        found = methods.integrated_gradients(x, z, network, target, network(z), steps=2)
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.tensor([0.5, 1.0]) * whole)
    methods.integrated_gradients(x, z, network, target, network(z), steps=60)
    methods.integrated_gradients(x, z, network, torch.tensor([1, 1]), network(z), steps=2)  # linear: no gap


@pytest.mark.parametrize(("baseline", "noise"), [("zero", 0.0), ("black", 0.3), ("normal", 0.0), ("normal", 0.3)])
def test_gradientshap_is_the_mean_over_random_points_of_the_path(smooth, baseline, noise):
    z, x = z_of(), x_of()

    def formula(net, one, target, n):
        generator, total = seeds(2)[n], 0
        for _ in range(4):
            alpha = float(torch.rand((), generator=generator))
            end, begin = one, np.full_like(one, -1.0 if baseline == "black" else 0.0)
            if noise:
                end = (
                    one + noise * (one.max() - one.min()) * torch.randn(one.shape, generator=generator).double().numpy()
                )
            if baseline == "normal":
                begin = torch.randn(one.shape, generator=generator).double().numpy()
            total = total + (end - begin) * by_autograd(net, begin + alpha * (end - begin), target) / 4
        return total

    got = methods.gradientshap(x, z, smooth, TARGET, seeds(2), samples=4, noise=noise, baseline=baseline)
    agrees(got, slow(smooth, z, formula))


def test_gradientshap_goes_to_integrated_gradients(smooth):
    many = methods.gradientshap(x_of(), z_of(), smooth, TARGET, seeds(2), samples=4000)
    exact = methods.integrated_gradients(x_of(), z_of(), smooth, TARGET, smooth(z_of()))
    agrees(many, exact.numpy(), 0.03)


# --- what goes through the network together ---


class Rows(nn.Module):
    """Remembers how many rows it was given at a time."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.rows = inner, []

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(z))
        return self.inner(z)


MANY = {
    "integrated-gradients": lambda net, n: methods.integrated_gradients(
        x_of(n), z_of(n), net, classes(n), torch.zeros(n, 5), steps=7
    ),
    "smoothgrad": lambda net, n: methods.smoothgrad(z_of(n), net, classes(n), seeds(n), samples=7),
    "gradientshap": lambda net, n: methods.gradientshap(
        x_of(n), z_of(n), net, classes(n), seeds(n), samples=7, noise=0.1, baseline="normal"
    ),
}


def classes(count: int) -> torch.Tensor:
    return torch.arange(count) % 5


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("rows", [1, 3, 7, 16, 100])
def test_memory_is_bounded_and_the_chunks_decide_nothing(name, rows, smooth, monkeypatch):
    """As many rows as draws, no more than so many at a time, and the same map whichever images share a pass."""
    expected = torch.cat([MANY[name](smooth, n)[n - 1 :] for n in (1, 2, 3)])
    monkeypatch.setattr(methods, "rows_per_pass", lambda _z: rows)
    counted = Rows(smooth)
    got = MANY[name](counted, 3)
    baseline = 3 if name == "integrated-gradients" else 0  # a forward of it says how complete the maps are
    assert sum(counted.rows) == 3 * 7 + baseline and max(counted.rows) <= rows
    assert len(counted.rows) == -(-21 // rows) + -(-baseline // rows)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MANY)
def test_an_image_without_numbers_does_not_spoil_its_neighbours(name, smooth, monkeypatch):
    expected = MANY[name](smooth, 3)
    good = z_of

    def broken(count: int = 2, side: int = SIDE) -> torch.Tensor:
        z = good(count, side)
        z[1] = float("nan")
        return z

    monkeypatch.setitem(globals(), "z_of", broken)
    got = MANY[name](smooth, 3)
    assert got[1].isnan().all()
    torch.testing.assert_close(got[[0, 2]], expected[[0, 2]])


def test_a_network_that_writes_into_its_input_changes_no_image():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nets.seeded(nets.Plain)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.inner(z.mul_(2))

    net, z = frozen(Writes()), z_of(side=16)
    copy = z.clone()
    expected = 2 * methods.gradient_at(net.inner, 2 * z, TARGET)
    torch.testing.assert_close(methods.gradient(methods.gradient_at(net, z, TARGET)), expected)
    assert torch.equal(z, copy)


def test_gradients_can_be_differentiated_again(smooth):
    z = z_of().requires_grad_()
    found = methods.integrated_gradients(x_of(), z, smooth, TARGET, smooth(z), steps=3)
    step = 1e-2 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    (by_z,) = torch.autograd.grad(found.square().sum(), z)
    ends = [
        methods.integrated_gradients(x_of(), z.detach() + s * step, smooth, TARGET, smooth(z), steps=3).square().sum()
        for s in (0.5, -0.5)
    ]
    assert float((by_z * step).sum()) == pytest.approx(float(ends[0] - ends[1]), rel=0.02)


# --- through the engine ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision(dtype):
    x = nets.images(2, 16)
    maps = []
    for kind in (torch.float32, dtype):
        model = wrap(nets.seeded(nets.Signed).to(kind), size=16, layer="two")
        maps.append(heatproof.explain(model, x, "integrated-gradients", 2, raw=True)["integrated-gradients"])
    assert maps[1].dtype == torch.float32
    tolerance = 1e-5 if dtype is torch.float64 else 0.1
    agrees(maps[1], maps[0].numpy(), tolerance)


def test_the_output_explained_is_the_callers():
    model, x = wrap(nets.seeded(nets.Signed), size=16, layer="two"), nets.images(2, 16)
    z = model.normalise(x).requires_grad_()
    chances = model.module(z).softmax(1)[:, 2].sum()
    (expected,) = torch.autograd.grad(chances, z)
    got = heatproof.explain(model, x, "gradient", 2, raw=True, output="probability")["gradient"]
    torch.testing.assert_close(got, expected)


def test_signals():
    torch.manual_seed(0)
    net = frozen(nn.Sequential(nn.Conv1d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 5)))
    z = torch.randn(2, 3, 9)
    expected = slow(net, z, lambda net, one, target, n: slow_gradient(net, one, target))
    agrees(methods.gradient(methods.gradient_at(net, z, TARGET)), expected)
    assert methods.smoothgrad(z, net, TARGET, seeds(2), samples=2).shape == z.shape


BAD = [
    ("smoothgrad[samples=0]", InvalidInput, "`samples` must be at least 1. Got 0."),
    ("smoothgrad[samples=2.5]", InvalidInput, "`samples` must be a whole number. Got 2.5."),
    ("smoothgrad[noise=-1]", InvalidInput, "`noise` must be at least 0. Got -1."),
    ("gradientshap[noise=.nan]", InvalidInput, "`noise` must be at least 0. Got nan."),
    ("integrated-gradients[steps=0]", InvalidInput, "`steps` must be at least 1. Got 0."),
    ("integrated-gradients[baseline=blak]", UnknownName, "Did you mean 'black'"),
    ("gradient[channels=sum]", UnknownName, "No `channels` is called 'sum'. Did you mean 'sum-abs'"),
    ("smoothgrad[samples=.inf]", InvalidInput, "`samples` must be a whole number. Got inf."),
    ("gradientshap[baseline=norml]", UnknownName, "Did you mean 'normal'"),
]


@pytest.mark.parametrize(("asked", "kind", "said"), BAD)
def test_bad_options(asked, kind, said):
    model = wrap(nets.seeded(nets.Plain), size=16, layer="two")
    with pytest.raises(kind, match=said):
        heatproof.explain(model, nets.images(2, 16), asked)


def test_a_network_that_no_gradient_crosses():
    with pytest.raises(NotApplicable, match="No gradient reaches the image"):
        methods.gradient_at(lambda z: z.detach().flatten(1), z_of(), TARGET)


def test_the_gradient_shares_the_pass_of_the_cams_and_equals_one_of_its_own(monkeypatch):
    model, x = wrap(nets.seeded(nets.Signed), size=16, layer="two"), nets.images(3, 16)
    model.layers  # noqa: B018 - looked for now
    calls = {"forward": 0, "backward": 0}
    own, grad = model.module.forward, torch.autograd.grad

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(model.module, "forward", counted("forward", own))
    monkeypatch.setattr(torch.autograd, "grad", counted("backward", grad))
    asked = ["gradient", "input-x-gradient", "gradcam", "layercam@one", "refine:gradcam"]
    together = heatproof.explain(model, x, asked, raw=True)
    assert calls == {"forward": 1, "backward": 1}
    monkeypatch.undo()
    z = model.normalise(x)
    with model.evaluating():
        expected = methods.gradient_at(model.module, z, together.target)
    torch.testing.assert_close(together["gradient"], expected)
    torch.testing.assert_close(together["input-x-gradient"], z * expected)
    for name in asked[2:]:
        torch.testing.assert_close(together[name], heatproof.explain(model, x, name, raw=True)[name])


def test_a_network_that_no_gradient_crosses_says_so():
    class Cut(nets.Plain):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(LayerError, match="No gradient reaches the image"):
        heatproof.explain(wrap(nets.seeded(Cut), size=16), nets.images(1, 16), "gradient")
