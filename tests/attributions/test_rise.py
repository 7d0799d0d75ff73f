"""RISE against its slow reference: the masks, the sum, and what its randomness may depend on."""

import copy

import numpy as np
import pytest
import torch

from heatproof import passes
from heatproof.attributions.rise import RandomMasks, rise
from heatproof.errors import InvalidInput, UnknownName
from heatproof.masking import FILLS, ground
from heatproof.models import wrap

from .. import nets
from . import reference_masks as slow

HEIGHT, WIDTH = 14, 10


def generators(count: int = 3, seed: int = 5) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def drawn(count: int, grid: int, size: tuple[int, ...], probability: float = 0.5, seed: int = 0) -> RandomMasks:
    return RandomMasks(count, grid, probability, torch.zeros(size), torch.Generator().manual_seed(seed))


@pytest.fixture
def asked():
    module = nets.seeded(nets.Signed)
    x = nets.images(3, HEIGHT, WIDTH)
    return x, wrap(module, 0.4, 0.25, size=16).normalise(x), slow.Selection(module, (0, 4, 2))


@pytest.mark.parametrize(("size", "grid"), [((14, 10), 3), ((21, 21), 7), ((9, 4), 7), ((13,), 4), ((6, 7, 5), 3)])
def test_masks_are_the_papers(size, grid):
    """Bits, upsampled whole to (s + 1) cells, cropped at random: one after the other, from the same uniforms."""
    uniform = torch.rand(20, grid ** len(size) + len(size), generator=torch.Generator().manual_seed(0))
    expected = np.stack(slow.rise_masks(uniform.numpy(), grid, 0.3, size))
    got = drawn(20, grid, size, 0.3)[slice(0, 20)]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got.amin() >= 0 and got.amax() <= 1 + 1e-6


def test_every_pixel_is_seen_as_often_as_the_probability_says():
    """E[M] is p at every pixel, the borders too: the normalisation needs no more than p · N."""
    for probability in (0.1, 0.5):
        mean = drawn(20_000, 4, (15, 9), probability)[slice(0, 20_000)].mean(0)
        np.testing.assert_allclose(mean, probability, atol=0.012)


def test_every_phase_of_the_grid_is_as_likely():
    masks = drawn(6000, 3, (12, 12))
    cell = 4
    shifts = (masks.phases * cell).long()
    for axis in (0, 1):
        counts = torch.bincount(shifts[:, axis], minlength=cell)
        assert len(counts) == cell and int(counts.min()) > 6000 / cell * 0.9
    assert abs(float(torch.corrcoef(masks.phases.T)[0, 1])) < 0.05


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("of", ["logit", "probability"])
def test_the_map_is_the_papers(asked, fill, of):
    x, z, score = asked
    with torch.no_grad():
        got = rise(x, z, score, generators(), masks=30, grid=3, probability=0.4, of=of, fill=fill)
    assert sum(score.rows) == 3 * 30
    behind = ground(fill, x, z).double().numpy()
    module = copy.deepcopy(score.module)
    for i, (target, generator) in enumerate(zip((0, 4, 2), generators(), strict=True)):
        masks = slow.rise_masks(torch.rand(30, 11, generator=generator).numpy(), 3, 0.4, (HEIGHT, WIDTH))
        expected = slow.rise(masks, 0.4, z[i].double().numpy(), behind[i], slow.game_of(module, target, of))
        np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-5)


def test_the_published_setting_is_the_default(asked):
    x, z, _ = asked
    rows, scores = [], set()

    def score(variants, row, of):
        rows.append(len(variants))
        scores.add(of)
        return variants.new_ones(len(variants))

    got = rise(x[:1], z[:1], score, generators(1))
    assert sum(rows) == 8000 and scores == {"probability"}
    uniform = torch.rand(8000, 51, generator=generators(1)[0])
    assert torch.equal(drawn(8000, 7, (HEIGHT, WIDTH), seed=5).bits, uniform[:, :49] < 0.5)
    np.testing.assert_allclose(got, 1, atol=0.05)  # a score of 1 throughout gives the mean of M / E[M]


@pytest.mark.parametrize("limit", [1, 7, 64])
def test_nothing_depends_on_the_size_of_a_pass(asked, limit, monkeypatch):
    x, z, score = asked
    with torch.no_grad():
        expected = rise(x, z, score, generators(), masks=40, grid=4)
        score.rows.clear()
        monkeypatch.setattr(passes, "CPU_ROWS", limit)
        got = rise(x, z, score, generators(), masks=40, grid=4)
    assert max(score.rows) == min(limit, 40) and sum(score.rows) == 120
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_more_masks_go_on_where_fewer_stopped():
    few, many = drawn(10, 7, (20, 20)), drawn(4000, 7, (20, 20))
    assert torch.equal(few[slice(0, 10)], many[slice(0, 10)])
    assert torch.equal(many[slice(0, 64)][40:50], many[slice(40, 50)])


def test_each_image_has_masks_of_its_own_whatever_the_batch(asked):
    x, z, score = asked
    with torch.no_grad():
        together = rise(x, z, score, generators(), masks=50)
        for i in range(3):
            one = slice(i, i + 1)
            alone = rise(x[one], z[one], slow.Selection(score.module, score.target[one]), generators()[one], masks=50)
            torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-6)
        twice = z[:1].expand(2, -1, -1, -1)
        pair = rise(twice, twice, slow.Selection(score.module, (0, 0)), generators(2), masks=50)
    assert not torch.equal(pair[0], pair[1])


def test_the_global_generator_decides_nothing_and_stays(asked):
    x, z, score = asked
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = rise(x, z, score, generators(), masks=9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(rise(x, z, score, generators(), masks=9), first)
    assert not torch.equal(rise(x, z, score, generators(seed=50), masks=9), first)


def test_a_bad_image_spoils_no_other(asked):
    x, z, score = asked
    broken = z.clone()
    broken[1] = float("nan")
    with torch.no_grad():
        fine, got = (rise(x, given, score, generators(), masks=20) for given in (z, broken))
    assert got[1].isnan().all() and torch.equal(got[[0, 2]], fine[[0, 2]])


def test_it_finds_the_pixels_that_count():
    """A score that looks at one corner of a signal, an image and a volume."""
    for size in [(40,), (21, 28), (9, 9, 9)]:
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) + 1
        corner = tuple(slice(0, side // 3) for side in size)
        found = rise(
            x,
            x,
            lambda variants, row, of, corner=corner: variants[(slice(None), slice(None), *corner)].flatten(1).sum(1),
            generators(1),
            masks=400,
            grid=3,
        )[0]
        inside = torch.zeros(size, dtype=torch.bool)
        inside[corner] = True
        assert found[inside].mean() > 1.2 * found[~inside].mean()
        assert inside.flatten()[found.argmax()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": 0}, r"`masks` must be at least 1. Got 0."),
        ({"masks": 2.5}, r"`masks` must be a whole number. Got 2.5."),
        ({"grid": 0}, r"`grid` must be at least 1. Got 0."),
        ({"probability": 1.0}, r"`probability` must be between 0 and 1. Got 1.0."),
        ({"probability": 0}, r"`probability` must be between 0 and 1. Got 0."),
    ],
)
def test_what_cannot_be(asked, options, message):
    x, z, score = asked
    with pytest.raises(InvalidInput, match=message):
        rise(x, z, score, generators(), **options)
    with pytest.raises(UnknownName, match=r"No `of` is called 'probabilty'. Did you mean 'probability'"):
        rise(x, z, score, generators(), of="probabilty")
    assert score.rows == []
