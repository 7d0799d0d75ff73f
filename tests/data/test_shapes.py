"""Shapes: what is drawn, and the three data defects of paper R's code that must not come back."""

import hashlib
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2_contingency

from heatproof.data import Images, Shapes, demo_shapes, load_images
from heatproof.data.shape_drawing import CLASSES, NEAR, dead_leaves, drawn
from heatproof.data.shapes import DEMO, SPLITS, background_files
from heatproof.errors import InvalidInput, UnknownName
from heatproof.geometry import Geometry

SMALL = {"size": 48, "shape_sizes": ((14, 22),)}


def content(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


# --- the images ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "area"),
    [("circle", math.pi / 4), ("square", 1.0), ("triangle", 1 / math.sqrt(3))],
)
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
def test_areas_are_those_of_the_figures(kind, area, angle):
    """Filled: by school geometry, size = diameter, side, height. Outline: less the figure inside its band."""
    size, image, centre = 80, 160, (79.3, 81.6)
    inner = 1 - 2 * (size // 5) / size if kind != "triangle" else 1 - 3 * (size // 5) / size
    filled = drawn(f"{kind}-filled", image, size, centre, angle)
    outline = drawn(f"{kind}-outline", image, size, centre, angle)
    assert filled.sum() == pytest.approx(area * size**2, rel=0.01)
    assert outline.sum() == pytest.approx(area * size**2 * (1 - inner**2), rel=0.02)
    assert not (outline & ~filled).any()
    ys, xs = np.nonzero(filled)
    assert (ys.mean() + 0.5, xs.mean() + 0.5) == pytest.approx(centre, abs=0.51)


def test_a_triangle_turns_with_the_angle():
    """At angle 0 the base is below and level; a quarter turn puts it upright."""
    level = drawn("triangle-filled", 100, 60, (50.0, 50.0), 0.0)
    turned = drawn("triangle-filled", 100, 60, (50.0, 50.0), math.pi / 2)
    assert level.sum(1).argmax() in (68, 69) and np.nonzero(level)[0].max() == 69
    assert level.sum(1)[30] < level.sum(1)[60]
    assert turned.sum(0).argmax() == 30  # a side lies height / 3 from the centre


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SPLITS), st.integers(0, 11))
def test_every_shape_is_whole_and_the_mask_is_what_was_drawn(seed, split, i):
    shapes = Shapes(split, 12, seed=seed, **SMALL)
    mask, image, background = shapes.mask(i), np.asarray(shapes.open(i)), shapes.background(i)
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    assert (image[mask] == shapes.colour(i)).all() and mask.any()
    assert (image[~mask] == background[~mask]).all()


def test_shapes_differ_from_what_they_lie_on():
    shapes = demo_shapes("train", 24)
    shares = []
    for i in range(24):
        under = shapes.background(i)[shapes.mask(i)].astype(float)
        shares.append((np.sqrt(((under - shapes.colour(i)) ** 2).sum(1)) >= NEAR).mean())
    assert np.mean(shares) > 0.95 and min(shares) > 0.7


def test_labels_are_balanced_and_do_not_depend_on_the_number_of_images():
    labels = Shapes("train", 600, **SMALL).labels
    assert [labels.count(k) for k in range(6)] == [100] * 6
    assert labels[:50] == Shapes("train", 50, **SMALL).labels
    assert len({tuple(labels[k : k + 6]) for k in range(0, 600, 6)}) > 50


def test_dead_leaves_have_many_scales():
    """Neighbours are much alike, far pixels are not, and no image is flat: as in photographs."""
    leaves = [dead_leaves(96, np.random.Generator(np.random.PCG64(k))).astype(float) for k in range(6)]
    near = np.mean([np.abs(np.diff(one, axis=1)).mean() / one.std() for one in leaves])
    far = np.mean([np.abs(one[:, 40:] - one[:, :-40]).mean() / one.std() for one in leaves])
    assert near < 0.4 < 0.8 < far
    assert all(len(np.unique(one.reshape(-1, 3), axis=0)) > 80 for one in leaves)


# --- the defects of R's data (protocols, section 12) ----------------------------------------------


def test_backgrounds_are_disjoint_between_splits():
    seen: dict[str, tuple[str, int]] = {}
    for seed in (0, 1):
        for split in SPLITS:
            shapes = Shapes(split, 20, seed=seed, **SMALL)
            for i in range(20):
                assert seen.setdefault(content(shapes.background(i)), (split, seed)) == (split, seed)
    assert len(seen) == 120


def test_folder_backgrounds_are_disjoint_by_content(tmp_path):
    """Each background file has a colour of its own, and five are there twice, under other names."""
    for k in range(20):
        Image.new("RGB", (60, 50), (12 * k, 255 - 12 * k, 7)).save(tmp_path / f"b{k}.png")
    for k in range(5):
        (tmp_path / f"copy{k}.png").write_bytes((tmp_path / f"b{k}.png").read_bytes())
    digests = {split: {digest for digest, _ in background_files(tmp_path, split)} for split in SPLITS}
    assert [len(digests[split]) for split in SPLITS] == [14, 2, 4]
    assert len(set.union(*digests.values())) == 20
    colours = {}
    for split in SPLITS:
        shapes = Shapes(split, 30, backgrounds=tmp_path, **SMALL)
        colours[split] = {tuple(shapes.background(i)[0, 0]) for i in range(30)}
    assert not colours["train"] & colours["test"] and not colours["val"] & colours["test"]
    assert not colours["train"] & colours["val"]
    with pytest.raises(InvalidInput, match="at least 3"):
        (tmp_path / "few").mkdir()
        background_files(tmp_path / "few", "test")


