"""Masks optimised on the image against their slow references, and what they find."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heatproof import passes
from heatproof.attributions import perturbation, smoothmask
from heatproof.attributions.optimising import gaussian
from heatproof.attributions.perturbation import extremal_perturbation, meaningful_perturbation
from heatproof.attributions.smoothmask import SmoothMask
from heatproof.errors import InvalidInput, UnknownName
from heatproof.masking import ground
from heatproof.models import wrap

from .. import nets
from . import reference_optimised as slow
from .reference_masks import Selection

TARGETS = (0, 4, 2)
HEIGHT, WIDTH = 10, 8


def generators(count: int = 3, seed: int = 5) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.fixture
def asked():
    """In float64, where a trajectory can be followed for long; the logits are large enough to matter."""
    module = nets.seeded(nets.Signed).double().requires_grad_(False)
    module.head.weight.mul_(20)
    x = nets.images(3, HEIGHT, WIDTH).double()
    return x, wrap(module, 0.4, 0.25, size=16).normalise(x), Selection(module, TARGETS)


class Corner(nn.Module):
    """Class 1 is what varies in the top left quarter, whose mean is taken away: blurred it is gone."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        quarter = z[(slice(None), 0, *(slice(0, side // 2) for side in z.shape[2:]))].flatten(1)
        varies = 4 * quarter.var(1)
        return torch.stack([torch.full_like(varies, 2.0), varies], 1)


