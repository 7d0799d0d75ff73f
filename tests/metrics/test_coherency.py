"""Coherency: the correlation by hand, the second map made by hand, and RefineCAM explained anew at every layer."""

import numpy as np
import pytest
import torch

import heatproof
from heatproof.errors import UnknownName
from heatproof.metrics.coherency import coherency, pearson
from heatproof.models import wrap

from .. import nets

HEIGHT, WIDTH = 24, 20


@pytest.fixture
def model():
    return wrap(nets.told_apart(nets.seeded(nets.Signed), WIDTH), size=(HEIGHT, WIDTH), layer="two")


@pytest.fixture
def x():
    return nets.images(3, HEIGHT, WIDTH)


def by_hand(model, x, method: str, fill: str = "mean") -> np.ndarray:
    """Masks with numpy, explains with the public call, correlates with numpy."""
    first = heatproof.explain(model, x, [method])
    maps = np.asarray(first[method], dtype=float)
    mean = np.array(model.mean).reshape(1, 3, 1, 1) if fill == "mean" else 0.0
    masked = x.double().numpy() * maps[:, None] + mean * (1 - maps[:, None])
    again = heatproof.explain(model, torch.from_numpy(masked).float(), [method], target=first.target)
    pairs = zip(maps, np.asarray(again[method], dtype=float), strict=True)
    return np.array([(np.corrcoef(a.ravel(), b.ravel())[0, 1] + 1) / 2 if b.any() else 0.5 for a, b in pairs])


@pytest.mark.parametrize("method", ["gradcam", "refine:gradcam++", "gradient"])
@pytest.mark.parametrize("fill", ["mean", "black"])
def test_it_is_the_correlation_with_the_map_of_the_masked_image(model, x, method, fill):
    """RefineCAM's published code multiplied by the deeper layers' maps of the unmasked image."""
    found = heatproof.score(model, x, [method], {"coherency": {"fill": fill}}).rows
    np.testing.assert_allclose([row.value for row in found], by_hand(model, x, method, fill), atol=2e-4)


def test_deeper_layers_kept_from_the_clean_image_would_score_otherwise(model, x):
    """What the reference code did: new at the shallowest layer alone."""
    whole = heatproof.score(model, x, ["refine:gradcam@one+two"], "coherency").rows
    first = heatproof.explain(model, x, ["refine:gradcam@one+two", "gradcam@one", "gradcam@two"])
    maps = torch.as_tensor(np.asarray(first["refine:gradcam@one+two"]))
    mean = torch.tensor(model.mean).view(1, 3, 1, 1)
    again = heatproof.explain(model, torch.lerp(mean.expand_as(x), x, maps[:, None]), ["gradcam@one"],
                              target=first.target)  # fmt: skip
    product = torch.as_tensor(np.asarray(again["gradcam@one"]) * np.asarray(first["gradcam@two"]))
    product = product / product.amax((1, 2), keepdim=True)
    kept = (pearson(maps, product) + 1) / 2
    values = torch.tensor([row.value for row in whole], dtype=torch.float64)
    assert ((kept - values).abs() > 1e-3).any()


def test_a_method_that_repeats_itself_scores_one_and_its_opposite_zero(model, x):
    z, maps = model.normalise(x), x[:, 0]
    same = coherency(x, z, maps, lambda x, condition: maps, model)
    opposite = coherency(x, z, maps, lambda x, condition: 1 - maps, model)
    nothing = coherency(x, z, maps, lambda x, condition: torch.zeros_like(maps), model)
    torch.testing.assert_close(same, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(opposite, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert nothing.tolist() == [0.5] * 3, "a constant second map correlates with nothing"
    assert coherency(x, z, 0 * maps, lambda x, condition: maps, model).isnan().all()


def test_the_method_is_given_what_the_map_showed_and_nothing_else(model, x):
    seen = []

    def explain(images, condition):
        seen.append((images, condition))
        return images[:, 0]

    maps = torch.zeros(3, HEIGHT, WIDTH)
    maps[:, :12], maps[:, 12:, 0] = 1, 0.5
    coherency(x, model.normalise(x), maps, explain, model)
    images, condition = seen[0]
    assert condition == "coherency"
    torch.testing.assert_close(images[:, :, :12], x[:, :, :12], atol=1e-6, rtol=0)
    mean = torch.tensor(model.mean).view(1, 3, 1, 1)
    torch.testing.assert_close(images[:, :, 12:, 1:], mean.expand(3, 3, 12, WIDTH - 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(images[..., 12:, 0], (x[..., 12:, 0] + mean[..., 0]) / 2, atol=1e-6, rtol=0)


def test_a_control_that_is_drawn_anew_is_not_coherent_and_one_that_ignores_its_image_is(model, x):
    found = heatproof.score(model, x, ["random", "centre"], "coherency")
    assert (found.values("random", "coherency") - 0.5).abs().max() < 0.1
    torch.testing.assert_close(found.values("centre", "coherency"), torch.ones(3, dtype=torch.float64))


def test_it_costs_one_explanation(x):
    counted = nets.Counted(nets.seeded(nets.Signed))
    heatproof.score(wrap(counted, size=(HEIGHT, WIDTH), layer="inner.two"), x, "gradcam", "coherency")
    assert counted.calls == 2 + 2  # two of the probe


def test_a_fill_that_does_not_exist_is_refused(model, x):
    with pytest.raises(UnknownName, match="fill"):
        heatproof.score(model, x, "gradcam", {"coherency": {"fill": "green"}})


def test_the_correlation_is_numpys():
    a, b = torch.rand(2, 4, 5, 3, generator=torch.Generator().manual_seed(0)).unbind()
    expected = [
        np.corrcoef(one.double().flatten(), other.double().flatten())[0, 1] for one, other in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(pearson(a, b), expected, rtol=1e-12)
