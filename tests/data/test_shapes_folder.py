"""Shapes as files, their card, and whether the card sees what it is meant to see."""

import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof import cli
from heatproof.data import Shapes, load_images, paper_shapes
from heatproof.data.clutter import Scene
from heatproof.data.shapes import demo_shapes, parsed_sizes
from heatproof.data.shapes_card import card_of
from heatproof.data.shapes_folder import write_shapes
from heatproof.data.torch_dataset import ImageDataset
from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.geometry import Geometry

SMALL = {"size": 96, "shape_sizes": ((30, 38),)}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def failed(card) -> set[str]:
    return {check.name for check in card.checks if not check.passed}


def test_a_folder_is_the_set_byte_for_byte(tmp_path):
    shapes = Shapes("val", 7, clutter=("others",), **SMALL)
    write_shapes(shapes, tmp_path / "a")
    first = contents(tmp_path / "a")
    write_shapes(shapes, tmp_path / "b")
    assert contents(tmp_path / "b") == first
    for name in ("images/00003.png", "masks/00005.png", "labels.csv"):
        (tmp_path / "a" / name).unlink()
    write_shapes(shapes, tmp_path / "a")
    assert contents(tmp_path / "a") == first
    images = load_images(tmp_path / "a" / "images", labels=tmp_path / "a" / "labels.csv")
    assert images.labels == shapes.labels and len(images.ids) == 7
    for i in range(7):
        assert np.array_equal(np.asarray(images.open(i)), np.asarray(shapes.open(i)))
        mask = np.asarray(Image.open(tmp_path / "a" / "masks" / images.ids[i]))
        assert np.array_equal(mask == 255, shapes.mask(i)) and set(np.unique(mask)) <= {0, 255}


