"""Quantus 0.6.0 measures heatproof's methods through `explain_func`."""

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.compat.quantus import explain_func, metric
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


def test_softmax_says_what_is_explained(z):
    """The probability where it is True; the logit where it is False, also of a network that ends in a softmax."""
    logits = nets.seeded(nets.Plain)
    probabilities = nn.Sequential(logits, nn.Softmax(1)).eval()

    def maps(module, **more):
        return explain_func(module, z, [0, 4, 2], "gradient", raw=True, **more)

    of_logit, of_probability = maps(logits), maps(probabilities)
    assert np.abs(of_logit - of_probability).max() > 1e-4
    for module in (logits, probabilities):
        np.testing.assert_allclose(maps(module, softmax=True), of_probability, atol=1e-6)
        np.testing.assert_allclose(maps(module, softmax=False), of_logit, atol=1e-6)
    assert not probabilities[1]._forward_hooks


def test_gc_layer_is_the_layer(z):
    module = nets.seeded(nets.Plain)
    expected = explain_func(module, z, 1, layer="one")
    number = list(module.modules()).index(module.one)
    for layer in ("one", module.one, "model._modules.get('one')", f"list(model.named_modules())[{number}][1]"):
        found = explain_func(module, z, 1, "LayerGradCam", gc_layer=layer, interpolate=(SIDE, SIDE))
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InvalidInput, match="which mean the same"):
        explain_func(module, z, 1, layer="one", gc_layer="two")
    with pytest.raises(InvalidInput, match="`interpolate` must be the inputs' size"):
        explain_func(module, z, 1, interpolate=(8, 8))
    with pytest.raises(InvalidInput, match="expressions are not run"):
        explain_func(module, z, 1, gc_layer="list(model.children())[3]")
    insertion = metric("insertion")
    for options in ({}, {"softmax": True}):
        found, same = (
            insertion(module, z, [0, 4, 2], explain_func=explain_func, explain_func_kwargs={**given, **options})
            for given in ({"gc_layer": "one"}, {"layer": "one"})
        )
        assert found == same


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
