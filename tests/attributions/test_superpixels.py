"""LIME, KernelSHAP and occlusion: exact values and independent references, seeds, segments, passes."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from heatproof import passes
from heatproof.attributions import superpixels
from heatproof.attributions.superpixels import kernelshap, lime, occlusion
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.masking import FILLS, ground
from heatproof.models import wrap
from heatproof.segments import segment

from .. import nets
from . import reference_masks as slow

HEIGHT, WIDTH = 14, 10
GRID = "grid[rows=2]"


class Interacting(nn.Module):
    """A strong interaction between quarters of the image: the logits are far from a sum over them."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        a, b, c, d = (part.mean((1, 2, 3)) for half in z.chunk(2, 2) for part in half.chunk(2, 3))
        return torch.stack([3 * a * b + c, (a + b + c + d).square(), torch.tanh(4 * d) - a * c], 1)


@pytest.fixture(params=[nets.Signed, Interacting])
def asked(request):
    module = nets.seeded(request.param)
    x = nets.images(3, HEIGHT, WIDTH)
    x[:, :, :, 5:] += 0.2 * (1 - x[:, :, :, 5:])  # the quarters differ
    return x, wrap(module, 0.4, 0.25, size=16).normalise(x), slow.Selection(module, (0, 1, 2))


def generators(count: int = 3, seed: int = 5) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def quarters(x: torch.Tensor) -> np.ndarray:
    """Four segments; the last image's too, as nothing here looks at the pixels."""
    return segment(x, "grid", {"rows": 2, "columns": 2}).numpy()


def by_segment(maps: torch.Tensor, segments: np.ndarray) -> list[np.ndarray]:
    """The one number of each segment of each map."""
    found = []
    for one, labels in zip(maps.numpy(), segments, strict=True):
        values = [np.unique(one[labels == k]) for k in range(labels.max() + 1)]
        assert all(len(value) == 1 for value in values)
        found.append(np.concatenate(values))
    return found


@pytest.fixture
def four(monkeypatch):
    """Options in a spelling have no commas, so four segments need a default of their own."""
    whole = superpixels.segment
    monkeypatch.setattr(superpixels, "segment", lambda x, name: whole(x, name, {"columns": 2}))
    return GRID


# --- KernelSHAP ---


@pytest.mark.parametrize(("fill", "of"), [("mean", "logit"), ("black", "logit"), ("blur", "probability")])
def test_kernelshap_comes_to_the_exact_shapley_values(asked, four, of, fill):
    """Sixteen coalitions, all of them drawn: what is left is the noise of their counts, beside their range."""
    x, z, score = asked
    got = kernelshap(x, z, score, generators(), samples=2000, segmenter=four, of=of, fill=fill)
    behind, segments = ground(fill, x, z).double().numpy(), quarters(x)
    module = copy.deepcopy(score.module)
    for i, values in enumerate(by_segment(got, segments)):
        game = slow.game_of(module, i, of)
        expected = slow.shapley(segments[i], z[i].double().numpy(), behind[i], game)
        coalitions = itertools.product([False, True], repeat=4)
        worths = [game(np.where(np.array(one)[segments[i]], z[i].double().numpy(), behind[i])) for one in coalitions]
        np.testing.assert_allclose(values, expected, atol=0.04 * np.ptp(worths))
        total = game(z[i].double().numpy()) - game(behind[i])
        np.testing.assert_allclose(
            values.sum(), total, atol=1e-3 * np.ptp(worths)
        )  # efficiency, at any number of samples


def test_kernelshap_of_a_sum_is_exact_with_a_few_samples(four):
    """No interactions, so nothing to average: each value is what its superpixel adds."""
    x = nets.images(2, HEIGHT, WIDTH)
    z = (x - 0.4) / 0.25
    segments = quarters(x)
    got = kernelshap(x, z, lambda variants, row, of: variants.sum((1, 2, 3)), generators(2), samples=30, segmenter=four)
    for i, values in enumerate(by_segment(got, segments)):
        expected = [float(z[i][:, torch.from_numpy(segments[i] == k)].sum()) for k in range(4)]
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-2)


# --- LIME ---


