"""Names of classes: where they come from, and a class by its name wherever a target is given."""

import json

import pytest
import torch
from torch import nn

import heatproof
from heatproof.class_names import checked_names, class_index, class_text, matched
from heatproof.errors import InvalidInput, InvalidTarget
from heatproof.targets import with_indices

from . import nets

NAMES = ["tench, Tinca tinca", "Great_white-shark", "crane", "hen", "crane, machine"]


class Small(nn.Module):
    """Five classes."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> heatproof.Model:
    return heatproof.wrap(nets.seeded(Small), size=16, device="cpu", classes=NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "\ufeffcat\r\nbig dog \r\nDöner\r\n\r\n"),
        ("list.json", '["cat", "big dog", "Döner"]'),
        ("index.json", '{"2": "Döner", "0": "cat", "1": "big dog"}'),
        ("label2id.json", '{"big dog": 1, "cat": 0, "Döner": 2}'),
        ("wordnet.json", '{"0": ["n02121808", "cat"], "1": ["n02084071", "big dog"], "2": ["n07717556", "Döner"]}'),
        ("config.json", json.dumps({"model_type": "vit", "id2label": {"0": "cat", "1": "big dog", "2": "Döner"}})),
    ],
)
def test_names_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text, "utf-8", newline="")
    assert checked_names(tmp_path / name) == ("cat", "big dog", "Döner")
    assert heatproof.load_model("shapes", device="cpu", classes=["a", "b", "c", "d", "e", "f"]).classes[5] == "f"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat\n\ndog\n", "an empty name for class 1"),
        ("", "Got no name"),
        ('{"0": "cat", "2": "dog"}', "has no class 1"),
        ('{"cat": "x"}', "whole numbers as indices"),
        ('{"cat": 0, "dog": 2}', "has no class 1"),
        ('{"0": {"en": "cat"}}', "a name, or a list of names, for each class"),
        ('["cat",', "must be JSON"),
    ],
)
def test_files_that_are_no_names(tmp_path, text, says):
    (tmp_path / "names").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        checked_names(tmp_path / "names")


def test_several_names_of_a_class():
    assert checked_names([["tench", "Tinca tinca"], ["hen"]]) == ("tench, Tinca tinca", "hen")


def test_a_class_by_its_name():
    assert [class_index(text, NAMES) for text in ("TENCH", "tinca  tinca", "great white_shark", "Hen")] == [0, 0, 1, 3]
    assert class_index("crane", NAMES) == 2, "a whole name goes before one of several"
    with pytest.raises(InvalidTarget, match=r"'crane': crane \(0\), crane \(1\)\. Give the index"):
        class_index("crane", ["crane", "crane"])
    with pytest.raises(InvalidTarget, match=r"No class is called 'henn'\. Did you mean 'hen'"):
        class_index("henn", NAMES)
    assert (class_text(NAMES, 3), class_text(None, 3), class_text(["", "b"], 0)) == ("hen (3)", "class 3", "class 0")


def test_names_in_another_order_are_matched_only_if_all_are_there():
    assert matched(["Hen", "great white shark", "tench"], NAMES) == {0: 3, 1: 1, 2: 0}
    assert matched(["hen", "cow"], NAMES) is None and matched(["hen", "Hen"], NAMES) is None
    assert matched(["crane"], ["crane", "Crane"]) is None


def test_a_target_by_name_is_its_index_everywhere(model):
    x = nets.images(2)
    found = heatproof.explain(model, x, "gradcam", "Great White Shark")
    torch.testing.assert_close(found["gradcam"], heatproof.explain(model, x, "gradcam", 1)["gradcam"], rtol=0, atol=0)
    assert heatproof.explain(model, x, "gradcam", ["hen", 1]).target.tolist() == [3, 1]
    assert heatproof.explain(model, x, "gradcam", [["hen", 1], [0, "tench"]]).target.tolist() == [[3, 1], [0, 0]]
    assert heatproof.score(model, x, "gradcam", "complexity", target="HEN").target.tolist() == [3, 3]
    shown = heatproof.show(model, x, "gradcam", "hen")
    assert [entry.blocks[0].answer.text for entry in shown.entries] == ["hen (3)"] * 2
    assert with_indices("label", ["label", "x"]) == "label" and with_indices("3", NAMES) == "3"
    for call in (heatproof.explain, heatproof.show):
        with pytest.raises(InvalidTarget, match="Did you mean 'hen'"):
            call(model, x, "gradcam", "henn")
    with pytest.raises(InvalidTarget, match="has no class names: set `classes`"):
        heatproof.explain(heatproof.wrap(model.module, size=16, device="cpu"), x, "gradcam", "hen")


def test_another_number_of_names_than_outputs_is_an_error(model):
    short = heatproof.wrap(model.module, size=16, device="cpu", classes=["a", "b", "c", "d"])
    with pytest.raises(InvalidInput, match=r"each of the 5 classes of Small.*Got 4, from a \(0\) to d \(3\)"):
        heatproof.explain(short, nets.images(1), "gradcam")


def test_the_names_that_a_network_brings_along():
    transformers = pytest.importorskip("transformers")
    small = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "id2label": {0: "cat", 1: "dog"}}
    net = transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**small))
    assert heatproof.wrap(net, size=32, device="cpu").classes == ["cat", "dog"]
    net.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert heatproof.wrap(net, size=32, device="cpu").classes is None
    module = nets.seeded(Small)
    module.num_classes, module.pretrained_cfg = 5, {  # type: ignore[assignment]
        "num_classes": 5, "label_names": list("abcde"), "label_descriptions": {"b": "bee, insect"}}  # fmt: skip
    assert heatproof.wrap(module, size=16, device="cpu").classes == ["a", "bee", "c", "d", "e"]
    module.head = nn.Linear(4, 3)
    assert heatproof.wrap(module, size=16, device="cpu").classes is None, "another head, whose classes have no names"
    squeezed = heatproof.load_model("torchvision:squeezenet1_1", pretrained=False, device="cpu")
    assert squeezed.classes is not None and squeezed.classes[0] == "tench", "a network without a linear layer"
