"""Correlations, infidelity and completeness beside Quantus 0.6.0 and Captum 0.9.0.

On images of one channel, with the same draws, Quantus' MonotonicityCorrelation and FaithfulnessCorrelation agree, and
Captum's infidelity does on three. What Quantus gets wrong is shown: with three channels it takes single values for
pixels; its uniform draw is one number for a whole group; an unlikely target in a batch is an error; its SensitivityN
knows no random subsets and correlates over the images; its Completeness asks for equal floats of a rescaled map.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from heatproof.metrics.correlation import faithfulness_correlation, monotonicity_correlation, sensitivity_n
from heatproof.metrics.infidelity import PERTURBATIONS, InfidelitySetting, infidelity
from heatproof.models import wrap

from .. import nets

COUNT, SIDE = 3, 8
CLASSES = torch.tensor([1, 0, 2])


class Net(nn.Module):
    """A small network of any number of channels, whose answers differ."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.Tanh(), nn.Flatten())
        self.head = nn.Linear(6 * SIDE * SIDE, 4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return 2 * self.head(self.body(z))


def scene(channels: int):
    """Images that are their own normalised form, a network, what it says, and maps."""
    generator = torch.Generator().manual_seed(4)
    z = torch.rand(COUNT, channels, SIDE, SIDE, generator=generator)
    net = nets.seeded(lambda: Net(channels))
    raw = torch.randn(COUNT, channels, SIDE, SIDE, generator=generator)
    with torch.no_grad():
        return z, net, net(z), raw


def score_of(net: nn.Module):
    def score(z, rows=None, of="probability"):
        with torch.no_grad():
            logits = net(z).double()
        target = CLASSES if rows is None else CLASSES[rows]
        return (logits if of == "logit" else logits.softmax(1)).gather(1, target[:, None])[:, 0]

    return score


class Plain:
    """What stands for the model where only normalising is asked for, and does nothing."""

    @staticmethod
    def normalise(x):
        return x


def generators():
    return [torch.Generator().manual_seed(30 + i) for i in range(COUNT)]


def ranked(m: torch.Tensor) -> torch.Tensor:
    return (-m).flatten(1).argsort(dim=1, stable=True).argsort(1).view(m.shape)


def quantus_of(name: str, net: nn.Module, z: torch.Tensor, a: torch.Tensor, call=None, **options):
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(disable_warnings=True, return_aggregate=False, **options)
    target = CLASSES[: len(z)].numpy()
    return metric(model=net, x_batch=z.numpy(), y_batch=target, a_batch=a.numpy(), device="cpu", **(call or {}))


# --- Quantus: MonotonicityCorrelation ---------------------------------------------------------------------------------


class Replayed:
    """A perturbation for Quantus that puts the same random images where ours does: sample by sample, all groups."""

    def __init__(self, samples: int, shape: tuple[int, ...]):
        every = generators()
        self.drawn = [[torch.rand(shape, generator=one).flatten().numpy() for _ in range(samples)] for one in every]
        self.calls, self.samples = 0, samples

    def __call__(self, arr, indices, **_):
        changed = arr.copy()
        for i in range(len(arr)):
            changed[i, indices[i]] = self.drawn[i][self.calls % self.samples][indices[i]]
        self.calls += 1
        return changed


def test_quantus_monotonicity_correlation_agrees_with_the_same_draws():
    z, net, logits, raw = scene(1)
    maps, samples = raw[:, 0].abs() / raw.abs().max(), 5
    rank, score = ranked(maps), score_of(net)
    p = logits.double().softmax(1).gather(1, CLASSES[:, None])[:, 0]
    ask = {"groups": 8, "samples": samples}
    found = monotonicity_correlation(z, p, maps, lambda: rank, score, Plain, False, generators(), **ask)
    theirs = quantus_of(
        "MonotonicityCorrelation", net, z, maps[:, None], features_in_step=8, nr_samples=samples,
        perturb_func=Replayed(samples, (1, SIDE, SIDE)),
    )  # fmt: skip
    assert found.tolist() == pytest.approx(theirs, abs=1e-9)
    assert len(set(np.round(theirs, 6))) > 1


def test_in_quantus_three_channels_are_three_times_as_many_features():
    """Seven groups of 7168 pixels at 224² are 21 groups of values there; eight of 8 pixels are 24 here."""
    z, net, _, raw = scene(3)
    seen = []

    def perturb(arr, indices, **_):
        seen.append(indices)
        changed = arr.copy()
        changed[np.arange(COUNT)[:, None], indices] = 0
        return changed

    maps = raw[:, :1].abs()
    quantus_of("MonotonicityCorrelation", net, z, maps, features_in_step=8, nr_samples=1, perturb_func=perturb)
    assert len(seen) == 24 and seen[0].shape == (COUNT, 8)
    pixels = [set((group[0] % SIDE**2).tolist()) for group in seen]
    assert any(one & other for one, other in itertools.pairwise(pixels)), "channels of a pixel go apart"


def test_the_uniform_draw_of_quantus_is_one_number_for_a_whole_group():
    functions = pytest.importorskip("quantus.functions.perturb_func")
    arr, indices = np.zeros((2, 30)), np.tile(np.arange(10), (2, 1))
    drawn = functions.batch_baseline_replacement_by_indices(arr, indices, "uniform")
    assert len(set(drawn[0, :10])) == len(set(drawn[1, :10])) == 1


def test_quantus_fails_on_a_batch_with_an_unlikely_target():
    """`1 / p²` is written into the positions with p ≥ 1e-5 from an array of all positions."""
    z, net, _, raw = scene(1)

    class Sure(nn.Module):
        def forward(self, x):
            logits = net(x)
            return torch.cat([logits[:1] - 40 * torch.eye(4)[1], logits[1:]]) if len(x) == COUNT else logits

    with pytest.raises(ValueError, match="NumPy boolean array indexing"):
        quantus_of("MonotonicityCorrelation", Sure().eval(), z, raw.abs(), features_in_step=8, nr_samples=2)


# --- Quantus: FaithfulnessCorrelation, SensitivityN -------------------------------------------------------------------


def test_quantus_faithfulness_correlation_agrees_with_the_same_subsets(monkeypatch):
    pytest.importorskip("quantus")
    z, net, _, raw = scene(1)
    samples, subset, pixels = 7, 9, SIDE * SIDE
    found = faithfulness_correlation(
        z, z, raw[:, 0], raw[:, 0], score_of(net), generators(), {}, samples=samples, subset=subset
    )  # fmt: skip
    every = generators()
    drawn = [[torch.randperm(pixels, generator=one)[:subset].numpy() for _ in range(samples)] for one in every]
    order = iter([drawn[i][run] for run in range(samples) for i in range(COUNT)])
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(order))
    theirs = quantus_of(
        "FaithfulnessCorrelation", net, z, raw, nr_runs=samples, subset_size=subset, perturb_baseline=0.0
    )  # fmt: skip
    assert found.tolist() == pytest.approx(theirs, abs=1e-5)


