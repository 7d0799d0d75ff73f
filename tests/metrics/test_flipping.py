"""Squares and superpixels flipped: loops over them, and sums by hand."""

import math

import numpy as np
import pytest
import torch

import heatproof
from heatproof import masking, seeds
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.metrics import METRICS
from heatproof.metrics.flipping import square_labels
from heatproof.models import wrap
from heatproof.segments import segment

from .. import nets
from .test_fidelity import linear, scored, sigmoid


def toy(side: int = 24):
    return wrap(nets.told_apart(nets.seeded(nets.Signed), side), size=side)


def maps_of(count: int, side: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed))


def answer(model, z, target) -> float:
    return float(model.of_normalised(z[None]).detach().double().softmax(1)[0, target])


def test_a_grid_of_squares():
    assert square_labels((5, 4), 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3], [4, 4, 5, 5]]
    assert square_labels((5,), 3).tolist() == [0, 0, 0, 1, 1]
    volume = square_labels((3, 2, 4), 2)
    assert volume.shape == (3, 2, 4) and volume.max() == 3 and volume[2, 0, 2] == 3 and volume[0, 1, 3] == 1
    assert torch.equal(square_labels((3, 4), 1).flatten(), torch.arange(12))


def test_flipping_by_hand():
    """Weights say what each quarter of the image is worth; the map ranks them; black comes in their place."""
    weights = torch.tensor([[0.4, 0.3], [0.2, 0.1]]).repeat_interleave(2, 0).repeat_interleave(2, 1) / 3
    model, x = linear(weights), torch.ones(1, 3, 4, 4)
    x[0, :, 3, 3] = 0  # so that black is known
    maps = torch.tensor([[[9.0, 7], [5, 1]]]).repeat_interleave(2, 1).repeat_interleave(2, 2)
    left = [sigmoid(total) for total in (3.9, 2.3, 1.1, 0.3, 0.0)]
    drops = [left[0] - value for value in left]
    spelling = "pixel-flipping[fill=black,region=2,steps={}]"
    assert scored(model, x, maps, spelling.format(4)) == pytest.approx([sum(drops) / 5], rel=1e-6)
    assert scored(model, x, maps, spelling.format(2)) == pytest.approx([sum(drops[:3]) / 3], rel=1e-6)
    assert scored(model, x, maps, spelling.format(99)) == pytest.approx([sum(drops) / 5], rel=1e-6), "four squares"
    assert scored(model, x, -maps, spelling.format(2))[0] < sum(drops[:3]) / 3 / 2
    found = heatproof.score(model, x, {"mine": maps}, spelling.format(2), target=0)
    at, points = found.curves["mine", found.metrics[0]]
    assert at.tolist() == [0, 0.25, 0.5] and points[0].tolist() == pytest.approx(left[:3], rel=1e-6)


@pytest.mark.parametrize(("region", "fill"), [(5, "uniform"), (1, "black"), (9, "mean"), (4, "blur")])
def test_flipping_agrees_with_a_loop_over_squares(region, fill):
    side, steps = 24, 10
    model, x, maps = toy(side), nets.images(3, side), maps_of(3, side)
    options = {"region": region, "fill": fill, "steps": steps}
    found = heatproof.score(model, x, {"mine": maps}, {"pixel-flipping": options}, seed=5)
    values = found.values("mine", found.metrics[0])
    z = model.normalise(x)
    for i in range(3):
        sums = {}
        for row in range(0, side, region):
            for column in range(0, side, region):
                sums[row, column] = float(maps[i, row : row + region, column : column + region].double().sum())
        order = sorted(sums, key=sums.get, reverse=True)
        if fill == "uniform":
            generator = seeds.generator(5, found.images[i], "metric pixel-flipping")
            torch.randperm(len(sums), generator=generator)
            ground = model.normalise(torch.rand(3, side, side, generator=generator)[None])[0]
        else:
            ground = masking.ground(fill, x, z)[i]
        current, target = z[i].clone(), int(found.target[i])
        drops, first = [0.0], answer(model, current, target)
        for row, column in order[:steps]:
            position = ..., slice(row, row + region), slice(column, column + region)
            current[position] = ground[position]
            drops.append(first - answer(model, current, target))
        assert float(values[i]) == pytest.approx(np.mean(drops), abs=1e-6)
    assert values.abs().min() > 1e-4


def test_flipped_noise_is_the_same_for_every_method_and_another_for_another_seed():
    model, x, maps = toy(), nets.images(2, 24), maps_of(2, 24)
    found = heatproof.score(model, x, {"a": maps, "b": maps}, "pixel-flipping")
    assert torch.equal(found.values("a", "pixel-flipping"), found.values("b", "pixel-flipping"))
    again = heatproof.score(model, x, {"a": maps}, "pixel-flipping", seed=1).values("a", "pixel-flipping")
    assert not torch.equal(again, found.values("a", "pixel-flipping"))


