"""ROAD beside a reference that removes, solves and averages one image, one fraction and one pixel at a time."""

import itertools
import math

import numpy as np
import pytest
import torch

import heatproof
from heatproof import passes
from heatproof.data import load_images
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.metrics.curves import pixel_ranks, reversed_ranks
from heatproof.metrics.road import Removal, removal_scores, road, road_lerf, road_morf
from heatproof.models import wrap

from .. import nets

KEPT = (20, 40, 60, 80)
WEIGHTS = {
    (dy, dx): 1 / 6 if dy * dx == 0 else 1 / 12 for dy, dx in itertools.product((-1, 0, 1), repeat=2) if dy or dx
}


def linear(side, classes=3, seed=0):
    """A network without hidden layers: softmax of a weighted sum of the pixels."""
    weights = torch.randn(classes, 3 * side * side, generator=torch.Generator().manual_seed(seed)) / side
    return lambda z: (z.flatten(1) @ weights.to(z.dtype).T).softmax(1)


def scorer(network, targets):
    """The `score` of the engine, and what it was asked: rows of every pass."""
    asked = []

    def score(z, rows=None, of="probability"):
        asked.append(rows.tolist())
        return network(z).double().gather(1, targets[rows][:, None])[:, 0]

    return score, asked


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def slow_fill(image, gone):
    """`(C, H, W)` float64 with the pixels of `gone` as weighted means of their neighbours, all at once."""
    height, width = gone.shape
    positions = np.argwhere(gone)
    number = {tuple(position): k for k, position in enumerate(positions)}
    matrix, right = np.zeros((len(positions), len(positions))), np.zeros((len(positions), len(image)))
    for k, (i, j) in enumerate(positions):
        for (dy, dx), weight in WEIGHTS.items():
            y, x = i + dy, j + dx
            if 0 <= y < height and 0 <= x < width:
                matrix[k, k] += weight
                if (y, x) in number:
                    matrix[k, number[y, x]] -= weight
                else:
                    right[k] += weight * image[:, y, x]
    filled = image.copy()
    filled[:, gone] = np.linalg.solve(matrix, right).T
    return filled


def slow_road(z, map_, network, target, kept=KEPT, noise=None):
    """Rong et al. 2022 as protocols §7 has it, for a map without ties: p_MoRF and p_LeRF for every P."""
    image, flat = z.double().numpy(), map_.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: -flat[i])
    found = []
    for percent in kept:
        stay = sum(value < np.percentile(flat, percent) for value in flat)
        for group in (order[: len(flat) - stay], order[stay:]):
            gone = np.zeros(len(flat), dtype=bool)
            gone[group] = True
            gone = gone.reshape(map_.shape)
            filled = slow_fill(image, gone)
            if noise is not None:
                filled += np.where(gone, noise, 0)
            found.append(float(network(torch.from_numpy(filled)[None])[0, target]))
    return np.array(found).reshape(len(kept), 2).T


def maps_without_ties(count, height, width, seed=1):
    order = [torch.randperm(height * width, generator=g) for g in generators(count, seed)]
    return (torch.stack(order).float() / (height * width - 1)).view(count, height, width)


def scored(z, maps, network, targets, ties="jitter", **options):
    score, asked = scorer(network, targets)
    ranks = pixel_ranks(maps, generators(len(z), 50), ties)
    return removal_scores(z, ranks, score, generators(len(z), 9), **options), asked


def given(found):
    """The engine's `removal`: whatever is asked for."""
    return lambda kept, ties, noise, draws: found


@pytest.fixture
def z():
    return torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(3))


TARGETS = torch.tensor([0, 2, 1])


# --- right ---


@pytest.mark.parametrize("kept", [KEPT, (10, 50, 93)])
def test_it_is_the_reference(z, kept):
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    found, _ = scored(z, maps, network, TARGETS, kept=kept, noise=0.0)
    for i in range(3):
        morf, lerf = slow_road(z[i], maps[i], network, int(TARGETS[i]), kept)
        np.testing.assert_allclose(found.morf[i], morf, atol=1e-5)
        np.testing.assert_allclose(found.lerf[i], lerf, atol=1e-5)
    assert found.morf.dtype == torch.float64 and found.residual.shape == (3, len(kept), 2)
    assert (found.residual <= 1e-4).all()


