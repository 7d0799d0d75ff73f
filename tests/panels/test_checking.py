"""`heatproof check`: predictions beside a reference, and the preprocessing that explains a difference."""

import shlex

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import heatproof
from heatproof import cli
from heatproof.data import load_images
from heatproof.errors import InvalidInput, InvalidTarget
from heatproof.panels.alternatives import Alternative, as_options
from heatproof.panels.checking import Check
from heatproof.panels.predictions import Prediction, Range

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
    assert line.startswith("On 24 images 24 agree") and "--channel-order" in advised and "--resize" in advised
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
    assert "1 could not be read: broken.png." in found.sentences and "Nothing to compare with" in found.sentences[0]
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


def test_options_are_those_of_the_network_in_its_order(shapes):
    base = shapes.preprocessing
    other = base.overridden(
        (104, 117, 123), (57, 58, 59), value_range=255, channel_order="bgr", interpolation="bicubic"
    )
    text = as_options(base, other)
    assert "--mean 0.407843,0.458824,0.482353" in text and text.endswith("--channel-order bgr --interpolation bicubic")
    bytes_ = base.overridden(0, 1, value_range=255)
    assert as_options(base, bytes_) == "--mean 0,0,0 --std 1,1,1 --value-range 255"
    assert as_options(base, base) == ""


@pytest.mark.parametrize(
    ("values", "doubt"),
    [((0, 1, -2, 2), ""), ((0.4, 0.3, 0, 1), ""), ((120, 60, 0, 255), "bytes"), ((-4, 1, -6, 2), "far from mean 0"),
     ((0.1, 0.01, 0, 0.2), "nearly constant")],
)  # fmt: skip
def test_inputs_unlike_any_that_networks_are_trained_on_are_doubted(values, doubt):
    assert doubt in Range(*values).doubt and bool(Range(*values).doubt) == bool(doubt)
