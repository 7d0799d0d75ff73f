"""Complexity beside Quantus 0.6.0 and pytorch-grad-cam 1.5.7 (`metrics.arcc.Complexity`).

They agree on maps scaled to a maximum of 1 each, one map at a time. What Quantus gets wrong: it divides by the largest
value of the whole batch, so a score depends on its neighbours; a map of zeros has NaN or the best score; its effective
complexity counts values above a threshold and never asks the network.
"""

import numpy as np
import pytest
import torch

from heatproof.metrics.complexity import complexity, entropy, nonzero_count, sparseness

SIDE = 12


def maps(count: int = 4) -> torch.Tensor:
    found = torch.rand(count, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = found * (found > 0.4)
    return found / found.amax((1, 2), keepdim=True)


def quantus_of(name: str, a: torch.Tensor) -> np.ndarray:
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(disable_warnings=True, return_aggregate=False)
    x = np.zeros((len(a), 1, SIDE, SIDE), dtype=np.float32)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 2))
    return np.array(metric(model=net, x_batch=x, y_batch=np.zeros(len(a), dtype=int), a_batch=a[:, None].numpy()))


@pytest.mark.parametrize(
    ("name", "ours", "tolerance"),
    [("Complexity", entropy, 1e-5), ("Sparseness", sparseness, 1e-5), ("EffectiveComplexity", nonzero_count, 0)],
)
def test_quantus_agrees_on_maps_of_one_scale(name, ours, tolerance):
    """Sparseness adds 1e-7 to every value, Complexity 1e-12 inside the logarithm; both work in float32."""
    np.testing.assert_allclose(quantus_of(name, maps()), ours(maps()).numpy(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("name", "ours"), [("Sparseness", sparseness), ("EffectiveComplexity", nonzero_count)], ids=["gini", "count"]
)
def test_in_quantus_the_score_of_a_map_depends_on_its_neighbour(name, ours):
    both = maps(2)
    both[1] *= 1e6
    alone, together = quantus_of(name, both[:1])[0], quantus_of(name, both)[0]
    assert abs(alone - together) > 0.02 * abs(alone), "normalised by the batch's maximum"
    assert ours(both)[0] == ours(both[:1])[0]


def test_in_quantus_a_map_of_zeros_has_no_entropy_or_the_least_complexity():
    empty = maps(2)
    empty[1] = 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(quantus_of("Complexity", empty)[1])
    assert quantus_of("EffectiveComplexity", empty)[1] == 0
    assert entropy(empty)[1] == pytest.approx(np.log(SIDE * SIDE)) and nonzero_count(empty)[1] == SIDE * SIDE


def test_quantus_effective_complexity_never_asks_the_network():
    """Nguyen & Martínez ask when the network still answers; a count cannot know."""
    quantus = pytest.importorskip("quantus")

    class Silent(torch.nn.Module):
        def forward(self, _x):
            raise AssertionError("asked")

    metric = quantus.EffectiveComplexity(disable_warnings=True)
    x = np.zeros((4, 1, SIDE, SIDE), dtype=np.float32)
    found = metric(model=Silent(), x_batch=x, y_batch=np.zeros(4, dtype=int), a_batch=maps()[:, None].numpy())
    assert found == nonzero_count(maps()).tolist()


def test_pytorch_grad_cam_agrees_on_the_mean():
    arcc = pytest.importorskip("pytorch_grad_cam.metrics.arcc")
    np.testing.assert_allclose(arcc.Complexity()(maps().numpy()), complexity(maps()).numpy(), rtol=1e-6)
    assert arcc.Complexity()(np.zeros((1, SIDE, SIDE))) == 0, "nothing at all is the simplest map there; 1 here"
