"""Correlations of a map with what the network does: slow references, networks whose truth is known, and constants."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from heatproof.errors import InvalidInput
from heatproof.metrics.correlation import faithfulness_correlation, monotonicity_correlation, pearson, sensitivity_n
from heatproof.metrics.sampling import signed

COUNT, SIDE, CHANNELS = 3, 6, 3
MODEL = SimpleNamespace(normalise=lambda x: (x - 0.4) / 0.3)


class Linear:
    """`f = Σ w z` (“logit”) and a squashed form of it (“probability”), each image with weights of its own."""

    def __init__(self, weight: torch.Tensor):
        self.weight, self.rows = weight.double(), 0

    def __call__(self, z, rows=None, of="probability"):
        rows = torch.arange(len(z)) if rows is None else rows
        self.rows += len(z)
        logit = (self.weight[rows] * z.double()).flatten(1).sum(1)
        return logit if of == "logit" else torch.sigmoid(logit)


def scene(seed: int = 0):
    """Images, normalised images, weights, and signed maps that have nothing to do with the weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(COUNT, CHANNELS, SIDE, SIDE, generator=generator)
    weight = torch.randn(COUNT, CHANNELS, SIDE, SIDE, generator=generator)
    raw = torch.randn(COUNT, CHANNELS, SIDE, SIDE, generator=generator)
    return x, MODEL.normalise(x), weight, raw


def shown(raw: torch.Tensor) -> torch.Tensor:
    m = raw.sum(1) if raw.dim() == 4 else raw
    return ((m - m.amin((1, 2), keepdim=True)) / (m.amax((1, 2), keepdim=True) - m.amin((1, 2), keepdim=True))).float()


def generators():
    return [torch.Generator().manual_seed(11 + i) for i in range(COUNT)]


def ranked(m: torch.Tensor) -> torch.Tensor:
    return (-m).flatten(1).argsort(dim=1, stable=True).argsort(1).view(m.shape)


# --- slow references --------------------------------------------------------------------------------------------------


def slow_monotonicity(z, weight, maps, rank, groups, samples, generator):
    """One image, one group and one draw at a time."""

    def probability(image):
        return 1 / (1 + math.exp(-float((weight * image).sum())))

    pixels, p = maps.size, probability(z)
    drawn = [MODEL.normalise(torch.rand(z.shape, generator=generator)).double().numpy() for _ in range(samples)]
    sums, changes = [], []
    for g in range(groups):
        inside = [position for position in np.ndindex(maps.shape) if int(rank[position] * groups / pixels) == g]
        sums.append(sum(float(maps[position]) for position in inside) / len(inside))
        squares = []
        for noise in drawn:
            changed = z.copy()
            for a, b in inside:
                changed[:, a, b] = noise[:, a, b]
            squares.append((probability(changed) - p) ** 2)
        changes.append(sum(squares) / samples)
    return stats.spearmanr(sums, changes)[0]


def slow_removal(z, weight, raw, n, samples, generator, fill):
    """Pearson's r over subsets of n pixels."""
    sums, drops = [], []
    clean = float((weight * z).sum())
    for _ in range(samples):
        changed, total = z.copy(), 0.0
        for position in torch.randperm(SIDE * SIDE, generator=generator)[:n].tolist():
            a, b = divmod(position, SIDE)
            changed[:, a, b] = fill
            total += float(raw[:, a, b].sum())
        sums.append(total)
        drops.append(clean - float((weight * changed).sum()))
    return stats.pearsonr(sums, drops)[0]


def arrays(*tensors):
    return [one.double().numpy() for one in tensors]


