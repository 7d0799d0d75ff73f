"""`heatproof check`: predictions beside a reference, and the preprocessing that explains a difference."""

import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import heatproof
from heatproof import cli
from heatproof.data import load_images
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget
from heatproof.panels.alternatives import Alternative, as_options, likely_windows
from heatproof.panels.checking import Check
from heatproof.panels.explained_image import ClassProbability
from heatproof.panels.predictions import Prediction, Range
from heatproof.pixels import Pixels

from .. import nets

pytestmark = pytest.mark.filterwarnings("default::heatproof.errors.HeatproofWarning")


@pytest.fixture(scope="module")
def shapes():
    return heatproof.load_model("shapes", device="cpu")


@pytest.fixture(scope="module")
def reference(shapes, tmp_path_factory):
    """The predictions for 24 images, as an earlier check writes them."""
    folder = tmp_path_factory.mktemp("reference")
    heatproof.check(shapes, "shapes", limit=24).save(folder)
    return folder / "check.csv"


def called(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    return int(stopped.value.code or 0), capsys.readouterr().out


def test_the_same_network_agrees_with_itself(shapes, reference, tmp_path):
    found = heatproof.check(shapes, "shapes", limit=24, reference=reference)
    assert found.agrees and found.agreeing == (24, 24) and found.difference < 1e-5 and not found.alternatives
    assert found.sentences[0].startswith(
        "24 of 24 predictions agree with the reference; probabilities differ by at most"
    )
    assert (pd.read_csv(reference).class_index == found.table["class_index"]).all()
    model, x = shapes, load_images("shapes", limit=24)
    first = model.geometry.image(x.open(0))[None]
    one = model.probabilities(model.logits(first).detach())[0]
    assert found.table["probability"][0] == pytest.approx(float(one.max()), abs=1e-6)
    assert found.inputs.low >= -1 and found.inputs.high <= 1 and not found.inputs.doubt


def test_the_options_that_it_advises_agree(capsys, reference, tmp_path):
    """Blue first, bytes, and a crop: three mistakes at once; what is printed is typed again, and agrees."""
    base = ["check", "shapes", "shapes", "--limit", "24", "--reference", str(reference)]
    wrong = ["--mean", "0", "--std", "1", "--value-range", "255", "--channel-order", "bgr", "--crop", ".875"]
    code, out = called(capsys, *base, *wrong, "--out", str(tmp_path))
    assert code == 1 and "Into the network go values" in out and "as large as those of bytes" in out
    line = next(line for line in out.splitlines() if " agree with --" in line)
    advised = shlex.split(line.partition(" agree with ")[2].partition(", and ")[0])
    assert line.startswith("Of 24 images 24 agree") and "--channel-order" in advised and "--resize" in advised
    assert set(wrong[:6:2]) <= set(advised), "each option given before has its successor, so none keeps its meaning"
    assert Image.open(tmp_path / "seen.png").size[0] > 1000
    code, out = called(capsys, *base, *advised)
    assert code == 0 and out.count("24 of 24 predictions agree") == 1


def test_what_cannot_be_read_is_a_row_and_its_reason_is_told(shapes, tmp_path):
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    found = heatproof.check(shapes, tmp_path)
    table = found.table.set_index("file")
    assert table["flag"]["broken.png"] and pd.isna(table["class_index"]["broken.png"])
    assert (table["height"]["black.png"], table["width"]["black.png"]) == (50, 60)
    assert (
        "1 of 2 images have no prediction: broken.png." in found.sentences
        and "Nothing to compare with" in found.sentences[0]
    )
    (tmp_path / "reference.csv").write_text("file,name\nblack.png,Square-Filled\nbroken.png,0\n")
    found = heatproof.check(shapes, tmp_path, reference=tmp_path / "reference.csv", alternatives=False)
    assert found.predictions[0].reference.index == 1 and not found.predictions[1].agrees
    assert not found.agrees, "an image of the reference that could not be read does not agree"


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("file,answer\na.png,1\n", InvalidInput, "one of the columns class_index, predicted, name"),
        ("file,class_index\nb.png,1\n", InvalidInput, "names 'b.png'; the first image is"),
        ("file,class_index\na.png,6\n", InvalidInput, "names class 6 .* has 6 classes"),
        ("file,class_index,probability\na.png,1,7\n", InvalidInput, r"`probability` must lie in 0 … 1.*line 2"),
        ("file,name\na.png,circle-fillet\n", InvalidTarget, "line 2: .*circle-filled"),
    ],
)
def test_a_reference_that_cannot_be_used_says_why(shapes, tmp_path, text, error, what):
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "reference.csv").write_text(text)
    with pytest.raises(error, match=what):
        heatproof.check(shapes, tmp_path / "a.png", reference=tmp_path / "reference.csv")


