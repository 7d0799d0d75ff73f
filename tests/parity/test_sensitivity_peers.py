"""Sensitivity beside Captum 0.9.0 and Quantus 0.6.0, given our noise and our maps: the same numbers.

Captum divides by 1 where the map is zero all over, so a method that shows nothing gets a perfect 0; ours has no value.
Both draw their noise from the global generators: two runs differ, and so do two methods of one run.
"""

import numpy as np
import pytest
import torch

import heatproof
from heatproof import seeds
from heatproof.metrics.sensitivity import relative_shifts
from heatproof.models import wrap

from .. import nets
from ..metrics.scored import scored

HEIGHT, WIDTH, DRAWS = 24, 20, 4
IDS = ["a", "b", "c"]


@pytest.fixture
def model():
    return wrap(nets.told_apart(nets.seeded(nets.Signed), WIDTH), size=(HEIGHT, WIDTH), layer="two")


@pytest.fixture
def x():
    return 0.3 + 0.4 * nets.images(3, HEIGHT, WIDTH)  # with our noise still in [0, 1], which `explain` asks for


def unnormalised(model, z: torch.Tensor) -> torch.Tensor:
    return z * torch.tensor(model.std).view(1, 3, 1, 1) + torch.tensor(model.mean).view(1, 3, 1, 1)


def ours(model, x, method: str) -> tuple[np.ndarray, np.ndarray]:
    metrics = {name: {"samples": DRAWS} for name in ("max-sensitivity", "average-sensitivity")}
    found = scored(model, x, [method], metrics, IDS)[method]
    return tuple(values.numpy() for values in found.values())


class Noise:
    """Our draws, one for all images at each call."""

    def __init__(self, seed: int = 0):
        self.generators = [seeds.generator(seed, name, "metric shifts") for name in IDS]

    def __call__(self) -> torch.Tensor:
        drawn = [2 * torch.rand(3, HEIGHT, WIDTH, generator=one) - 1 for one in self.generators]
        return 0.2 * torch.stack(drawn)


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_captum(model, x, method):
    metrics = pytest.importorskip("captum.metrics")
    noise, target = Noise(), heatproof.explain(model, x, [method]).target

    def explained(z):  # a tuple for the clean images, a tensor for the others
        z = z[0] if isinstance(z, tuple) else z
        maps = heatproof.explain(model, unnormalised(model, z), [method], target=target)[method]
        return (torch.as_tensor(np.asarray(maps)).double(),)

    found = metrics.sensitivity_max(
        explained,
        (model.normalise(x),),
        perturb_func=lambda z: z + noise(),
        n_perturb_samples=DRAWS,
        max_examples_per_batch=len(x),
    )
    np.testing.assert_allclose(ours(model, x, method)[0], found, rtol=2e-4)


@pytest.mark.parametrize("name", ["MaxSensitivity", "AvgSensitivity"])
def test_quantus(model, x, name):
    quantus = pytest.importorskip("quantus")
    asked, noise, first = model, Noise(), heatproof.explain(model, x, ["gradcam"])
    target = first.target

    def explain_func(model, inputs, targets, **_):
        shown = unnormalised(asked, torch.as_tensor(inputs).float())
        return np.asarray(heatproof.explain(asked, shown, ["gradcam"], target=target)["gradcam"])[:, None]

    metric = getattr(quantus, name)(
        nr_samples=DRAWS, abs=False, normalise=False, disable_warnings=True,
        perturb_func=lambda arr, indices, **_: arr + noise().numpy().reshape(arr.shape),
    )  # fmt: skip
    found = metric(
        model=model.module, x_batch=model.normalise(x).numpy(), y_batch=target.numpy(),
        a_batch=np.asarray(first["gradcam"])[:, None], explain_func=explain_func, device="cpu",
    )  # fmt: skip
    expected = ours(model, x, "gradcam")[0 if name == "MaxSensitivity" else 1]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_a_method_that_shows_nothing_is_perfectly_stable_for_captum(model, x):
    metrics = pytest.importorskip("captum.metrics")

    def nothing(images, **_):
        return (torch.zeros_like(images[0]),)

    assert (metrics.sensitivity_max(nothing, (x,)) == 0).all()
    generators = seeds.generators(0, IDS, "metric shifts")
    zeros = torch.zeros(3, HEIGHT, WIDTH)
    found = relative_shifts(x, model, zeros, lambda x, condition: zeros, generators, samples=2, radius=0.02)
    assert found.isnan().all()


def test_peers_draw_other_noise_for_every_method(x):
    metrics = pytest.importorskip("captum.metrics")

    def channel(images, **_):
        return (images[0][:, :1],)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, two = (metrics.sensitivity_max(channel, (x,), n_perturb_samples=2) for _ in range(2))
    assert not torch.equal(one, two), "the same method twice in one run"