@pytest.mark.parametrize("groups", [2, 5, 7])
def test_monotonicity_correlation_is_its_slow_reference(groups):
    _, z, weight, raw = scene()
    maps, model = shown(raw), Linear(weight)
    rank = ranked(maps)
    found = monotonicity_correlation(
        z, model(z), maps, lambda: rank, model, MODEL, False, generators(), groups=groups, samples=3
    )  # fmt: skip
    expected = [
        slow_monotonicity(*arrays(z[i], weight[i], maps[i]), rank[i].numpy(), groups, 3, generators()[i])
        for i in range(COUNT)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("fill", ["mean", "black"])
def test_faithfulness_correlation_is_its_slow_reference(fill):
    x, z, weight, raw = scene()
    found = faithfulness_correlation(
        x, z, shown(raw), raw, Linear(weight), generators(), {}, samples=8, subset=9, fill=fill
    )  # fmt: skip
    value = 0.0 if fill == "mean" else -0.4 / 0.3
    expected = [
        slow_removal(*arrays(z[i], weight[i], raw[i]), 9, 8, generators()[i], value) for i in range(COUNT)
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert max(map(abs, expected)) < 0.95


def test_sensitivity_n_is_its_slow_reference_at_every_size():
    x, z, weight, raw = scene()
    curve = sensitivity_n(x, z, shown(raw), raw, Linear(weight), generators(), {}, samples=6, steps=4)
    sizes = [1, 3, 9, 29]  # (0.8 · 36) ** (0, 1/3, 2/3, 1)
    assert (curve.at * SIDE**2).tolist() == pytest.approx(sizes)
    expected = []
    for i in range(COUNT):  # the same shuffles for every size
        expected.append([slow_removal(*arrays(z[i], weight[i], raw[i]), n, 6, generators()[i], 0.0) for n in sizes])
    np.testing.assert_allclose(curve.points, expected, atol=1e-6)
    np.testing.assert_allclose(curve.value, np.mean(expected, 1), atol=1e-6)


# --- networks of which the truth is known -----------------------------------------------------------------------------


def test_on_a_linear_network_input_times_gradient_is_perfect_at_every_size():
    x, z, weight, _ = scene()
    raw, model = weight * z, Linear(weight)
    curve = sensitivity_n(x, z, shown(raw), raw, model, generators(), {}, samples=5, steps=5)
    torch.testing.assert_close(curve.points, torch.ones_like(curve.points))
    wrong = sensitivity_n(x, z, shown(-raw), -raw, model, generators(), {}, samples=5, steps=5)
    torch.testing.assert_close(wrong.value, -torch.ones_like(wrong.value))
    exact = faithfulness_correlation(x, z, shown(raw), raw, model, generators(), {}, samples=9, subset=4)
    torch.testing.assert_close(exact, torch.ones_like(exact))
    scaled = faithfulness_correlation(x, z, shown(raw), 1000 * raw, model, generators(), {}, samples=9, subset=4)
    torch.testing.assert_close(scaled, exact)


def test_the_zero_in_z_is_what_makes_it_exact():
    """Against black, `w (z − black)` adds up, and `w z` does not."""
    x, z, weight, _ = scene()
    model, raw = Linear(weight), weight * (z + 0.4 / 0.3)
    ask = {"samples": 9, "subset": 4, "fill": "black"}
    exact = faithfulness_correlation(x, z, shown(raw), raw, model, generators(), {}, **ask)
    torch.testing.assert_close(exact, torch.ones_like(exact), atol=1e-5, rtol=0)
    assert (faithfulness_correlation(x, z, shown(raw), weight * z, model, generators(), {}, **ask) < 0.99).all()


def test_a_map_of_what_moves_the_answer_most_is_monotone_and_its_reverse_is_not():
    _, z, _, _ = scene()
    size = torch.linspace(0, 1, SIDE * SIDE).view(1, SIDE, SIDE) ** 3
    weight = (0.2 * size[:, None]).expand(COUNT, CHANNELS, SIDE, SIDE)
    model = Linear(weight)
    for maps, expected in ((size.expand(COUNT, -1, -1), 1.0), (1 - size.expand(COUNT, -1, -1), -1.0)):
        rank = ranked(maps)
        found = monotonicity_correlation(
            z, model(z), maps, lambda rank=rank: rank, model, MODEL, False, generators(), groups=6, samples=40
        )  # fmt: skip
        assert found.tolist() == pytest.approx([expected] * COUNT)


def test_only_the_order_of_groups_counts_for_monotonicity():
    """A monotone change of the map leaves groups and their order as they are."""
    _, z, weight, raw = scene()
    maps, model = shown(raw), Linear(weight)
    rank = ranked(maps)
    found = [
        monotonicity_correlation(z, model(z), m, lambda: rank, model, MODEL, False, generators(), samples=2)
        for m in (maps, maps**3, 7 * maps)
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


# --- constants and bad options ----------------------------------------------------------------------------------------


def test_where_the_answers_are_all_alike_there_is_nothing_to_foretell():
    x, z, weight, raw = scene()
    dead, maps = Linear(torch.zeros_like(weight)), shown(raw)
    rank, ask = ranked(maps), {"samples": 5}
    assert faithfulness_correlation(x, z, maps, raw, dead, generators(), {}, subset=4, **ask).isnan().all()
    assert sensitivity_n(x, z, maps, raw, dead, generators(), {}, **ask).value.isnan().all()
    assert (
        monotonicity_correlation(z, dead(z), maps, lambda: rank, dead, MODEL, False, generators(), **ask).isnan().all()
    )


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_a_map_that_says_the_same_of_everything_foretells_nothing(level):
    """As a Fake-CAM does whenever its one odd pixel is not drawn."""
    x, z, weight, _ = scene()
    alive, maps = Linear(weight), torch.full((COUNT, SIDE, SIDE), level)
    rank, ask = ranked(maps), {"samples": 5}
    assert (faithfulness_correlation(x, z, maps, maps, alive, generators(), {}, subset=4, **ask) == 0).all()
    assert (sensitivity_n(x, z, maps, maps, alive, generators(), {}, **ask).value == 0).all()
    found = monotonicity_correlation(
        z, alive(z), maps, lambda: rank, alive, MODEL, False, generators(), groups=7, **ask
    )  # fmt: skip
    assert (found == 0).all()
    dead = Linear(torch.zeros_like(weight))
    assert faithfulness_correlation(x, z, maps, maps, dead, generators(), {}, subset=4, **ask).isnan().all()


def test_a_map_of_few_pixels_gets_nothing_for_the_sizes_that_miss_them():
    """It would otherwise be judged by the large subsets alone."""
    x, z, weight, _ = scene()
    maps = torch.zeros(COUNT, SIDE, SIDE)
    maps[:, 2, 3] = 1
    curve = sensitivity_n(x, z, maps, maps, Linear(weight), generators(), {}, samples=3, steps=4)
    assert (curve.points[[0, 2], 0] == 0).all() and curve.points.isfinite().all()


def test_a_broken_image_leaves_its_neighbours_alone():
    x, z, weight, raw = scene()
    broken = z.clone()
    broken[1] = math.nan
    model, maps = Linear(weight), shown(raw)
    ask = {"samples": 4, "subset": 5}
    whole = faithfulness_correlation(x, z, maps, raw, model, generators(), {}, **ask)
    found = faithfulness_correlation(x, broken, maps, raw, model, generators(), {}, **ask)
    assert found[1].isnan() and torch.equal(found[[0, 2]], whole[[0, 2]])


def test_signed_maps_are_brought_to_the_image_and_to_one_channel():
    maps = torch.rand(2, 4, 6)
    channels = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(signed(channels, maps), channels.double().sum(1))
    coarse = torch.randn(2, 2, 3)
    found = signed(coarse, maps)
    assert found.shape == maps.shape and found.dtype == torch.float64
    assert float(found[0, 0, 0]) == pytest.approx(float(coarse[0, 0, 0])), "corners are not moved"
    maps[1] = 0
    assert (signed(channels, maps)[1] == 0).all() and (signed(channels, maps)[0] != 0).any()
    channels[0, 0, 0, 0] = math.nan
    assert (signed(channels, torch.rand(2, 4, 6))[0] == 0).all()


def test_pearson_is_scipys():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(5, 20, generator=generator, dtype=torch.float64) + 1e3 for _ in range(2))
    expected = [stats.pearsonr(a, b)[0] for a, b in zip(one, other, strict=True)]
    assert pearson(one, other).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "options", "said"),
    [
        (monotonicity_correlation, {"groups": 1}, "`groups` must be at least 2"),
        (monotonicity_correlation, {"groups": 37}, "`groups` must be at most 36"),
        (monotonicity_correlation, {"samples": 0}, "`samples` must be at least 1"),
        (faithfulness_correlation, {"subset": 0}, "`subset` must be at least 1"),
        (faithfulness_correlation, {"subset": 0}, "`subset` must be at least 1"),
        (faithfulness_correlation, {"samples": 2, "subset": 4}, "`samples` must be at least 3"),
        (sensitivity_n, {"largest": 1.0}, "`largest` must be between 0 and 1"),
        (sensitivity_n, {"steps": 0}, "`steps` must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(metric, options, said):
    x, z, weight, raw = scene()
    maps, model = shown(raw), Linear(weight)
    given = (z, model(z), maps, lambda: ranked(maps), model, MODEL, False, generators())
    given = given if metric is monotonicity_correlation else (x, z, maps, raw, model, generators(), {})
    with pytest.raises(InvalidInput, match=said):
        metric(*given, **options)


def test_the_passes_are_those_that_are_announced():
    x, z, weight, raw = scene()
    maps, model = shown(raw), Linear(weight)
    rank, p = ranked(maps), torch.rand(COUNT).double()
    monotonicity_correlation(z, p, maps, lambda: rank, model, MODEL, False, generators(), groups=4, samples=3)
    assert model.rows == COUNT * 4 * 3
    faithfulness_correlation(x, z, maps, raw, model, generators(), {}, samples=5, subset=3)
    assert model.rows == COUNT * (12 + 5)


@pytest.mark.parametrize("metric", [faithfulness_correlation, sensitivity_n])
def test_a_second_method_asks_the_network_nothing(metric):
    """The subsets are the same for every map, and so are the answers."""
    x, z, weight, raw = scene()
    model, store = Linear(weight), {}
    ask = {"samples": 5, "subset": 3} if metric is faithfulness_correlation else {"samples": 5, "steps": 3}
    metric(x, z, shown(raw), raw, model, generators(), store, **ask)
    asked = model.rows
    again = metric(x, z, shown(weight), weight, model, generators(), store, **ask)
    assert model.rows == asked
    alone = metric(x, z, shown(weight), weight, model, generators(), {}, **ask)
    assert all(torch.equal(a, b) for a, b in zip(again, alone, strict=True))
    metric(x, z, shown(weight), weight, model, generators(), store, **(ask | {"fill": "black"}))
    assert model.rows == 3 * asked, "other options, other answers"
