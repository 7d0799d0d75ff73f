"""Information curves: the library's procedure with loops and a dense solve, and areas by hand."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof import seeds
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.metrics import information
from heatproof.models import wrap

from .. import nets

SIDE, THRESHOLDS = 12, (0.05, 0.2, 0.6)
SPELLED = {"thresholds": "0.05 0.2 0.6"}


def toy():
    return wrap(nets.told_apart(nets.seeded(nets.Plain), SIDE), size=SIDE)


def images(count: int) -> torch.Tensor:
    """Smooth, as photographs are: what is known of a few pixels says little of noise."""
    coarse = nets.images(count, 4)
    return torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic", align_corners=False).clamp(0, 1)


def maps_of(count: int) -> torch.Tensor:
    return torch.rand(count, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def stored(image: np.ndarray) -> int:
    """`(3, H, W)` in [0, 1] as lossless WebP."""
    file = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0)).save(
        file, format="webp", lossless=True, quality=50
    )
    return len(file.getvalue())


def filled(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Every unknown pixel is the weighted mean of its neighbours: one dense system for each channel."""
    side = image.shape[1]
    system, right = np.eye(side * side), image.reshape(3, -1).copy()
    for row, column in zip(*np.nonzero(~kept), strict=True):
        line = np.zeros(side * side)
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                near = row + down, column + across
                if (down or across) and 0 <= near[0] < side and 0 <= near[1] < side:
                    line[near[0] * side + near[1]] = 1 / 6 if down * across == 0 else 1 / 12
        system[row * side + column] = -line / line.sum()
        system[row * side + column, row * side + column] = 1
        right[:, row * side + column] = 0
    return np.linalg.solve(system, right.T).T.reshape(image.shape).clip(0, 1)