def test_noise_is_one_field_for_each_image_on_what_was_removed(z):
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    found, _ = scored(z, maps, network, TARGETS, noise=0.3)
    for i, generator in enumerate(generators(3, 9)):
        field = 0.3 * torch.randn(3, 9, 9, generator=generator).double().numpy()
        morf, lerf = slow_road(z[i], maps[i], network, int(TARGETS[i]), noise=field)
        np.testing.assert_allclose(found.morf[i], morf, atol=1e-5)
        np.testing.assert_allclose(found.lerf[i], lerf, atol=1e-5)


def test_draws_are_averaged(z):
    """The fields come from the generator one after the other, so the first draw is the one that is taken alone."""
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    found, asked = scored(z, maps, network, TARGETS, noise=0.3, draws=3)
    assert sum(map(len, asked)) == 3 * len(KEPT) * 2 * 3
    for i, generator in enumerate(generators(3, 9)):
        fields = [0.3 * torch.randn(3, 9, 9, generator=generator).double().numpy() for _ in range(3)]
        each = [slow_road(z[i], maps[i], network, int(TARGETS[i]), noise=field) for field in fields]
        np.testing.assert_allclose(found.morf[i], np.mean([morf for morf, _ in each], 0), atol=1e-5)
        np.testing.assert_allclose(found.lerf[i], np.mean([lerf for _, lerf in each], 0), atol=1e-5)
    with pytest.raises(InvalidInput, match="draws"):
        scored(z, maps, network, TARGETS, draws=0)


def test_runs_with_other_seeds_agree_within_the_interval():
    """The noise of another seed moves an image by far less than images differ."""
    shapes = heatproof.load_model("shapes", device="cpu")
    opened = load_images("shapes", limit=8)
    pictures = [opened.open(i) for i in range(len(opened.ids))]
    runs = [heatproof.score(shapes, pictures, ["layercam"], ["road"], seed=seed).table for seed in (0, 1)]
    for one, other in (runs, runs[::-1]):
        assert ((other["low"] < one["mean"]) & (one["mean"] < other["high"])).all()
    assert runs[0]["mean"][0] != runs[1]["mean"][0], "the seeds draw other noise"


def test_by_hand():
    """4 × 4 with the left half important, 50 % kept: a hole of two columns at the edge is filled as its edge is.

    Columns 2 and 3 have the value 1 and stay, so columns 0 and 1 become 1; the other way round they become 0.
    """
    z = torch.tensor([0.0, 0, 1, 1]).expand(1, 3, 4, 4).contiguous()
    ranks = torch.tensor([0, 4, 8, 12]) + torch.arange(4)[:, None]

    def score(images, rows):
        return images.double().mean((1, 2, 3))

    found = removal_scores(z, ranks[None], score, generators(1), kept=(50,), noise=0.0)
    assert found.morf.item() == pytest.approx(1, abs=1e-6) and found.lerf.item() == pytest.approx(0, abs=1e-6)
    assert road(given(found), kept="50").value.item() == pytest.approx(-0.5, abs=1e-6)


def test_the_metrics_are_means_over_the_fractions():
    morf, lerf = torch.tensor([[0.1, 0.2, 0.6]]).double(), torch.tensor([[0.5, 0.8, 0.8]]).double()
    asked = []

    def removal(kept, ties, noise, draws):
        asked.append((kept, ties, noise, draws))
        return Removal(morf, lerf, torch.zeros(1, 3, 2))

    whole = road(removal, kept="80 20, 50", ties="block", noise=0.5)
    assert whole.value.tolist() == pytest.approx([(0.4 + 0.6 + 0.2) / 6])
    assert road_morf(removal).value.tolist() == pytest.approx([0.3])
    assert road_lerf(removal).value.tolist() == pytest.approx([0.7])
    assert asked == [((20, 50, 80), "block", 0.5, 1), (KEPT, "jitter", 0.01, 1), (KEPT, "jitter", 0.01, 1)]
    assert whole.at.tolist() == pytest.approx([0.2, 0.5, 0.8])  # removed, so the last of the points comes first
    assert whole.points.tolist()[0] == pytest.approx([0.1, 0.3, 0.2])


# --- what must hold ---


