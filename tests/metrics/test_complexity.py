"""Complexity: by hand on small maps, slow references, and what an empty map gets."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from heatproof.errors import InvalidInput
from heatproof.metrics import METRICS
from heatproof.metrics.complexity import complexity, effective_complexity, entropy, nonzero_count, sparseness

PLAIN = [complexity, entropy, sparseness, nonzero_count]


def slow_complexity(m):
    return sum(abs(v) for v in m.flatten().tolist()) / m.size


def slow_entropy(m):
    total = sum(abs(v) for v in m.flatten().tolist())
    return -sum(abs(v) / total * math.log(abs(v) / total) for v in m.flatten().tolist() if v)


def slow_sparseness(m):
    """Mean absolute difference of all pairs, over twice the mean: Gini's own definition."""
    v = m.flatten().tolist()
    return sum(abs(a - b) for a in v for b in v) / (2 * len(v) * sum(v))


def slow_nonzero_count(m):
    return sum(1 for v in m.flatten().tolist() if v > 1e-5)


SLOW = {
    complexity: slow_complexity,
    entropy: slow_entropy,
    sparseness: slow_sparseness,
    nonzero_count: slow_nonzero_count,
}


def maps(count: int = 5, side: int = 7) -> torch.Tensor:
    found = torch.rand(count, side, side + 1, generator=torch.Generator().manual_seed(0))
    return (found * (found > 0.3)).float()