def exact(z: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """A linear network without a bias, and input × gradient, which adds up exactly for every subset."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(z[0].numel(), 4, bias=False)).eval()
    return net, net[1].weight[CLASSES[: len(z)]].detach().view(z.shape) * z


def test_quantus_sensitivity_n_is_another_quantity():
    """It takes the top features away one group after the other and keeps them away, sets the drop so far against the
    sum of the last group, and correlates over the images of the batch: one number a step, none for one image.
    """
    z, *_ = scene(1)
    net, raw = exact(z)
    ours = sensitivity_n(z, z, raw[:, 0].abs(), raw, score_of(net), generators(), {}, samples=5, steps=4)
    torch.testing.assert_close(ours.points, torch.ones_like(ours.points))
    theirs = np.array(
        quantus_of("SensitivityN", net, z, raw, features_in_step=8, normalise=False, perturb_baseline=0.0)
    )
    assert len(theirs) == int(0.8 * 8), "steps, where there are three images"
    assert theirs.min() < 0.9, "and the exact explanation fails"
    with pytest.raises(ValueError, match="at least 2"):
        quantus_of("SensitivityN", net, z[:1], raw[:1], features_in_step=8)


# --- Quantus: Completeness --------------------------------------------------------------------------------------------


def test_quantus_completeness_calls_an_exact_map_incomplete():
    """Equal floats of a map divided by the batch's maximum, over an image of its own minimum."""
    z, *_ = scene(1)
    net, raw = exact(z)
    assert not any(quantus_of("Completeness", net, z, raw))
    assert not all(quantus_of("Completeness", net, z, raw, normalise=False, perturb_baseline=0.0)), "not even so"


# --- Captum: infidelity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(PERTURBATIONS))
@pytest.mark.parametrize("normalise", [True, False])
def test_captum_infidelity_agrees_with_the_same_changes(kind, normalise):
    metrics = pytest.importorskip("captum.metrics")
    z, net, logits, raw = scene(3)
    samples = 6

    def perturb(inputs):
        assert len(inputs) == COUNT * samples, "each image's copies follow each other"
        rows = torch.arange(COUNT).repeat_interleave(samples)
        every = generators()
        factor, changed = PERTURBATIONS[kind](
            InfidelitySetting(z, torch.zeros_like(z), 0.2), rows, [every[i] for i in rows]
        )
        return factor.float().expand_as(inputs), changed

    theirs = metrics.infidelity(
        net, perturb, z, raw, target=CLASSES, n_perturb_samples=samples, normalize=normalise
    )  # fmt: skip
    p = logits.double().softmax(1).gather(1, CLASSES[:, None])[:, 0]
    found = infidelity(
        z, z, logits, CLASSES, p, raw.abs().amax(1), raw, score_of(net), generators(), {},
        perturbation=kind, samples=samples, normalise=normalise,
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), theirs.detach().numpy(), rtol=2e-4)


def test_captum_scales_a_map_of_zeros_to_the_same_worst_value():
    metrics = pytest.importorskip("captum.metrics")
    z, net, logits, raw = scene(3)

    def perturb(inputs):
        rows, every = torch.arange(COUNT).repeat_interleave(4), generators()
        factor, changed = PERTURBATIONS["square"](InfidelitySetting(z, 0 * z, 0.2), rows, [every[i] for i in rows])
        return factor.float().expand_as(inputs), changed

    theirs = metrics.infidelity(net, perturb, z, 0 * raw, target=CLASSES, n_perturb_samples=4, normalize=True)
    empty = torch.zeros(COUNT, SIDE, SIDE)
    found = infidelity(
        z, z, logits, CLASSES, torch.ones(COUNT).double(), empty, 0 * raw, score_of(net), generators(), {}, samples=4
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), theirs.detach().numpy(), rtol=2e-4)


def test_the_model_of_the_parity_tests_is_one_of_ours():
    """The score above is what the engine hands to a metric."""
    z, net, logits, _ = scene(3)
    model = wrap(net, size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = model.probabilities(logits).gather(1, CLASSES[:, None])[:, 0]
    torch.testing.assert_close(score_of(net)(z), expected)
