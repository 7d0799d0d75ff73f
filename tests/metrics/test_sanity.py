"""Sanity: stages by hand, similarities of scipy and scikit-image, and maps that know nothing score worst."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from skimage.metrics import structural_similarity

import heatproof
from heatproof.errors import InvalidInput, UnknownName
from heatproof.metrics.rankings import ranking
from heatproof.metrics.sanity import (
    efficient_mprt,
    histogram_entropy,
    mid_ranks,
    mprt,
    other_classes,
    random_logit,
    smooth_mprt,
)
from heatproof.models import wrap
from heatproof.models.randomisation import Randomised
from heatproof.rounding import STEP

from .. import nets
from .scored import scored

HEIGHT, WIDTH = 24, 20
IDS = ["a", "b", "c"]


@pytest.fixture
def model():
    return wrap(nets.told_apart(nets.seeded(nets.Signed), WIDTH), size=(HEIGHT, WIDTH), layer="two")


@pytest.fixture
def x():
    return nets.images(3, HEIGHT, WIDTH)


def slow_spearman(a: np.ndarray, b: np.ndarray) -> float:
    if not b.any():
        return 0.0
    return scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic


def stages_by_hand(model, order: str, seed: int, stages: int):
    """The networks of each stage, from a fresh copy each."""
    blocks = Randomised(model, seed).blocks(stages)
    count = len(blocks)
    for i in range(count):
        chosen = {
            "cascading": blocks[count - 1 - i :],
            "bottom-up": blocks[: i + 1],
            "independent": [blocks[count - 1 - i]],
        }[order]
        drawn = Randomised(model, seed)
        for block in chosen:
            drawn.redraw(block)
        yield drawn.model


@pytest.mark.parametrize("order", ["cascading", "bottom-up", "independent"])
@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_it_is_the_mean_over_the_stages_by_the_public_call(model, x, order, method):
    """Copies by hand, `heatproof.explain`, scipy; the intact network is not among the stages."""
    found = scored(model, x, [method], {"mprt": {"order": order, "stages": 3}}, IDS, seed=5)[method]
    first = heatproof.explain(model, x, [method])
    clean, points = np.asarray(first[method], dtype=float), []
    for drawn in stages_by_hand(model, order, 5, 3):
        maps = np.asarray(heatproof.explain(drawn, x, [method], layer="two", target=first.target)[method], dtype=float)
        points.append([slow_spearman(a, b) for a, b in zip(clean, maps, strict=True)])
    np.testing.assert_allclose(next(iter(found.values())), np.mean(points, 0), atol=2e-4)


def test_the_curve_behind_it_has_a_point_for_each_stage(model, x):
    maps = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    count = iter(range(10))
    found = mprt(x, maps, lambda x, model: maps if next(count) < 2 else 1 - maps, model, 0, stages=4)
    assert found.at.tolist() == [0.25, 0.5, 0.75, 1.0]
    torch.testing.assert_close(found.points, torch.tensor([[1.0, 1.0, -1.0, -1.0]] * 3, dtype=torch.float64))
    assert found.value.abs().max() < 1e-12


def test_ssim_is_that_of_scikit_image(model, x):
    one, other = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)).unbind()
    found = mprt(x, one, lambda x, model: other, model, 0, similarity="ssim", stages=1).value
    expected = [structural_similarity(a, b, win_size=7, data_range=1.0)
                for a, b in zip(one.double().numpy(), other.double().numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "metric", ["mprt", "smooth-mprt[samples=2]", "random-logit", "random-logit[similarity=spearman]"]
)
def test_maps_that_know_nothing_of_the_network_score_worst(model, x, metric):
    found = scored(model, x, ["edges", "centre", "random", "gradcam"], metric, IDS)
    for method in ("edges", "centre", "random"):
        torch.testing.assert_close(found[method][metric], torch.ones(3, dtype=torch.float64))
    assert (found["gradcam"][metric] < 0.9).any()


def test_the_efficient_test_gives_nothing_to_maps_that_stay(model, x):
    found = scored(model, x, ["edges", "random", "gradcam"], "efficient-mprt", IDS)
    assert found["edges"]["efficient-mprt"].tolist() == [0, 0, 0] == found["random"]["efficient-mprt"].tolist()
    assert (found["gradcam"]["efficient-mprt"] != 0).all()


def test_the_efficient_test_by_hand(model, x):
    maps, noise = torch.zeros(3, HEIGHT, WIDTH), torch.rand(3, HEIGHT, WIDTH)
    maps[:, :6] = 1  # a quarter
    before = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    found = efficient_mprt(x, maps, lambda x, model: noise, model, 0)
    for i in range(3):
        counts = np.histogram(noise[i].numpy(), bins=100, range=(0, 1))[0]
        after = scipy.stats.entropy(counts)
        assert found[i].item() == pytest.approx((after - before) / before, rel=1e-6)
    assert efficient_mprt(x, noise, lambda x, model: maps * 0, model, 0).tolist() == [-1.0] * 3


def test_entropy_of_a_histogram():
    flat = torch.tensor([[0.0, 0.1, 0.6, 1.0], [0.2, 0.2, 0.2, 0.2]])
    assert histogram_entropy(flat, 2).tolist() == pytest.approx([math.log(2), 0])


def test_the_smooth_test_compares_means_of_noisy_maps(model, x):
    """By hand: the same noise for the intact network and for every stage."""
    z, seen = model.normalise(x), []

    def explain(images, condition, model):
        seen.append((images, condition, model))
        return images[:, 0] if model is not asked else images[:, 1]

    asked = model
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    found = smooth_mprt(x, z, explain, model, 0, generators, stages=2, samples=3, noise=0.2)
    assert [condition for _, condition, _ in seen] == ["smooth-0", "smooth-1", "smooth-2"] * 3
    for draw in range(3):
        assert torch.equal(seen[draw][0], seen[3 + draw][0]) and torch.equal(seen[draw][0], seen[6 + draw][0])
    again = torch.Generator().manual_seed(1)
    expected = x[1] + 0.2 * (z[1].max() - z[1].min()) * torch.randn(3, HEIGHT, WIDTH, generator=again) * 0.5
    torch.testing.assert_close(seen[0][0][1], expected)
    pairs = [torch.stack([one[:, c] for one, *_ in seen[:3]]).mean(0) for c in (1, 0)]
    pairs = [np.rint(one.numpy() / STEP) for one in pairs]  # what is ranked is rounded
    values = [slow_spearman(a, b) for a, b in zip(*pairs, strict=True)]
    np.testing.assert_allclose(found.value, values, atol=1e-9)


def test_another_class_is_any_but_the_target():
    target = torch.tensor([0, 3, 4])
    counts = torch.zeros(3, 5)
    for seed in range(400):
        drawn = other_classes(target, 5, [torch.Generator().manual_seed(seed * 3 + i) for i in range(3)])
        counts[torch.arange(3), drawn] += 1
    assert (counts[torch.arange(3), target] == 0).all()
    rest = counts[counts > 0]
    assert len(rest) == 12 and (rest - 100).abs().max() < 35
    assert other_classes(torch.tensor([0, 1]), 2, [torch.Generator(), torch.Generator()]).tolist() == [1, 0]


def test_random_logit_explains_that_class_by_the_same_method(model, x):
    found = scored(model, x, ["gradcam"], "random-logit[similarity=spearman]", IDS, seed=4)["gradcam"]
    first = heatproof.explain(model, x, ["gradcam"])
    drawn = [heatproof.seeds.generator(4, name, "metric random-logit") for name in IDS]
    other = heatproof.explain(model, x, ["gradcam"], target=other_classes(first.target, 5, drawn))
    pairs = zip(np.asarray(first["gradcam"], float), np.asarray(other["gradcam"], float), strict=True)
    np.testing.assert_allclose(next(iter(found.values())), [slow_spearman(a, b) for a, b in pairs], atol=1e-4)


def test_mid_ranks_are_those_of_scipy():
    generator = torch.Generator().manual_seed(0)
    several = [
        torch.rand(3, 9, 7, generator=generator),
        torch.randint(-3, 4, (3, 300, 120), generator=generator).float(),
        torch.rand(2, 200, 200, generator=generator).mul(30).round().div(30),
        torch.tensor([[0.0, -0.0, 0.5, 0.0]]),
    ]
    for maps in several:
        expected = np.stack([scipy.stats.rankdata(one.flatten().numpy()) - 1 for one in maps])
        np.testing.assert_array_equal(mid_ranks(maps), expected)
        np.testing.assert_array_equal(mid_ranks(-maps), -ranking(-maps.flatten(1)).mid + maps[0].numel())


@pytest.mark.parametrize(("stages", "expected"), [(2, 2), (10, 5), (0, 5)])
def test_it_costs_one_explanation_for_each_stage(x, stages, expected):
    counted = nets.Counted(nets.seeded(nets.Signed))
    model = wrap(counted, size=(HEIGHT, WIDTH), layer="inner.two")
    seen = []

    def explain(images, model):
        seen.append(model)
        return images[:, 0]

    mprt(x, x[:, 0], explain, model, 0, stages=stages)
    assert len(seen) == expected and counted.calls == 0, "nothing but explanations asks the network"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"order": "sideways"}, UnknownName, "`order`"),
        ({"similarity": "l1"}, UnknownName, "`similarity`"),
        ({"stages": -1}, InvalidInput, "`stages` must be at least 0"),
        ({"stages": 1.5}, InvalidInput, "`stages` must be a whole number"),
    ],
)
def test_options_that_cannot_be_are_refused(model, x, options, error, said):
    with pytest.raises(error, match=said):
        mprt(x, x[:, 0], lambda x, model: x[:, 0], model, 0, **options)


def test_other_options_that_cannot_be_are_refused(model, x):
    z, generators = model.normalise(x), [torch.Generator()] * 3
    for options, said in (({"samples": 0}, "`samples` must be at least 1"), ({"noise": 0}, "`noise` must be above 0")):
        with pytest.raises(InvalidInput, match=said):
            smooth_mprt(x, z, lambda x, condition, model: x[:, 0], model, 0, generators, **options)
    with pytest.raises(InvalidInput, match="`bins` must be at least 2"):
        efficient_mprt(x, x[:, 0], lambda x, model: x[:, 0], model, 0, bins=1)
    with pytest.raises(UnknownName, match="`similarity`"):
        random_logit(x, x[:, 0], torch.zeros(3).long(), torch.zeros(3, 5), lambda x, target: x[:, 0], generators,
                     similarity="dice")  # fmt: skip
