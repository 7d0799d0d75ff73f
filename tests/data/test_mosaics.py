"""Mosaics: different classes, the mask on the target's cell, and nothing that depends on the batch."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from heatproof.data import Images, load_images
from heatproof.data.mosaics import Mosaics
from heatproof.data.sampling import limited
from heatproof.errors import InvalidInput
from heatproof.geometry import Geometry
from heatproof.metrics.localisation import grid_pointing_game

CLASSES, EACH = 6, 3


def colour(label: int, number: int) -> tuple[int, int, int]:
    return 40 * label + 10, 60 * number + 20, 200


@pytest.fixture
def folder(tmp_path):
    """Images of one colour each, which names class and number."""
    for label in range(CLASSES):
        (tmp_path / f"class{label}").mkdir()
        for number in range(EACH):
            Image.new("RGB", (50, 30 + label), colour(label, number)).save(tmp_path / f"class{label}" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("cells", [2])
def test_every_cell_is_of_another_class_and_the_mask_is_the_targets(folder, cells):
    source = load_images(folder)
    mosaics = Mosaics(source, cells=cells, pixels=16)
    assert isinstance(mosaics, Images) and mosaics.ids == source.ids and mosaics.labels == source.labels
    positions = set()
    for i, id in enumerate(mosaics.ids):
        pixels, mask = np.asarray(mosaics.open(i)), mosaics.mask(i)
        assert pixels.shape == (cells * 16, cells * 16, 3) and mask.sum() == 16 * 16
        own = colour(int(id[5]), int(id[7]))
        assert (pixels[mask] == own).all() and not (pixels[~mask] == own).all(-1).any()
        reds = {int(pixels[8 + 16 * row, 8 + 16 * column, 0]) for row in range(cells) for column in range(cells)}
        assert len(reds) == cells**2, "the red channel is the class"
        positions.add(int(mask.argmax()))
    assert len(positions) == cells**2, "the target is not always in the same cell"


def test_a_mosaic_depends_on_seed_and_name_alone(folder):
    whole = Mosaics(load_images(folder), pixels=8)
    few = limited(whole, 4, sampling="first")
    assert few.ids == whole.ids[:4]
    assert [few.open(i).tobytes() for i in range(4)] == [whole.open(i).tobytes() for i in range(4)]
    other = Mosaics(load_images(folder), pixels=8, seed=1)
    assert [other.layout(i) for i in range(9)] != [whole.layout(i) for i in range(9)]
    assert len({whole.fingerprint, few.fingerprint, other.fingerprint}) == 3
    again = pickle.loads(pickle.dumps(whole))
    assert np.array_equal(np.asarray(again.open(5)), np.asarray(whole.open(5)))


def test_images_without_label_or_file_are_left_out(folder):
    labels = folder / "labels.csv"
    rows = [f"class{c}/0.png,{c}" for c in range(5)] + ["class5/gone.png,5"]
    labels.write_text("file,class_index\n" + "\n".join(rows) + "\n")
    mosaics = Mosaics(load_images(folder, labels), pixels=8)
    assert mosaics.ids == [f"class{c}/0.png" for c in range(5)]
    assert all(5 not in {mosaics.source.labels[k] for k in mosaics.layout(i)} for i in range(5))


def test_too_few_classes_are_refused(folder):
    with pytest.raises(InvalidInput, match=r"images of 9 classes.*images of 6"):
        Mosaics(load_images(folder), cells=3)
    with pytest.raises(InvalidInput, match="`cells` must be at least 2"):
        Mosaics(load_images(folder), cells=1)


def test_by_name_as_a_source_of_images(folder):
    found = load_images(f"mosaic:{folder}", limit=3, name="grid")
    assert isinstance(found.source, Mosaics) and found.name == "grid" and len(set(found.labels)) == len(found.ids) == 3
    labels = folder / "labels.csv"
    labels.write_text("file,class_index\n" + "\n".join(f"class{c}/0.png,{10 + c}" for c in range(6)) + "\n")
    assert load_images(f"mosaic:{folder}", labels).labels == [10 + c for c in range(6)]


def test_the_game_a_map_of_the_cell_wins_and_one_of_everything_draws(folder):
    """The mask goes through the geometry as the mosaic does: its borders are cropped, and the cell's with them."""
    mosaics = Mosaics(load_images(folder), pixels=32)
    geometry = Geometry((48, 48), 54)
    masks = torch.stack([geometry.mask(mosaics.mask(i)) for i in range(4)])
    assert grid_pointing_game(masks.float(), masks).tolist() == [1] * 4
    assert grid_pointing_game(torch.ones_like(masks).float(), masks).tolist() == pytest.approx([0.25] * 4, abs=0.02)
    x = torch.stack([geometry.image(mosaics.open(i)) for i in range(4)])
    for i in range(4):
        own = torch.tensor(colour(*(int(mosaics.ids[i][k]) for k in (5, 7)))) / 255
        inner = (x[i] - own[:, None, None]).abs().amax(0) < 0.01
        assert (inner & masks[i]).sum() / masks[i].sum() > 0.9 and not (inner & ~masks[i]).any()
