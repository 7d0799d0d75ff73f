"""Captum 0.9.0's Lime, KernelShap and Occlusion, used directly: the same numbers under the same seed; and its traps."""

import inspect

import pytest
import torch

from heatproof.attributions.superpixels import kernelshap, lime, occlusion
from heatproof.masking import ground
from heatproof.models import wrap
from heatproof.segments import segment

from .. import nets
from ..attributions import reference_masks as slow

captum = pytest.importorskip("captum.attr")

HEIGHT, WIDTH = 16, 12
CLASSES = (0, 4, 2)
SEGMENTER = "slic[n_segments=10]"
PAIRS = {"Lime": lime, "KernelShap": kernelshap}


@pytest.fixture
def asked():
    module = nets.seeded(nets.Signed)
    x = nets.images(3, HEIGHT, WIDTH)
    return x, wrap(module, size=16).normalise(x), slow.Selection(module, CLASSES)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(11 + i) for i in range(3)]


def seed_of(generator: torch.Generator) -> int:
    """The seed that an image's generator gives."""
    return int(torch.randint(2**62, (), generator=generator))


def direct(name: str, module, z, background, segments, target: int, alpha: float = 1e-3, **options) -> torch.Tensor:
    method = getattr(captum, name)(module)
    if name == "Lime":
        from captum._utils.models.linear_model import SkLearnLasso

        method = captum.Lime(module, SkLearnLasso(alpha=alpha))
    given = {"baselines": background, "target": target, "feature_mask": segments, **options}
    with torch.random.fork_rng():
        return method.attribute(z, **given)[:, 0].detach()


@pytest.mark.parametrize("fill", ["mean", "blur"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_numbers_are_captums(name, fill, asked):
    """Lime's penalty is in units of the scores' deviation: Captum gets it times the deviation of what we saw."""
    x, z, score = asked
    options = {"alpha": 1e-3} if name == "Lime" else {}
    seen: dict[int, list[torch.Tensor]] = {}

    def noted(variants, row, of):
        seen.setdefault(row, []).append(score(variants, row, of=of))
        return seen[row][-1]

    got = PAIRS[name](x, z, noted, generators(), samples=80, segmenter=SEGMENTER, fill=fill, **options)
    segments, behind = segment(x, SEGMENTER), ground(fill, x, z)
    for i, generator in enumerate(generators()):
        one = slice(i, i + 1)
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(generator))
            expected = direct(
                name, score.module, z[one], behind[one], segments[one, None], CLASSES[i], n_samples=80,
                alpha=1e-3 * float(torch.cat(seen[i]).std()),
            )  # one sample a pass  # fmt: skip
        assert float(expected.abs().max()) > 1e-4
        torch.testing.assert_close(got[one], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(5, 3), (4, 2)])
def test_occlusion_is_captums(window, stride, asked):
    x, z, score = asked
    scale = 224 / (HEIGHT * WIDTH) ** 0.5
    got = occlusion(x, z, score, window=window * scale, stride=stride * scale, fill="black")
    expected = captum.Occlusion(score.module).attribute(
        z,
        (3, window, window),
        strides=(3, stride, stride),
        baselines=ground("black", x, z),
        target=torch.tensor(CLASSES),
    )
    torch.testing.assert_close(got, expected[:, 0], rtol=1e-4, atol=1e-6)
    assert torch.equal(expected[:, 0], expected[:, 2])


def test_the_defaults_of_lime_are_captums_but_for_the_unit_of_the_penalty(asked):
    from captum._utils.models.linear_model import SkLearnLasso

    x, z, score = asked
    seen = []

    def noted(variants, row, of):
        seen.append(score(variants, row, of=of))
        return seen[-1]

    got = lime(x[:1], 5 * z[:1], noted, generators()[:1], samples=60, segmenter=SEGMENTER)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(generators()[0]))
        segments = segment(x[:1], SEGMENTER)[:, None]
        lasso = SkLearnLasso(alpha=0.01 * float(torch.cat(seen).std()))
        expected = captum.Lime(score.module, lasso).attribute(
            5 * z[:1], target=CLASSES[0], feature_mask=segments, n_samples=60
        )
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(got, expected[:, 0].detach(), rtol=1e-4, atol=1e-6)


# --- its traps, and what ours does ---


@pytest.mark.parametrize("name", PAIRS)
def test_a_map_does_not_depend_on_its_neighbours(name, asked):
    """Captum draws one image after the other from one global stream, so the second map of a batch is another alone;
    and all images of a batch are taken to have as many superpixels as the one with the most."""
    x, z, score = asked
    segments = segment(x, SEGMENTER)[:, None]
    options = {"alpha": 1e-3} if name == "Lime" else {}

    def theirs(part: slice) -> torch.Tensor:
        torch.manual_seed(1)
        target = torch.tensor(CLASSES)[part]
        background = torch.zeros_like(z[part])
        return direct(name, score.module, z[part], background, segments[part], target, n_samples=60)

    with torch.random.fork_rng(), pytest.warns(UserWarning, match="multiple inputs"):
        together, alone = theirs(slice(0, 2))[1], theirs(slice(1, 2))[0]
    assert float((together - alone).abs().max()) > 0.05 * float(alone.abs().max())
    method = PAIRS[name]
    given = {"samples": 60, "segmenter": SEGMENTER, **options}
    pair = method(x[:2], z[:2], slow.Selection(score.module, CLASSES[:2]), generators()[:2], **given)
    alone = method(x[1:2], z[1:2], slow.Selection(score.module, CLASSES[1:2]), generators()[1:2], **given)
    torch.testing.assert_close(pair[1], alone[0], rtol=1e-4, atol=1e-6)


def test_one_superpixel_is_no_crash(asked):
    """With one feature Captum's distribution of coalition sizes is 0 / 0."""
    x, z, score = asked
    with pytest.raises(ValueError, match="probs"):
        direct("KernelShap", score.module, z[:1], 0, torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.long), 0)
    got = kernelshap(x, z, score, generators(), samples=5, segmenter="slic[n_segments=1]")
    assert (got == 0).all()


@pytest.mark.parametrize("name", PAIRS)
def test_the_number_of_samples_is_the_one_that_is_documented(name):
    """Captum's docstring says 50, its signature 25, a quarter of what the usual 100 superpixels have unknowns."""
    method = getattr(captum, name).attribute
    assert inspect.signature(method).parameters["n_samples"].default == 25
    assert "Default: `50`" in inspect.getdoc(method)
    assert inspect.signature(PAIRS[name]).parameters["samples"].default == 1000