def test_beside_labels_a_gain_must_be_larger_than_noise(shapes):
    """Of 40 images 6 more are right with another preprocessing: p = 1/64, and some twenty were tried."""

    def checked(gained: int) -> Check:
        start = Alternative(shapes.preprocessing, (True,) * 20 + (False,) * 20, 0.5)
        other = Alternative(shapes.preprocessing, (True,) * (20 + gained) + (False,) * (20 - gained), 0.6)
        return Check("m", "", (), [Prediction("a", label=1)], None, start, [other])

    assert checked(6).better is None and checked(15).better is not None
    assert "None of 1 other preprocessings is better beyond chance." in checked(6).sentences


def test_labels_that_are_guessed_as_often_are_told():
    def sentences(right: int) -> str:
        found = [Prediction("a", first=ClassProbability(0), label=0)] * right
        found += [Prediction("a", first=ClassProbability(0), label=1 + i % 2) for i in range(20 - right)]
        return " ".join(Check("m", "", (), found, None).sentences)

    assert "no better than guessing: one class for all images is right for 8" in sentences(8)
    assert "guessing" not in sentences(20), "one class alone says nothing"


def test_where_transparency_alone_decides_it_is_told(shapes, tmp_path):
    """Three images of shapes under transparency: three gained are no gain beyond chance, and yet no accident."""
    shapes_images = load_images("shapes", limit=6)
    names = []
    for i in range(6):
        image = shapes_images.open(i).convert("RGB")
        if i < 3:
            image.putalpha(0)
        image.save(tmp_path / f"{i}.png")
        names.append(f"{i}.png,{shapes_images.labels[i]}")
    (tmp_path / "labels.csv").write_text("\n".join(["file,class_index", *names]))
    found = heatproof.check(shapes, tmp_path, labels=tmp_path / "labels.csv", alternatives=True)
    assert any("with --alpha-background ignore, and" in line for line in found.sentences), found.sentences
    ignoring = shapes.with_preprocessing(shapes.preprocessing.overridden(alpha_background="ignore"))
    again = heatproof.check(ignoring, tmp_path, labels=tmp_path / "labels.csv", alternatives=False)
    assert again.right[0] > found.right[0] and "transparency ignored" in again.preprocessing


def test_options_are_those_of_the_network_in_its_order(shapes):
    base = shapes.preprocessing
    other = base.overridden(
        (104, 117, 123), (57, 58, 59), value_range=255, channel_order="bgr", interpolation="bicubic"
    )
    text = as_options(base, other)
    assert "--mean 0.407843,0.458824,0.482353" in text and "--value-range 1 --channel-order bgr --interp" in text
    bytes_ = base.overridden(0, 1, value_range=255)
    assert as_options(base, bytes_) == "--mean 0,0,0 --std 1,1,1 --value-range 255 --channel-order rgb"
    assert as_options(base, base) == ""


def test_a_single_mistake_is_found_as_such(shapes, reference):
    """Only the crop is wrong; mean and std that agree by chance with the wrong crop are not advised."""
    wrong = shapes.with_preprocessing(shapes.preprocessing.overridden(crop=0.5))
    found = heatproof.check(wrong, "shapes", limit=24, reference=reference)
    options = as_options(found.start.preprocessing, found.better.preprocessing)
    assert options in ("--resize none", "--resize 96")  # the same for images that are square


def test_a_reference_of_something_else_gets_no_advice(shapes, tmp_path):
    """Classes drawn at random: some preprocessing agrees by chance on more of them."""
    found = heatproof.check(shapes, "shapes", limit=12)
    drawn = np.random.default_rng(0).integers(0, 6, 12)
    lines = [f"{name},{index}" for name, index in zip(found.table["file"], drawn, strict=True)]
    (tmp_path / "other.csv").write_text("\n".join(["file,class_index", *lines]))
    found = heatproof.check(shapes, "shapes", limit=12, reference=tmp_path / "other.csv")
    assert found.better is None and found.sentences[-1].endswith("the weights, the classes or the files may differ.")


