"""Labels and the classes of a network: by the names where both have them, and never in silence where they differ."""

from contextlib import nullcontext

import pytest
from PIL import Image

import heatproof
from heatproof.data import load_images
from heatproof.data.class_matching import ALPHABETICAL, label_match, source_match
from heatproof.data.collected import collected
from heatproof.data.sampling import limited
from heatproof.engine.call import input_form
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget

from .. import nets

MODEL = ["zebra", "big_cat", "dog"]


class Named(list):
    """A source with names of classes."""

    classes = property(list)


@pytest.fixture
def folder(tmp_path):
    """An image in each of three folders, whose names are the model's in another order."""
    for name in ("Big Cat", "Dog", "zebra"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.radial_gradient("L").resize((8, 8)).convert("RGB").save(tmp_path / "photos" / name / "1.png")
    return tmp_path / "photos"


def test_subfolders_are_matched_by_the_models_names(folder):
    images = load_images(folder)
    assert images.labels == [0, 1, 2]
    match = label_match(limited(images, 2), MODEL)
    assert [match(label) for label in (0, 1, 2, None)] == [1, 2, 0, None]
    assert match.how == "matched with the model by the names of the classes" and not match.warning
    unknown = label_match(images, None)
    assert unknown.classes == {} and "alphabetical" in unknown.how, "the order cannot be compared, and that is said"


def test_labels_that_are_known_to_be_others_than_the_models_are_left_out(folder):
    images = load_images(folder)
    match = label_match(images, ["zebra", "big_cat", "horse"])
    assert [match(label) for label in range(3)] == [None] * 3
    assert "('Dog')" in match.warning and "'Big Cat' is number 0, and in the model big_cat (1)" in match.warning
    model = heatproof.wrap(nets.seeded(lambda: nets.Plain(3)), mean=0.5, std=0.5, size=16, layer="two",
                           classes=["zebra", "cow", "dog"])  # fmt: skip
    with pytest.warns(HeatproofWarning, match="are left out: not all names are those of the model"):
        assert heatproof.show(model, folder).entries[0].label is None
    with pytest.warns(HeatproofWarning, match="left out"), pytest.raises(InvalidTarget, match="Got none for 3 of 3"):
        heatproof.explain(model, folder, target="label")
    assert label_match(images, ["x", "y"]).foreign, "perhaps no classes at all"


def test_why_no_label_is_known_is_said_where_labels_are_needed(folder):
    """Folders that may be no classes are no warning where only the prediction is explained."""
    model = heatproof.wrap(nets.seeded(lambda: nets.Plain(2)), mean=0.5, std=0.5, size=16, layer="two",
                           classes=["x", "y"])  # fmt: skip
    assert heatproof.show(model, folder).entries[0].label is None
    with pytest.raises(InvalidTarget, match=r"Got none. Labels of .* are left out: not all names are those of the mod"):
        heatproof.show(model, folder, target="label")
    with pytest.warns(HeatproofWarning, match="left out"), pytest.raises(InvalidTarget, match="Got none for 3 of 3"):
        heatproof.explain(model, folder, target="label")


@pytest.mark.parametrize("through", ["folder", "set", "part of a part", "rows", "collected"])
def test_every_source_is_matched_by_the_same_rule(folder, through):
    """Big Cat, Dog and zebra are the classes 1, 2 and 0 of the model, whatever the spelling."""
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder as Pairs

    model = heatproof.wrap(nets.seeded(lambda: nets.Plain(3)), mean=0.5, std=0.5, size=16, layer="two", classes=MODEL)
    pairs = Pairs(folder)
    source = {
        "folder": folder,
        "set": pairs,
        "part of a part": Subset(Subset(pairs, [0, 1, 2]), [0, 1, 2]),
        "rows": [(image, pairs.classes[label]) for image, label in pairs],
    }
    if through == "collected":
        assert collected(pairs, input_form(model)).labels == [1, 2, 0]
        return
    assert heatproof.explain(model, source[through], target="label").target.tolist() == [1, 2, 0]
    shown = heatproof.show(model, source[through], target="label").entries
    assert [entry.label.index for entry in shown if entry.label] == [1, 2, 0]


def test_names_at_their_place_are_no_contradiction():
    """Several names in a class of either side, one name of two classes."""
    match = source_match(Named(["tench, Tinca tinca", "crane", "crane"]), ["tench", "crane", "crane"])
    assert match.by_name and [match(label) for label in (0, 2, -1)] == [0, 2, None]


def test_subfolders_without_a_name_of_the_models_stay_alphabetical_and_that_is_said(folder):
    match = label_match(load_images(folder), ["zebra", "Dog", "horse"][::-1])
    assert match.left_out is False and [match(label) for label in range(3)] == [0, 1, 2]
    assert "alphabetical" in match.how and "('Big Cat')" in match.warning and "Big Cat (0), Dog (1)" in match.warning


@pytest.mark.parametrize(
    ("rows", "labels", "names", "classes"),
    [
        ("file,class_index,name\nDog/1.png,2,dog\nzebra/1.png,0,\n", [None, 2, 0], ["", "", "dog"], [None, 2, 0]),
        ("name,file\ndog,Dog/1.png\nZebra,zebra/1.png\n", [None, 1, 0], ["Zebra", "dog"], [None, 2, 0]),
    ],
)
def test_names_in_a_csv(folder, tmp_path, rows, labels, names, classes):
    (tmp_path / "labels.csv").write_text(rows)
    images = load_images(folder, tmp_path / "labels.csv")
    assert (images.labels, images.class_names) == (labels, names)
    assert list(map(label_match(images, MODEL), images.labels)) == classes


def test_a_network_without_names_gets_those_of_the_folders_if_they_are_as_many(folder):
    from ..test_class_names import Small

    for name, classes in ((("fox", "cow"), ["Big Cat", "Dog", "cow", "fox", "zebra"]), (("pig",), None)):
        for one in name:
            (folder / one).mkdir()
        model = heatproof.wrap(nets.seeded(Small), size=16, device="cpu")
        strange = pytest.warns(HeatproofWarning, match="Got 5 for zebra/1.png; these labels are left out")
        with nullcontext() if classes else strange:
            shown = heatproof.show(model, folder, "gradcam", "zebra" if classes else 4)
        assert shown.entries[0].blocks[0].answer.text == ("zebra (4)" if classes else "class 4")
        assert shown.entries[0].label is not None and shown.entries[0].label.name == (classes or [""])[0]
        assert ("Labels", ALPHABETICAL) in shown._job.facts and model.classes is None


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ("file,class_index,name\nDog/1.png,1,dog\n", InvalidInput, r"'dog' is class 1; in the model that is big_cat"),
        ("file,name\nDog/1.png,dgo\n", InvalidTarget, "No class is called 'dgo'. Did you mean 'dog'"),
        ("file,class_index,name\nDog/1.png,1,dog\nzebra/1.png,1,cat\n", InvalidInput, "class 1 is called 'dog' and"),
        ("file,class_index,name\nDog/1.png,1,dog\nzebra/1.png,2,dog\n", InvalidInput, "classes 1 and 2 are called"),
        ("file,name\nDog/1.png,dog\nDog/1.png,cat\n", InvalidTarget, "No class is called 'cat'"),
    ],
)
def test_names_in_a_csv_that_contradict(folder, tmp_path, rows, error, says):
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(error, match=says):
        label_match(load_images(folder, tmp_path / "labels.csv"), MODEL)


def test_names_in_a_csv_need_those_of_the_model(folder, tmp_path):
    (tmp_path / "labels.csv").write_text("file,name\nDog/1.png,dog\nzebra/1.png,zebra\n")
    with pytest.raises(InvalidInput, match="the model has no names"):
        label_match(load_images(folder, tmp_path / "labels.csv"), None)