def monotone(side, classes=2):
    """The probability of class 0 rises with how the middle differs from the outside."""
    inside = torch.zeros(side, side)
    inside[side // 3 : -(side // 3), side // 3 : -(side // 3)] = 1

    def network(z):
        middle = (z.mean(1) * inside).sum((1, 2)) / inside.sum()
        logit = 4 * (middle - (z.mean(1) * (1 - inside)).sum((1, 2)) / (1 - inside).sum())
        return torch.stack([logit, torch.zeros_like(logit)], 1).softmax(1)

    return network, inside


def test_a_map_that_knows_the_object_scores_high_and_its_negative_low():
    side = 24
    network, inside = monotone(side)
    z = (2 * inside - 1).expand(1, 3, side, side) + 0.1 * torch.randn(1, 3, side, side, generator=generators(1)[0])
    right, random = inside[None] + 0.0, maps_without_ties(1, side, side)
    target = torch.zeros(1, dtype=torch.long)
    values = [road(given(scored(z, maps, network, target)[0])).value.item() for maps in (right, random, 1 - right)]
    assert values[0] > 0.2 > abs(values[1]) and values[2] < -0.2


def test_the_reverse_of_a_map_scores_the_negative(z):
    ranks = pixel_ranks(maps_without_ties(3, 9, 9), generators(3))
    network = linear(9)
    one, other = (
        removal_scores(z, order, scorer(network, TARGETS)[0], generators(3)) for order in (ranks, reversed_ranks(ranks))
    )
    torch.testing.assert_close(one.morf, other.lerf)
    torch.testing.assert_close(road(given(one)).value, -road(given(other)).value)


def test_a_monotone_rescaling_changes_nothing(z):
    """Paper R, Fig. 4: ROAD looks at the order only (ARCC does not)."""
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    one, _ = scored(z, maps, network, TARGETS)
    other, _ = scored(z, maps**3 / 2 + 0.1, network, TARGETS)
    assert torch.equal(one.morf, other.morf) and torch.equal(one.lerf, other.lerf)


def test_two_forwards_for_each_fraction(z):
    network, maps = linear(9), maps_without_ties(3, 9, 9)
    _, asked = scored(z, maps, network, TARGETS)
    assert sorted(itertools.chain(*asked)) == sorted([0, 1, 2] * 8)
    _, asked = scored(z, maps, network, TARGETS, kept=(50,))
    assert sorted(itertools.chain(*asked)) == sorted([0, 1, 2] * 2)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_chunks_batch_and_order_decide_nothing(z, rows, monkeypatch):
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    expected, asked = scored(z, maps, network, TARGETS)
    assert len(asked) == 1
    monkeypatch.setattr(passes, "CPU_ROWS", rows)
    chunked, asked = scored(z, maps, network, TARGETS)
    assert max(map(len, asked)) == rows
    torch.testing.assert_close(chunked.morf, expected.morf, rtol=0, atol=1e-6)
    ranks = pixel_ranks(maps, generators(3, 50))
    for i in range(3):
        score, _ = scorer(network, TARGETS[i : i + 1])
        one = removal_scores(z[i : i + 1], ranks[i : i + 1], score, generators(3, 9)[i : i + 1])
        torch.testing.assert_close(one.lerf[0], expected.lerf[i], rtol=0, atol=1e-6)


def test_the_noise_is_the_same_for_every_method_and_seeded(z):
    """Two maps that remove the same pixels in another order get the same image."""
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    ranks = pixel_ranks(maps, generators(3))
    stay = math.ceil(80 * 50 / 100)
    shuffled = torch.where(ranks < 81 - stay, 80 - stay - ranks, ranks)
    score, _ = scorer(network, TARGETS)
    torch.rand(5)
    one, other, third = (
        removal_scores(z, order, score, generators(3, seed), kept=(50,), noise=0.5)
        for order, seed in ((ranks, 4), (shuffled, 4), (ranks, 5))
    )
    assert torch.equal(one.morf, other.morf)
    assert (one.morf != third.morf).all()


@pytest.mark.parametrize("bad", ["image", "map"])
def test_what_is_broken_breaks_no_neighbour(z, bad):
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    expected, _ = scored(z, maps, network, TARGETS)
    if bad == "image":
        z = z.clone()
        z[1] = torch.nan
    else:
        maps[1] = 0  # a broken map is shown as zeros
    found, _ = scored(z, maps, network, TARGETS)
    torch.testing.assert_close(found.morf[[0, 2]], expected.morf[[0, 2]], rtol=0, atol=1e-6)
    assert found.morf[1].isnan().all() if bad == "image" else found.morf[1].isfinite().all()


# --- ties ---


def changed(z, maps, ties, kept=KEPT):
    """How many pixels of each variant are not the image's any more, `(N, P, 2)`; noise tells them all."""
    counts = []

    def score(images, rows):
        counts.append((images != z[rows]).any(1).flatten(1).sum(1))
        return images.double().mean((1, 2, 3))

    ranks = pixel_ranks(maps, generators(len(z), 50), ties)
    found = removal_scores(z, ranks, score, generators(len(z)), kept=kept, noise=0.5)
    return torch.cat(counts).view(len(z), len(kept), 2), found


EXPECTED = [81 - math.ceil(80 * percent / 100) for percent in KEPT]


def test_exactly_so_many_pixels_go_whatever_the_ties(z):
    """pytorch-grad-cam 1.5.7 removes all 81 of a constant map (tests/parity/test_road_peers.py)."""
    constant, halves = torch.zeros(9, 9), (torch.arange(9) < 4).float().expand(9, 9)
    counts, _ = changed(z, torch.stack([constant, halves, maps_without_ties(1, 9, 9)[0]]), "jitter")
    assert (counts == torch.tensor(EXPECTED)[None, :, None]).all()


def test_block_removes_whole_tie_groups(z):
    """45 zeros below 36 different values: of the bottom all 45 go, however few were asked for."""
    flat = torch.cat([torch.zeros(45), torch.arange(1, 37) / 36])[torch.randperm(81, generator=generators(1)[0])]
    counts, _ = changed(z[:1], flat.view(1, 9, 9), "block")
    assert counts[0, :, 0].tolist() == [81, 81, 33, 17]
    assert counts[0, :, 1].tolist() == [65, 49, 45, 45]


def test_block_on_a_constant_map_has_no_value(z):
    found, _ = scored(
        z[:2], torch.stack([torch.zeros(9, 9), maps_without_ties(1, 9, 9)[0]]), linear(9), TARGETS, "block"
    )
    values = road(given(found)).value
    assert values[0].isnan() and values[1].isfinite() and found.residual[0].isnan().all()


def test_block_without_ties_is_jitter(z):
    maps, network = maps_without_ties(3, 9, 9), linear(9)
    one, other = (scored(z, maps, network, TARGETS, ties)[0] for ties in ("jitter", "block"))
    assert torch.equal(one.morf, other.morf) and torch.equal(one.lerf, other.lerf)


# --- from outside ---


def test_by_name_the_metrics_share_their_forwards():
    counted = nets.Counted(nets.told_apart(nets.seeded(nets.Plain), 20))
    model, x = wrap(counted, size=(20, 20), layer="inner.two"), nets.images(2, 20)
    maps = maps_without_ties(2, 20, 20)
    heatproof.score(model, x, {"mine": maps}, ["road"], batch_size=2)  # the probe of the network, once
    counted.calls = 0
    found = heatproof.score(model, x, {"mine": maps}, ["road", "road-morf", "road-lerf"], batch_size=2)
    calls = counted.calls
    counted.calls = 0
    heatproof.score(model, x, {"mine": maps}, ["road"], batch_size=2)
    assert calls == counted.calls
    values = {(row.image, row.metric): row.value for row in found.rows}
    for image in {row.image for row in found.rows}:
        combined = (values[image, "road-lerf"] - values[image, "road-morf"]) / 2
        assert values[image, "road"] == pytest.approx(combined, abs=1e-12)


@pytest.mark.parametrize("kept", ["", "0 50", "100", "half", "-20"])
def test_percents_that_are_none_are_refused(kept):
    with pytest.raises(InvalidInput, match=r"`kept` must be percents between 0 and 100, such as '20 40 60 80'\. Got"):
        road(lambda **asked: None, kept=kept)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_noise_that_is_none_is_refused(z, noise):
    with pytest.raises(InvalidInput, match="`noise` must be at least 0 and finite"):
        scored(z, maps_without_ties(3, 9, 9), linear(9), TARGETS, noise=noise)


@pytest.mark.parametrize("shape", [(2, 1, 30), (2, 1, 5, 5, 5)])
def test_signals_and_volumes_are_refused(shape):
    with pytest.raises(NotApplicable, match="ROAD imputes the pixels of images"):
        removal_scores(torch.zeros(shape), torch.zeros(2, *shape[2:]), lambda z, rows: z, generators(2))
