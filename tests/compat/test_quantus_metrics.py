"""heatproof's metrics with the signature of Quantus 0.6.0: the values of `heatproof.score`, also in `evaluate`."""

import math

import numpy as np
import pytest
import torch

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.compat.quantus import explain_func, metric
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.metrics import METRICS
from heatproof.metrics.metric_request import parsed_metric

from .. import nets

SIDE = 16
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
Y = np.array([0, 4, 2])


@pytest.fixture
def model():
    net = nets.told_apart(nets.seeded(nets.Signed), SIDE)
    return heatproof.wrap(net, mean=MEAN, std=STD, size=SIDE, layer="two")


@pytest.fixture
def z(model):
    return model.normalise(nets.images(3, SIDE)).numpy()


@pytest.fixture
def x(z):
    """To the last bit what is made of `z`: an image's random numbers belong to its content."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (torch.from_numpy(z) * std + mean).clamp(0, 1)


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(3).random((3, 1, SIDE, SIDE), np.float32)


def masks() -> np.ndarray:
    found = np.zeros((3, 1, SIDE, SIDE), bool)
    found[:2, :, 4:9, 3:8] = True
    return found


#: Few samples where a metric takes many.
QUICK = {"samples": 3, "steps": 4, "kept": "40 80"}


@pytest.mark.parametrize("name", [n for n, e in METRICS.items() if not e.traits.get("foreign")])
def test_every_metric_gives_the_values_of_score(name, model, x, z):
    """NormalisedModel mean and deviation, it sees the images; the maps are those of our own `explain_func`."""
    options = {option: value for option, value in QUICK.items() if option in METRICS[name].options}
    ours = metric(name, mean=MEAN, std=STD, **options)
    paired = parsed_metric(name).paired
    more = {"reference": x.roll(1, 3)} if paired else {}
    expected = heatproof.score(
        model, x, ["gradcam"], {name: options}, target=Y, masks=masks()[:, 0], layer="two", **more
    )
    clean = {"reference": np.roll(z, 1, 3)} if paired else {}
    found = ours(
        model.module, z, Y, s_batch=masks(), **clean, explain_func=explain_func,
        explain_func_kwargs={"method": "gradcam", "layer": "two"}, device="cpu",
    )  # fmt: skip
    assert all(isinstance(value, float) for value in found)
    np.testing.assert_allclose(found, expected.values("gradcam", ours.name), rtol=1e-2, atol=1e-3, equal_nan=True)
    assert ours.evaluation_scores is found


def test_maps_at_hand(model, x, z, maps):
    names = ["insertion", "road", "energy"]
    expected = heatproof.score(model, x, {"maps": maps[:, 0]}, names, target=Y, masks=masks()[:, 0])
    for name in expected.metrics:
        found = metric(name, mean=MEAN, std=STD)(model.module, z, Y, maps, masks())
        np.testing.assert_allclose(found, expected.values("maps", name), atol=1e-4)
    assert math.isnan(metric("energy")(model.module, z, Y, maps, masks())[2]), "an empty mask is no hit"


def test_where_nothing_is_said_of_the_normalisation_black_is_zero(model, x, z, maps):
    mean = heatproof.score(model, x, {"maps": maps[:, 0]}, ["deletion-mean", "deletion"], target=Y)
    found = metric("deletion")(model.module, z, Y, maps)
    np.testing.assert_allclose(found, mean.values("maps", "deletion-mean"), atol=1e-4)
    assert (np.abs(np.array(found) - mean.values("maps", "deletion").numpy()) > 1e-3).any()
    for name in ("irof", "sic", "monotonicity-correlation", "pixel-flipping"):
        with pytest.raises(InvalidInput, match=f"'{name}' sees the colours of an image.*Give the `mean` and `std`"):
            metric(name)(model.module, z, Y, maps)


def test_channels_last_and_no_classes(model, x, z, maps):
    predicted = heatproof.score(model, x, {"maps": maps[:, 0]}, ["local-accuracy[fill=mean]"])
    ours = metric("local-accuracy", fill="mean")
    for found in (
        ours(model.module, z, None, maps),
        ours(model.module, np.moveaxis(z, 1, -1), predicted.target.numpy(), maps, channel_first=False),
        ours(model.module, torch.from_numpy(z), predicted.target, torch.from_numpy(maps[:, 0])),
    ):
        np.testing.assert_allclose(found, predicted.values("maps", ours.name), atol=1e-4)


def test_a_function_that_explains(model, z):
    """Any function in the style of Quantus; its maps are made again for metrics that ask for that."""
    calls = []

    def theirs(model, inputs, targets, **given):
        assert not model.training
        assert isinstance(inputs, np.ndarray)
        calls.append((given, len(inputs)))
        leaf = torch.from_numpy(inputs).requires_grad_()
        chosen = model(leaf).gather(1, torch.from_numpy(targets)[:, None]).sum()
        return torch.autograd.grad(chosen, leaf)[0].numpy()

    before = set(ATTRIBUTIONS)
    native = {"explain_func": explain_func, "explain_func_kwargs": {"method": "gradient"}}
    given = {"explain_func": theirs, "explain_func_kwargs": {"colour": "red"}}
    for name in ("max-sensitivity[samples=2]", "coherency", "complexity"):
        expected = metric(name)(model.module, z, Y, **native)
        found = metric(name, form="rgb")(model.module, z, Y, **given)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert {tuple(call) for call, _ in calls} == {("colour",)}
    assert sum(count for _, count in calls) == 3 * (1 + 2 + 1 + 1 + 1)
    assert set(ATTRIBUTIONS) == before, "the name is gone"


def test_a_function_that_draws_is_seeded(model, z):
    def noise(model, inputs, targets):
        return np.random.rand(len(inputs), 1, SIDE, SIDE)

    first, second = (metric("coherency")(model.module, z, Y, explain_func=noise) for _ in range(2))
    assert first == second and len(set(first)) == 3
    assert metric("coherency", seed=1)(model.module, z, Y, explain_func=noise) != first


def test_signed_maps(model, z):
    signed = np.random.default_rng(3).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    summed = np.maximum(signed.sum(1), 0)
    largest = np.abs(signed).max(1)
    for form, expected in (("signed", summed), ("display", largest), ("rgb", largest)):
        found = metric("complexity", form=form)(model.module, z, Y, signed)
        low, high = expected.min((1, 2), keepdims=True), expected.max((1, 2), keepdims=True)
        np.testing.assert_allclose(found, ((expected - low) / (high - low)).mean((1, 2)), atol=1e-6)


def test_values_do_not_depend_on_the_neighbours(model, z, maps):
    """What Quantus normalises by the maximum of the batch is here each image's own."""
    loud = maps * np.array([1, 0.1, 0.01], np.float32).reshape(3, 1, 1, 1)
    for name in ("road", "sparseness", "complexity"):
        together = metric(name)(model.module, z, Y, loud)
        alone = [metric(name)(model.module, z[i : i + 1], Y[i : i + 1], loud[i : i + 1])[0] for i in range(3)]
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_one_logit_has_the_probability_of_itself(z, maps):
    class One(torch.nn.Module):
        def forward(self, x):
            return 5 * x.mean((1, 2, 3))[:, None] + 1

    found = metric("local-accuracy", fill="mean")(One(), z, np.zeros(3, int), maps)
    scaled = maps - maps.min((2, 3), keepdims=True)
    scaled = scaled / scaled.max((2, 3), keepdims=True)
    logit, masked = (5 * one.mean((1, 2, 3)) + 1 for one in (z, z * scaled))
    np.testing.assert_allclose(found, np.abs(1 / (1 + np.exp(-logit)) - 1 / (1 + np.exp(-masked))), atol=1e-5)


