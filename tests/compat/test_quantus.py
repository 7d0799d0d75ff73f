"""Quantus 0.6.0 measures heatproof's methods through `explain_func`."""

import numpy as np
import pytest
import torch

import heatproof
from heatproof.compat.quantus import explain_func
from heatproof.errors import InvalidInput, InvalidTarget, UnknownName

from .. import nets

SIDE = 16


@pytest.fixture
def z():
    return 4 * nets.images(3, SIDE) - 2


@pytest.mark.parametrize("kind", [lambda t: t.numpy(), lambda t: t.double().numpy(), lambda t: t])
def test_display_maps(kind, z):
    module = nets.seeded(nets.Signed)
    model = heatproof.wrap(module, mean=0.5, std=0.25, size=SIDE, layer="two")
    x = nets.images(3, SIDE)
    methods = ["gradcam", "refine:layercam@one+two", "ablationcam[compat=true]"]
    expected = heatproof.explain(model, x, methods, [0, 4, 2])
    for method in methods:
        found = explain_func(model=module, inputs=kind(z), targets=np.array([0, 4, 2]), method=method, layer="two")
        assert found.shape == (3, 1, SIDE, SIDE)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[:, 0], expected[method], atol=1e-4)
    predicted = explain_func(module, kind(z), layer=module.two)
    np.testing.assert_allclose(predicted[:, 0], heatproof.explain(model, x, "gradcam")["gradcam"], atol=1e-4)


def test_raw_maps_are_signed(z):
    module = nets.seeded(nets.Signed)
    raw = explain_func(module, z, 1, layer="two", raw=True)
    assert raw.min() < 0
    torch.testing.assert_close(heatproof.tensors.minmax(torch.from_numpy(raw[:, 0]).relu()).amax((1, 2)), torch.ones(3))


def test_wrong_use(z):
    module = nets.seeded(nets.Plain)
    with pytest.raises(UnknownName, match="Did you mean 'eps'"):
        explain_func(module, z, 1, "xgradcam", ep=1.0)
    with pytest.raises(InvalidTarget, match="each of the 3 images"):
        explain_func(module, z, np.array([1, 2]))
    with pytest.raises(InvalidInput, match="`model`"):
        explain_func("module", z, 1)


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_metrics_of_quantus(method, z):
    """End to end: a metric that explains again, and one that also explains perturbed images."""
    quantus = pytest.importorskip("quantus")
    module, y = nets.seeded(nets.Signed), np.array([0, 4, 2])
    common = {"disable_warnings": True, "display_progressbar": False}
    call = {
        "model": module,
        "x_batch": z.numpy(),
        "y_batch": y,
        "explain_func": explain_func,
        "explain_func_kwargs": {"method": method, "layer": "two"},
        "device": "cpu",
    }
    sparse = quantus.Sparseness(**common)(**call)
    maps = explain_func(module, z, y, method, "two").reshape(3, -1)
    order = np.sort(np.abs(maps) / np.abs(maps).max(1, keepdims=True) + 1e-7, axis=1)
    n = order.shape[1]
    gini = [((2 * np.arange(1, n + 1) - n - 1) * row).sum() / (n * row.sum()) for row in order]
    np.testing.assert_allclose(sparse, gini, atol=1e-3)
    sensitivity = quantus.MaxSensitivity(nr_samples=3, lower_bound=0.05, **common)(**call)
    assert np.isfinite(sensitivity).all()
    assert max(sensitivity) > 0
