"""Score-CAM against its slow reference, its passes and its memory, and what it must not be disturbed by."""

import copy

import numpy as np
import pytest
import torch

from heatproof import passes
from heatproof.attributions.scorecam import iscam, scorecam, sscam
from heatproof.errors import UnknownName
from heatproof.masking import FILLS, ground
from heatproof.models import wrap

from .. import nets
from . import reference_masks as slow

SIDE = 14


def asked(net, layer: str = "two", count: int = 3, dead: int = 0, classes=(0, 4, 2)):
    """Quantities of a small network: activations (some channels dead), x, z, and the score that counts its rows."""
    module = nets.seeded(net)
    x = nets.images(count, SIDE, 10)
    z = wrap(module, 0.4, 0.25, size=SIDE).normalise(x)
    kept = []
    with module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output)), torch.no_grad():
        module(z)
    activations = kept[0].clone()
    activations[:, activations.shape[1] - dead :] = 0.7
    return activations, x, z, slow.Selection(module, classes[:count])


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("of", ["logit", "probability"])
@pytest.mark.parametrize(("net", "layer"), [(nets.Plain, "one"), (nets.Signed, "two")])
def test_the_map_is_the_papers(net, layer, of, fill):
    activations, x, z, score = asked(net, layer)
    with torch.no_grad():
        got = scorecam(activations, x, z, score, fill=fill, of=of)
    behind = ground(fill, x, z).double().numpy()
    module = copy.deepcopy(score.module)
    for i, target in enumerate([0, 4, 2]):
        game = slow.game_of(module, target, of)
        expected = slow.scorecam(activations[i].double().numpy(), z[i].double().numpy(), behind[i], game)
        np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def reference(activations, z, score, classes, variants):
    module = copy.deepcopy(score.module)
    given = zip(activations.double().numpy(), z.double().numpy(), classes, strict=True)
    return np.stack([
        slow.scorecam(one, image, np.zeros_like(image), slow.game_of(module, c), variants=variants)
        for one, image, c in given
    ])  # fmt: skip


@pytest.mark.parametrize("compat", [False, True])
def test_iscam_is_the_mean_over_shares_of_the_mask(compat):
    activations, x, z, score = asked(nets.Signed)
    shares = np.cumsum([0.25, 0.5, 0.75, 1]) if compat else np.array([0.25, 0.5, 0.75, 1])
    expected = reference(activations, z, score, (0, 4, 2), lambda mask, _channel: [share * mask for share in shares])
    with torch.no_grad():
        got = iscam(activations, x, z, score, samples=4, compat=compat)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [3, 64])
def test_sscam_is_the_mean_over_noisy_masks_whatever_the_passes(limit, monkeypatch):
    monkeypatch.setattr(passes, "CPU_ROWS", limit)
    activations, x, z, score = asked(nets.Plain, count=1, dead=2)
    seeds = torch.randint(2**62, (activations.shape[1],), generator=torch.Generator().manual_seed(5)).tolist()

    def noisy(mask, channel):
        draw = torch.Generator().manual_seed(seeds[channel])
        return [mask + 0.7 * torch.randn(mask.shape, generator=draw).numpy() for _ in range(3)]

    expected = reference(activations, z, score, (0,), noisy)
    with torch.no_grad():
        got = sscam(activations, x, z, score, [torch.Generator().manual_seed(5)], samples=3, std=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_what_the_caller_explains_is_the_default():
    activations, x, z, score = asked(nets.Signed)
    wanted = []

    def noted(variants, rows=None, of="output"):
        wanted.append(of)
        return score(variants, rows, of=of)

    scorecam(activations, x, z, noted)
    assert set(wanted) == {"output"}


@pytest.mark.parametrize("dead", [0, 1, 5])
def test_constant_channels_share_one_pass_and_change_nothing(dead):
    activations, x, z, score = asked(nets.Plain, dead=dead)
    channels = activations.shape[1]
    live = [int((one.flatten(1).amax(1) > one.flatten(1).amin(1)).sum()) for one in activations]
    with torch.no_grad():
        got = scorecam(activations, x, z, score)
    assert sum(score.rows) == sum(count + (count < channels) for count in live)
    assert max(live) <= channels - dead
    game = slow.game_of(copy.deepcopy(score.module), 0)
    none = np.zeros_like(z[0].double().numpy())
    expected = slow.scorecam(activations[0].double().numpy(), z[0].double().numpy(), none, game)
    np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-5)


def test_a_layer_of_constants_gives_a_constant_map():
    activations, x, z, score = asked(nets.Plain)
    constant = torch.arange(3.0).view(3, 1, 1, 1).expand_as(activations)
    with torch.no_grad():
        got = scorecam(constant, x, z, score)
    torch.testing.assert_close(got, torch.arange(3.0).view(3, 1, 1).expand_as(got))
    assert sum(score.rows) == 3