def slow_curve(model, image, one, generator):
    """Sizes and probabilities at the start, at each threshold, and of the whole."""
    known = np.zeros(SIDE * SIDE, bool)
    known[torch.randperm(SIDE * SIDE, generator=generator)[: SIDE * SIDE // 100].numpy()] = True
    known = known.reshape(SIDE, SIDE)
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    order = np.argsort(-one.flatten().numpy())
    sizes, answers = [], []
    for share in (0, *THRESHOLDS, 1):
        kept = known.copy()
        kept.flat[order[: round(share * SIDE * SIDE)]] = True
        shown = filled(image.double().numpy(), kept)
        sizes.append(stored(shown))
        z = model.normalise(torch.from_numpy(shown)[None].float())
        answers.append(model.of_normalised(z).detach().double().softmax(1)[0].numpy())
    return np.array(sizes), np.array(answers)


def slow_area(sizes, values) -> float:
    at = np.clip((sizes - sizes[0]) / (sizes[-1] - sizes[0]), 0, 1)
    order = np.argsort(at, kind="stable")
    return float(np.trapezoid(np.maximum.accumulate(values[order]), at[order]))


def test_the_librarys_procedure_with_loops():
    model, x, maps = toy(), images(4), maps_of(4)
    found = heatproof.score(model, x, {"mine": maps}, {"sic": SPELLED, "aic": SPELLED}, seed=2)
    sic, aic = (found.values("mine", metric) for metric in found.metrics)
    compared = 0
    for i in range(4):
        target = int(found.target[i])
        for name, values in (("sic", sic), ("aic", aic)):
            generator = seeds.generator(2, found.images[i], "metric information")
            sizes, answers = slow_curve(model, x[i], maps[i], generator)
            if name == "aic":
                expected = slow_area(sizes, (answers.argmax(1) == target).astype(float))
            else:
                p = answers[:, target]
                expected = slow_area(sizes, np.clip((p - p[0]) / (p[-1] - p[0]), 0, 1)) if p[-1] > p[0] else math.nan
            # A solution to 1e-4 rounds to other bytes here and there, and so the size may be another.
            assert float(values[i]) == pytest.approx(expected, abs=0.002, nan_ok=True)
            compared += not math.isnan(expected)
    assert compared >= 6 and 0 < float(sic.nan_to_num(0.5).mean()) < 1


def test_sizes_are_those_of_the_file():
    x = images(2)
    assert information.stored_bytes(x).tolist() == [stored(one.double().numpy()) for one in x]
    noise = information.stored_bytes(nets.images(1, 32))
    flat = information.stored_bytes(torch.full((1, 3, 32, 32), 0.3))
    assert noise > 3000 and flat < 60, "32² pixels of three random bytes, and of one colour"
    grey = nets.images(1, 16)[:, :1]
    assert torch.equal(information.stored_bytes(grey), information.stored_bytes(grey.expand(-1, 3, -1, -1)))


def curve(sizes: list[float], values: list[float]):
    return information._curve(torch.tensor([sizes]), torch.tensor([values], dtype=torch.float64))


def test_areas_by_hand():
    """Sizes 100 … 200: shares 0, .2, .5, 1."""
    found = curve([100.0, 120, 150, 200], [0.0, 0.5, 0.7, 1.0])
    assert found.value.tolist() == pytest.approx([0.25 / 2 * 0.4 + 0.6 * 0.3 + 0.85 * 0.5])
    assert found.points[0][[0, 10, 20, 50, 75, 100]].tolist() == pytest.approx([0, 0.25, 0.5, 0.7, 0.85, 1])
    # It never falls, along the information; sizes need not rise with the thresholds.
    falls = curve([100.0, 150, 120, 200], [0.0, 0.2, 0.6, 1.0])
    assert falls.value.tolist() == pytest.approx([0.3 * 0.2 + 0.6 * 0.3 + 0.8 * 0.5])
    outside = curve([100.0, 90, 210, 200], [0.0, 0.4, 0.6, 1.0])
    assert outside.value.tolist() == pytest.approx([(0.4 + 0.6) / 2]), "clipped to the ends"
    assert curve([100.0, 150, 200], [1.0, 1.0, 1.0]).value.tolist() == [1.0]
    assert curve([100.0, 150, 100], [0.0, 0.5, 1.0]).value.isnan().all(), "no information to gain"
    assert curve([100.0, 150, 200], [0.0, math.nan, 1.0]).value.isnan().all()


def test_performance_between_the_start_and_the_whole():
    scaled = information._scale_to_unit(torch.tensor([[0.2, 0.1, 0.5, 0.9, 0.8], [0.5, 0.6, 0.7, 0.8, 0.5]]))
    assert scaled[0].tolist() == pytest.approx([0, 0, 0.5, 1, 1]) and scaled[1].isnan().all()


def test_what_is_known_from_the_start():
    x = torch.zeros(2, 3, 30, 20)
    generators = seeds.generators(0, ["a", "b"], "information")
    known = information._known_from_start(x, generators)
    assert known[:, [0, 0, -1, -1], [0, -1, 0, -1]].all() and not torch.equal(known[0], known[1])
    assert ((known.sum((1, 2)) >= 6) & (known.sum((1, 2)) <= 10)).all(), "six of 600 pixels, and the corners"


def test_the_curve_sees_the_right_class_early_with_the_right_map():
    """The answer is in one corner of a busy image: the map that names it needs next to no information."""
    corner = torch.zeros(SIDE, SIDE)
    corner[:3, :3] = 1.0

    class Corner(torch.nn.Module):
        def forward(self, z):
            total = (z.mean(1) * corner).sum((1, 2)) - 2
            return torch.stack([4 * total, -4 * total], 1)

    x = nets.images(8, SIDE)
    x[..., :3, :3] = 1.0
    x[..., 0, 0] = x[..., 0, -1] = x[..., -1, 0] = x[..., -1, -1] = 0.0  # the corners are known: let them say no
    maps = {"right": corner[None] + maps_of(8) / 9, "wrong": 1 - corner[None] + maps_of(8) / 9}
    found = heatproof.score(wrap(Corner(), 0.0, 1.0, SIDE), x, maps, {"sic": {}, "aic": {}}, target=0)
    for metric in found.metrics:
        right, wrong = (float(found.values(name, metric).mean()) for name in maps)
        assert right > wrong + 0.1, metric  # what is known from the start is luck, so on average


def test_neighbours_and_monotone_maps_change_nothing():
    model, x, maps = toy(), images(3), maps_of(3)
    asked = {"sic": SPELLED, "aic": SPELLED}
    together = heatproof.score(model, x, {"a": maps, "b": maps.exp()}, asked, target=1)
    apart = heatproof.score(model, x, {"a": maps}, asked, target=1, batch_size=1)
    for metric in together.metrics:
        close = {"rtol": 1e-5, "atol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(together.values("a", metric), apart.values("a", metric), **close)
        torch.testing.assert_close(together.values("a", metric), together.values("b", metric), **close)


def test_what_cannot_be_is_refused():
    model, x, maps = toy(), images(1), maps_of(1)
    for text in ("0.5 0.2", "0 0.5", "0.5 1", "half", "", "0.2 0.2"):
        with pytest.raises(InvalidInput, match=r"`thresholds` must be rising shares"):
            heatproof.score(model, x, {"mine": maps}, {"sic": {"thresholds": text}})
    with pytest.raises(NotApplicable, match="image"):
        information.image_information(torch.ones(1, 3, 8), *[None] * 6)


def test_weighted_means_in_place_of_triangles_tell_nearly_the_same_information():
    """The library interpolates linearly between known pixels (Delaunay), a second an image at 224²."""
    interpolate = pytest.importorskip("scipy.interpolate")
    side, generator = 64, torch.Generator().manual_seed(6)
    coarse = torch.rand(1, 3, 14, 14, generator=generator)
    x = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    x = (x + 0.02 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    known = information._known_from_start(x, [generator])
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    order = ((rows - 30) ** 2 + (columns - 34) ** 2).flatten().argsort(stable=True).argsort().view(1, side, side)
    ours, theirs = [], []
    for share in (0, 0.05, 0.13, 0.34, 0.75, 1):
        kept = known | (order < round(share * side * side))
        ours.append(float(information.stored_bytes(information.imputed(x, ~kept).images.clamp(0, 1))))
        points, unknown = np.argwhere(kept[0].numpy()), np.argwhere(~kept[0].numpy())
        linear = x[0].double().numpy().copy()
        for channel in linear if len(unknown) else ():
            channel[tuple(unknown.T)] = interpolate.griddata(points, channel[tuple(points.T)], unknown, "linear")
        theirs.append(stored(linear))
    shares = [(np.array(sizes) - sizes[0]) / (sizes[-1] - sizes[0]) for sizes in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 0.1 and shares[0][3] > 0.2
