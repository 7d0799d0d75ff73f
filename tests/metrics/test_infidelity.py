"""Infidelity: a slow reference, linear networks that a map can foretell exactly, and what scaling hides."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from heatproof.errors import InvalidInput, UnknownName
from heatproof.metrics.infidelity import infidelity, random_square

COUNT, HEIGHT, WIDTH = 3, 8, 9
MEAN, STD = 0.4, 0.3


class Known:
    """`logit = Σ w z + c (Σ w z)²`, each image with weights of its own: linear where c = 0."""

    def __init__(self, weight: torch.Tensor, bend: float = 0.0):
        self.weight, self.bend, self.rows = weight.double(), bend, 0

    def __call__(self, z, rows=None, of="probability"):
        rows = torch.arange(len(z)) if rows is None else rows
        self.rows += len(z)
        line = (self.weight[rows] * z.double()).flatten(1).sum(1)
        logit = line + self.bend * line.square()
        return logit if of == "logit" else torch.sigmoid(logit)


def scene(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(COUNT, 3, HEIGHT, WIDTH, generator=generator)
    weight = torch.randn(COUNT, 3, HEIGHT, WIDTH, generator=generator)
    raw = torch.randn(COUNT, 3, HEIGHT, WIDTH, generator=generator)
    return x, (x - MEAN) / STD, weight, raw


def generators():
    return [torch.Generator().manual_seed(5 + i) for i in range(COUNT)]


def asked(model, x, z, raw, **options):
    """The metric; the display map only says that there is something to see."""
    logits = torch.stack([torch.zeros(COUNT), model(z, of="logit").float()], 1)
    model.rows = 0
    shown = torch.rand(COUNT, HEIGHT, WIDTH)
    target, p = torch.ones(COUNT).long(), model(z)
    return infidelity(x, z, logits, target, p, shown, raw, model, generators(), {}, **options)


def slow_infidelity(z, weight, bend, raw, fill, kind, samples, sigma, normalise, generator):
    """One image, one change, one value at a time."""

    def answer(image):
        line = float((weight * image).sum())
        return line + bend * line * line

    pairs = []
    for _ in range(samples):
        if kind == "square":
            inside = random_square((HEIGHT, WIDTH), generator).numpy()
            changed = z.copy()
            said = 0.0
            for a, b in zip(*np.where(inside), strict=True):
                changed[:, a, b] = fill
                said += float(raw[:, a, b].sum())
        else:
            noise = sigma * torch.randn(z.shape, generator=generator).double().numpy()
            change = noise if kind == "gaussian" else z - noise
            changed = z - change
            said = sum(float(raw[i] * change[i]) for i in np.ndindex(raw.shape))
        pairs.append((said, answer(z) - answer(changed)))
    beta = sum(s * d for s, d in pairs) / sum(s * s for s, _ in pairs) if normalise else 1.0
    return sum((beta * s - d) ** 2 for s, d in pairs) / samples


@pytest.mark.parametrize("kind", ["square", "gaussian", "noisy-baseline"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("fill", ["mean", "black"])
def test_it_is_its_slow_reference(kind, normalise, fill):
    x, z, weight, raw = scene()
    found = asked(
        Known(weight, 0.1), x, z, raw, perturbation=kind, samples=6, normalise=normalise, fill=fill, sigma=0.3
    )
    value = 0.0 if fill == "mean" else -MEAN / STD
    expected = [
        slow_infidelity(
            *(one[i].double().numpy() for one in (z, weight)), 0.1, raw[i].double().numpy(), value, kind, 6, 0.3,
            normalise, generators()[i],
        )
        for i in range(COUNT)
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_one_channel_stands_for_all_of_a_pixels_channels():
    """The slope is the same for each, so it multiplies the sum of the change; a contribution is for the pixel."""
    x, z, weight, raw = scene()
    one, model = raw.sum(1), Known(weight, 0.1)
    for kind in ("gaussian", "noisy-baseline"):
        spread = one[:, None].expand(-1, 3, -1, -1)
        ask = {"perturbation": kind, "samples": 5}
        torch.testing.assert_close(asked(model, x, z, one, **ask), asked(model, x, z, spread, **ask))
    torch.testing.assert_close(asked(model, x, z, one, samples=5), asked(model, x, z, raw, samples=5))


def test_a_linear_network_is_foretold_exactly():
    """By its slopes where the image moves a little, by input × slope where pixels go; whether scaled or not."""
    x, z, weight, raw = scene()
    model = Known(weight)
    for normalise in (True, False):
        ask = {"samples": 6, "normalise": normalise}
        assert asked(model, x, z, weight, perturbation="gaussian", **ask).max() < 1e-8
        assert asked(model, x, z, weight, perturbation="noisy-baseline", **ask).max() < 1e-8
        assert asked(model, x, z, weight * z, perturbation="square", **ask).max() < 1e-8
        assert asked(model, x, z, weight * (z + MEAN / STD), fill="black", **ask).max() < 1e-6
        assert asked(model, x, z, raw, **ask).min() > 1e-2
    assert asked(model, x, z, weight, perturbation="square", samples=6).min() > 1e-2, "slopes are no contributions"


def test_scaling_hides_the_size_of_a_map_and_its_sign():
    x, z, weight, raw = scene()
    model = Known(weight, 0.1)
    fit = asked(model, x, z, raw, samples=6)
    torch.testing.assert_close(asked(model, x, z, 40 * raw, samples=6), fit)
    torch.testing.assert_close(asked(model, x, z, -raw, samples=6), fit)
    plain = asked(model, x, z, raw, samples=6, normalise=False)
    assert (plain > fit).all() and (asked(model, x, z, 40 * raw, samples=6, normalise=False) > 10 * plain).all()


def test_a_map_that_says_nothing_explains_none_of_the_change():
    """`E[Δ²]`: no scaled map is worse. A constant is no explanation either, though it knows how large a square is."""
    x, z, weight, raw = scene()
    model, empty = Known(weight, 0.1), torch.zeros(COUNT, HEIGHT, WIDTH)
    logits, target = model(z, of="logit")[:, None].float(), torch.zeros(COUNT).long()
    given = [
        infidelity(x, z, logits, target, model(z), empty, m, model, generators(), {}, samples=6)
        for m in (empty, torch.ones_like(empty), torch.full_like(raw, math.nan), torch.full_like(raw, 2.0))
    ]
    assert all(torch.equal(given[0], one) for one in given[1:])
    assert (asked(model, x, z, raw, samples=6) <= given[0]).all()
    torch.testing.assert_close(given[0], asked(model, x, z, 0 * raw, samples=6, normalise=False))


def test_every_square_is_as_likely_as_any_other():
    """Sides 1, 2 and 3 of a 9 × 10 image: 90, 72 and 56 positions."""
    generator, draws = torch.Generator().manual_seed(0), 8000
    seen = Counter()
    for _ in range(draws):
        where = random_square((9, 10), generator).nonzero()
        low, high = where.amin(0), where.amax(0)
        side = (high - low + 1).tolist()
        assert side[0] == side[1] and len(where) == side[0] ** 2
        seen[(side[0], *low.tolist())] += 1
    positions = 90 + 72 + 56
    assert len(seen) == positions
    assert sum(n for (side, *_), n in seen.items() if side == 1) / draws == pytest.approx(90 / positions, abs=0.02)
    assert sum(n for (side, *_), n in seen.items() if side == 3) / draws == pytest.approx(56 / positions, abs=0.02)
    assert sum((n - draws / positions) ** 2 for n in seen.values()) / (draws / positions) < 1.3 * positions, "χ²"


@pytest.mark.parametrize("kind", ["square", "gaussian", "noisy-baseline"])
def test_one_pass_for_each_change_and_none_for_a_second_method(kind):
    """The changes are the same for every map, and so are the answers."""
    x, z, weight, raw = scene()
    model, store = Known(weight, 0.1), {}
    p, logits, target = model(z), model(z, of="logit")[:, None].float(), torch.zeros(COUNT).long()
    shown, model.rows = raw.abs().sum(1), 0
    for m in (raw, weight):
        ask = {"samples": 7, "perturbation": kind}
        found = infidelity(x, z, logits, target, p, shown, m, model, generators(), store, **ask)
        assert model.rows == 7 * COUNT
    alone = infidelity(x, z, logits, target, p, shown, weight, model, generators(), {}, **ask)
    assert torch.equal(found, alone)
    infidelity(x, z, logits, target, p, shown, weight, model, generators(), store, **(ask | {"samples": 8}))
    assert model.rows == (7 + 7 + 8) * COUNT, "other options, other answers"


def test_bad_options_are_refused():
    x, z, weight, raw = scene()
    with pytest.raises(UnknownName, match=r"squares.*square"):
        asked(Known(weight), x, z, raw, perturbation="squares")
    with pytest.raises(UnknownName, match=r"logits.*logit"):
        asked(Known(weight), x, z, raw, of="logits")
    with pytest.raises(InvalidInput, match="`sigma` must be above 0"):
        asked(Known(weight), x, z, raw, sigma=0.0)
    with pytest.raises(InvalidInput, match="`samples` must be at least 1"):
        asked(Known(weight), x, z, raw, samples=0)