@pytest.mark.parametrize(
    ("geometry", "least", "gap"),
    [(Geometry((224, 224), 256), 0.9999, 0.3), (Geometry((224, 224), 235), 0.94, 0.1)],
)
def test_a_perfect_map_scores_one_through_the_models_geometry(geometry, least, gap):
    """The perfect map is read off the network's input itself: where it differs from the shapeless image."""
    shapes = Shapes("test", 18, shape_sizes=((20, 24), (40, 49)))
    scores, defective = [], []
    for i in range(18):
        bare = geometry.image(Image.fromarray(shapes.background(i)))
        perfect = ((geometry.image(shapes.open(i)) - bare).abs().amax(0) > 0.1).float().flatten()
        straight = Image.fromarray(shapes.mask(i)).resize((224, 224))
        for mask, into in ((geometry.mask(shapes.mask(i)), scores), (np.asarray(straight), defective)):
            truth = torch.as_tensor(np.array(mask)).float().flatten()
            into.append(float(torch.cosine_similarity(perfect, truth, dim=0)))
    assert np.mean(scores) > least
    assert np.mean(scores) - np.mean(defective) > gap


def test_the_label_cannot_be_read_off_colour_place_or_background():
    shapes = Shapes("train", 360, **SMALL)
    backgrounds = [shapes.background(i) for i in range(360)]
    colours = np.array([shapes._colour(i, backgrounds[i]) for i in range(360)])
    placed = [shapes._placed(i) for i in range(360)]
    clues = {
        "red, coarse": colours[:, 0] // 43,
        "red mod 6": colours[:, 0] % 6,
        "red mod 8": colours[:, 0] % 8,
        "blue, coarse": colours[:, 2] // 43,
        "size": [size for size, _, _ in placed],
        "quadrant": [2 * (y > 24) + (x > 24) for _, (y, x), _ in placed],
        "background": [int(b.mean()) // 24 for b in backgrounds],
    }
    for clue, values in clues.items():
        table = np.zeros((6, 256), int)
        np.add.at(table, (np.array(shapes.labels), np.asarray(values, int)), 1)
        assert chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3, clue


def test_another_class_changes_nothing_but_the_outline(monkeypatch):
    shapes = Shapes("train", 12, **SMALL)
    before = [(shapes._placed(i), shapes.colour(i).tolist(), content(shapes.background(i))) for i in range(12)]
    other = Shapes("train", 12, **SMALL)
    other.__dict__["_labels"] = [(label + 1) % 6 for label in shapes.labels]
    after = [(other._placed(i), other.colour(i).tolist(), content(other.background(i))) for i in range(12)]
    assert before == after
    assert all((shapes.mask(i) != other.mask(i)).any() for i in range(12))


# --- the set --------------------------------------------------------------------------------------


def test_another_process_makes_the_same_images():
    """One whose hashes of texts are others than here."""
    salt = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    code = "from heatproof.data import Shapes as S; print(S('val', 6, 48, ((14, 22),)).pixel_hash())"
    environment = {"PYTHONHASHSEED": salt, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Shapes("val", 6, **SMALL).pixel_hash()


def test_shapes_are_images_that_can_be_pickled():
    assert load_images("shapes") == demo_shapes("test")
    shapes = demo_shapes("test", 7)
    assert isinstance(shapes, Images) and isinstance(shapes, Shapes)
    assert (shapes.name, shapes.ids[6], shapes.class_names) == ("shapes:test", "test/00006", list(CLASSES))
    again = pickle.loads(pickle.dumps(shapes))
    assert again.open(3).tobytes() == shapes.open(3).tobytes() and again.fingerprint == shapes.fingerprint
    assert shapes.open(0).size == (DEMO["size"],) * 2 and shapes.mask(0).shape == (DEMO["size"],) * 2
    assert len({demo_shapes("test", 8).fingerprint, demo_shapes("val", 7).fingerprint, shapes.fingerprint}) == 3


def test_shapes_refuses_what_it_cannot_draw():
    with pytest.raises(InvalidInput, match=r"`split` must be one of train, val, test\. Got 'all'\."):
        Shapes("all", 5)
    with pytest.raises(InvalidInput, match="`n` must be at least 1"):
        Shapes("test", 0)
    with pytest.raises(InvalidInput, match="between 5 and 43 pixels for images of 64"):
        Shapes("test", 5, size=64)
    with pytest.raises(UnknownName, match="Did you mean 'test'"):
        load_images("shapes:tset")
    with pytest.raises(InvalidInput, match="labels of its own"):
        load_images("shapes", labels="labels.csv")