def test_inside_evaluate(model, z, maps):
    quantus = pytest.importorskip("quantus")
    quiet = {"disable_warnings": True, "display_progressbar": False}
    found = quantus.evaluate(
        metrics={
            "insertion": metric("insertion"), "coherency": metric("coherency"), "gini": quantus.Sparseness(**quiet)
        },
        xai_methods={"gradcam": explain_func, "layercam": explain_func},
        model=model.module.eval(), x_batch=z, y_batch=Y, explain_func_kwargs={"layer": "two"},
    )  # fmt: skip
    for method in ("gradcam", "layercam"):
        assert set(found[method]) == {"insertion", "coherency", "gini"}
        for name in ("insertion", "coherency"):
            alone = metric(name)(
                model.module, z, Y, explain_func=explain_func, explain_func_kwargs={"method": method, "layer": "two"}
            )
            np.testing.assert_allclose(found[method][name], alone, atol=1e-3)
    assert found["gradcam"]["insertion"] != found["layercam"]["insertion"]
    given = quantus.evaluate(
        metrics={"insertion": metric("insertion")}, xai_methods={"maps": maps}, model=model.module, x_batch=z, y_batch=Y
    )
    np.testing.assert_allclose(given["maps"]["insertion"], metric("insertion")(model.module, z, Y, maps))


def test_wrong_use(model, z, maps):
    with pytest.raises(UnknownName, match="Did you mean 'insertion'"):
        metric("insertio")
    with pytest.raises(UnknownName, match="option of 'deletion'"):
        metric("deletion", step=3)
    with pytest.raises(UnknownName, match="`form`"):
        metric("deletion", form="cam")
    with pytest.raises(InvalidInput, match="'coherency' explains other images too"):
        metric("coherency")(model.module, z, Y, maps)
    with pytest.raises(InvalidInput, match="Got neither"):
        metric("deletion")(model.module, z, Y)
    with pytest.raises(NotApplicable, match="softmax=False"):
        metric("deletion")(model.module, z, Y, maps, softmax=False)
    with pytest.raises(InvalidInput, match="`model`"):
        metric("deletion")("net", z, Y, maps)
    with pytest.raises(InvalidInput, match="normalised with"):
        metric("deletion", mean=0.5, std=0.5)(model.module, z, Y, maps)