@pytest.mark.parametrize("options", [{}, {"kernel": "euclidean", "width": 12.0}, {"alpha": 0.002, "width": 0.25}])
def test_lime_is_the_weighted_lasso_of_what_was_seen(asked, four, options):
    """The samples are read off the images that were shown; the fit is another one, to the end."""
    x, z, score = asked
    seen = []

    def noted(variants, row, of):
        seen.append((row, variants, score(variants, row, of=of)))
        return seen[-1][2]

    alpha, width, kernel = options.get("alpha", 0.01), options.get("width", 1.0), options.get("kernel", "cosine")
    segments = quarters(x)
    with torch.no_grad():
        got = lime(x, z, noted, generators(), samples=120, segmenter=four, **options)
    assert sum(score.rows) == 3 * 120
    for i, values in enumerate(by_segment(got, segments)):
        shown = torch.cat([variants for row, variants, _ in seen if row == i]).double().numpy()
        answers = torch.cat([answer for row, _, answer in seen if row == i]).double().numpy()
        image = z[i].double().numpy()
        there = np.array([[(one[:, segments[i] == k] != 0).any() for k in range(4)] for one in shown], dtype=float)
        assert 0.4 < there.mean() < 0.6 and len(np.unique(there, axis=0)) == 16
        weights = []
        for one in shown:
            flat, other = image.ravel(), one.ravel()
            norms = np.linalg.norm(flat) * np.linalg.norm(other)
            distance = 1 - flat @ other / max(norms, 1e-8) if kernel == "cosine" else np.linalg.norm(flat - other)
            weights.append(np.exp(-(distance**2) / (2 * width**2)))
        expected = slow.weighted_lasso(there, answers, np.array(weights), alpha * answers.std(ddof=1))
        np.testing.assert_allclose(values, expected, atol=0.02 * np.abs(expected).max() + 1e-4)


def test_the_penalty_is_in_units_of_the_scores_deviation(asked, four):
    """Probabilities get the same map as logits fifty times as large; Captum's fixed .01 leaves nothing of them."""
    x, z, score = asked

    def faint(variants, row, of):
        return 0.02 * score(variants, row, of=of)

    options = {"samples": 100, "segmenter": four}
    loud = lime(x, z, score, generators(), **options)
    assert float(loud.abs().max()) > 0.01
    torch.testing.assert_close(lime(x, z, faint, generators(), **options) / 0.02, loud, rtol=0.01, atol=1e-4)


# --- occlusion ---


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("window", "stride"), [(4, 4), (5, 3), (3, 1), (9, 2), (30, 9)])
def test_occlusion_is_the_mean_loss_over_the_squares(asked, fill, window, stride):
    x, z, score = asked
    scale = (HEIGHT * WIDTH) ** 0.5 / 224
    got = occlusion(x, z, score, window=window / scale, stride=stride / scale, fill=fill)
    behind, module = ground(fill, x, z).double().numpy(), copy.deepcopy(score.module)
    sides = (min(window, HEIGHT), min(window, WIDTH))
    squares = 0
    for i in range(3):
        game = slow.game_of(module, i)
        steps = (min(stride, sides[0]), min(stride, sides[1]))
        expected, count = slow.occlusion(z[i].double().numpy(), behind[i], game, sides, steps)
        squares += count + 1  # and the whole image
        np.testing.assert_allclose(got[i], expected, rtol=1e-3, atol=1e-5 + 1e-4 * np.abs(expected).max())
    assert sum(score.rows) == squares


def test_occlusion_makes_as_many_passes_as_it_says():
    rows = []

    def score(variants, row, of):
        rows.append(len(variants))
        return variants[:, 0, 0, 0]

    x = torch.rand(1, 3, 224, 224)
    occlusion(x, x, score)
    assert sum(rows) == 785 and max(rows) == passes.rows_per_pass(x)


# --- what they share ---

EVERY = [lime, kernelshap, occlusion]


def run(method, x, z, score, seeds, **options):
    if method is occlusion:
        return occlusion(x, z, score, window=60, stride=40, **options)
    if method is lime:
        options = {"alpha": 1e-4, **options}  # small networks, small differences
    return method(x, z, score, seeds, **{"samples": 40, "segmenter": "slic[n_segments=12]", **options})


@pytest.mark.parametrize("method", EVERY)
def test_batch_equals_single_and_a_bad_image_spoils_no_other(asked, method):
    x, z, score = asked
    together = run(method, x, z, score, generators())
    for i in range(3):
        one = slice(i, i + 1)
        alone = run(method, x[one], z[one], slow.Selection(score.module, score.target[one]), generators()[one])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
    broken = x.clone(), z.clone()
    broken[0][1] = broken[1][1] = float("nan")
    got = run(method, *broken, score, generators())
    assert got[1].isnan().all() and torch.equal(got[[0, 2]], together[[0, 2]])


@pytest.mark.parametrize("method", EVERY)
def test_a_network_without_an_answer_gives_no_map_and_no_crash(asked, method):
    x, z, score = asked
    fine = run(method, x, z, score, generators())

    def lost(variants, row, of):
        found = score(variants, row, of=of)
        return found.masked_fill(torch.arange(len(found)) == 3, float("nan")) if row == 1 else found

    got = run(method, x, z, lost, generators())
    assert got[1].isnan().any() and torch.equal(got[[0, 2]], fine[[0, 2]])


