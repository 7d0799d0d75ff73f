"""The layout of the published FunnyBirds folder."""

import json
import pickle

import numpy as np
import pytest

from heatproof.data import load_images
from heatproof.data.items import read_items
from heatproof.data.part_images import made_of_parts
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput

from .funnybirds_folder import CLASSES, PARTS, funnybirds, rectangle, scene


@pytest.fixture
def folder(tmp_path):
    return funnybirds(tmp_path / "FunnyBirds", 6)


def pixels(image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def test_images_labels_and_classes(folder):
    images = load_images(f"funnybirds:{folder}")
    assert images.ids[:2] == ["0/000000.png", "1/000001.png"] and images.labels == [0, 1, 2, 3, 0, 1]
    assert images.name == "funnybirds" and made_of_parts(images)
    assert images.part_table.parts == PARTS and images.part_table.classes == CLASSES
    assert images.open(1).mode == "RGB" and (pixels(images.open(1)) == pixels(scene(1))).all()
    again = pickle.loads(pickle.dumps(images))
    assert again.fingerprint == images.fingerprint and again.ids == images.ids


def test_part_maps_and_interventions(folder):
    one = load_images(f"funnybirds:{folder}").parts(2)
    masks = one.masks()
    assert list(masks) == [*PARTS, "background-00", "background-01"] and one.label == 2
    for number, mask in enumerate(masks.values()):
        expected = np.zeros_like(mask)
        expected[rectangle(number)] = True
        assert (mask == expected).all(), "both eyes, feet and wings are one part"
    for gone in (frozenset(), frozenset(["beak", "tail"]), frozenset(PARTS)):
        assert (pixels(one.without(gone)) == pixels(scene(2, gone))).all()
    assert (pixels(one.without(frozenset(["background-01"]))) == pixels(scene(2, without_object=1))).all()


def test_every_fifth_image_is_for_validation(folder):
    whole, val, test = (load_images(f"{name}:{folder}") for name in ("funnybirds", "funnybirds-val", "funnybirds-test"))
    assert val.ids == [whole.ids[0], whole.ids[5]] and not set(val.ids) & set(test.ids)
    assert set(val.ids) | set(test.ids) == set(whole.ids)
    assert (val.name, test.name) == ("funnybirds-val", "funnybirds-test")
    assert val.fingerprint != test.fingerprint


def test_what_is_missing_says_its_path(folder):
    images = load_images(f"funnybirds:{folder}")
    one = images.parts(0)
    where = folder / "test_interventions" / "0" / "000000"
    (where / "body_beak_eye_foot_tail.png").unlink()
    with pytest.raises(InvalidImage, match=r"000000/body_beak_eye_foot_tail\.png"):
        one.without(frozenset(["wing"]))
    (where / "background_interventions" / "1.png").unlink()
    with pytest.raises(InvalidImage, match=r"background_interventions/1\.png"):
        one.without(frozenset(["background-01"]))
    with pytest.raises(InvalidImage, match="holds no image without background-00 and beak together"):
        one.without(frozenset(["background-00", "beak"]))
    (folder / "test_part_map" / "0" / "000000.png").unlink()
    with pytest.raises(InvalidImage, match=r"test_part_map/0/000000\.png"):
        images.mask(0)
    (folder / "test" / "0" / "000000.png").write_bytes(b"cut off")
    with pytest.raises(InvalidImage):
        images.open(0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classes.json", None, "there is no classes.json"),
        ("parts.json", {"beak": [{}], "horn": [{}]}, "'horn'"),
        ("classes.json", {"0": {}}, "holds no list"),
        ("classes.json", [{"class_idx": 0, "parts": {"beak": 0}}], "a class in classes.json"),
        ("dataset_test.json", [{"label": 3}], "must have a class_idx"),
        ("dataset_test.json", [{"class_idx": 9}], "one of 4 classes"),
        ("dataset_test.json", [], "names no image"),
        ("parts.json", "not JSON", "cannot be read"),
    ],
)
def test_another_layout_is_an_error_that_says_what_is_wrong(folder, file, content, message):
    path = folder / file
    path.unlink()
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InvalidInput, match=message):
        load_images(f"funnybirds:{folder}")


def test_a_folder_without_interventions_is_refused(folder):
    (folder / "test_interventions").rename(folder / "interventions")
    with pytest.raises(InvalidInput, match="no folder test_interventions"):
        load_images(f"funnybirds:{folder}")


def test_a_missing_part_map_leaves_the_image_without_a_mask(folder):
    (folder / "test_part_map" / "0" / "000000.png").unlink()
    with pytest.warns(HeatproofWarning, match=r"The mask of 0/000000\.png is left out: there is no .*000000\.png"):
        items = list(read_items(load_images(f"funnybirds:{folder}")))
    assert items[0].mask is None and items[0].image is not None and items[1].mask is not None