def test_a_folder_of_something_else_is_refused(tmp_path):
    write_shapes(Shapes("val", 2, **SMALL), tmp_path / "a")
    with pytest.raises(InvalidInput, match="holds another set of Shapes"):
        write_shapes(Shapes("val", 3, **SMALL), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(InvalidInput, match="holds other files"):
        write_shapes(Shapes("val", 2, **SMALL), tmp_path / "b")


def test_the_card_of_a_sound_set_passes():
    card = card_of(Shapes("test", 120, clutter=("others", "occlusion"), **SMALL))
    assert card.passed and {check.name for check in card.checks} == {
        "class-background independence",
        "split disjointness",
        "mask alignment",
    }
    assert sum(card.facts["images_by_class"].values()) == 120
    assert "| passed |" in card.text() and "agreement of a perfect map" in card.text()
    assert json.loads(json.dumps(card.as_json()))["checks"]
    for size, clutter in ((64, ()), (96, ("several", "others", "occlusion", "shortcut")), (128, ("shortcut",))):
        assert card_of(paper_shapes("val", 6, size, clutter=clutter)).passed
    few = card_of(Shapes("test", 12, **SMALL))
    assert {check.name for check in few.checks} == {"split disjointness", "mask alignment"}, "too few for a probe"


@dataclass(frozen=True)
class Leaking(Shapes):
    """The background of every class has a tint of its own."""

    def background(self, i: int) -> np.ndarray:
        found = super().background(i).copy()
        found[..., 0] = found[..., 0] // 2 + 25 * self.labels[i]
        return found


@dataclass(frozen=True)
class Shifted(Shapes):
    """The mask is some pixels beside the object."""

    def scene(self, i: int) -> Scene:
        found = super().scene(i)
        return Scene(found.pixels, np.roll(found.mask, 9, 1), found.background, found.discs)


@dataclass(frozen=True)
class Sharing(Shapes):
    """The backgrounds of all splits are the same."""

    def background(self, i: int) -> np.ndarray:
        return Shapes("train", self.n, **SMALL).background(i % 8)


@pytest.mark.parametrize(
    ("kind", "images", "fault"),
    [
        (Leaking, 240, "class-background independence"),
        (Shifted, 60, "mask alignment"),
        (Sharing, 60, "split disjointness"),
    ],
)
def test_the_card_sees_a_fault(kind, images, fault):
    assert failed(card_of(kind("test", images, **SMALL))) == {fault}


def test_backgrounds_that_are_no_images_are_left_out(tmp_path):
    for k in range(6):
        Image.new("RGB", (96, 96), (40 * k, 9, 9)).save(tmp_path / f"{k}.png")
    (tmp_path / "x.jpg").write_text("no image")
    with pytest.warns(HeatproofWarning, match=r"Backgrounds that cannot be opened are left out: .*x\.jpg"):
        shapes = Shapes("train", 4, backgrounds=tmp_path, **SMALL)
        assert len(shapes.photographs) == 4
    with pytest.warns(HeatproofWarning):
        assert failed(card_of(shapes)) <= {"mask alignment"}
    for k in range(6):
        (tmp_path / f"{k}.png").unlink()
    with pytest.warns(HeatproofWarning), pytest.raises(InvalidInput, match="at least 3 different images"):
        Shapes("train", 4, backgrounds=tmp_path, **SMALL).background(0)


def test_the_folder_itself_is_no_set_of_images_and_of_masks(tmp_path):
    write_shapes(Shapes("val", 2, **SMALL), tmp_path / "set")
    with pytest.raises(InvalidInput, match=r"set holds images and their masks\. Give .*set/images .*labels\.csv"):
        load_images(tmp_path / "set")
    assert len(load_images(tmp_path / "set" / "images").ids) == 2
    (tmp_path / "set" / "masks").rename(tmp_path / "set" / "cats")
    assert load_images(tmp_path / "set").class_names == ["cats", "images"], "two classes, as their folders say"


def test_small_or_few_backgrounds_are_said(tmp_path):
    for k in range(6):
        Image.new("RGB", (96, 40 if k % 2 else 96), (40 * k, 9, 9)).save(tmp_path / f"{k}.png")
    with pytest.warns(HeatproofWarning) as said:
        assert len(Shapes("test", 4, backgrounds=tmp_path, **SMALL).photographs) == 1
        assert len(Shapes("train", 4, backgrounds=tmp_path, **SMALL).photographs) == 4
    told = [str(one.message) for one in said]
    assert any(one.startswith("`test` has one background for all its images") for one in told)
    small = [one for one in told if "are smaller than the images, 96 pixels" in one]
    assert sum(int(one.split()[0]) for one in small) in (2, 3), "of the five of both splits"


def test_a_card_of_few_images_says_that_no_probe_looked(tmp_path):
    card = write_shapes(Shapes("val", 6, **SMALL), tmp_path / "few")
    assert card.skipped == "class-background independence: fewer than 10 images of each class"
    assert f"| not computed | {card.skipped} |" in card.text() and card.as_json()["not_computed"] == card.skipped
    assert not card_of(Shapes("test", 60, **SMALL)).skipped


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(InvalidInput, match=r"`backgrounds` must be a folder of images\. There is no folder nothere"):
        write_shapes(Shapes("val", 2, backgrounds="nothere", **SMALL), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_another_size_has_the_papers_shapes_in_proportion():
    assert paper_shapes("test", 5).shape_sizes == ((80, 99), (40, 49), (20, 24)) and paper_shapes("train").n == 4096
    assert paper_shapes("val", size=128).shape_sizes == ((40, 50), (20, 24), (10, 12)) and paper_shapes("val").n == 64


def test_sizes_of_shapes_are_written_as_ranges():
    sizes = parsed_sizes("36-45, 24-29")
    assert sizes == ((36, 45), (24, 29)) and parsed_sizes("") is None
    given = paper_shapes("val", 2, 96, sizes)
    assert given.fingerprint == demo_shapes("val", 2).fingerprint
    for wrong in ("36", "36-45;24-29", "a-b", "36-45,"):
        with pytest.raises(InvalidInput, match="such as 36-45,24-29"):
            parsed_sizes(wrong)


def test_a_torch_dataset_is_input_and_knows_its_masks():
    geometry = Geometry((64, 80), 70)
    shapes = Shapes("test", 6, **SMALL)
    data = pickle.loads(pickle.dumps(ImageDataset(shapes, geometry)))
    image, label = data[3]
    assert image.shape == (3, 64, 80) and label == shapes.labels[3] and len(data) == 6
    assert torch.equal(image, geometry.image(shapes.open(3)))
    assert torch.equal(data.mask(3), geometry.mask(shapes.mask(3)))
    model = heatproof.load_model("shapes")
    found = heatproof.explain(model, ImageDataset(shapes, model.geometry), "gradcam", target="label")
    assert found.labels == shapes.labels


def test_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["data", "shapes", "--out", str(tmp_path / "s"), "--limit", "3", "--size", "96", "--clutter", "several"]
        )
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "3 images of 6 classes" in out and "passed: agreement of a perfect map" in out
    assert (tmp_path / "s" / "card.md").is_file()
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "shapes", "--out", str(tmp_path / "t"), "--clutter", "shortcuts"])
    assert ended.value.code == 2 and "Did you mean 'shortcut'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "shapes", "--out", str(tmp_path / "u"), "--limit", "2", "--shape-sizes", "250-260"])
    assert ended.value.code == 2 and "pairs between 5 and" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["data", "shapes", "--out", str(tmp_path / "t"), "--split", "all"])
    assert "one of train, val, test" in capsys.readouterr().err
