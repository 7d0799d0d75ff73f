"""IBA against its slow reference: the same noise, the same steps, the same bits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import heatproof
from heatproof import activation_statistics
from heatproof.attributions import requested
from heatproof.attributions.bottleneck import iba
from heatproof.engine import refusals, resolve_layers
from heatproof.errors import InvalidInput
from heatproof.models import wrap

from .. import nets
from . import reference_optimised as slow

TARGETS = (0, 4, 2)


def generators(count: int = 3, seed: int = 5) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


class Selection:
    """What the engine hands over: the tail of `Signed` after its second layer, and other images' activations."""

    def __init__(self, module: nn.Module):
        self.module, self.rows = module, []
        others = module.two(module.one(nets.images(20, 12, 16, seed=9).to(module.head.weight)))
        others[:, 3] = 0.25  # one channel that never varies
        self.mean, self.std = others.mean(0), others.std(0)

    def tail(self, activations: torch.Tensor, _row: int) -> torch.Tensor:
        self.rows.append(len(activations))
        module = self.module
        x = F.gelu(activations + 2 * module.three(activations)).mean((2, 3))
        return module.head(torch.tanh(3 * module.hidden(x)))

    def calibration(self, source: str) -> tuple[torch.Tensor, torch.Tensor]:
        assert source == "dead-leaves"
        return self.mean, self.std


@pytest.fixture
def asked():
    """In float64, where a trajectory can be followed for long; logits are large enough to matter."""
    module = nets.seeded(nets.Signed).double().requires_grad_(False)
    module.head.weight.mul_(20)
    activations = module.two(module.one(nets.images(3, 12, 16).double()))
    return activations, torch.tensor(TARGETS), Selection(module)


def explained(asked, generators, **options) -> torch.Tensor:
    activations, target, asks = asked
    return iba(activations, target, asks.tail, asks.calibration, generators, **options)


@pytest.mark.parametrize(("sigma", "beta"), [(1.0, 10.0), (0.6, 0.1)])
def test_the_map_is_the_papers(asked, sigma, beta):
    got = explained(asked, generators(), sigma=sigma, beta=beta, samples=3, steps=6)
    activations, _, asks = asked
    assert got.shape == (3, 6, 8) and asks.rows == [3] * 18
    for i in (0, 2):
        noise = [torch.randn(3, 7, 6, 8, generator=g) for g in generators()[i : i + 1] for _ in range(6)]
        expected = slow.bottleneck(
            activations[i].numpy(),
            asks.mean.numpy(),
            asks.std.numpy(),
            lambda one: asks.tail(one[None], 0)[0],
            TARGETS[i],
            torch.stack(noise).double().numpy(),
            beta=beta,
            lr=1.0,
            sigma=sigma,
            alpha=5.0,
        )
        np.testing.assert_allclose(got[i], expected, rtol=1e-6, atol=1e-9)


def test_the_authors_setting_is_the_default(asked):
    default = explained(asked, generators())
    assert asked[2].rows == [10] * 30
    again = explained(asked, generators(), beta=10.0, steps=10, lr=1.0, samples=10, sigma=1.0, alpha=5.0)
    assert torch.equal(default, again)


def test_float32_follows_the_same_path(asked):
    expected = explained(asked, generators())
    asked[2].module.float()
    plain = (asked[0].float(), asked[1], asked[2])
    got = explained(plain, generators())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)


def test_more_beta_lets_fewer_bits_through(asked):
    few, some, many = (explained(asked, generators(), beta=beta).sum((1, 2)) for beta in (100.0, 1.0, 0.01))
    assert (few < some).all() and (some < many).all()
    assert (explained(asked, generators()) >= 0).all()


