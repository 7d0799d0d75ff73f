"""Opti-CAM against its slow reference: the same trajectory, whatever the batch."""

import numpy as np
import pytest
import torch
from torch import nn

from heatproof import passes
from heatproof.attributions.opticam import opticam
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.masking import FILLS, ground
from heatproof.models import wrap
from heatproof.tensors import minmax, upsampled

from .. import nets
from . import reference_optimised as slow
from .reference_masks import Selection

TARGETS = (0, 4, 2)


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


@pytest.fixture
def asked():
    """In float64, where a trajectory can be followed for long."""
    module = frozen(nets.seeded(nets.Signed).double())
    x = nets.images(3, 14, 10).double()
    z = wrap(module, 0.4, 0.25, size=16).normalise(x)
    return module.two(module.one(z)), x, z, Selection(module, TARGETS)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("of", ["logit", "probability"])
def test_the_map_is_the_papers(asked, fill, of):
    maps, x, z, score = asked
    got = opticam(maps, x, z, score, steps=12, fill=fill, of=of)
    behind = ground(fill, x, z)
    for i, target in enumerate(TARGETS):
        expected = slow.opticam(maps[i].numpy(), z[i], behind[i], slow.score_of(score.module, target, of), 12, 0.1)
        np.testing.assert_allclose(got[i], expected, atol=1e-9)


def test_float32_follows_the_same_path(asked):
    maps, x, z, score = asked
    expected = opticam(maps, x, z, score, steps=60)
    got = opticam(maps.float(), x.float(), z.float(), Selection(score.module.float(), TARGETS), steps=60)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)


def test_it_raises_the_score_of_what_is_seen_through_the_map(asked):
    """Above that of the mean of the channels, from which it starts; and the map shown is the mask."""
    maps, x, z, score = asked

    def seen_through(raw: torch.Tensor) -> torch.Tensor:
        return score(z * minmax(upsampled(raw.relu(), (14, 10)))[:, None])

    start = seen_through(maps.relu().mean(1))
    few, many = (seen_through(opticam(maps, x, z, score, steps=steps)) for steps in (3, 100))
    assert (few > start).all() and (many > few).all()


def test_the_papers_steps_are_the_default_and_each_is_one_pass(asked):
    maps, x, z, score = asked
    default = opticam(maps, x, z, score)
    assert score.rows == [3] * 100
    assert torch.equal(default, opticam(maps, x, z, score, steps=100, lr=0.1, of="logit", fill="mean"))


class Corner(nn.Module):
    """Class 1 is what is in the top left quarter of the first channel; the maps are the four quarters."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        quarter = z[(slice(None), 0, *(slice(0, side // 2) for side in z.shape[2:]))].flatten(1).mean(1)
        return torch.stack([-quarter, quarter], 1)


@pytest.mark.parametrize("size", [(8, 8), (16,), (4, 6, 8)])
def test_it_finds_the_channel_that_counts(size):
    z = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) + 1
    maps = torch.zeros(2, 3, *size)
    half = tuple(slice(0, side // 2) for side in size)
    maps[(slice(None), 0, *half)] = 1
    maps[(slice(None), 1, *(slice(side // 2, None) for side in size))] = 1
    maps[:, 2] = torch.rand(2, *size, generator=torch.Generator().manual_seed(1))
    found = opticam(maps, z, z, Selection(Corner(), (1, 1)))
    inside = torch.zeros(size, dtype=torch.bool)
    inside[half] = True
    assert (found[:, inside].mean(1) > 5 * found[:, ~inside].mean(1)).all()


def test_batch_equals_single(asked, monkeypatch):
    maps, x, z, score = asked
    together = opticam(maps, x, z, score, steps=40)
    monkeypatch.setattr(passes, "CPU_ROWS", 2)  # and parts equal the whole
    torch.testing.assert_close(opticam(maps, x, z, score, steps=40), together)
    for i in range(3):
        one = slice(i, i + 1)
        alone = opticam(maps[one], x[one], z[one], Selection(score.module, TARGETS[one]), steps=40)
        torch.testing.assert_close(alone[0], together[i])


def test_a_bad_image_spoils_no_other_and_a_dead_layer_says_nothing(asked):
    maps, x, z, score = asked
    fine = opticam(maps, x, z, score, steps=10)
    broken, dead = z.clone(), maps.clone()
    broken[1], dead[2] = float("nan"), 0
    got = opticam(dead, x, broken, score, steps=10)
    assert got[1].isnan().all() and (got[2] == 0).all()
    torch.testing.assert_close(got[0], fine[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"`steps` must be at least 1. Got 0."),
        ({"steps": 1.5}, r"`steps` must be a whole number. Got 1.5."),
        ({"lr": 0.0}, r"`lr` must be above 0. Got 0.0."),
        ({"lr": float("nan")}, r"`lr` must be above 0. Got nan."),
    ],
)
def test_what_cannot_be(asked, options, message):
    maps, x, z, score = asked
    with pytest.raises(InvalidInput, match=message):
        opticam(maps, x, z, score, **options)
    with pytest.raises(UnknownName, match=r"No `of` is called 'logits'. Did you mean 'logit'"):
        opticam(maps, x, z, score, of="logits")
    with pytest.raises(UnknownName, match="`fill`"):
        opticam(maps, x, z, score, fill="grey")
    assert score.rows == []


def test_a_network_without_gradients_is_said(asked):
    maps, x, z, _ = asked
    with pytest.raises(NotApplicable, match="No gradient reaches the image"):
        opticam(maps, x, z, lambda seen, rows, of: seen.detach().flatten(1).sum(1))