@pytest.mark.parametrize("limit", [1, 5, 8])
def test_the_rows_of_a_pass_do_not_grow_with_the_channels(limit, monkeypatch):
    """The memory is that of the largest pass: with 4 or with 200 channels at most `limit` images, filled to the last
    pass; and it depends on nothing else."""
    monkeypatch.setattr(passes, "CPU_ROWS", limit)
    maps = {}
    for channels in (4, 200):
        activations, x, z, score = asked(lambda channels=channels: nets.Signed(channels=channels))
        with torch.no_grad():
            maps[channels] = scorecam(activations, x, z, score)
        assert max(score.rows) <= limit and sum(score.rows) == 3 * channels
        assert set(score.rows[:-1]) == {limit}
    monkeypatch.setattr(passes, "CPU_ROWS", 64)
    with torch.no_grad():
        torch.testing.assert_close(scorecam(activations, x, z, score), maps[200], rtol=1e-4, atol=1e-6)


def test_large_images_go_in_smaller_passes():
    small, large, huge = (torch.zeros(1, 1, 1, 1).expand(1, 3, side, side) for side in (32, 224, 900))
    assert passes.rows_per_pass(small) == passes.CPU_ROWS
    assert passes.rows_per_pass(large) == 8 and passes.rows_per_pass(huge) == 1


def test_the_masked_images_are_never_together_in_memory():
    """No tensor as large as C × 3 × H × W is ever made, nor C × H × W."""
    activations, x, z, _ = asked(lambda: nets.Signed(channels=300), count=1)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest = max(largest, made.numel())
            return made

    with torch.no_grad(), Watch():
        scorecam(activations, x, z, lambda variants, rows, of: variants.sum((1, 2, 3)))
    assert largest <= passes.CPU_ROWS * z[0].numel() < 300 * z[0, 0].numel()


def test_batch_equals_single_and_a_bad_image_spoils_no_other():
    activations, x, z, score = asked(nets.Signed, dead=2)
    with torch.no_grad():
        fine = scorecam(activations, x, z, score)
        for i in range(3):
            one = slice(i, i + 1)
            alone = scorecam(activations[one], x[one], z[one], slow.Selection(score.module, score.target[one]))
            torch.testing.assert_close(alone[0], fine[i], rtol=1e-4, atol=1e-6)
        for broken in (activations.clone(), z.clone()):
            broken[1] = float("nan")
            given = (broken, x, z) if broken.shape == activations.shape else (activations, x, broken)
            got = scorecam(*given, score)
            assert not got[1].isfinite().any()
            torch.testing.assert_close(got[[0, 2]], fine[[0, 2]], rtol=1e-4, atol=1e-6)


def test_one_channel_without_numbers_makes_no_other_image_and_no_other_score_worse():
    activations, x, z, score = asked(nets.Signed)
    activations[1, 3, 0, 0] = float("nan")
    with torch.no_grad():
        got = scorecam(activations, x, z, score)
    assert got[1, 0, 0].isnan() and got[1].flatten()[1:].isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 21), (2, 3, 6, 7, 5)])
def test_signals_and_volumes(shape):
    """The score here is a fixed linear function of what is seen; the reference knows nothing else."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator)
    z = (x - 0.5) / 0.2
    activations = torch.randn(2, 4, *[side // 2 for side in shape[2:]], generator=generator)
    weights = torch.randn(shape[1:], generator=generator) / 5
    got = scorecam(activations, x, z, lambda variants, rows, of: (variants * weights).flatten(1).sum(1), fill="blur")
    behind = ground("blur", x, z).double().numpy()
    for i in range(2):
        expected = slow.scorecam(
            activations[i].double().numpy(),
            z[i].double().numpy(),
            behind[i],
            lambda image: float((image * weights.double().numpy()).sum()),
        )
        np.testing.assert_allclose(got[i], expected, rtol=1e-3, atol=1e-5)


def test_probabilities_in_the_softmax_hardly_tell_channels_apart():
    """Why the logit is the default: no two weights can differ by more than a factor e."""
    activations, x, z, score = asked(nets.Signed)
    unit = torch.zeros_like(activations)
    unit.flatten(2)[:, :, :7] = torch.eye(7)  # each channel's own place shows its weight
    with torch.no_grad():
        weights = {of: scorecam(unit, x, z, score, of=of).flatten(1)[:, :7] for of in ("logit", "probability")}
    for found in weights.values():
        torch.testing.assert_close(found.sum(1), torch.ones(3))
    spread = {of: float((found.amax(1) / found.amin(1)).max()) for of, found in weights.items()}
    assert spread["probability"] < np.e


def test_what_cannot_be():
    activations, x, z, score = asked(nets.Plain)
    with pytest.raises(UnknownName, match=r"No `of` is called 'logits'. Did you mean 'logit'"):
        scorecam(activations, x, z, score, of="logits")
    with pytest.raises(UnknownName, match=r"No `fill` is called 'grey'"):
        scorecam(activations, x, z, score, fill="grey")
    assert score.rows == []
