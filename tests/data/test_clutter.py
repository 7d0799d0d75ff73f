"""Harder Shapes: what decides the class is in the mask, and what is outside it never tells the class."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from heatproof.data import Shapes
from heatproof.data.clutter import CROSS_COLOURS, KINDS
from heatproof.data.shape_drawing import CLASSES
from heatproof.errors import UnknownName

SETS = [(), *((name,) for name in KINDS), ("several", "others", "occlusion"), tuple(KINDS)]
SMALL = {"size": 96, "shape_sizes": ((30, 38), (16, 20))}


def of(clutter, n=12, **more) -> Shapes:
    return Shapes("train", n, clutter=clutter, **SMALL, **more)


def relabelled(shapes: Shapes, step: int) -> Shapes:
    other = of(shapes.clutter, shapes.n)
    other.__dict__["_labels"] = [(label + step) % 6 for label in shapes.labels if label is not None]
    return other


@pytest.mark.parametrize("clutter", SETS, ids="+".join)
def test_outside_the_mask_an_image_is_the_same_whatever_its_class(clutter):
    shapes = of(clutter)
    for step in (1, 3):
        other = relabelled(shapes, step)
        for i in range(6):
            assert np.array_equal(shapes.scene(i).hidden, other.scene(i).hidden)
            assert not np.array_equal(shapes.scene(i).pixels, other.scene(i).pixels)


@pytest.mark.parametrize("clutter", SETS, ids="+".join)
def test_a_scene_is_its_image_and_its_mask(clutter):
    shapes = of(clutter)
    for i in range(4):
        scene = shapes.scene(i)
        assert np.array_equal(np.asarray(shapes.open(i)), scene.pixels)
        assert np.array_equal(shapes.mask(i), scene.mask) and scene.mask.any()
        assert (scene.pixels[scene.mask] != scene.background[scene.mask]).any()
    assert len({of(one).fingerprint for one in SETS}) == len(SETS)
    assert of(("others", "several")).fingerprint == of(("several", "others")).fingerprint


def test_several_objects_of_the_class_are_all_ground_truth():
    plain, more = of(()), of(("several",))
    counts = [len(more.scene(i).discs) for i in range(12)]
    assert set(counts) <= {1, 2, 3} and sum(counts) > 24
    for i, count in enumerate(counts):
        own, both = plain.mask(i), more.mask(i)
        assert not (own & ~both).any() and (both.sum() > own.sum()) == (count > 1)
        assert np.array_equal(both, more.scene(i).pixels.any(-1) & both)


def test_other_objects_are_smaller_and_not_ground_truth():
    plain, more = of(()), of(("others",))
    for i in range(12):
        scene = more.scene(i)
        assert np.array_equal(plain.mask(i), scene.mask)
        radii = [radius for _, radius in scene.discs]
        assert all(radius < 0.75 * radii[0] for radius in radii[1:]) and len(radii) > 1
        changed = (scene.pixels != plain.scene(i).pixels).any(-1)
        assert changed.any() and not (changed & scene.mask).any()


def test_objects_keep_apart():
    shapes = of(("several", "others"), 24)
    for i in range(24):
        discs = shapes.scene(i).discs
        for k, (a, r) in enumerate(discs):
            assert r <= min(*a, 96 - a[0], 96 - a[1]) + 1e-9
            assert all(np.hypot(a[0] - b[0], a[1] - b[1]) >= r + q - 1e-9 for b, q in discs[:k])


def test_something_in_front_takes_a_part_of_the_object():
    plain, hidden = of((), 60), of(("occlusion",), 60)
    shares = []
    for i in range(60):
        whole, left = plain.mask(i), hidden.mask(i)
        assert not (left & ~whole).any()
        gone = whole & ~left
        shares.append(gone.sum() / whole.sum())
        assert (hidden.scene(i).pixels[gone] != plain.colour(i)).any(-1).mean() > 0.9 if gone.any() else True
    assert 0.1 < np.mean(shares) < 0.4 and max(shares) < 0.7 and np.mean(np.array(shares) > 0.02) > 0.8


def test_a_shortcut_decides_and_the_shape_does_not():
    shapes = of(("shortcut",), 360)
    table = np.zeros((6, 6), int)
    for i, label in enumerate(shapes.labels):
        table[label, CLASSES.index(shapes.kind(i))] += 1
    assert chi2_contingency(table).pvalue > 1e-3
    for i in range(12):
        scene = shapes.scene(i)
        assert (scene.pixels[scene.mask] == CROSS_COLOURS[shapes.labels[i]]).all()
        assert 8 < scene.mask.sum() < 0.02 * scene.mask.size
        assert not (scene.mask & shapes._drawn(i)).any(), "it lies beside the shape"


def test_an_unknown_clutter_is_an_error():
    with pytest.raises(UnknownName, match="Did you mean 'others'"):
        of(("other",))