def slow_irof(model, x, one, labels, target, ground) -> float:
    """The paper's loop: superpixels by mean attribution, highest first; area over the curve in shares of them."""
    z, pieces = model.normalise(x[None])[0], sorted(set(labels.flatten().tolist()))
    means = {piece: float(one[labels == piece].double().mean()) for piece in pieces}
    current, first = z.clone(), answer(model, z, target)
    curve = [1.0]
    for piece in sorted(pieces, key=means.get, reverse=True):
        current[:, labels == piece] = ground[:, labels == piece]
        curve.append(answer(model, current, target) / first)
    return 1 - (sum(curve) - curve[0] / 2 - curve[-1] / 2) / len(pieces)


@pytest.mark.parametrize(("segmenter", "fill"), [("slic", "mean"), ("grid", "black"), ("felzenszwalb", "blur")])
def test_irof_agrees_with_a_loop_over_superpixels(segmenter, fill):
    side = 24
    model, maps = toy(side), maps_of(3, side)
    x = torch.nn.functional.interpolate(nets.images(3, 6), side, mode="bilinear")
    labels = segment(x, segmenter)
    found = heatproof.score(model, x, {"mine": maps}, {"irof": {"segmenter": segmenter, "fill": fill}})
    ground = masking.ground(fill, x, model.normalise(x))
    expected = [slow_irof(model, x[i], maps[i], labels[i], int(found.target[i]), ground[i]) for i in range(3)]
    np.testing.assert_allclose(found.values("mine", found.metrics[0]), expected, atol=1e-6)
    assert len({round(value, 5) for value in expected}) == 3
    if segmenter != "grid":
        assert len({int(one.max()) for one in labels}) > 1, "images of different numbers of superpixels in one batch"


def test_irof_by_hand():
    """Four superpixels worth 4, 3, 2, 1; nothing in their place. The curve is drawn in a hundred shares."""
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    x, maps = torch.ones(1, 1, 4, 4), (4.0 - quarters)
    worth = torch.tensor([4.0, 3, 2, 1])[quarters[0]] / 40

    def score(z, rows, of):
        return (z[:, 0] * worth).double().sum((1, 2))

    def irof(one, p=1.0, generators=None):
        generator = generators or [torch.Generator().manual_seed(0)]
        start = torch.tensor([p]).double()
        return METRICS["irof"].function(x, x, start, one, lambda name: quarters, score, generator, fill="mean")

    best = irof(maps)
    area = (1 + 0.6) / 2 + (0.6 + 0.3) / 2 + (0.3 + 0.1) / 2 + 0.1 / 2
    assert best.value.tolist() == pytest.approx([1 - area / 4], rel=1e-6)
    assert best.at.tolist()[25] == 0.25 and best.points[0][[0, 25, 50, 75, 100]].tolist() == pytest.approx(
        [1, 0.6, 0.3, 0.1, 0], abs=1e-6
    )
    assert best.points[0][10].item() == pytest.approx(1 - 0.4 * 0.4, rel=1e-6), "a straight line between superpixels"
    assert irof(-maps).value.item() < best.value.item()
    assert irof(maps + 10 * maps**3).value.tolist() == best.value.tolist()
    assert math.isnan(irof(maps, p=0.0).value.item())
    ties = {irof(torch.zeros_like(maps), generators=[torch.Generator().manual_seed(s)]).value.item() for s in range(9)}
    assert len(ties) > 2, "an order among ties for each seed"


def test_neighbours_change_nothing():
    """Superpixels differ in number, so a batch is padded: nobody's numbers move."""
    model, maps = toy(), maps_of(3, 24).mul(3).round()
    x = torch.nn.functional.interpolate(nets.images(3, 6), 24, mode="bilinear")
    metrics = ["irof", "pixel-flipping"]
    together = heatproof.score(model, x, {"mine": maps}, metrics, target=1)
    for batch_size in (1, 2):
        apart = heatproof.score(model, x, {"mine": maps}, metrics, target=1, batch_size=batch_size)
        for metric in metrics:
            torch.testing.assert_close(
                apart.values("mine", metric), together.values("mine", metric), rtol=1e-5, atol=1e-6
            )


def test_what_cannot_be_is_refused():
    model, x, maps = toy(), nets.images(1, 24), maps_of(1, 24)
    for options, error, said in (
        ({"region": 0}, InvalidInput, "`region` must be at least 1. Got 0"),
        ({"steps": 0}, InvalidInput, "`steps` must be at least 1. Got 0"),
        ({"fill": "unifrom"}, UnknownName, "uniform"),
    ):
        with pytest.raises(error, match=said):
            heatproof.score(model, x, {"mine": maps}, {"pixel-flipping": options})
    with pytest.raises(NotApplicable, match="superpixels"):
        METRICS["irof"].function(*[torch.ones(1, 1, 8)] * 2, torch.ones(1), torch.ones(1, 8), None, None, None)