@pytest.mark.parametrize("metric", PLAIN)
def test_each_is_its_slow_reference(metric):
    found = metric(maps())
    expected = [SLOW[metric](m.double().numpy()) for m in maps()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_by_hand_on_four_by_four():
    one, two, all_ = torch.zeros(3, 4, 4).unbind()
    one[1, 2] = 1
    two[0, 0] = two[3, 1] = 0.5
    all_ += 0.25
    m = torch.stack([one, two, all_])
    assert complexity(m).tolist() == [1 / 16, 1 / 16, 1 / 4]
    assert entropy(m).tolist() == pytest.approx([0, math.log(2), math.log(16)])
    assert sparseness(m).tolist() == pytest.approx([15 / 16, 14 / 16, 0], abs=1e-15)
    assert nonzero_count(m).tolist() == [1, 2, 16]


def test_the_figures_that_the_papers_print():
    ones = torch.ones(1, 224, 224)
    assert float(entropy(ones)) == pytest.approx(10.82, abs=0.005)
    ones[0, 0, 0] = 0
    assert float(nonzero_count(ones)) == 50175
    half = torch.full((1, 224, 224), 0.5)
    half[0, 0, 0], half[0, 0, 1] = 0, 1
    assert float(complexity(half)) == pytest.approx(0.5)


def test_scale_changes_complexity_and_nothing_that_speaks_of_shares():
    m = maps()
    torch.testing.assert_close(entropy(m / 4), entropy(m))
    torch.testing.assert_close(sparseness(m / 4), sparseness(m))
    torch.testing.assert_close(complexity(m / 4), complexity(m) / 4)


def test_a_sparser_map_is_simpler_by_every_measure():
    dense = maps()
    sparse = dense * (dense > 0.8)
    for metric in PLAIN:
        simpler = metric(sparse) > metric(dense) if metric is sparseness else metric(sparse) < metric(dense)
        assert simpler.all(), metric


@pytest.mark.parametrize("metric", PLAIN)
def test_a_map_of_zeros_is_never_the_simplest(metric):
    """Itself or by the stated value: no map that says something is worse."""
    entry = METRICS[metric.__name__.replace("_", "-")]
    empty = metric(torch.zeros(1, 7, 8))
    value = float(empty) if entry.traits["degenerate"] is None else entry.traits["degenerate"]
    others = metric(torch.cat([maps(), torch.rand(20, 7, 8), 1 - 1e-3 * torch.rand(5, 7, 8)]))
    worst = others.min() if entry.traits["better"] == "high" else others.max()
    assert value <= worst if entry.traits["better"] == "high" else value >= worst


def test_the_count_has_a_threshold():
    m = torch.tensor([[[0.2, 0.4], [0.6, 0.8]]])
    assert nonzero_count(m, threshold=0.5).tolist() == [2]
    with pytest.raises(InvalidInput, match="`threshold` must lie between 0 and 1"):
        nonzero_count(m, threshold=-1)


# --- effective complexity ---------------------------------------------------------------------------------------------

COUNT, SIDE = 3, 6


class Watched:
    """A score that is the mean of the pixels where `seen`, and that counts what it is asked."""

    def __init__(self, seen: torch.Tensor):
        self.seen, self.rows = seen, []

    def __call__(self, z, rows=None, of="probability"):
        assert of == "probability"
        rows = torch.arange(len(z)) if rows is None else rows
        self.rows += rows.tolist()
        seen = self.seen[rows][:, None].double()
        return (z.double() * seen).sum((1, 2, 3)) / (3 * seen.sum((1, 2, 3)))


def scene(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(COUNT, 3, SIDE, SIDE, generator=generator)
    seen = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    for i in range(COUNT):
        seen[i, : 1 + i] = True  # 6, 12, 18 of 36 pixels
    return z, seen


MODEL = SimpleNamespace(normalise=lambda x: 2 * x - 1)


def generators():
    return [torch.Generator().manual_seed(7 + i) for i in range(COUNT)]


def ranked(m: torch.Tensor) -> torch.Tensor:
    return (-m).flatten(1).argsort(dim=1, stable=True).argsort(1).view(m.shape)


def slow_score(image, seen):
    return np.mean([image[c, a, b] for c in range(3) for a, b in zip(*np.where(seen), strict=True)])


def slow_effective(z, seen, rank, tolerance, steps, samples):
    found = []
    for i in range(COUNT):
        clean, drawn = z[i].double().numpy(), []
        generator = generators()[i]
        for _ in range(samples):
            drawn.append((2 * torch.rand(3, SIDE, SIDE, generator=generator) - 1).double().numpy())
        p, share = slow_score(clean, seen[i]), 1.0
        for step in range(1, steps):
            losses = []
            for noise in drawn:
                changed = noise.copy()
                for a in range(SIDE):
                    for b in range(SIDE):
                        if rank[i, a, b] < step / steps * SIDE**2:
                            changed[:, a, b] = clean[:, a, b]
                losses.append(((slow_score(changed, seen[i]) - p) / p) ** 2)
            if sum(losses) / samples <= tolerance:
                share = step / steps
                break
        found.append(share)
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_effective_complexity_is_its_slow_reference(seed):
    z, seen = scene(seed)
    watched = Watched(seen)
    p = watched(z)
    rank = ranked(seen.double() + torch.rand(seen.shape, generator=torch.Generator().manual_seed(seed)))
    found = effective_complexity(
        z, p, lambda: rank, watched, MODEL, generators(), tolerance=0.02, steps=9, samples=4
    )  # fmt: skip
    expected = slow_effective(z, seen.numpy(), rank.numpy(), 0.02, 9, 4)
    assert found.tolist() == pytest.approx(expected) and len(set(expected)) > 1


def test_the_share_is_what_the_network_looks_at():
    """All that counts comes first: that share, exactly; last: nearly everything is needed."""
    z, seen = scene()
    watched = Watched(seen)
    p = watched(z)
    good, bad = ranked(seen.float()), ranked(-seen.float())
    ask = {"score": watched, "model": MODEL, "tolerance": 0.0, "steps": 36, "samples": 2}
    assert effective_complexity(z, p, lambda: good, generator=generators(), **ask).tolist() == [1 / 6, 1 / 3, 1 / 2]
    assert effective_complexity(z, p, lambda: bad, generator=generators(), **ask).tolist() == [1, 1, 1]


def test_no_pass_is_spent_on_an_image_that_is_done():
    z, seen = scene()
    watched = Watched(seen)
    p = watched(z)
    watched.rows.clear()
    rank = ranked(seen.float())
    effective_complexity(
        z, p, lambda: rank, watched, MODEL, generators(), tolerance=0.0, steps=6, samples=5
    )  # fmt: skip
    assert [watched.rows.count(i) for i in range(COUNT)] == [5, 10, 15], "the steps up to its own"


def test_options_of_effective_complexity_are_checked():
    z, seen = scene()
    with pytest.raises(InvalidInput, match="`steps` must be at least 2"):
        effective_complexity(z, torch.ones(3), lambda: seen.long(), None, MODEL, generators(), steps=1)
    with pytest.raises(InvalidInput, match="`samples` must be at least 1"):
        effective_complexity(z, torch.ones(3), lambda: seen.long(), None, MODEL, generators(), samples=0)
    with pytest.raises(InvalidInput, match="`tolerance` must lie"):
        effective_complexity(z, torch.ones(3), lambda: seen.long(), None, MODEL, generators(), tolerance=-0.1)