@pytest.mark.parametrize("size", [(8, 8), (24,), (4, 6, 4)])
def test_it_finds_the_corner_that_counts(size):
    """A head that looks at one corner: bits stay there, and go elsewhere. Signals, images, volumes."""
    inside = torch.zeros(size, dtype=torch.bool)
    inside[tuple(slice(0, side // 2) for side in size)] = True
    activations = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)).abs() + 0.5

    def tail(given: torch.Tensor, _row: int) -> torch.Tensor:
        seen = given[:, :, inside].mean((1, 2))
        return torch.stack([-30 * seen, 30 * seen], 1)

    def calibration(_source: str) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(4, *size), torch.ones(4, *size)

    found = iba(activations, torch.tensor([1, 1]), tail, calibration, generators(2), beta=1.0, steps=20)
    assert (found[:, inside].mean(1) > 2 * found[:, ~inside].mean(1)).all()


def test_bits_are_those_of_two_gaussians(asked):
    """KL of N(λa, (1 − λ)²) to N(0, 1), by numerical integration, at the start (a rate of nearly nothing)."""
    activations, _, asks = asked
    got = explained(asked, generators(), steps=1, lr=1e-12, sigma=0.0, alpha=0.4)
    kept = 1 / (1 + math.exp(-0.4))
    z = np.linspace(-30, 30, 60001)
    normal = (activations[1] - asks.mean) / asks.std.clamp_min(0.01)
    bits = 0.0
    for channel in set(range(7)) - {3}:
        a = float(normal[channel, 2, 5])
        p = np.exp(-0.5 * ((z - kept * a) / (1 - kept)) ** 2) / (1 - kept) / math.sqrt(2 * math.pi)
        ratio = -0.5 * ((z - kept * a) / (1 - kept)) ** 2 - math.log(1 - kept) + 0.5 * z**2
        bits += float((p * ratio).sum() * (z[1] - z[0])) / math.log(2)
    assert float(got[1, 2, 5]) == pytest.approx(bits, rel=1e-6)


def test_what_never_varied_carries_nothing(asked):
    activations, _, asks = asked
    other = activations.clone()
    other[:, 3] = 7.0
    torch.testing.assert_close(
        explained((other, asked[1], asks), generators(), steps=3), explained(asked, generators(), steps=3)
    )
    asks.std = torch.zeros_like(asks.std)
    assert (explained(asked, generators(), steps=3) == 0).all()


def test_bits_stay_finite_when_everything_is_let_through(asked):
    """1 − λ rounds to 0 in float32 long before; log 0 would follow."""
    asked[2].module.float()
    found = explained((asked[0].float(), asked[1], asked[2]), generators(), alpha=40.0, steps=2)
    assert found.isfinite().all() and (found > 6 * 40 / math.log(2) * 0.9).all()


def test_batch_equals_single(asked):
    activations, target, asks = asked
    together = explained(asked, generators(), samples=4)
    for i in range(3):
        one = slice(i, i + 1)
        alone = explained((activations[one], target[one], asks), generators()[one], samples=4)
        torch.testing.assert_close(alone[0], together[i])


def test_randomness_is_the_generators_alone(asked):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = explained(asked, generators(), steps=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(explained(asked, generators(), steps=3), first)
    assert not torch.equal(explained(asked, generators(seed=50), steps=3), first)


def test_a_bad_image_spoils_no_other(asked):
    activations, target, asks = asked
    broken = activations.clone()
    broken[1, 0, 0, 0] = float("nan")
    fine, got = (explained((given, target, asks), generators(), steps=3) for given in (activations, broken))
    assert got[1].isnan().any() and torch.equal(got[[0, 2]], fine[[0, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"`steps` must be at least 1. Got 0."),
        ({"samples": 1.5}, r"`samples` must be a whole number. Got 1.5."),
        ({"lr": -1.0}, r"`lr` must be above 0. Got -1.0."),
        ({"beta": -1.0}, r"`beta` must be at least 0. Got -1.0."),
        ({"sigma": -0.5}, r"`sigma` must be at least 0. Got -0.5."),
    ],
)
def test_what_cannot_be(asked, options, message):
    with pytest.raises(InvalidInput, match=message):
        explained(asked, generators(), **options)
    assert asked[2].rows == []


def test_a_calibration_of_another_size_is_said(asked):
    activations, target, asks = asked
    with pytest.raises(InvalidInput, match=r"calibrated for activations of \(7, 5, 8\). Got \(7, 6, 8\)"):
        explained((activations[:, :, 1:], target, asks), generators())


# --- through the engine ---


@pytest.mark.parametrize("net", [nets.Signed, nets.Plain, nets.Dense, nets.vit, nets.swin])
def test_through_the_engine_on_real_tails(net, tmp_path, monkeypatch):
    """With its own calibration; the network is left as it was, whether its tail can be replayed or is a linear head."""
    monkeypatch.setenv("HEATPROOF_CACHE", str(tmp_path))
    monkeypatch.setattr(activation_statistics, "LEAVES", 24)
    model = wrap(nets.told_apart(nets.seeded(net), 32), size=32)
    before = nets.traces(model.module)
    x = nets.images(3, 32)
    options = {"iba": {"steps": 4, "samples": 2}}
    found = heatproof.explain(model, x, options, raw=True)["iba"]
    assert (found.flatten(1).std(1) > 0).all() and (found >= 0).all() and not found.requires_grad
    again = torch.cat([heatproof.explain(model, one[None], options, raw=True)["iba"] for one in x])
    torch.testing.assert_close(again, found, rtol=1e-3, atol=1e-4)
    assert nets.traces(model.module) == before
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_signals_need_a_calibration_of_their_own():
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    model = wrap(net.eval(), input_shape=(1, 32), layer="1")
    refused = refusals(model, resolve_layers(model, requested("iba"), "1"))
    assert "its inputs are no images" in str(refused)
    assert not refusals(model, resolve_layers(model, requested({"iba": {"source": "file"}}), "1"))
