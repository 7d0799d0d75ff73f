"""Sanity beside Quantus 0.6.0: stage by stage the same likeness of the same maps; and what its scores are made of.

Its defects: the mean of the randomisation test counts the intact model, whose likeness is 1 (it looks for the key
`orig`, and writes `original`); every layer is drawn from one seed, so layers of one shape get equal weights; SSIM is of
the flattened images, one long row; the class of the random-logit test depends on an image's place in its batch.
"""

import warnings

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

import heatproof
from heatproof import seeds
from heatproof.metrics.sanity import mprt, other_classes, random_logit
from heatproof.models import wrap
from heatproof.rounding import rounded

from .. import nets

quantus = pytest.importorskip("quantus")

HEIGHT, WIDTH, METHOD = 24, 20, "gradient"
ORDERS = {"top_down": "cascading", "bottom_up": "bottom-up", "independent": "independent"}


@pytest.fixture
def model():
    return wrap(nets.told_apart(nets.seeded(nets.Signed), WIDTH), size=(HEIGHT, WIDTH), layer="two")


@pytest.fixture
def x():
    return nets.images(3, HEIGHT, WIDTH)


def maps_of(module, x: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    model = wrap(module, size=(HEIGHT, WIDTH), layer="two")
    return np.asarray(heatproof.explain(model, x, [METHOD], target=target)[METHOD])


def theirs(name: str, model, x, first, explained, **options):
    """`explained` gets their module, and the classes they ask for."""

    def explain_func(model, inputs, targets, **_):
        return explained(model, torch.as_tensor(targets))[:, None]

    metric = getattr(quantus, name)(normalise=False, abs=False, disable_warnings=True, **options)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        return metric(
            model=model.module, x_batch=model.normalise(x).numpy(), y_batch=first.target.numpy(),
            a_batch=rounded(np.asarray(first[METHOD]))[:, None], explain_func=explain_func, device="cpu",
        )  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_each_stage_is_as_alike_and_the_intact_model_counts_for_quantus(model, x, order):
    """Our metric is given the maps of Quantus' randomised networks; rounded, as Quantus ranks what it is given."""
    first, made = heatproof.explain(model, x, [METHOD]), []

    def explained(module, _targets):
        made.append(rounded(torch.as_tensor(maps_of(module, x, first.target))))
        return made[-1].numpy()

    scores = theirs("MPRT", model, x, first, explained, layer_order=order)
    assert next(iter(scores)) == "original" and min(scores["original"]) > 0.9999
    stages = [values for name, values in scores.items() if name != "original"]
    remade = iter(made[1:])  # the first is the intact network's
    clean = torch.as_tensor(np.asarray(first[METHOD]))
    ours = mprt(x, clean, lambda x, model: next(remade), model, 0, order=ORDERS[order], stages=0)
    np.testing.assert_allclose(ours.points.T, np.array(stages), atol=1e-9)
    mean = theirs("MPRT", model, x, first, explained, layer_order=order, return_average_correlation=True)
    count = len(stages)
    np.testing.assert_allclose(mean, (1 + count * ours.value.numpy()) / (count + 1), atol=1e-4)
    assert (np.asarray(mean) > ours.value.numpy() + 0.05).all(), "flattered by a stage at which nothing was drawn"


def test_ssim_is_of_one_long_row_for_quantus(model, x):
    first = heatproof.explain(model, x, [METHOD])
    other = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    found = theirs("RandomLogit", model, x, first, lambda _m, _t: other.numpy(), num_classes=5)
    clean = rounded(np.asarray(first[METHOD]))
    flat = [structural_similarity(a.ravel(), b.ravel(), data_range=max(a.max(), b.max()) - min(a.min(), b.min()))
            for a, b in zip(clean, other.numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, flat, rtol=1e-5)
    ours = random_logit(
        x, torch.as_tensor(clean), first.target, first.logits, lambda x, target: other,
        [torch.Generator() for _ in range(3)], similarity="ssim",
    )  # fmt: skip
    images = [structural_similarity(a.astype(float), b.astype(float), win_size=7, data_range=1.0)
                for a, b in zip(clean, other.numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(ours, images, rtol=1e-4)
    assert np.abs(ours.numpy() - np.asarray(found)).max() > 1e-3


def test_the_other_class_depends_on_the_place_in_the_batch_for_quantus(model, x):
    first, seen = heatproof.explain(model, x[:1].expand(6, -1, -1, -1).contiguous(), [METHOD]), []

    def explained(_module, targets):
        seen.append(targets.tolist())
        return np.random.default_rng(0).random((len(targets), HEIGHT, WIDTH), dtype=np.float32)

    theirs("RandomLogit", model, x[:1].expand(6, -1, -1, -1), first, explained, num_classes=5)
    assert len(set(seen[0])) > 1, "six times the same image"
    same = [seeds.generator(0, "image", "metric random-logit") for _ in range(6)]
    assert len(set(other_classes(first.target, 5, same).tolist())) == 1


def test_every_layer_has_the_same_seed_for_quantus():
    from quantus.helpers.model.pytorch_model import PyTorchModel

    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    with torch.random.fork_rng():
        *_, (_, drawn) = PyTorchModel(net, channel_first=True).get_random_layer_generator()
    assert torch.equal(drawn[0].weight, drawn[1].weight)
