"""Coherency, complexity and ARCC beside pytorch-grad-cam 1.5.7's `metrics.arcc`.

Fed the same maps its numbers are ours. Its defect: a map that is constant correlates by 0 with anything, so a method
that shows nothing has a coherency of .5, and an ARCC.
"""

import numpy as np
import pytest
import torch

import heatproof
from heatproof.metrics import METRICS
from heatproof.metrics.coherency import coherency
from heatproof.metrics.complexity import complexity
from heatproof.metrics.composites import arcc
from heatproof.models import wrap

from .. import nets
from ..metrics.scored import scored

theirs = pytest.importorskip("pytorch_grad_cam.metrics.arcc")

HEIGHT, WIDTH = 24, 20
IDS = ["a", "b", "c"]


@pytest.fixture
def model():
    return wrap(nets.told_apart(nets.seeded(nets.Signed), WIDTH), size=(HEIGHT, WIDTH), layer="two")


@pytest.fixture
def x():
    return nets.images(3, HEIGHT, WIDTH)


class Ours:
    """Our method in the place of theirs: called with masked images, normalised."""

    def __init__(self, model, method: str, target: torch.Tensor):
        self.model, self.method, self.target, self.seen = model, method, target, []

    def __call__(self, input_tensor: torch.Tensor, targets) -> np.ndarray:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.model.mean, self.model.std))
        self.seen.append((input_tensor * std + mean).clamp(0, 1))
        return np.asarray(heatproof.explain(self.model, self.seen[-1], [self.method], target=self.target)[self.method])


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "gradient"])
def test_complexity_and_coherency_of_the_same_maps(model, x, method):
    first = heatproof.explain(model, x, [method])
    maps = np.asarray(first[method])
    np.testing.assert_allclose(complexity(torch.as_tensor(maps)), theirs.Complexity()(maps), rtol=1e-6)
    again = Ours(model, method, first.target)
    expected = theirs.Coherency()(model.normalise(x), maps, None, model.module, again)
    found = scored(model, x, [method], "coherency", IDS)[method]["coherency"]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_arcc_is_theirs_where_no_pixels_are_equal(model, x, monkeypatch):
    """Their ROAD is put in by value: with its unseeded noise it is another matter (test_road_peers)."""
    method, road = "gradcam", np.array([0.3, -0.1, 0.6])
    first = heatproof.explain(model, x, [method])
    maps = np.asarray(first[method])
    peer = theirs.ARCC(Ours(model, method, first.target))
    monkeypatch.setattr(peer, "road", lambda *_: road)
    expected = peer(model.normalise(x), maps, None, model.module)
    values = scored(model, x, [method], ["coherency", "complexity"], IDS)[method]
    found = arcc(values["coherency"], values["complexity"], torch.from_numpy(road))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-7)


def test_a_map_that_shows_nothing_has_a_coherency_for_the_peer(model, x):
    maps = np.zeros((3, HEIGHT, WIDTH), dtype=np.float32)
    expected = theirs.Coherency()(model.normalise(x), maps, None, model.module, lambda input_tensor, targets: maps)
    assert expected.tolist() == [0.5] * 3
    zeros = torch.from_numpy(maps)
    assert coherency(x, model.normalise(x), zeros, lambda x, condition: zeros, model).isnan().all()
    assert METRICS["coherency"].traits["degenerate"] == METRICS["arcc"].traits["degenerate"] == 0, (
        "stated by the engine"
    )