def test_networks_of_other_channels_and_images_without_a_label():
    net = nets.seeded(
        lambda: torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3), torch.nn.Flatten(), torch.nn.Linear(108, 3))
    )
    model = heatproof.wrap(net, input_shape=(4, 8, 8), mean=0.5, std=0.5)
    x = torch.rand(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = heatproof.check(model, x, labels=[0, 1, -1, 2], alternatives=True)
    assert found.right[1] == 3 and len(found.alternatives) == 4  # the usual means but the present one
    assert all(one.preprocessing.channel_order == "rgb" for one in found.alternatives)


def test_images_that_can_be_read_once_are_tried_too(shapes):
    """A generator is read by the first look; of tensors only mean, std and order are tried."""
    x = load_images("shapes", limit=6)
    tensors = [shapes.geometry.image(x.open(i)) for i in range(6)]
    wrong = shapes.with_preprocessing(shapes.preprocessing.overridden(0, 1, value_range=255))
    rows = ((one, label) for one, label in zip(tensors, x.labels, strict=True))
    found = heatproof.check(wrong, rows, alternatives=True)
    assert found.alternatives[0].agreeing == 6 and found.alternatives[0].preprocessing.std == (0.5,) * 3
    assert {one.preprocessing.geometry for one in found.alternatives} == {shapes.geometry}


def test_numbers_that_are_none_are_flagged_and_values_are_told():
    class Broken(nets.Plain):
        def forward(self, x):
            return super().forward(x) * (float("nan") if len(x) == 1 else 1)

    found = heatproof.check(heatproof.wrap(nets.seeded(Broken), 0.5, 0.5, 16), nets.images(1, 16))
    assert found.predictions[0].flag == "logits that are not finite" and not found.agrees
    head = torch.nn.Sequential(nets.seeded(lambda: nets.Plain(classes=1)), Shift())
    with pytest.warns(HeatproofWarning, match='output="value"'):
        heatproof.check(heatproof.wrap(head, 0.5, 0.5, 16), nets.images(2, 16))


class Shift(torch.nn.Module):
    def forward(self, x):
        return 58 + x


@pytest.mark.parametrize(
    ("values", "doubt"),
    [((0, 1, -2, 2), ""), ((0.4, 0.3, 0, 1), ""), ((120, 60, 0, 255), "bytes"), ((-4, 1, -6, 2), "far from mean 0"),
     ((0.1, 0.01, 0, 0.2), "nearly constant")],
)  # fmt: skip
def test_inputs_unlike_any_that_networks_are_trained_on_are_doubted(values, doubt):
    assert doubt in Range(*values).doubt and bool(Range(*values).doubt) == bool(doubt)


def test_the_window_of_twelve_bits_in_files_of_sixteen_is_found(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for i in range(8):
        values = generator.integers(0, 800 if i % 2 else 2400, (32, 32)).astype(np.uint16)
        values[0, 0] = 4095
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with torch.no_grad():
        network[0].weight.fill_(-400)
        network[0].bias.fill_(400 * 0.2)  # between the means of the two kinds of images in a window of 12 bits
    told = {"input_shape": (1, 32, 32), "mean": 0, "std": 1}
    labels = [i % 2 for i in range(8)]
    with pytest.warns(HeatproofWarning, match="12 bits"):
        found = heatproof.check(heatproof.wrap(network, **told), tmp_path, labels=labels)
    assert found.right == (4, 8) and found.better is None  # eight images are too few to be sure
    assert found.alternatives[0].preprocessing.geometry.window == (0.0, 4095.0)
    assert as_options(found.start.preprocessing, found.alternatives[0].preprocessing) == "--window 0,4095"


@pytest.mark.parametrize(("values", "wanted"), [
    (np.array([0, 4000], np.uint16), ((0.0, 4095.0), "auto")),
    (np.array([0, 65000], np.uint16), ("auto",)),
    (np.array([0.0, 1.0], np.float32), ()),
])  # fmt: skip
def test_windows_are_tried_for_sixteen_bits_alone(values, wanted):
    assert likely_windows([Pixels(values.reshape(1, 2, 1))]) == wanted
    assert not likely_windows([Image.new("L", (2, 2))]) and not likely_windows([])