@pytest.mark.parametrize("method", [lime, kernelshap])
def test_the_global_generators_decide_nothing_and_stay(asked, method):
    x, z, score = asked
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()
    first = run(method, x, z, score, generators())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_before, strict=True))
    torch.rand(5), np.random.rand(5)
    assert torch.equal(run(method, x, z, score, generators()), first)
    assert not torch.equal(run(method, x, z, score, generators(seed=50)), first)

    def fails(variants, row, of):
        raise FloatingPointError

    before = torch.get_rng_state()
    with pytest.raises(FloatingPointError):
        run(method, x, z, fails, generators())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", [lime, kernelshap])
def test_no_gradient_and_no_argument_is_touched(asked, method):
    x, z, score = asked
    copies = x.clone(), z.clone()
    got = run(method, x, z, score, generators())
    assert not got.requires_grad and torch.equal(x, copies[0]) and torch.equal(z, copies[1])


@pytest.mark.parametrize("method", [lime, kernelshap])
def test_segments_are_those_of_the_image(asked, method):
    x, z, score = asked
    for segmenter in ("slic[n_segments=12]", "grid[rows=3]", "felzenszwalb[count=5]"):
        got = run(method, x, z, score, generators(), segmenter=segmenter, samples=60)
        by_segment(got, segment(x, segmenter).numpy())


@pytest.mark.parametrize("method", [lime, kernelshap])
def test_an_image_of_one_superpixel_has_a_map_of_zeros(asked, method, monkeypatch):
    x, z, score = asked
    monkeypatch.setattr(superpixels, "segment", lambda x, name: torch.zeros(1, HEIGHT, WIDTH, dtype=torch.long))
    assert (run(method, x, z, score, generators()) == 0).all() and score.rows == []


@pytest.mark.parametrize("method", [lime, kernelshap])
def test_passes_are_as_many_as_samples_in_parts(asked, method, monkeypatch):
    x, z, score = asked
    monkeypatch.setattr(passes, "CPU_ROWS", 7)
    run(method, x, z, score, generators(), samples=50)
    assert score.rows == 3 * [7, 7, 7, 7, 7, 7, 7, 1]


def test_black_is_refused_by_a_map_without_numbers_where_it_cannot_be_known(asked):
    x, z, score = asked
    x, z = x.clone(), z.clone()
    x[1, 2], z[1, 2] = 0.5, 0.4
    fine = run(lime, x, z, score, generators(), fill="black")
    assert fine[1].isnan().all() and fine[[0, 2]].isfinite().all()


@pytest.mark.parametrize("method", EVERY)
def test_signals_are_refused(method):
    x = torch.rand(1, 3, 50)
    with pytest.raises(NotApplicable, match=r"Superpixels and squares are parts of images.*Got \(1, 3, 50\)"):
        run(method, x, x, None, generators(1))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (lime, {"samples": 1}, r"`samples` must be at least 2. Got 1."),
        (kernelshap, {"samples": 10.5}, r"`samples` must be a whole number. Got 10.5."),
        (lime, {"alpha": 0}, r"`alpha` must be above 0. Got 0."),
        (lime, {"width": -1.0}, r"`width` must be above 0. Got -1.0."),
        (occlusion, {"window": 8, "stride": 9}, r"`stride` must be above 0, at most `window`. Got 9 and 8."),
        (occlusion, {"stride": 0}, r"`stride` must be above 0, at most `window`. Got 0 and 15."),
    ],
)
def test_what_cannot_be(asked, method, options, message):
    x, z, score = asked
    seeds = () if method is occlusion else (generators(),)
    with pytest.raises(InvalidInput, match=message):
        method(x, z, score, *seeds, **options)
    assert score.rows == []


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (lime, {"kernel": "cosinus"}, r"No `kernel` is called 'cosinus'. Did you mean 'cosine'"),
        (lime, {"segmenter": "slick"}, r"No segmenter is called 'slick'. Did you mean 'slic'"),
        (kernelshap, {"segmenter": "slic[segments=9]"}, r"option of 'slic' is called 'segments'.*'n_segments'"),
        (kernelshap, {"of": "logits"}, r"No `of` is called 'logits'"),
        (occlusion, {"fill": "white"}, r"No `fill` is called 'white'"),
    ],
)
def test_names_that_do_not_exist(asked, method, options, message):
    x, z, score = asked
    seeds = () if method is occlusion else (generators(),)
    with pytest.raises(UnknownName, match=message):
        method(x, z, score, *seeds, **options)
    assert score.rows == []