def corner(size: tuple[int, ...]) -> torch.Tensor:
    inside = torch.zeros(size, dtype=torch.bool)
    inside[tuple(slice(0, side // 2) for side in size)] = True
    return inside


def checkered(*size: int, count: int = 2) -> torch.Tensor:
    """Images of +1 and −1."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0)).sign()


# --- smooth masks ---


@pytest.mark.parametrize(
    ("size", "cell", "sigma"), [((9, 7), 2, 3.0), ((5, 6), 1, 1.5), ((13,), 3, 9.0), ((3, 4, 3), 2, 2.0)]
)
def test_a_smooth_mask_is_the_papers_and_so_is_its_gradient(size, cell, sigma):
    smooth = SmoothMask(size, cell, sigma, torch.zeros((), dtype=torch.float64))
    parameters = torch.rand(2, *smooth.cells, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    got = smooth(parameters)
    expected = torch.stack([slow.smooth_mask(one, size, cell, sigma) for one in parameters])
    torch.testing.assert_close(got, expected)
    weights = torch.rand(got.shape, generator=torch.Generator().manual_seed(1)).double()
    slopes = [torch.autograd.grad((mask * weights).sum(), parameters)[0] for mask in (got, expected)]
    torch.testing.assert_close(*slopes)


def test_one_parameter_makes_a_disc_of_about_sigma():
    smooth = SmoothMask((64, 64), 4, 12.0, torch.zeros(()))
    parameters = torch.zeros(1, *smooth.cells)
    parameters[0, 8, 8] = 1
    mask = smooth(parameters)[0]
    at = torch.cartesian_prod(torch.arange(64), torch.arange(64)).view(64, 64, 2)
    distance = (at - 32).float().norm(dim=2)
    assert mask[distance < 6].min() > 0.99 and mask[(distance > 11.5) & (distance < 12.5)].mean() > 0.4
    assert mask[distance > 30].max() < 1e-6


def test_equal_parameters_favour_no_place():
    """As a start must not; with nothing outside the image (TorchRay's padding) the corners stand out."""
    smooth = SmoothMask((48, 48), 2, 6.0, torch.zeros((), dtype=torch.float64))
    even = smooth(torch.ones(1, *smooth.cells).double())[0].unflatten(0, (-1, 2)).unflatten(2, (-1, 2))
    torch.testing.assert_close(even, even[:1, :, :1].expand_as(even))  # one value for each place within a cell
    padded = F.pad(torch.ones(1, *smooth.cells).double(), [smooth.radius] * 4)
    theirs = smoothmask._SmoothMaximum.apply(padded, smooth.table, smooth.cells).mean((2, 4))[0]
    assert theirs[0, 0] > theirs[0, 12] > theirs[12, 12]
    assert theirs.argmax() == 22 * 24 + 22


def test_the_area_term_is_that_of_sorted_masks():
    masks = torch.rand(3, 200, generator=torch.Generator().manual_seed(0)).double()
    areas = torch.tensor([0.1, 0.33, 0.999], dtype=torch.float64)
    for got, mask, area in zip(perturbation._excess(masks, areas), masks, areas.tolist(), strict=True):
        ramp = (torch.arange(200) >= int(200 * (1 - area))).double()
        assert float(got) == pytest.approx(float((mask.sort().values - ramp).square().mean()))
    # All equal: every pixel wants the area, whoever rounding favours.
    flat = (0.9 + 1e-7 * torch.rand(1, 200, generator=torch.Generator().manual_seed(1))).requires_grad_()
    slope = torch.autograd.grad(perturbation._excess(flat, torch.tensor([0.1], dtype=torch.float64)).sum(), flat)[0]
    torch.testing.assert_close(slope, torch.full_like(slope, 2 * (0.9 - 0.1) / 200), rtol=1e-5, atol=0)


def test_the_authors_area_counts_a_margin():
    """With TorchRay's σ 21 and step 7 the area is that of 260 × 260 pixels: 13.5 % of the image, not 10 %."""
    side, sigma, step = 224, 21, 7
    padding, radius = 1 + math.ceil(2 * sigma / step), 1 + math.ceil(sigma / step)
    counted = step * (side // step + 2 * padding - (2 * radius + 1) + 1) - step + 1
    assert counted == 260 and 0.1 * counted**2 / side**2 == pytest.approx(0.1347, abs=1e-4)


def test_a_pyramid_goes_from_the_strongest_blur_to_the_image():
    z = torch.randn(1, 2, 9, 7, generator=torch.Generator().manual_seed(0)).double()
    levels = perturbation.pyramid(z)[0]
    assert torch.equal(levels[-1], z[0])
    for level in range(7):
        sigma = 20 * 9 / 224 * (1 - level / 7)
        expected = np.stack([slow.blurred(channel.numpy(), sigma) for channel in z[0]])
        np.testing.assert_allclose(levels[level], expected, atol=1e-12)
    mask = torch.tensor([0.0, 1.0, 3 / 7, 0.5]).double().repeat(16)[:63].view(9, 7)
    torch.testing.assert_close(perturbation.through(levels[None], mask[None])[0], slow.through(list(levels), mask))


# --- extremal perturbation ---


@pytest.mark.parametrize("variant", perturbation.VARIANTS)
def test_extremal_perturbation_is_the_papers(asked, variant):
    """σ = 70 at 224 is 3.1 pixels here, and a cell one pixel."""
    x, z, score = asked
    got = extremal_perturbation(x, z, score, steps=8, area=0.2, sigma=70.0, variant=variant)
    assert sum(score.rows) == 3 * 8 * (2 if variant == "dual" else 1)
    levels = perturbation.pyramid(z[:1])[0]
    expected = slow.extremal(
        list(levels), slow.score_of(score.module, TARGETS[0]), 0.2, 8, 1, 70 * HEIGHT / 224, variant
    )
    np.testing.assert_allclose(got[0], expected, atol=1e-8)
    assert float(got.min()) >= 0 and float(got.max()) <= 1


def test_float32_follows_the_same_path(asked):
    x, z, score = asked
    expected = extremal_perturbation(x, z, score, steps=100)
    plain = Selection(score.module.float(), TARGETS)
    got = extremal_perturbation(x.float(), z.float(), plain, steps=100)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", perturbation.VARIANTS)
@pytest.mark.parametrize("fill", ["pyramid", "mean"])
def test_an_extremal_mask_finds_the_corner_that_counts(variant, fill):
    """Its area is spent there: the quarter that the network looks at is a quarter of the image."""
    z, inside = checkered(16, 16), corner((16, 16))
    found = extremal_perturbation(
        (z + 1) / 2, z, Selection(Corner(), (1, 1)), steps=300, area=0.2, variant=variant, fill=fill, flip=False
    )
    for mask in found:
        assert float(mask.mean()) == pytest.approx(0.2, abs=0.06)
        assert mask[inside].mean() > 10 * mask[~inside].mean()


@pytest.mark.parametrize("size", [(48,), (8, 6, 8)])
def test_signals_and_volumes_have_extremal_masks_too(size):
    z, inside = checkered(*size), corner(size)
    found = extremal_perturbation((z + 1) / 2, z, Selection(Corner(), (1, 1)), steps=120, area=0.1)
    assert (found[:, inside].mean(1) > 3 * found[:, ~inside].mean(1)).all()


def test_several_areas_are_the_mean_of_each(asked):
    x, z, score = asked
    alone = [extremal_perturbation(x, z, score, area=area, steps=20) for area in (0.05, 0.3)]
    for text in ("0.05+0.3", " .05, .3"):
        torch.testing.assert_close(extremal_perturbation(x, z, score, areas=text, steps=20), (alone[0] + alone[1]) / 2)


def test_the_papers_setting_is_the_default(asked):
    x, z, score = asked
    extremal_perturbation(x[:1, :, :2, :2], z[:1, :, :2, :2], score)
    assert score.rows == [1] * 800


def test_every_other_step_is_mirrored(asked):
    x, z, score = asked
    seen = []

    def watched(variants, rows, of):
        seen.append(variants.detach())
        return score(variants, rows, of)

    extremal_perturbation(x, z, watched, steps=2, fill="mean", area=0.999)
    torch.testing.assert_close(seen[0].flip(-1), seen[1], atol=0.1, rtol=0)
    assert (seen[0] - seen[1]).abs().max() > 1


# --- meaningful perturbation ---


@pytest.mark.parametrize("start", ["disc", "ones"])
@pytest.mark.parametrize("of", ["probability", "logit"])
def test_meaningful_perturbation_is_the_papers(asked, start, of):
    x, z, score = asked
    options = {"l1": 3e-3, "tv": 0.05, "lr": 0.05, "blur": 60.0}
    got = meaningful_perturbation(x, z, score, generators(), steps=10, start=start, of=of, **options)
    sigma = 60 * HEIGHT / 224
    behind = torch.stack([torch.from_numpy(slow.blurred(one.numpy(), sigma)) for one in z.flatten(0, 1)]).view_as(z)
    for i in (0, 2):
        play = slow.score_of(score.module, TARGETS[i], of)
        shifts = torch.randint(4, (10, 2), generator=generators()[i]).numpy() - 2

        def left(mask, i=i, play=play):
            with torch.no_grad():
                mask = torch.from_numpy(mask)
                return float(play(z[i] * mask + behind[i] * (1 - mask)))

        grid = (HEIGHT, WIDTH)
        begin = np.ones(grid) if start == "ones" else slow.first_disc((HEIGHT, WIDTH), grid, left)
        expected = slow.meaningful(z[i], behind[i], play, shifts, begin, 3e-3, 0.05, 0.05)
        np.testing.assert_allclose(got[i], expected, atol=1e-8)


def test_a_start_is_chosen_for_each_image():
    """The corner is gone under a large disc only; what looks at the middle is gone under a small one."""

    class Middle(Corner):
        def forward(self, z):
            return super().forward(z.roll((-7, -7), (2, 3))[:, :, :4, :4])

    z = checkered(16, 16)
    rows = torch.arange(2)
    masks = []
    for net in (Corner(), Middle()):
        deletion = perturbation._Deletion(z, gaussian(z, 2.0), 0, Selection(net, (1, 1)), "probability")
        masks.append(deletion.disc()[rows].mean((1, 2)))
    assert (masks[0] < masks[1] - 0.2).all()
    ones = perturbation._Deletion(z, gaussian(z, 2.0), 0, lambda seen, rows, of: -seen.flatten(1).var(1), "logit")
    assert torch.equal(ones.disc(), torch.ones(2, 16, 16))  # deleting raises the score: nothing is deleted


def test_the_grid_has_28_cells_along_the_longer_side():
    sizes = {(224, 224): (28, 28), (224, 112): (28, 14), (96, 96): (28, 28), (10, 8): (10, 8), (56,): (28,)}
    for size, cells in sizes.items():
        z = torch.zeros(1, 3, *size)
        assert perturbation._Deletion(z, z, 0, None, "logit").cells == cells


@pytest.mark.parametrize("size", [(16, 16), (48,), (8, 6, 8)])
@pytest.mark.parametrize("start", ["disc", "ones"])
def test_a_meaningful_mask_deletes_the_corner_that_counts(size, start):
    z, inside = checkered(*size), corner(size)
    score = Selection(Corner(), (1, 1))
    found = meaningful_perturbation((z + 1) / 2, z, score, generators(2), steps=150, start=start, jitter=0, fill="mean")
    assert (found[:, inside].mean(1) > 0.95).all() and (found[:, ~inside].mean(1) < 0.55).all()
    left = score(z * (1 - found[:, None]), of="probability")
    assert (left < 0.5 * score(z, of="probability")).all()


def test_the_papers_steps_are_the_default(asked):
    x, z, score = asked
    meaningful_perturbation(x[:1], z[:1], score, generators(1), start="ones")
    assert score.rows == [1] * 300
    score.rows.clear()
    meaningful_perturbation(x[:1], z[:1], score, generators(1), steps=1)
    assert 3 <= len(score.rows) <= 2 + 35 + 1


def test_nothing_to_delete_is_zero_everywhere():
    """A network that ignores the image: the L1 term takes the disc back, and nothing stays of it."""
    z = checkered(12, 12)
    blind = Selection(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)).requires_grad_(False), (0, 1))
    with torch.no_grad():
        blind.module[1].weight.zero_()
    assert (meaningful_perturbation(z, z, blind, generators(2), steps=200) == 0).all()


def test_moved_images_repeat_their_border():
    z = torch.arange(12.0).view(1, 1, 3, 4)
    got = perturbation._shift_images(z, torch.tensor([[1, -2]]))[0, 0]
    assert got.tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]
    assert set(perturbation._shifts(generators(1), 400, 2, 4).flatten().tolist()) == {-2, -1, 0, 1}


# --- both ---


def extremal(x, z, score, generators, **options):
    return extremal_perturbation(x, z, score, **{"steps": 15, **options})


def meaningful(x, z, score, generators, **options):
    return meaningful_perturbation(x, z, score, generators, **{"steps": 15, **options})


both = pytest.mark.parametrize("method", [extremal, meaningful])


@both
def test_batch_equals_single(asked, method, monkeypatch):
    x, z, score = asked
    together = method(x, z, score, generators(), fill="black")
    monkeypatch.setattr(passes, "CPU_ROWS", 2)
    torch.testing.assert_close(method(x, z, score, generators(), fill="black"), together)
    for i in range(3):
        one = slice(i, i + 1)
        alone = method(x[one], z[one], Selection(score.module, TARGETS[one]), generators()[one], fill="black")
        torch.testing.assert_close(alone[0], together[i])


@both
def test_randomness_is_the_generators_alone(asked, method):
    x, z, score = asked
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = method(x, z, score, generators())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(method(x, z, score, generators()), first)
    assert torch.equal(method(x, z, score, generators(seed=50)), first) is (method is extremal)


@both
@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_what_is_hidden_is_the_fill(asked, method, fill):
    """Seen by the network at the start: the image everywhere, or nearly, and what is not it is the fill."""
    x, z, score = asked
    behind, seen = ground(fill, x, z), []

    def watched(variants, rows, of):
        seen.append(variants.detach())
        return score(variants, rows, of)

    method(x, z, watched, generators(), fill=fill, steps=40)
    for variants in seen[1:]:
        low, high = torch.minimum(z, behind), torch.maximum(z, behind)
        moved = [variants, variants.flip(-1)] if method is extremal else []
        assert method is meaningful or any(((v >= low - 1e-9) & (v <= high + 1e-9)).all() for v in moved)
    if method is meaningful:
        torch.testing.assert_close(seen[1], behind.expand_as(z))  # the start is chosen between all and nothing


@both
def test_a_bad_image_spoils_no_other(asked, method):
    x, z, score = asked
    broken = z.clone()
    broken[1] = float("nan")
    fine, got = (method(x, given, score, generators()) for given in (z, broken))
    assert got[1].isnan().all()
    torch.testing.assert_close(got[[0, 2]], fine[[0, 2]])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (extremal, {"steps": 0}, r"`steps` must be at least 1. Got 0."),
        (extremal, {"area": 0.0}, r"`area` must be between 0 and 1. Got 0.0."),
        (extremal, {"area": 1}, r"`area` must be between 0 and 1. Got 1."),
        (extremal, {"areas": "0.1+2"}, r"`areas` must be between 0 and 1. Got '0.1\+2'."),
        (extremal, {"areas": "few"}, r"`areas` must be numbers with \+ between them, as in '0.05\+0.1'. Got 'few'."),
        (extremal, {"sigma": 0.0}, r"`sigma` must be above 0. Got 0.0."),
        (extremal, {"variant": "keep"}, r"No `variant` is called 'keep'."),
        (extremal, {"fill": "pyramids"}, r"No `fill` is called 'pyramids'. Did you mean 'pyramid'"),
        (extremal, {"of": "logits"}, r"No `of` is called 'logits'. Did you mean 'logit'"),
        (meaningful, {"steps": 2.5}, r"`steps` must be a whole number. Got 2.5."),
        (meaningful, {"jitter": -1}, r"`jitter` must be at least 0. Got -1."),
        (meaningful, {"lr": 0.0}, r"`lr` must be above 0. Got 0.0."),
        (meaningful, {"l1": -1.0}, r"`l1` must be at least 0. Got -1.0."),
        (meaningful, {"tv": math.inf}, r"`tv` must be at least 0. Got inf."),
        (meaningful, {"blur": 0.0}, r"`blur` must be above 0. Got 0.0."),
        (meaningful, {"start": "disk"}, r"No `start` is called 'disk'. Did you mean 'disc'"),
        (meaningful, {"fill": "grey"}, r"No `fill` is called 'grey'."),
    ],
)
def test_what_cannot_be(asked, method, options, message):
    x, z, score = asked
    with pytest.raises((InvalidInput, UnknownName), match=message):
        method(x, z, score, generators(), **options)
    assert score.rows == []
